#include "service/rpc/grpc_door.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "service/rpc/door_thread.h"
#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/host_debts.h"
#include "service/rpc/read_gate.h"
#include "statehouse/internal/v1/rpc_status.pb.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST_F(GrpcDoorTest, UnaryCallIsAnswered) {
  service_->MakeArea("a", 64);
  const auto stub = Areas();
  uint64_t value = 0;

  for (uint64_t i = 1; i <= 100; ++i) {
    ASSERT_TRUE(AddOnce(*stub, "a", &value).ok());
    EXPECT_EQ(value, i);
  }
}

TEST_F(GrpcDoorTest, RefusalCarriesCodeTextReasonAndName) {
  const auto stub = Areas();

  const grpc::Status status = AddOnce(*stub, "none");

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("none"));
  internal::v1::RpcStatus rpc;
  ASSERT_TRUE(rpc.ParseFromString(status.error_details()));
  v1::ErrorDetail detail;
  ASSERT_TRUE(rpc.details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_AREA_NOT_FOUND);
  EXPECT_EQ(detail.name(), "none");
}

TEST_F(GrpcDoorTest, CallsNeedAValidToken) {
  service_->MakeArea("a", 64);
  const auto stub = Areas();
  const std::string wrong[] = {
      "",     "Bearer ",         "Bearer sh1_aaaaaaaa_" + std::string(43, 'A'),
      token_, "Basic " + token_, "Bearer " + token_ + "x"};
  for (const std::string& authorization : wrong) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::AddWordResponse response;
    const grpc::Status status = stub->AddWord(&context, Add("a"), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << authorization;
    EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNAUTHENTICATED);
  }
  grpc::ClientContext twice;
  Authorize(&twice);
  Authorize(&twice);
  v1::AddWordResponse response;
  EXPECT_EQ(stub->AddWord(&twice, Add("a"), &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(auth_failures_.load(), 7);
  grpc::ClientContext lower;
  lower.AddMetadata("authorization", "bearer " + token_);
  EXPECT_TRUE(stub->AddWord(&lower, Add("a"), &response).ok());
}

TEST_F(GrpcDoorTest, RevokedTokenFailsAtTheNextCallAfterReload) {
  service_->MakeArea("a", 64);
  const auto stub = Areas();
  ASSERT_TRUE(AddOnce(*stub, "a").ok());
  ASSERT_TRUE(RevokeToken(folder_ + "/tokens.toml", token_.substr(4, 8)).ok());
  ASSERT_TRUE(AddOnce(*stub, "a").ok());

  ASSERT_TRUE(authenticator_->Reload().ok());

  EXPECT_EQ(AddOnce(*stub, "a").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// One call by method name with raw bytes.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& request, const std::string& token) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + token);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer buffer(&slice, 1);
  auto reader = stub.PrepareUnaryCall(&context, method, buffer, &queue);
  reader->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  reader->Finish(&response, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return status;
}

TEST_F(GrpcDoorTest, UnknownMethodsAndDamagedRequestsAreRefused) {
  const auto channel = Channel();
  grpc::Status status = RawCall(channel, "/statehouse.v1.Areas/Fly", "", token_);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNIMPLEMENTED);
  status = RawCall(channel, "/statehouse.v1.Areas/LoadWord", "\xff\xff", token_);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_INVALID_ARGUMENT);
  status = RawCall(channel, "/grpc.health.v1.Health/Check", "\xff\xff", token_);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GrpcDoorTest, LargeMessagesPassUpToTheLimitAndNotBeyond) {
  service_->MakeArea("a", 64 << 20);
  const auto stub = Areas();
  const auto write = [&](size_t bytes) {
    v1::WriteAreaRequest request;
    request.set_name("a");
    request.set_data(std::string(bytes, 'x'));
    grpc::ClientContext context;
    Authorize(&context);
    v1::WriteAreaResponse response;
    return stub->WriteArea(&context, request, &response);
  };
  const auto read = [&](uint64_t len) {
    v1::ReadAreaRequest request;
    request.set_name("a");
    request.set_len(len);
    grpc::ClientContext context;
    Authorize(&context);
    v1::ReadAreaResponse response;
    const grpc::Status status = stub->ReadArea(&context, request, &response);
    EXPECT_EQ(response.data(), status.ok() ? std::string(len, 'x') : "");
    return status;
  };

  EXPECT_TRUE(write(kMessageBytesMax - 100).ok());
  EXPECT_TRUE(read(kMessageBytesMax - 100).ok());
  EXPECT_EQ(ReasonOf(read(kMessageBytesMax)), v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  EXPECT_EQ(ReasonOf(write(kMessageBytesMax)), v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  EXPECT_EQ(write(kMessageBytesMax + (4 << 20)).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(read(100).ok());
}

TEST_F(GrpcDoorTest, ParkedWaitEndsByChangeDeadlineAndCancel) {
  const auto area = service_->MakeArea("a", 64);
  const auto stub = Areas();
  v1::WaitAreaRequest wait;
  wait.set_name("a");
  wait.set_since(area->area().Updates());
  const auto in_flight = [this] { return service_->dispatcher().CallsInFlight(); };

  grpc::ClientContext changed;
  Authorize(&changed);
  v1::WaitAreaResponse response;
  grpc::Status status;
  std::thread waiter([&] { status = stub->WaitArea(&changed, wait, &response); });
  EXPECT_TRUE(Eventually([&] { return in_flight() == 1; }));
  ASSERT_TRUE(AddOnce(*stub, "a").ok());
  waiter.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.changed());

  wait.set_since(area->area().Updates());
  grpc::ClientContext late;
  Authorize(&late);
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(30));
  EXPECT_EQ(stub->WaitArea(&late, wait, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);

  grpc::ClientContext cancelled;
  Authorize(&cancelled);
  std::thread canceller([&] {
    EXPECT_TRUE(Eventually([&] { return in_flight() == 1; }));
    cancelled.TryCancel();
  });
  EXPECT_EQ(stub->WaitArea(&cancelled, wait, &response).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  EXPECT_TRUE(Eventually([&] { return in_flight() == 0; }));
}

TEST_F(GrpcDoorTest, HealthAnswersWithoutAToken) {
  const auto stub = grpc::health::v1::Health::NewStub(Channel());
  const auto check = [&](const std::string& service, grpc::health::v1::HealthCheckResponse* out) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    return stub->Check(&context, request, out);
  };
  grpc::health::v1::HealthCheckResponse response;
  for (const char* service : {"", "statehouse.v1.Areas", "statehouse.v1.Admin"}) {
    ASSERT_TRUE(check(service, &response).ok());
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  }
  EXPECT_EQ(check("nobody", &response).error_code(), grpc::StatusCode::NOT_FOUND);
  door_->SetServing(false);
  ASSERT_TRUE(check("", &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcDoorTest, HealthWatchTellsEveryChangeAndEndsWithTheDoor) {
  const auto stub = grpc::health::v1::Health::NewStub(Channel());
  grpc::ClientContext context;
  const auto watch = stub->Watch(&context, grpc::health::v1::HealthCheckRequest());
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  door_->SetServing(false);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  door_->SetServing(true);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);

  grpc::ClientContext given_up;
  const auto other = stub->Watch(&given_up, grpc::health::v1::HealthCheckRequest());
  ASSERT_TRUE(other->Read(&response));
  given_up.TryCancel();
  EXPECT_EQ(other->Finish().error_code(), grpc::StatusCode::CANCELLED);

  door_->Shutdown(std::chrono::seconds(30));

  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcDoorTest, ReflectionDescribesTheServicesInBothVersions) {
  const auto channel = Channel();
  const auto stub = grpc::reflection::v1::ServerReflection::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->ServerReflectionInfo(&context);
  grpc::reflection::v1::ServerReflectionRequest request;
  grpc::reflection::v1::ServerReflectionResponse response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  for (const char* name : {"Admin", "Areas", "Dicts", "Locks", "Sessions"}) {
    EXPECT_THAT(names, Contains(std::string("statehouse.v1.") + name));
  }
  EXPECT_THAT(names, Contains("grpc.health.v1.Health"));
  EXPECT_THAT(names, Contains("grpc.reflection.v1alpha.ServerReflection"));

  request.set_file_containing_symbol("statehouse.v1.Areas.ReadArea");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  // area, watch, entry, value; duration, timestamp, struct.
  EXPECT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 7);
  request.set_file_by_filename("statehouse/v1/error.proto");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1);
  request.set_file_containing_symbol("nobody.Knows");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());

  const auto alpha = grpc::reflection::v1alpha::ServerReflection::NewStub(channel);
  grpc::ClientContext alpha_context;
  const auto alpha_stream = alpha->ServerReflectionInfo(&alpha_context);
  grpc::reflection::v1alpha::ServerReflectionRequest alpha_request;
  grpc::reflection::v1alpha::ServerReflectionResponse alpha_response;
  alpha_request.set_list_services("");
  ASSERT_TRUE(alpha_stream->Write(alpha_request));
  ASSERT_TRUE(alpha_stream->Read(&alpha_response));
  EXPECT_GE(alpha_response.list_services_response().service_size(), 5);
  alpha_context.TryCancel();
}

class SmallDoorTest : public GrpcDoorTest {
 protected:
  static GrpcDoorOptions Options() {
    GrpcDoorOptions options;
    options.connections_max = 2;
    return options;
  }
  SmallDoorTest() : GrpcDoorTest(Options()) {}
};

TEST_F(SmallDoorTest, ConnectionBeyondTheLimitIsClosedAndAFreedPlaceIsUsed) {
  service_->MakeArea("a", 64);
  auto first = Areas();
  auto second = Areas();
  ASSERT_TRUE(AddOnce(*first, "a").ok());
  ASSERT_TRUE(AddOnce(*second, "a").ok());

  EXPECT_EQ(AddOnce(*Areas(), "a").error_code(), grpc::StatusCode::UNAVAILABLE);

  first.reset();
  EXPECT_TRUE(Eventually([&] { return AddOnce(*Areas(), "a").ok(); }));
  EXPECT_TRUE(AddOnce(*second, "a").ok());
}

class WastedCallsDoorTest : public GrpcDoorTest {
 protected:
  static constexpr uint32_t kWastedMax = 500;
  static constexpr uint32_t kAtOnce = kWasteAtOnce;

  WastedCallsDoorTest() : GrpcDoorTest(Options(&throttled_)) {}
  static GrpcDoorOptions Options(std::atomic<int>* throttled) {
    GrpcDoorOptions options;
    options.connections_max = 3;
    options.wasted_calls_per_second_max = kWastedMax;
    options.on_connection_throttled = [throttled](const std::string&) { throttled->fetch_add(1); };
    return options;
  }
  static grpc::Status AddWithoutToken(v1::Areas::Stub& stub) {
    grpc::ClientContext context;
    v1::AddWordResponse response;
    return stub.AddWord(&context, Add("a"), &response);
  }
  static std::string CallsWithoutToken(uint32_t count) {
    std::string calls = testing::Preface();
    for (uint32_t i = 0; i < count; ++i) {
      calls += testing::UnaryCall(2 * i + 1, "/statehouse.v1.Areas/AddWord", "", "");
    }
    return calls;
  }
  std::string Address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Whether so many calls are answered, refusals included.
  static bool AnswersAll(testing::Http2Connection* connection, uint32_t calls) {
    for (uint32_t answers = 0; answers < calls;) {
      const std::optional<testing::Frame> frame = connection->Receive();
      if (!frame.has_value()) return false;
      const bool is_last = (frame->flags & testing::kEndStream) != 0;
      if (frame->type == testing::FrameType::kHeaders && is_last) ++answers;
    }
    return true;
  }

  std::atomic<int> throttled_{0};
};

TEST_F(WastedCallsDoorTest, AsManyAsMayComeAtOnceThrottleNobody) {
  testing::Http2Connection connection(Address());
  ASSERT_TRUE(connection.Send(testing::Preface()));
  for (uint32_t i = 0; i < kAtOnce; ++i) {
    ASSERT_TRUE(
        connection.Send(testing::UnaryCall(2 * i + 1, "/statehouse.v1.Areas/AddWord", "", "")));
    ASSERT_TRUE(AnswersAll(&connection, 1));
  }
  EXPECT_EQ(throttled_.load(), 0);
}

TEST_F(WastedCallsDoorTest, BeyondTheLimitAConnectionIsThrottledAndEachCallAnswered) {
  service_->MakeArea("a", 64);
  const auto other = Areas();
  ASSERT_TRUE(AddOnce(*other, "a").ok());
  // However slow the machine is, their bytes, kShareMin at a time, are read in fewer pauses than
  // kPausesMax.
  constexpr uint32_t kCalls = kAtOnce + kAtOnce / 2;
  const std::string calls = CallsWithoutToken(kCalls);
  ASSERT_LT(calls.size() / kShareMin, kPausesMax);
  testing::Http2Connection connection(Address());
  ASSERT_TRUE(connection.Send(calls));

  EXPECT_TRUE(Eventually([this] { return throttled_.load() == 1; }));
  EXPECT_TRUE(AddOnce(*other, "a").ok());
  EXPECT_TRUE(AnswersAll(&connection, kCalls));
  EXPECT_EQ(throttled_.load(), 1) << "it was told once";
  EXPECT_TRUE(AddOnce(*Areas(), "a").ok()) << "of the same host";
}

TEST_F(WastedCallsDoorTest, OneThatLeavesWhileItIsThrottledMakesRoom) {
  service_->MakeArea("a", 64);
  std::vector<testing::Http2Connection> wasteful;
  for (int i = 0; i < 3; ++i) {
    wasteful.emplace_back(Address());
    ASSERT_TRUE(wasteful.back().Send(CallsWithoutToken(20 * kAtOnce)));
  }
  EXPECT_TRUE(Eventually([this] { return throttled_.load() == 3; }));

  wasteful.clear();

  EXPECT_TRUE(Eventually([&] { return AddOnce(*Areas(), "a").ok(); }));
  EXPECT_LT(auth_failures_.load(), static_cast<int>(3 * 20 * kAtOnce)) << "all of it was read";
}

TEST_F(WastedCallsDoorTest, OfAUnixSocketNoneIsThrottled) {
  service_->MakeArea("a", 64);
  const auto channel =
      grpc::CreateChannel("unix:" + UnixPath(), grpc::InsecureChannelCredentials());
  const auto stub = v1::Areas::NewStub(channel);

  for (uint32_t i = 0; i < 2 * kAtOnce; ++i) {
    EXPECT_EQ(AddWithoutToken(*stub).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  }

  EXPECT_TRUE(AddOnce(*stub, "a").ok());
  EXPECT_EQ(throttled_.load(), 0);
}

class RaisedDoorTest : public GrpcDoorTest {
 protected:
  RaisedDoorTest() : GrpcDoorTest(Options()) {}
  static GrpcDoorOptions Options() {
    GrpcDoorOptions options;
    options.raise_priority = true;
    return options;
  }
  // Of this process's threads of that name.
  static std::vector<int> NicenessOf(const std::string& name) {
    std::vector<int> found;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "comm");
      std::string own;
      std::getline(file, own);
      const auto thread = static_cast<id_t>(std::stoi(task.path().filename().string()));
      if (own == name) found.push_back(getpriority(PRIO_PROCESS, thread));
    }
    return found;
  }
};

TEST_F(RaisedDoorTest, BothThreadsHaveThePriorityThatTheKernelLetsThemHave) {
  int allowed = 0;
  std::thread([&allowed] {
    (void)BeginDoorThread("sh-test", true);
    allowed = getpriority(PRIO_PROCESS, 0);
  }).join();
  const std::vector<int> one = {allowed};

  EXPECT_TRUE(Eventually([&] { return NicenessOf("sh-calls") == one; }));
  EXPECT_TRUE(Eventually([&] { return NicenessOf("sh-accept") == one; }));
}

TEST_F(GrpcDoorTest, ManyConcurrentCallsEachCountOnce) {
  service_->MakeArea("a", 64);
  constexpr int kThreads = 8;
  constexpr int kCalls = 500;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      const auto stub = Areas();
      for (int i = 0; i < kCalls; ++i) EXPECT_TRUE(AddOnce(*stub, "a").ok());
    });
  }
  for (std::thread& thread : threads) thread.join();

  uint64_t value = 0;
  EXPECT_TRUE(AddOnce(*Areas(), "a", &value).ok());
  EXPECT_EQ(value, uint64_t{kThreads} * kCalls + 1);
}

TEST_F(GrpcDoorTest, ShutdownUnderLoadEndsEveryCall) {
  const auto area = service_->MakeArea("a", 64);
  std::atomic<bool> stop{false};
  std::atomic<int> ok_calls{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const auto stub = Areas();
      while (!stop) {
        grpc::ClientContext context;
        Authorize(&context);
        if (t % 2 == 0) {
          v1::WaitAreaRequest wait;
          wait.set_name("a");
          wait.set_since(area->area().Updates());
          if (t == 2) {
            context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(2));
          }
          v1::WaitAreaResponse response;
          if (stub->WaitArea(&context, wait, &response).ok()) ++ok_calls;
        } else {
          v1::AddWordResponse response;
          if (stub->AddWord(&context, Add("a"), &response).ok()) ++ok_calls;
        }
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return ok_calls.load() > 500; }));

  door_->Shutdown(std::chrono::milliseconds(20));

  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(Eventually([&] { return service_->dispatcher().CallsInFlight() == 0; }));
  door_->SetServing(true);  // Without effect, and without harm.
  door_->Shutdown(std::chrono::milliseconds(0));
}

TEST_F(GrpcDoorTest, ShutdownAfterTheDispatchersEndsParkedCallsWithDraining) {
  const auto area = service_->MakeArea("a", 64);
  const auto stub = Areas();
  v1::WaitAreaRequest wait;
  wait.set_name("a");
  wait.set_since(area->area().Updates());
  grpc::Status status;
  std::thread waiter([&] {
    grpc::ClientContext context;
    Authorize(&context);
    v1::WaitAreaResponse response;
    status = stub->WaitArea(&context, wait, &response);
  });
  EXPECT_TRUE(Eventually([&] { return service_->dispatcher().CallsInFlight() == 1; }));

  service_->dispatcher().Shutdown();
  waiter.join();

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_DRAINING);
}

}  // namespace
}  // namespace statehouse
