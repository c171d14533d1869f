// What one client of a session of batches can have of the service.
#include <random>

#include "engine/os/futex.h"
#include "service/http2/batch_session_test_support.h"

namespace statehouse {
namespace {

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

TEST_F(BatchSessionTest, AConnectionHasSoManyStreamsAndNoMore) {
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < BatchSession::kStreamsMax; ++i) ids.push_back(Open());
  const int32_t beyond = Open();
  session_->Receive(client_.TakeOutput());  // Before the client has heard how many.
  Exchange();

  EXPECT_TRUE(client_.At(beyond).is_closed);
  EXPECT_EQ(client_.At(beyond).error_code, static_cast<uint32_t>(NGHTTP2_REFUSED_STREAM));
  EXPECT_EQ(host_.streams, static_cast<int>(BatchSession::kStreamsMax));
  for (const int32_t id : ids) client_.SendMessage(id, "x");
  Exchange();
  for (const int32_t id : ids) EXPECT_EQ(Next(id), "re:x");
}

TEST_F(BatchSessionTest, AllClientsTogetherHaveSoManyStreams) {
  host_.streams_max = 1;
  const int32_t first = Open();
  client_.SendMessage(first, "of use");
  Exchange();
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
  const int32_t useful = Open();
  client_.SendMessage(useful, "a");
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
                                                   BatchSession::kWindowBytes));
  client_.Receive(down);
  Exchange();
  EXPECT_EQ(dispatcher_.ran.size(), 1000u);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Next(id), *dispatcher_.answer);
  EXPECT_EQ(host_.bytes, 0);
}

TEST_F(BatchSessionTest, WhileTheHostHasNoRoomNothingIsCarriedOut) {
  host_.has_room = false;
  const int32_t id = Open();
  for (const char* text : {"a", "b"}) client_.SendMessage(id, text);
  Exchange();
  EXPECT_TRUE(dispatcher_.ran.empty());
  EXPECT_FALSE(session_->has_more()) << "time does not help";
  EXPECT_GT(host_.bytes, 0);
  host_.has_room = true;
  Exchange();

  EXPECT_EQ(Next(id), "re:a");
  EXPECT_EQ(Next(id), "re:b");
  EXPECT_EQ(host_.bytes, 0);
}

TEST_F(BatchSessionTest, ASessionHasSoManyBytesWaitingAndNoMore) {
  constexpr size_t kStreams = 20;
  dispatcher_.answer = std::string(4 << 20, 'a');
  for (size_t i = 0; i < kStreams; ++i) client_.SendMessage(Open(), "large");
  std::string down;
  for (int i = 0; i < 3; ++i) {
    session_->Receive(client_.TakeOutput());
    session_->Take(&down, SIZE_MAX);
  }

  EXPECT_EQ(dispatcher_.ran.size(), 8u) << "the eighth reaches the limit";
  EXPECT_LT(host_.bytes_high, BatchSession::kWaitingBytesMax + (1 << 20));
  client_.Receive(down);
  Exchange();
  EXPECT_EQ(dispatcher_.ran.size(), kStreams);
}

TEST_F(BatchSessionTest, WhenTheTurnIsOverTheRestWaitsForTheNext) {
  const int32_t first = Open();
  const int32_t second = Open();
  for (int i = 0; i < 50; ++i) {
    client_.SendMessage(first, std::to_string(i));
    client_.SendMessage(second, std::to_string(i));
  }
  session_->BeginTurn(MonotonicNs());
  Exchange();
  EXPECT_TRUE(dispatcher_.ran.empty());
  EXPECT_TRUE(session_->has_more());
  session_->BeginTurn(UINT64_MAX);
  Exchange();

  EXPECT_FALSE(session_->has_more());
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(Next(first), "re:" + std::to_string(i));
    EXPECT_EQ(Next(second), "re:" + std::to_string(i));
  }
}

// Else a session that has much to carry out would wait for what only carrying it out makes less.
TEST_F(BatchSessionTest, WhatIsToBeCarriedOutIsNoAnswerThatWaits) {
  dispatcher_.waits = true;
  const int32_t id = Open();
  client_.SendMessage(id, "runs");
  client_.SendMessage(id, std::string(60'000, 'x'));
  Exchange();
  EXPECT_GT(host_.bytes, 60'000);
  dispatcher_.AnswerOne();
  session_->Settle();
  Exchange();

  EXPECT_EQ(dispatcher_.ran.size(), 2u);
  EXPECT_LT(host_.answers_high, 100);
}

// Whatever was given back of a stream's window and what was not.
TEST_F(BatchSessionTest, MessagesOfAnySizeFollowEachOther) {
  std::mt19937 random(7);
  dispatcher_.answer = "done";
  const int32_t id = Open();
  for (int i = 0; i < 2000; ++i) {
    const size_t bytes = random() % 3 == 0 ? random() % 200 : random() % (64 << 10);
    client_.SendMessage(id, std::string(i % 10 == 0 ? BatchSession::kMessageBytesMax : bytes, 'x'));
    Exchange();
    ASSERT_EQ(Next(id), "done") << "message " << i << " of " << bytes << " bytes";
  }
}

// Many batches ahead, so that there is always an answer that is not sent.
TEST_F(BatchSessionTest, AnswersThatWereSentAreNotKept) {
  dispatcher_.answer = std::string(10'000, 'a');
  const int32_t id = Open();
  for (int i = 0; i < 30; ++i) client_.SendMessage(id, "ahead");
  for (int i = 0; i < 3'000; ++i) {
    client_.SendMessage(id, "x");
    session_->Receive(client_.TakeOutput());
    std::string down;
    session_->Take(&down, 20'000);
    client_.Receive(down);
    std::string message;
    while (client_.At(id).Next(&message)) EXPECT_EQ(message.size(), 10'000u);
  }

  EXPECT_LT(host_.bytes_high, 1 << 20);
}

}  // namespace
}  // namespace statehouse
