#include "service/http2/batch_session.h"

#include <random>
#include <thread>

#include "service/http2/batch_session_test_support.h"
#include "statehouse/v1/batch.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

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
  const int32_t useful = Open();
  client_.SendMessage(useful, "a");
  client_.Send(useful, "", /*ends=*/true);
  Exchange();
  for (const auto& [with, text] : kCases) {
    const int32_t id = Open(with);
    client_.SendMessage(id, "x");
    Exchange();
    ExpectEnd(id, kOther, text);
  }
  EXPECT_EQ(dispatcher_.ran.size(), 1u);
  EXPECT_EQ(host_.wasted, static_cast<int>(std::size(kCases)));
  EXPECT_EQ(host_.streams, 0);
  const int32_t id = Open({{"grpc-timeout", "99999999H"}});
  client_.SendMessage(id, "x");
  Exchange();
  EXPECT_EQ(Next(id), "re:x") << "the connection goes on";
}

TEST_F(BatchSessionTest, WhoseFirstRequestIsRefusedHasNoOther) {
  const int32_t id = Open({{":path", "/statehouse.v1.Areas/AddWord"}});
  Exchange();

  ExpectEnd(id, kOther, "carries only");
  EXPECT_TRUE(session_->is_over());
}

TEST_F(BatchSessionTest, AWrongTokenDoesNotEndTheStreamsOfOthers) {
  const int32_t good = Open();
  client_.SendMessage(good, "a");
  Exchange();
  const int32_t wrong = client_.Open(BatchClient::Request("wrong"));
  Exchange();
  ExpectEnd(wrong, kUnauthenticated, "who is this");
  client_.SendMessage(good, "b");
  const int32_t next = Open();
  client_.SendMessage(next, "c");
  Exchange();

  EXPECT_EQ(Next(good), "re:a");
  EXPECT_EQ(Next(good), "re:b");
  EXPECT_EQ(Next(next), "re:c");
  EXPECT_FALSE(session_->is_over());
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

TEST_F(BatchSessionTest, ARequestThatIsNotAllHereDoesNotHoldUpTheEnd) {
  session_->Receive(testing::Preface() + testing::EncodeFrame(testing::FrameType::kHeaders, 0, 1,
                                                              testing::CallHeaders("/x", kToken)));
  session_->EndStreams(Status(Reason::kDraining, "the service stops"));
  std::string down;
  session_->Take(&down, SIZE_MAX);

  EXPECT_TRUE(session_->is_over());
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
