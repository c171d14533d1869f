// What a watch makes of a follow log: the messages that the stream would have brought.
#include "clients/c/src/dict_follow.h"

#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "clients/c/src/dict_watch.h"
#include "engine/os/futex.h"

namespace statehouse {
namespace {

using Found = WatchFollow::Found;

class DictFollowTest : public ::testing::Test {
 protected:
  DictFollowTest() {
    auto made = FollowLogWriter::Create(1, kFeedLogBytesMin);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    writer_ = *std::move(made);
  }
  void Begin(const v1::WatchDictRequest& request) {
    v1::WatchDictResponse handed_over;
    handed_over.set_revision(revision_);
    handed_over.mutable_handed_over()->set_log_id(writer_->facts().log_id);
    handed_over.mutable_handed_over()->set_position(writer_->head_position());
    follow_ = std::make_unique<DictFollow>(nullptr, request, handed_over);
    auto log = FollowLog::Map(writer_->facts(), writer_->fd());
    ASSERT_TRUE(log.ok()) << log.status().ToString();
    follow_->Use(*std::move(log));
  }
  DictChange Change(const std::string& key, FeedOperation operation = FeedOperation::kPut) {
    DictChange change;
    change.revision = ++revision_;
    change.version = revision_ * 2;
    change.operation = operation;
    change.kind = DictKind::kInt64;
    change.bits = 40 + revision_;
    change.time_ms = 1'234'567;
    change.key = key;
    return change;
  }
  void Write(const DictChange& change) {
    writer_->Append(change);
    writer_->Commit();
  }
  Found Read(uint64_t now_ns = 0) {
    std::unique_ptr<google::protobuf::MessageLite> message;
    const Found found = follow_->Read(now_ns == 0 ? MonotonicNs() : now_ns, &message);
    response_.Clear();
    EXPECT_EQ(message != nullptr, found == Found::kMessage);
    if (message != nullptr) response_ = static_cast<const v1::WatchDictResponse&>(*message);
    return found;
  }
  std::vector<std::string> Keys() const {
    std::vector<std::string> keys;
    for (const v1::DictChange& change : response_.changes().changes()) keys.push_back(change.key());
    return keys;
  }

  using Keys_ = std::vector<std::string>;
  std::unique_ptr<FollowLogWriter> writer_;
  std::unique_ptr<DictFollow> follow_;
  v1::WatchDictResponse response_;
  uint64_t revision_ = 10;
};

TEST_F(DictFollowTest, ShowsEveryFieldOfAChange) {
  Begin({});
  EXPECT_EQ(Read(), Found::kNothing);
  Write(Change("a"));
  v1::Value text;
  text.set_string_value("text");
  DictChange bytes = Change("b");
  bytes.kind = DictKind::kBytes;
  bytes.bytes = text.SerializeAsString();
  Write(bytes);
  DictChange number = Change("c");
  number.kind = DictKind::kFloat64;
  number.bits = std::bit_cast<uint64_t>(2.5);
  Write(number);
  Write(Change("a", FeedOperation::kExpire));

  ASSERT_EQ(Read(), Found::kMessage);

  EXPECT_EQ(response_.revision(), 14u);
  ASSERT_EQ(response_.changes().changes_size(), 4);
  const v1::DictChange& first = response_.changes().changes(0);
  EXPECT_EQ(first.revision(), 11u);
  EXPECT_EQ(first.version(), 22u);
  EXPECT_EQ(first.kind(), v1::CHANGE_KIND_PUT);
  EXPECT_EQ(first.key(), "a");
  EXPECT_EQ(first.value().int_value(), 51);
  EXPECT_EQ(first.time().seconds(), 1'234);
  EXPECT_EQ(first.time().nanos(), 567'000'000);
  EXPECT_FALSE(first.coalesced());
  EXPECT_EQ(response_.changes().changes(1).value().string_value(), "text");
  EXPECT_EQ(response_.changes().changes(2).value().float_value(), 2.5);
  EXPECT_EQ(response_.changes().changes(3).kind(), v1::CHANGE_KIND_EXPIRE);
  EXPECT_FALSE(response_.changes().changes(3).has_value());
  EXPECT_EQ(Read(), Found::kNothing);
}

TEST_F(DictFollowTest, TellsOnlyWhatIsAskedForAndComesPastTheRest) {
  v1::WatchDictRequest request;
  request.set_prefix("web/");
  request.add_kinds(v1::CHANGE_KIND_DELETE);
  Begin(request);
  for (const char* key : {"web/a", "db"}) Write(Change(key));
  for (const char* key : {"web/a", "db"}) Write(Change(key, FeedOperation::kDelete));
  Write(Change("", FeedOperation::kMoved));

  ASSERT_EQ(Read(), Found::kMessage);

  EXPECT_EQ(Keys(), (Keys_{"web/a"}));
  EXPECT_EQ(response_.revision(), 15u);
  Write(Change("db"));
  EXPECT_EQ(Read(), Found::kNothing);
  EXPECT_EQ(follow_->counter(), 16u);
}

TEST_F(DictFollowTest, OneKeyIsNoPrefixAndKeysOnlyHasNoValue) {
  v1::WatchDictRequest request;
  request.set_key("a");
  request.set_keys_only(true);
  Begin(request);
  Write(Change("ab"));
  Write(Change("a"));

  ASSERT_EQ(Read(), Found::kMessage);

  EXPECT_EQ(Keys(), (Keys_{"a"}));
  EXPECT_FALSE(response_.changes().changes(0).has_value());
  EXPECT_FALSE(response_.changes().changes(0).value_gone());
}

TEST_F(DictFollowTest, WhatIsNoValueOrNotThereIsGone) {
  Begin({});
  DictChange broken = Change("a");
  broken.kind = DictKind::kBytes;
  broken.bytes = "\xff\xff\xff";
  Write(broken);
  DictChange empty = Change("b");
  empty.kind = DictKind::kBytes;
  Write(empty);
  DictChange gone = Change("c");
  gone.value_gone = true;
  Write(gone);

  ASSERT_EQ(Read(), Found::kMessage);

  for (const v1::DictChange& change : response_.changes().changes()) {
    EXPECT_TRUE(change.value_gone()) << change.key();
    EXPECT_FALSE(change.has_value()) << change.key();
  }
}

TEST_F(DictFollowTest, AGapFallsBackAfterWhatComesBeforeIt) {
  Begin({});
  Write(Change("a"));
  Write(Change("", FeedOperation::kGap));
  Write(Change("b"));

  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(Keys(), (Keys_{"a"}));
  EXPECT_EQ(Read(), Found::kFallBack);
  EXPECT_EQ(Read(), Found::kFallBack);

  EXPECT_EQ(follow_->counter(), 11u);  // The stream is asked for the gap.
}

TEST_F(DictFollowTest, ASlowOneFallsBack) {
  Begin({});
  for (int i = 0; i < 2'000; ++i) Write(Change("a"));

  EXPECT_EQ(Read(), Found::kFallBack);

  EXPECT_EQ(follow_->counter(), 10u);
}

TEST_F(DictFollowTest, ALogThatMakesNoSenseIsNotFollowedAgain) {
  Begin({});
  Write(Change("a"));
  ++revision_;
  Write(Change("b"));

  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(Keys(), (Keys_{"a"}));
  EXPECT_EQ(Read(), Found::kBroken);
  EXPECT_EQ(follow_->counter(), 11u);
}

TEST_F(DictFollowTest, MessagesAreBoundedInChangesAndBytes) {
  Begin({});
  for (int i = 0; i < 513; ++i) Write(Change("a"));
  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(response_.changes().changes_size(), 512);
  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(response_.changes().changes_size(), 1);

  v1::Value text;
  text.set_string_value(std::string(30'000, 'x'));
  for (const char* key : {"a", "b"}) {
    DictChange large = Change(key);
    large.kind = DictKind::kBytes;
    large.bytes = text.SerializeAsString();
    Write(large);
  }
  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(response_.changes().changes_size(), 2);
}

TEST_F(DictFollowTest, ManyChangesOfOthersArePassedByInPortions) {
  v1::WatchDictRequest request;
  request.set_key("mine");
  Begin(request);
  // As many as the log holds at once.
  for (int i = 0; i < 1'000; ++i) Write(Change("x"));
  EXPECT_EQ(Read(), Found::kNothing);
  EXPECT_EQ(follow_->counter(), 1'010u);
}

TEST_F(DictFollowTest, OneThatEndsTellsWhatIsThereAndNothingElse) {
  v1::WatchDictRequest request;
  request.mutable_progress_interval()->set_nanos(100'000'000);
  Begin(request);
  Write(Change("a"));
  follow_->EndHere();
  Write(Change("b"));

  ASSERT_EQ(Read(), Found::kMessage);
  EXPECT_EQ(Keys(), (Keys_{"a"}));
  EXPECT_EQ(Read(MonotonicNs() + 1'000'000'000), Found::kNothing);
  EXPECT_EQ(follow_->due_ns(), UINT64_MAX);
}

TEST_F(DictFollowTest, ProgressComesWhenNothingWasToldForSoLong) {
  v1::WatchDictRequest request;
  request.set_key("mine");
  request.mutable_progress_interval()->set_nanos(100'000'000);
  Begin(request);
  const uint64_t first_ns = follow_->due_ns();
  Write(Change("other"));

  EXPECT_EQ(Read(first_ns - 1), Found::kNothing);
  ASSERT_EQ(Read(first_ns), Found::kMessage);
  EXPECT_TRUE(response_.has_progress());
  EXPECT_EQ(response_.revision(), 11u);
  EXPECT_EQ(follow_->due_ns(), first_ns + 100'000'000);

  Write(Change("mine"));
  ASSERT_EQ(Read(first_ns + 5), Found::kMessage);
  EXPECT_EQ(Keys(), (Keys_{"mine"}));
  EXPECT_EQ(follow_->due_ns(), first_ns + 5 + 100'000'000);
}

// An event as text, with all that it points to.
std::string Shown(const sh_watch_event& event) {
  const auto text = [](const sh_bytes& bytes) {
    if (bytes.data == nullptr) return std::string("none");
    return std::string(static_cast<const char*>(bytes.data), bytes.size);
  };
  std::string shown = std::to_string(event.kind);
  for (const uint64_t number :
       {event.version, event.revision, uint64_t(event.time_ns), uint64_t(event.value_gone),
        uint64_t(event.coalesced), uint64_t(event.previous_gone), uint64_t(event.reason)}) {
    shown += " " + std::to_string(number);
  }
  return shown + " " + text(event.key) + " " + text(event.value) + " " + text(event.previous);
}

// Whoever is told events without messages is told the same.
TEST_F(DictFollowTest, AReaderTakesTheEventsThatMessagesHave) {
  v1::WatchDictRequest with_values;
  with_values.mutable_progress_interval()->set_nanos(100'000'000);
  v1::WatchDictRequest keys_only = with_values;
  keys_only.set_keys_only(true);
  for (const v1::WatchDictRequest& request : {with_values, keys_only}) {
    Begin(request);
    const auto by_message = std::move(follow_);
    Begin(request);
    v1::Value text;
    text.set_string_value("text");
    std::vector<DictChange> changes;
    for (const char* key : {"int", "float", "text", "broken", "empty", "gone", "later"}) {
      changes.push_back(Change(key));
    }
    changes[0].bits = static_cast<uint64_t>(int64_t{-7});
    changes[1].kind = DictKind::kFloat64;
    changes[1].bits = std::bit_cast<uint64_t>(-0.0);
    for (int i = 2; i <= 4; ++i) changes[i].kind = DictKind::kBytes;
    changes[2].bytes = text.SerializeAsString();
    changes[3].bytes = "\xff\xff\xff";
    changes[5].value_gone = true;
    changes.push_back(Change("text", FeedOperation::kDelete));
    changes.push_back(Change("text", FeedOperation::kExpire));
    changes.push_back(Change("text", FeedOperation::kEvict));
    for (const DictChange& change : changes) Write(change);

    const WatchPoint from{true, revision_ - changes.size()};
    DictWatchReader of_messages(from);
    DictWatchReader direct(from);
    const auto give = [](DictWatchReader* reader) {
      sh_watch_event event{};
      EXPECT_TRUE(reader->Next(&event).value());
      return Shown(event);
    };
    std::unique_ptr<google::protobuf::MessageLite> message;
    ASSERT_EQ(by_message->Read(MonotonicNs(), &message), Found::kMessage);
    of_messages.Take(std::move(message));
    for (const DictChange& change : changes) {
      ASSERT_EQ(follow_->ReadInto(MonotonicNs(), &direct), Found::kMessage);
      EXPECT_EQ(give(&direct), give(&of_messages)) << change.key;
      EXPECT_EQ(direct.point(), of_messages.point()) << change.key;
      EXPECT_EQ(direct.revision(), change.revision);
      EXPECT_EQ(follow_->counter(), change.revision);
      sh_watch_event none{};
      EXPECT_FALSE(direct.Next(&none).value());
    }
    EXPECT_EQ(follow_->ReadInto(MonotonicNs(), &direct), Found::kNothing);

    const uint64_t due_ns = follow_->due_ns();
    ASSERT_EQ(by_message->Read(due_ns, &message), Found::kMessage);
    of_messages.Take(std::move(message));
    ASSERT_EQ(follow_->ReadInto(due_ns, &direct), Found::kMessage);
    EXPECT_EQ(give(&direct), give(&of_messages));
    EXPECT_EQ(follow_->due_ns(), due_ns + 100'000'000);

    Write(Change("", FeedOperation::kGap));
    EXPECT_EQ(follow_->ReadInto(due_ns, &direct), Found::kFallBack);
    follow_->EndHere();
    Write(Change("never"));
    EXPECT_EQ(follow_->ReadInto(UINT64_MAX, &direct), Found::kFallBack);
  }
}

TEST_F(DictFollowTest, WithoutProgressNothingIsEverDue) {
  Begin({});

  EXPECT_EQ(follow_->due_ns(), UINT64_MAX);
}

}  // namespace
}  // namespace statehouse
