// Streams of batches through the network door: answers in order, how a stream ends, and what a
// client that does not read, or goes away, costs.
#include <gmock/gmock.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "service/rpc/door_core.h"
#include "service/rpc/grpc_door_test_support.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class BatchDoorTest : public GrpcDoorTest {
 protected:
  BatchDoorTest() : stub_(v1::Batches::NewStub(Channel())) {
    v1::CreateDictRequest create;
    create.set_name("d");
    EXPECT_TRUE(
        service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  }

  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::RunBatchesRequest, v1::RunBatchesResponse>> talk;
    v1::RunBatchesResponse Next() {
      v1::RunBatchesResponse response;
      EXPECT_TRUE(talk->Read(&response));
      return response;
    }
    // True where nothing more comes.
    bool IsAtEnd() {
      v1::RunBatchesResponse response;
      return !talk->Read(&response);
    }
  };
  std::unique_ptr<Stream> Open(bool authorized = true) {
    auto stream = std::make_unique<Stream>();
    if (authorized) Authorize(&stream->context);
    stream->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream->talk = stub_->RunBatches(&stream->context);
    return stream;
  }
  static v1::RunBatchesRequest Increments(int count) {
    v1::RunBatchesRequest request;
    request.mutable_batch()->add_names("d");
    for (int i = 0; i < count; ++i) {
      request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
    }
    return request;
  }
  static int64_t LastNumber(const v1::RunBatchesResponse& response) {
    const auto& results = response.result().results();
    return results.empty() ? -1 : results[results.size() - 1].increment().number();
  }
  int64_t Number() {
    v1::GetEntryRequest request;
    request.set_name("d");
    request.set_key("n");
    const auto got = service_->Call<v1::GetEntryResponse>("/statehouse.v1.Dicts/GetEntry", request);
    EXPECT_TRUE(got.ok());
    return got.ok() ? got->entry().value().int_value() : -1;
  }

  std::unique_ptr<v1::Batches::Stub> stub_;
};

TEST_F(BatchDoorTest, AnswersComeInTheOrderOfTheBatches) {
  auto stream = Open();
  std::thread sender([&] {
    for (int i = 0; i < 500; ++i) {
      v1::RunBatchesRequest request = Increments(16);
      // Some of them go elsewhere in the middle.
      if (i % 7 == 0) request.mutable_batch()->add_operations()->mutable_list_dicts();
      request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
      ASSERT_TRUE(stream->talk->Write(request));
    }
    stream->talk->WritesDone();
  });
  for (int64_t i = 0; i < 500; ++i) EXPECT_EQ(LastNumber(stream->Next()), (i + 1) * 17);
  EXPECT_TRUE(stream->IsAtEnd());
  sender.join();
  EXPECT_TRUE(stream->talk->Finish().ok());
}

TEST_F(BatchDoorTest, AStreamWithoutBatchesEndsWell) {
  auto stream = Open();
  stream->talk->WritesDone();
  EXPECT_TRUE(stream->IsAtEnd());
  EXPECT_TRUE(stream->talk->Finish().ok());
}

TEST_F(BatchDoorTest, AUnaryBatchIsTheSame) {
  grpc::ClientContext context;
  Authorize(&context);
  v1::RunBatchRequest request;
  *request.mutable_batch() = Increments(3).batch();
  v1::RunBatchResponse response;
  ASSERT_TRUE(stub_->RunBatch(&context, request, &response).ok());
  EXPECT_EQ(response.result().results(2).increment().number(), 3);
}

TEST_F(BatchDoorTest, ARefusedBatchLeavesTheStreamOpen) {
  auto stream = Open();
  v1::RunBatchesRequest request = Increments(1);
  for (int i = 0; i < 70; ++i) request.mutable_batch()->add_names("d");
  ASSERT_TRUE(stream->talk->Write(request));
  const v1::RunBatchesResponse refused = stream->Next();
  EXPECT_FALSE(refused.has_result());
  EXPECT_EQ(refused.failure().detail().reason(), v1::ERROR_REASON_INVALID_ARGUMENT);
  EXPECT_THAT(refused.failure().message(), HasSubstr("64"));
  ASSERT_TRUE(stream->talk->Write(Increments(1)));
  EXPECT_EQ(LastNumber(stream->Next()), 1);
}

TEST_F(BatchDoorTest, WithoutATokenNothingIsRead) {
  auto stream = Open(/*authorized=*/false);
  EXPECT_TRUE(stream->IsAtEnd());
  EXPECT_EQ(ReasonOf(stream->talk->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);
}

TEST_F(BatchDoorTest, ARevokedTokenEndsTheStreamBeforeItsNextBatch) {
  auto stream = Open();
  ASSERT_TRUE(stream->talk->Write(Increments(1)));
  EXPECT_EQ(LastNumber(stream->Next()), 1);
  std::filesystem::remove(folder_ + "/tokens.toml");
  ASSERT_TRUE(authenticator_->Reload().ok());
  ASSERT_TRUE(stream->talk->Write(Increments(1)));
  EXPECT_TRUE(stream->IsAtEnd());
  EXPECT_EQ(ReasonOf(stream->talk->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);
  EXPECT_EQ(Number(), 1);
}

TEST_F(BatchDoorTest, AServiceThatHasDrainedRefusesBatchesAndAStopEndsTheStream) {
  auto stream = Open();
  ASSERT_TRUE(stream->talk->Write(Increments(1)));
  EXPECT_EQ(LastNumber(stream->Next()), 1);
  service_->dispatcher().Shutdown();
  ASSERT_TRUE(stream->talk->Write(Increments(1)));
  EXPECT_EQ(stream->Next().failure().detail().reason(), v1::ERROR_REASON_DRAINING);
  std::thread stopper([this] { door_->Shutdown(std::chrono::seconds(30)); });
  EXPECT_TRUE(stream->IsAtEnd());
  EXPECT_EQ(ReasonOf(stream->talk->Finish()), v1::ERROR_REASON_DRAINING);
  stopper.join();
}

TEST_F(BatchDoorTest, AnswersUnderWayGoBeforeTheEndOfTheStream) {
  v1::SetEntryRequest set;
  set.set_name("d");
  set.set_key("large");
  set.mutable_value()->set_string_value(std::string(1'000'000, 'x'));
  ASSERT_TRUE(service_->Call<v1::SetEntryResponse>("/statehouse.v1.Dicts/SetEntry", set).ok());
  v1::RunBatchesRequest request = Increments(1);
  request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
  auto stream = Open();
  // All carried out and answered, with more than the client's window and buffers take unread.
  constexpr int kBatches = 4;
  std::thread sender([&] {
    for (int i = 0; i < kBatches; ++i) (void)stream->talk->Write(request);
  });
  EXPECT_EQ(stream->Next().result().results(0).increment().number(), 1);
  EXPECT_TRUE(Eventually([this] { return Number() >= 3; }));

  std::thread stopper([this] { door_->Shutdown(std::chrono::seconds(30)); });
  int64_t last = 1;
  v1::RunBatchesResponse response;
  while (stream->talk->Read(&response)) {
    EXPECT_EQ(response.result().results(0).increment().number(), ++last);
    EXPECT_EQ(response.result().results(1).get().value().string_value().size(), 1'000'000u);
  }

  EXPECT_EQ(ReasonOf(stream->talk->Finish()), v1::ERROR_REASON_DRAINING);
  sender.join();
  stopper.join();
  EXPECT_EQ(Number(), last);  // What was carried out was answered.
}

TEST_F(BatchDoorTest, ManyStreamsAtOnceAreAnsweredInOrderBesideOnesThatEnd) {
  constexpr int kStreams = 24;
  constexpr int64_t kBatches = 200;
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) {
    threads.emplace_back([this, i] {
      auto stream = Open();
      v1::RunBatchesRequest request;
      request.mutable_batch()->add_names("d");
      auto* const increment = request.mutable_batch()->add_operations()->mutable_increment();
      increment->set_key("of " + std::to_string(i));
      // A third of them goes away with answers under way, a third says that it has no more.
      const bool leaves = i % 3 == 0;
      int64_t got = 0;
      for (int64_t sent = 0; sent < kBatches; ++sent) {
        ASSERT_TRUE(stream->talk->Write(request));
        if (leaves && sent == kBatches / 2) return stream->context.TryCancel();
        if (sent % 4 == 3) {
          while (got <= sent) ASSERT_EQ(LastNumber(stream->Next()), ++got);
        }
      }
      if (i % 3 == 2) return;  // The context's end cancels it.
      stream->talk->WritesDone();
      EXPECT_TRUE(stream->IsAtEnd());
    });
  }
  for (std::thread& thread : threads) thread.join();
  door_->Shutdown(milliseconds(0));
  EXPECT_TRUE(Eventually([this] { return service_->dispatcher().CallsInFlight() == 0; }));
}

TEST_F(BatchDoorTest, ClientsThatGoAwayAtAnyMomentLeaveNothing) {
  int64_t answered = 0;
  for (int round = 0; round < 200; ++round) {
    auto stream = Open();
    v1::RunBatchesRequest request = Increments(1);
    if (round % 3 == 0) request.mutable_batch()->add_operations()->mutable_list_dicts();
    const int sent = round % 4;
    for (int i = 0; i < sent; ++i) (void)stream->talk->Write(request);
    if (round % 2 == 0 && sent > 0) {
      stream->Next();
      ++answered;
    }
    stream->context.TryCancel();
    EXPECT_EQ(stream->talk->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_GE(Number(), answered);
  // The door can end only when every stream has.
  door_->Shutdown(milliseconds(0));
  EXPECT_TRUE(Eventually([this] { return service_->dispatcher().CallsInFlight() == 0; }));
}

TEST_F(BatchDoorTest, WhoDoesNotReadHoldsUpOnlyItself) {
  // Answers of a megabyte, which nobody takes.
  v1::SetEntryRequest set;
  set.set_name("d");
  set.set_key("large");
  set.mutable_value()->set_string_value(std::string(1'000'000, 'x'));
  ASSERT_TRUE(service_->Call<v1::SetEntryResponse>("/statehouse.v1.Dicts/SetEntry", set).ok());
  auto deaf = Open();
  v1::RunBatchesRequest request;
  request.mutable_batch()->add_names("d");
  request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("deaf");
  std::thread sender([&] {
    for (int i = 0; i < 2000; ++i) {
      if (!deaf->talk->Write(request)) return;
    }
  });
  auto other = Open();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(other->talk->Write(Increments(1)));
    EXPECT_EQ(LastNumber(other->Next()), i + 1);
  }
  v1::GetEntryRequest get;
  get.set_name("d");
  get.set_key("deaf");
  const auto got = service_->Call<v1::GetEntryResponse>("/statehouse.v1.Dicts/GetEntry", get);
  // What the connection's buffers take, and not all of it.
  EXPECT_LT(got->entry().value().int_value(), 200);
  deaf->context.TryCancel();
  sender.join();
  (void)deaf->talk->Finish();
}

}  // namespace
}  // namespace statehouse
