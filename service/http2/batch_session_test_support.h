// A session of batches between a client and a dispatcher that a test has in its hands.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "service/http2/batch_client_test_support.h"
#include "service/http2/batch_session.h"

namespace statehouse {

inline constexpr char kToken[] = "right";
inline constexpr int kUnauthenticated = 1, kTooMuch = 2, kOther = 3;

class FakeHost final : public BatchHost {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                         uint64_t* generation) override {
    *generation = now;
    if (authorization != std::string("Bearer ") + kToken) {
      return Status(Reason::kUnauthenticated, "who is this");
    }
    return std::make_shared<const Identity>("id", "", 0, std::vector<Grant>());
  }
  StatusOr<std::shared_ptr<const Identity>> Current(std::shared_ptr<const Identity> identity,
                                                    uint64_t* generation) override {
    if (*generation == now) return identity;
    return Status(Reason::kUnauthenticated, "it was revoked");
  }
  GrpcTrailers TrailersOf(const Status& why) override {
    const Reason reason = why.reason();
    const int code = reason == Reason::kUnauthenticated                                ? 1
                     : reason == Reason::kLimitExceeded || reason == Reason::kDraining ? 2
                                                                                       : 3;
    return {code, why.message(), "details"};
  }
  Status OpenStream() override {
    if (streams >= streams_max) return Status(Reason::kLimitExceeded, "too many");
    ++streams;
    return Status();
  }
  void CloseStream() override { --streams; }
  void CountWasted() override { ++wasted; }
  void CountUseful() override { ++useful; }
  void CountBytes(int64_t more) override {
    bytes += more;
    bytes_high = std::max(bytes_high, bytes);
  }
  bool HasRoom(int64_t answers) override {
    EXPECT_LE(answers, bytes);
    answers_high = std::max(answers_high, answers);
    return has_room;
  }

  uint64_t now = 1;  // Of tokens.
  int streams = 0;
  int streams_max = 1000;
  int wasted = 0;
  int useful = 0;
  int64_t bytes = 0;
  int64_t answers_high = 0;
  bool has_room = true;
  int64_t bytes_high = 0;
};

// Answers each batch with "re:" and its bytes, at once or when the test says so.
class FakeDispatcher final : public Dispatcher {
 public:
  std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view method,
                                        std::string_view request, DoneCallback done) override {
    EXPECT_EQ(method, "/statehouse.v1.Batches/RunBatches");
    EXPECT_EQ(context.identity->token_id(), "id");
    EXPECT_EQ(context.peer(), "10.0.0.7:5");
    ran.emplace_back(request);
    if (request == "refuse") {
      done(Status(Reason::kInvalidArgument, "not this"));
    } else if (waits) {
      parked.push_back({"re:" + std::string(request), std::move(done)});
    } else {
      done(answer.value_or("re:" + std::string(request)));
    }
    return nullptr;
  }
  void AnswerOne() {
    auto [text, done] = std::move(parked.front());
    parked.pop_front();
    done(text);
  }
  bool Knows(std::string_view) const override { return false; }
  bool Streams(std::string_view) const override { return false; }
  bool Converses(std::string_view) const override { return true; }
  StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext&, std::string_view,
                                                     std::string_view,
                                                     std::function<void()>) override {
    return Status(Reason::kInternal, "not here");
  }
  std::vector<std::string> Methods() const override { return {}; }
  uint32_t CallsInFlight() const override { return 0; }
  void RecheckIdentities(Authenticator*) override {}
  void Shutdown() override {}

  bool waits = false;
  std::optional<std::string> answer;
  std::vector<std::string> ran;
  std::deque<std::pair<std::string, DoneCallback>> parked;
};

class BatchSessionTest : public ::testing::Test {
 protected:
  // Both sides have said what they have to say.
  void Exchange() {
    for (int quiet = 0; quiet < 2;) {
      const std::string up = client_.TakeOutput();
      if (!up.empty()) session_->Receive(up);
      std::string down;
      session_->Take(&down, SIZE_MAX);
      if (!down.empty()) client_.Receive(down);
      quiet = up.empty() && down.empty() ? quiet + 1 : 0;
    }
  }
  int32_t Open(const BatchClient::Fields& with = {}) {
    return client_.Open(BatchClient::Request(kToken, with));
  }
  std::string Next(int32_t id) {
    std::string message;
    return client_.At(id).Next(&message) ? message : "(none)";
  }
  void ExpectEnd(int32_t id, int code, const std::string& text) {
    const BatchClient::Stream& stream = client_.At(id);
    EXPECT_TRUE(stream.is_closed);
    EXPECT_EQ(stream.Code(), code);
    if (code == 0) return;
    EXPECT_THAT(stream.fields.at("grpc-message"), ::testing::HasSubstr(text));
    EXPECT_EQ(stream.fields.at("grpc-status-details-bin"), "ZGV0YWlscw");
  }
  void Renew() {
    session_.reset();
    session_ = std::make_unique<BatchSession>(&host_, &dispatcher_, Lane{}, "10.0.0.7:5",
                                              [this] { ++wakes_; });
  }

  FakeHost host_;
  FakeDispatcher dispatcher_;
  std::atomic<int> wakes_{0};
  std::unique_ptr<BatchSession> session_ = std::make_unique<BatchSession>(
      &host_, &dispatcher_, Lane{}, "10.0.0.7:5", [this] { ++wakes_; });
  BatchClient client_;
};

}  // namespace statehouse
