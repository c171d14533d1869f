#include "service/http2/batch_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <optional>
#include <random>
#include <thread>

#include "service/http2/batch_client_test_support.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr char kToken[] = "right";
constexpr int kUnauthenticated = 1, kTooMuch = 2, kOther = 3;

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
  bool CountBytes(int64_t more) override {
    if (more > 0 && bytes + more > bytes_max) return false;
    bytes += more;
    bytes_high = std::max(bytes_high, bytes);
    return true;
  }

  uint64_t now = 1;  // Of tokens.
  int streams = 0;
  int streams_max = 1000;
  int wasted = 0;
  int useful = 0;
  int64_t bytes = 0;
  int64_t bytes_max = INT64_MAX;
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
    EXPECT_THAT(stream.fields.at("grpc-message"), HasSubstr(text));
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

TEST_F(BatchSessionTest, BatchesAreAnsweredInOrder) {
  const int32_t id = Open();
  for (int i = 0; i < 100; ++i) client_.SendMessage(id, std::to_string(i));
  Exchange();

  for (int i = 0; i < 100; ++i) EXPECT_EQ(Next(id), "re:" + std::to_string(i));
  EXPECT_EQ(Next(id), "(none)");
  EXPECT_EQ(client_.At(id).fields.at(":status"), "200");
  EXPECT_EQ(client_.At(id).fields.at("content-type"), "application/grpc");
  client_.Send(id, "", /*ends=*/true);
  Exchange();
  ExpectEnd(id, 0, "");
  EXPECT_EQ(host_.streams, 0);
  EXPECT_EQ(host_.wasted, 0);
  EXPECT_EQ(host_.bytes, 0);
  EXPECT_FALSE(session_->is_over());
}

TEST_F(BatchSessionTest, ByteByByteItIsTheSame) {
  const int32_t id = Open();
  client_.SendMessage(id, "one");
  client_.SendMessage(id, "");
  client_.SendMessage(id, std::string(40'000, 'x'));
  for (const char byte : client_.TakeOutput()) session_->Receive({&byte, 1});
  Exchange();

  EXPECT_EQ(Next(id), "re:one");
  EXPECT_EQ(Next(id), "re:");
  EXPECT_EQ(Next(id), "re:" + std::string(40'000, 'x'));
}

TEST_F(BatchSessionTest, AnswersOfOtherThreadsComeInOrderToo) {
  dispatcher_.waits = true;
  const int32_t first = Open();
  const int32_t second = Open();
  for (const char* text : {"a", "b"}) client_.SendMessage(first, text);
  client_.SendMessage(second, "c");
  Exchange();
  EXPECT_EQ(dispatcher_.ran, (std::vector<std::string>{"a", "c"})) << "one of each stream";
  EXPECT_EQ(wakes_, 0);

  std::thread([this] { dispatcher_.AnswerOne(); }).join();
  EXPECT_EQ(wakes_, 1);
  EXPECT_EQ(Next(first), "(none)");
  session_->Settle();
  Exchange();
  EXPECT_EQ(Next(first), "re:a");
  EXPECT_EQ(dispatcher_.ran.back(), "b");
  EXPECT_EQ(Next(second), "(none)");
  while (!dispatcher_.parked.empty()) dispatcher_.AnswerOne();
  session_->Settle();
  Exchange();
  EXPECT_EQ(Next(first), "re:b");
  EXPECT_EQ(Next(second), "re:c");
}

TEST_F(BatchSessionTest, ARefusedBatchLeavesTheStreamOpen) {
  const int32_t id = Open();
  client_.SendMessage(id, "refuse");
  client_.SendMessage(id, "go on");
  Exchange();

  v1::RunBatchesResponse response;
  ASSERT_TRUE(response.ParseFromString(Next(id)));
  EXPECT_EQ(response.failure().message(), "not this");
  EXPECT_EQ(response.failure().detail().reason(), v1::ERROR_REASON_INVALID_ARGUMENT);
  EXPECT_EQ(Next(id), "re:go on");
}

TEST_F(BatchSessionTest, RequestsThatMakeNoSenseAreRefused) {
  const std::pair<BatchClient::Fields, const char*> kCases[] = {
      {{{":path", "/statehouse.v1.Areas/AddWord"}}, "carries only"},
      {{{":path", "/statehouse.v1.Batches/RunBatch"}}, "carries only"},
      {{{"content-type", "text/html"}}, "content type"},
      {{{"grpc-timeout", "soon"}}, "grpc-timeout"},
      {{{"grpc-timeout", "123456789S"}}, "grpc-timeout"},
      {{{"grpc-timeout", "S"}}, "grpc-timeout"},
  };
  for (const auto& [with, text] : kCases) {
    const int32_t id = Open(with);
    client_.SendMessage(id, "x");
    Exchange();
    ExpectEnd(id, kOther, text);
  }
  EXPECT_TRUE(dispatcher_.ran.empty());
  EXPECT_EQ(host_.wasted, static_cast<int>(std::size(kCases)));
  EXPECT_EQ(host_.streams, 0);
  const int32_t id = Open({{"grpc-timeout", "99999999H"}});
  client_.SendMessage(id, "x");
  Exchange();
  EXPECT_EQ(Next(id), "re:x") << "the connection goes on";
}

TEST_F(BatchSessionTest, WhoseTokenIsWrongHasNoOtherStream) {
  for (const bool has_two : {false, true}) {
    Renew();
    BatchClient client;
    const auto fields = has_two ? BatchClient::Request(kToken, {{"authorization", "Bearer right"}})
                                : BatchClient::Request("wrong");
    const int32_t id = client.Open(fields);
    const int32_t next = client.Open(BatchClient::Request(kToken));
    for (int i = 0; i < 4; ++i) {
      session_->Receive(client.TakeOutput());
      std::string down;
      session_->Take(&down, SIZE_MAX);
      client.Receive(down);
    }
    EXPECT_EQ(client.At(id).Code(), kUnauthenticated);
    EXPECT_TRUE(client.At(next).is_closed);
    EXPECT_EQ(client.At(next).Code(), -1);
    EXPECT_TRUE(client.was_told_to_go());
    EXPECT_TRUE(session_->is_over());
  }
}

TEST_F(BatchSessionTest, ARevokedTokenEndsTheStreamBeforeItsNextBatch) {
  const int32_t id = Open();
  client_.SendMessage(id, "a");
  Exchange();
  ++host_.now;
  client_.SendMessage(id, "b");
  Exchange();

  EXPECT_EQ(Next(id), "re:a");
  ExpectEnd(id, kUnauthenticated, "revoked");
  EXPECT_EQ(dispatcher_.ran.size(), 1u);
}

TEST_F(BatchSessionTest, AMessageMayHaveSoManyBytesAndNoMore) {
  const int32_t id = Open();
  client_.SendMessage(id, std::string(BatchSession::kMessageBytesMax, 'x'));
  Exchange();
  EXPECT_EQ(Next(id).size(), 3 + BatchSession::kMessageBytesMax);
  client_.SendMessage(id, std::string(BatchSession::kMessageBytesMax + 1, 'x'));
  Exchange();

  ExpectEnd(id, kOther, "larger batches go by RunBatch");
  EXPECT_EQ(dispatcher_.ran.size(), 1u);
  EXPECT_EQ(host_.bytes, 0);
}

TEST_F(BatchSessionTest, ACompressedMessageEndsTheStream) {
  const int32_t id = Open();
  client_.Send(id, BatchClient::Framed("x", 1));
  Exchange();

  ExpectEnd(id, kOther, "compressed");
  EXPECT_TRUE(dispatcher_.ran.empty());
}

TEST_F(BatchSessionTest, AMessageThatIsCutOffIsNotCarriedOut) {
  const int32_t id = Open();
  client_.SendMessage(id, "a");
  client_.Send(id, BatchClient::Framed("bcd").substr(0, 7), /*ends=*/true);
  Exchange();

  EXPECT_EQ(Next(id), "re:a");
  ExpectEnd(id, kOther, "cut off");
  EXPECT_EQ(dispatcher_.ran.size(), 1u);
}

TEST_F(BatchSessionTest, AConnectionHasSoManyStreamsAndNoMore) {
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < BatchSession::kStreamsMax; ++i) ids.push_back(Open());
  const int32_t beyond = Open();
  session_->Receive(client_.TakeOutput());  // Before the client has heard how many.
  Exchange();

  EXPECT_TRUE(client_.At(beyond).is_closed);
  EXPECT_NE(client_.At(beyond).error_code, 0u);
  EXPECT_EQ(host_.streams, static_cast<int>(BatchSession::kStreamsMax));
  for (const int32_t id : ids) client_.SendMessage(id, "x");
  Exchange();
  for (const int32_t id : ids) EXPECT_EQ(Next(id), "re:x");
}

TEST_F(BatchSessionTest, AllClientsTogetherHaveSoManyStreams) {
  host_.streams_max = 1;
  const int32_t first = Open();
  const int32_t second = Open();
  Exchange();

  ExpectEnd(second, kTooMuch, "too many");
  client_.Reset(first);
  Exchange();
  const int32_t third = Open();
  client_.SendMessage(third, "x");
  Exchange();
  EXPECT_EQ(Next(third), "re:x");
}

TEST_F(BatchSessionTest, ARequestsFieldsHaveSoManyBytes) {
  const auto open = [this](size_t more) { return Open({{"x-more", std::string(more, 'm')}}); };
  const int32_t inside = open(BatchSession::kHeaderBytesMax - 300);
  const int32_t beyond = open(BatchSession::kHeaderBytesMax);
  client_.SendMessage(inside, "x");
  Exchange();

  EXPECT_EQ(Next(inside), "re:x");
  EXPECT_TRUE(client_.At(beyond).is_closed);
  EXPECT_EQ(host_.wasted, 1);
}

TEST_F(BatchSessionTest, StreamsThatComeToNothingEndTheConnection) {
  for (uint32_t i = 0; i < BatchSession::kWastedStreamsMax; ++i) {
    const int32_t id = Open();
    Exchange();
    client_.Reset(id);
    Exchange();
  }
  EXPECT_FALSE(session_->is_over());
  const int32_t last = Open();
  Exchange();
  client_.Reset(last);
  Exchange();

  EXPECT_TRUE(session_->is_over());
  EXPECT_EQ(client_.goaway_code(), static_cast<uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
}

TEST_F(BatchSessionTest, StreamsThatWereOfUseDoNot) {
  for (uint32_t i = 0; i < 2 * BatchSession::kWastedStreamsMax; ++i) {
    const int32_t id = Open();
    client_.SendMessage(id, "x");
    Exchange();
    client_.Reset(id);
    Exchange();
  }
  EXPECT_FALSE(session_->is_over());
  EXPECT_EQ(host_.wasted, 0);
}

// What waits here is one answer beyond the client's window and the stream's own bound, and what the
// client's bytes' windows let in.
TEST_F(BatchSessionTest, WhoDoesNotReadIsHeldBack) {
  dispatcher_.answer = std::string(10'000, 'a');
  const int32_t id = Open();
  for (int i = 0; i < 1000; ++i) client_.SendMessage(id, std::string(1'000, 'q'));
  session_->Receive(client_.TakeOutput());
  std::string down;
  for (int i = 0; i < 100; ++i) session_->Take(&down, SIZE_MAX);

  EXPECT_LT(dispatcher_.ran.size(), 20u);
  EXPECT_LE(host_.bytes_high, static_cast<int64_t>(BatchSession::kAnswersAheadBytes + 10'005 +
                                                   BatchSession::kMessageBytesMax + 5));
  client_.Receive(down);
  Exchange();
  EXPECT_EQ(dispatcher_.ran.size(), 1000u);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Next(id), *dispatcher_.answer);
  EXPECT_EQ(host_.bytes, 0);
}

TEST_F(BatchSessionTest, BeyondTheHostsBytesTheStreamEnds) {
  host_.bytes_max = 1000;
  dispatcher_.waits = true;
  const int32_t id = Open();
  const int32_t other = Open();
  client_.SendMessage(id, "runs");
  client_.SendMessage(id, std::string(2'000, 'x'));
  Exchange();
  dispatcher_.AnswerOne();
  session_->Settle();
  Exchange();

  EXPECT_EQ(Next(id), "re:runs") << "what was carried out is answered";
  ExpectEnd(id, kTooMuch, "of all clients");
  EXPECT_EQ(dispatcher_.ran.size(), 1u);
  EXPECT_EQ(host_.bytes, 0);
  dispatcher_.waits = false;
  client_.SendMessage(other, "x");
  Exchange();
  EXPECT_EQ(Next(other), "re:x");
}

TEST_F(BatchSessionTest, StreamsEndWhenWhatTheyCarryOutIsAnswered) {
  const int32_t idle = Open();
  const int32_t busy = Open();
  client_.SendMessage(idle, "a");
  Exchange();
  dispatcher_.waits = true;
  client_.SendMessage(busy, "b");
  client_.SendMessage(busy, "is not begun any more");
  Exchange();

  session_->EndStreams(Status(Reason::kDraining, "the service stops"));
  Exchange();
  EXPECT_EQ(Next(idle), "re:a");
  ExpectEnd(idle, kTooMuch, "stops");
  EXPECT_FALSE(client_.At(busy).is_closed);
  EXPECT_FALSE(session_->is_over());
  EXPECT_TRUE(client_.was_told_to_go());
  dispatcher_.AnswerOne();
  session_->Settle();
  Exchange();
  EXPECT_EQ(Next(busy), "re:b");
  ExpectEnd(busy, kTooMuch, "stops");
  EXPECT_TRUE(session_->is_over());
  EXPECT_EQ(dispatcher_.ran.size(), 2u);
}

TEST_F(BatchSessionTest, AnAnswerThatNobodyWantsAnyMoreIsDropped) {
  dispatcher_.waits = true;
  const int32_t id = Open();
  client_.SendMessage(id, "a");
  Exchange();
  client_.Reset(id);
  Exchange();
  EXPECT_EQ(host_.streams, 0);
  dispatcher_.AnswerOne();
  const int32_t next = Open();
  client_.SendMessage(next, "b");
  Exchange();
  session_.reset();
  dispatcher_.AnswerOne();

  EXPECT_EQ(wakes_, 0);
  EXPECT_EQ(host_.streams, 0);
  EXPECT_EQ(host_.bytes, 0);
}

TEST_F(BatchSessionTest, AStreamWhoseTimeIsOverCarriesOutNoMore) {
  const int32_t id = Open({{"grpc-timeout", "0n"}});
  client_.SendMessage(id, "late");
  Exchange();

  ExpectEnd(id, kOther, "its time is over");
  EXPECT_TRUE(dispatcher_.ran.empty());
}

TEST_F(BatchSessionTest, WhoBreaksHttp2IsToldSo) {
  session_->Receive("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string(64, '\xee'));
  std::string down;
  session_->Take(&down, SIZE_MAX);

  EXPECT_TRUE(session_->is_over());
  Renew();
  session_->Receive("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(session_->is_over());
}

// From threads of the dispatcher, beside streams that go.
TEST_F(BatchSessionTest, AnswersComeFromAnyThreadAtAnyMoment) {
  std::mt19937 random(7);
  dispatcher_.waits = true;
  for (int round = 0; round < 300; ++round) {
    const int32_t id = Open();
    client_.SendMessage(id, "x");
    Exchange();
    std::thread answerer([this] { dispatcher_.AnswerOne(); });
    if (random() % 2 == 0) client_.Reset(id);
    for (int i = 0; i < 3; ++i) {
      session_->Settle();
      Exchange();
    }
    if (random() % 8 == 0) {
      Renew();
      client_.~BatchClient();
      new (&client_) BatchClient();
    }
    answerer.join();
  }
  Renew();
  EXPECT_EQ(host_.streams, 0);
  EXPECT_EQ(host_.bytes, 0);
}

}  // namespace
}  // namespace statehouse
