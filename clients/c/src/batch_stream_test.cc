// A stream of batches against a service that answers as the test says: late, wrongly, or not at
// all.
#include "clients/c/src/batch_stream.h"

#include <google/protobuf/empty.pb.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

grpc::ByteBuffer ToBuffer(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// What the service makes of a batch: false ends the stream with `status`.
using Answerer = std::function<bool(const v1::Batch&, v1::RunBatchesResponse*)>;

class Conversation final : public grpc::ServerGenericBidiReactor {
 public:
  Conversation(Answerer answer, grpc::Status end) : answer_(std::move(answer)), end_(end) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(end_);
    grpc::Slice slice;
    v1::RunBatchesRequest request;
    v1::RunBatchesResponse response;
    EXPECT_TRUE(request_.DumpToSingleSlice(&slice).ok());
    EXPECT_TRUE(request.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
    if (!answer_(request.batch(), &response)) return Finish(end_);
    response_ = ToBuffer(response);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(end_);
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const Answerer answer_;
  const grpc::Status end_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

// Answers one operation, and reads nothing: what the client writes stays under way if it is large.
class Unread final : public grpc::ServerGenericBidiReactor {
 public:
  Unread() {
    v1::RunBatchesResponse response;
    response.mutable_result()->add_results()->mutable_add_word();
    response_ = ToBuffer(response);
    StartWrite(&response_);
  }
  void OnCancel() override { Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer response_;
};

class Service final : public grpc::CallbackGenericService {
 public:
  // Without an answerer it reads nothing.
  explicit Service(Answerer answer, grpc::Status end = grpc::Status::OK)
      : answer_(std::move(answer)), end_(std::move(end)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port_),
                                   grpc::InsecureChannelCredentials());
    EXPECT_TRUE(channel_->WaitForConnected(std::chrono::system_clock::now() + seconds(20)));
  }
  ~Service() override { Stop(); }
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    if (answer_ == nullptr) return new Unread;
    return new Conversation(answer_, end_);
  }
  std::unique_ptr<BatchStream> Open() {
    return std::make_unique<BatchStream>(channel_, "Bearer x", "here");
  }

 private:
  const Answerer answer_;
  const grpc::Status end_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

const uint32_t kAdd = BatchStream::FieldOf("/statehouse.v1.Areas/AddWord");

v1::AddWordRequest Add(uint64_t pos) {
  v1::AddWordRequest request;
  request.set_name("a");
  request.set_pos(pos);
  return request;
}

// Answers each AddWord with its position, and position 999 with a refusal.
void Echo(const v1::Batch& batch, v1::RunBatchesResponse* response) {
  for (const v1::Operation& operation : batch.operations()) {
    v1::OperationResult* const result = response->mutable_result()->add_results();
    if (operation.add_word().pos() == 999) {
      result->mutable_failure()->mutable_detail()->set_reason(v1::ERROR_REASON_OUT_OF_BOUNDS);
      result->mutable_failure()->set_message("too far");
    } else {
      result->mutable_add_word()->mutable_value()->set_unsigned_value(operation.add_word().pos());
    }
  }
}
bool EchoAll(const v1::Batch& batch, v1::RunBatchesResponse* response) {
  Echo(batch, response);
  return true;
}

// One operation, tried until the stream has been opened.
Status CallSoon(BatchStream& stream, uint64_t pos, uint64_t* value) {
  v1::AddWordResponse response;
  Status status(Reason::kInternal, "not sent");
  const auto until = steady_clock::now() + seconds(20);
  while (!stream.Call(kAdd, Add(pos), &response, until, &status) && steady_clock::now() < until) {
    Reason why = Reason::kOk;
    if (stream.IsOver(&why)) return Status(Reason::kClientClosed, "over");
  }
  *value = response.value().unsigned_value();
  return status;
}

TEST(BatchStreamTest, CarriesSmallVerbsOnly) {
  EXPECT_NE(kAdd, 0u);
  EXPECT_NE(BatchStream::FieldOf("/statehouse.v1.Locks/ReleaseLock"), 0u);
  EXPECT_EQ(BatchStream::FieldOf("/statehouse.v1.Areas/WaitArea"), 0u);
  EXPECT_EQ(BatchStream::FieldOf("/statehouse.v1.Dicts/ScanEntries"), 0u);
  EXPECT_EQ(BatchStream::FieldOf(""), 0u);
}

TEST(BatchStreamTest, AnswersAndRefusalsReachTheirCallers) {
  Service service(EchoAll);
  const auto stream = service.Open();
  uint64_t value = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(CallSoon(*stream, i, &value).ok());
    EXPECT_EQ(value, i);
  }
  const Status refused = CallSoon(*stream, 999, &value);
  EXPECT_EQ(refused.reason(), Reason::kOutOfBounds);
  EXPECT_EQ(refused.message(), "too far");
  EXPECT_TRUE(CallSoon(*stream, 7, &value).ok());
}

TEST(BatchStreamTest, ConcurrentCallersShareMessagesAndGetTheirOwnAnswers) {
  std::atomic<uint64_t> messages{0};
  std::atomic<uint64_t> operations{0};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    messages.fetch_add(1);
    operations.fetch_add(static_cast<uint64_t>(batch.operations_size()));
    Echo(batch, response);
    return true;
  });
  const auto stream = service.Open();
  uint64_t opened = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &opened).ok());
  std::atomic<uint64_t> answered{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 300; ++i) {
        v1::AddWordResponse response;
        Status status;
        const uint64_t pos = 1000 * (t + 1) + i;
        if (!stream->Call(kAdd, Add(pos), &response, steady_clock::now() + seconds(20), &status)) {
          continue;  // It took too long: for a call of its own.
        }
        ASSERT_TRUE(status.ok()) << status.ToString();
        ASSERT_EQ(response.value().unsigned_value(), pos);
        answered.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(operations.load(), answered.load() + 1);
  EXPECT_LT(messages.load(), operations.load());
}

TEST(BatchStreamTest, WhatIsBehindASlowOperationIsTakenBack) {
  std::atomic<bool> is_held{false};
  std::atomic<bool> goes_on{false};
  std::atomic<int> seen{0};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    seen.fetch_add(batch.operations_size());
    if (batch.operations(0).add_word().pos() == 5) {
      is_held.store(true);
      while (!goes_on.load()) std::this_thread::yield();
    }
    Echo(batch, response);
    return true;
  });
  const auto stream = service.Open();
  uint64_t value = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &value).ok());
  std::thread slow([&] {
    uint64_t held = 0;
    EXPECT_TRUE(CallSoon(*stream, 5, &held).ok());
    EXPECT_EQ(held, 5u);
  });
  while (!is_held.load()) std::this_thread::yield();
  v1::AddWordResponse response;
  Status status;
  EXPECT_FALSE(stream->Call(kAdd, Add(6), &response, steady_clock::now() + seconds(20), &status));
  goes_on.store(true);
  slow.join();
  ASSERT_TRUE(CallSoon(*stream, 7, &value).ok());
  EXPECT_EQ(seen.load(), 3);  // Not the one that was taken back.
}

TEST(BatchStreamTest, ADeadlineEndsTheCallAndNotTheStream) {
  std::atomic<bool> goes_on{false};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    while (batch.operations(0).add_word().pos() == 5 && !goes_on.load()) std::this_thread::yield();
    Echo(batch, response);
    return true;
  });
  const auto stream = service.Open();
  uint64_t value = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &value).ok());
  v1::AddWordResponse response;
  Status status;
  ASSERT_TRUE(
      stream->Call(kAdd, Add(5), &response, steady_clock::now() + milliseconds(50), &status));
  EXPECT_EQ(status.reason(), Reason::kTimeout);
  goes_on.store(true);
  ASSERT_TRUE(CallSoon(*stream, 6, &value).ok());
  EXPECT_EQ(value, 6u);
}

TEST(BatchStreamTest, ABatchOfTheCallersOwnIsAMessageOfItsOwn) {
  std::atomic<int> torn{0};
  std::atomic<int> whole{0};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    int own = 0;
    for (const v1::Operation& operation : batch.operations()) {
      own += operation.add_word().pos() >= 5000 ? 1 : 0;
    }
    if (own > 0) whole.fetch_add(1);
    if (own > 0 && (own != 3 || batch.operations_size() != 3)) torn.fetch_add(1);
    Echo(batch, response);
    return true;
  });
  const auto stream = service.Open();
  uint64_t opened = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &opened).ok());
  std::vector<std::thread> threads;
  std::atomic<int> sent{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      v1::RunBatchesRequest request;
      for (uint64_t i = 0; i < 3; ++i) {
        *request.mutable_batch()->add_operations()->mutable_add_word() = Add(5000 + 10 * t + i);
      }
      for (int i = 0; i < 200; ++i) {
        std::string answer;
        Status status;
        const auto until = steady_clock::now() + seconds(20);
        if (stream->RunBatch(request.SerializeAsString(), &answer, until, &status)) {
          v1::RunBatchResponse response;
          ASSERT_TRUE(status.ok()) << status.ToString();
          ASSERT_TRUE(response.ParseFromString(answer));
          ASSERT_EQ(response.result().results_size(), 3);
          ASSERT_EQ(response.result().results(2).add_word().value().unsigned_value(),
                    5002 + 10 * t);
          sent.fetch_add(1);
        }
        uint64_t value = 0;
        ASSERT_TRUE(CallSoon(*stream, t, &value).ok());
        ASSERT_EQ(value, t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn.load(), 0);
  EXPECT_EQ(whole.load(), sent.load());
  EXPECT_GT(sent.load(), 0);
}

TEST(BatchStreamTest, ABatchOfTheCallersOwnThatIsRefusedAsAWholeSaysWhy) {
  Service service([](const v1::Batch&, v1::RunBatchesResponse* response) {
    response->mutable_failure()->mutable_detail()->set_reason(v1::ERROR_REASON_LIMIT_EXCEEDED);
    response->mutable_failure()->set_message("too many");
    return true;
  });
  const auto stream = service.Open();
  std::string answer;
  Status status;
  const auto until = steady_clock::now() + seconds(20);
  while (!stream->RunBatch(std::string("\x0a\x00", 2), &answer, until, &status) &&
         steady_clock::now() < until) {
  }
  EXPECT_EQ(status.reason(), Reason::kLimitExceeded);
  EXPECT_EQ(status.message(), "too many");
}

TEST(BatchStreamTest, ABatchThatIsRefusedAsAWholeFailsItsOperations) {
  Service service([](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    response->mutable_failure()->mutable_detail()->set_reason(v1::ERROR_REASON_DRAINING);
    return true;
  });
  const auto stream = service.Open();
  uint64_t value = 0;
  EXPECT_EQ(CallSoon(*stream, 1, &value).reason(), Reason::kDraining);
}

TEST(BatchStreamTest, AnswersThatMakeNoSenseAreSaid) {
  std::atomic<int> kind{0};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    if (kind.load() == 1) response->mutable_result()->add_results();
    if (kind.load() == 2) response->mutable_result()->add_results()->mutable_failure();
    return true;  // With kind 0: nothing at all.
  });
  const auto stream = service.Open();
  uint64_t value = 0;
  for (int i = 0; i < 3; ++i) {
    kind.store(i);
    EXPECT_EQ(CallSoon(*stream, 1, &value).reason(), Reason::kInternal) << i;
  }
}

TEST(BatchStreamTest, TheEndOfTheStreamIsTheEndOfItsOperations) {
  Service service([](const v1::Batch&, v1::RunBatchesResponse*) { return false; },
                  grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such method"));
  const auto stream = service.Open();
  uint64_t value = 0;
  EXPECT_EQ(CallSoon(*stream, 1, &value).reason(), Reason::kClientClosed);  // It was not sent.
  Reason why = Reason::kOk;
  EXPECT_TRUE(stream->IsOver(&why));
  EXPECT_EQ(why, Reason::kUnimplemented);
  v1::AddWordResponse response;
  Status status;
  EXPECT_FALSE(stream->Call(kAdd, Add(1), &response, steady_clock::now() + seconds(20), &status));
}

TEST(BatchStreamTest, AStreamThatBreaksFailsWhatIsUnderWay) {
  std::atomic<int> answers{0};
  Service service(
      [&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
        return answers.fetch_add(1) == 0 && EchoAll(batch, response);
      },
      grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "any more"));
  const auto stream = service.Open();
  uint64_t value = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &value).ok());
  EXPECT_EQ(CallSoon(*stream, 2, &value).reason(), Reason::kUnimplemented);
}

TEST(BatchStreamTest, AnAnswerThatGrpcRefusesForItsSizeMayBeOfWhatWasCarriedOut) {
  constexpr size_t kGrpcBytesDefault = 4 << 20;  // Of a channel without a limit of its own.
  for (const size_t bytes : {kGrpcBytesDefault / 2, kGrpcBytesDefault + 1}) {
    Service service([&](const v1::Batch&, v1::RunBatchesResponse* response) {
      v1::OperationFailure& why = *response->mutable_failure();
      why.mutable_detail()->set_reason(v1::ERROR_REASON_MESSAGE_TOO_LARGE);
      why.set_message(std::string(bytes, 'x'));
      return true;
    });
    const auto stream = service.Open();
    uint64_t value = 0;
    const Status status = CallSoon(*stream, 1, &value);
    EXPECT_EQ(status.reason(), Reason::kMessageTooLarge);
    EXPECT_EQ(status.message().find("may have been carried out") != std::string::npos,
              bytes > kGrpcBytesDefault);
  }
}

TEST(BatchStreamTest, AConnectionThatEndedWhileIdleIsNoticedBeforeSending) {
  std::atomic<int> seen{0};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    seen.fetch_add(1);
    return EchoAll(batch, response);
  });
  const auto stream = service.Open();
  uint64_t value = 0;
  ASSERT_TRUE(CallSoon(*stream, 1, &value).ok());
  service.Stop();
  // It looks after it was idle for some milliseconds.
  const auto idle_until = steady_clock::now() + milliseconds(20);
  while (steady_clock::now() < idle_until) std::this_thread::yield();
  EXPECT_EQ(CallSoon(*stream, 2, &value).reason(), Reason::kClientClosed);
  EXPECT_EQ(seen.load(), 1);
}

TEST(BatchStreamTest, AConnectionThatEndedWhileAMessageWasUnderWayIsNoticedOnce) {
  Service service(nullptr);
  const auto stream = service.Open();
  constexpr size_t kMoreThanTheWindow = 8 << 20;
  const std::string request(kMoreThanTheWindow, 'x');
  std::string answer;
  Status status;
  const auto until = steady_clock::now() + seconds(20);
  while (!stream->RunBatch(request, &answer, until, &status) && steady_clock::now() < until) {
  }
  ASSERT_TRUE(status.ok()) << status.ToString();
  service.Stop();
  const auto idle_until = steady_clock::now() + milliseconds(20);
  while (steady_clock::now() < idle_until) std::this_thread::yield();
  uint64_t value = 0;
  EXPECT_EQ(CallSoon(*stream, 2, &value).reason(), Reason::kClientClosed);
}

TEST(BatchStreamTest, CancelEndsCallsUnderWay) {
  std::atomic<bool> is_held{false};
  std::atomic<bool> goes_on{false};
  Service service([&](const v1::Batch& batch, v1::RunBatchesResponse* response) {
    is_held.store(true);
    while (!goes_on.load()) std::this_thread::yield();
    return EchoAll(batch, response);
  });
  const auto stream = service.Open();
  std::thread waiter([&] {
    uint64_t value = 0;
    EXPECT_EQ(CallSoon(*stream, 1, &value).reason(), Reason::kCancelled);
  });
  while (!is_held.load()) std::this_thread::yield();
  stream->Cancel();
  waiter.join();
  goes_on.store(true);
}

TEST(BatchStreamTest, CanBeLetGoAtAnyMoment) {
  Service service(EchoAll);
  for (int round = 0; round < 100; ++round) {
    const auto stream = service.Open();
    uint64_t value = 0;
    for (int i = 0; i < round % 4; ++i) ASSERT_TRUE(CallSoon(*stream, 1, &value).ok());
    if (round % 3 == 0) stream->Cancel();
  }
}

}  // namespace
}  // namespace statehouse
