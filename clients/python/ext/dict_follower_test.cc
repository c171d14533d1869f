// What a watch in Python reads of a follow log, for one who sleeps and for an event loop.
#include "clients/python/ext/dict_follower.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/os/futex.h"

namespace statehouse::python {
namespace {

using Found = DictFollower::Found;
using Keys = std::vector<std::string>;

constexpr int kPatienceMs = 60'000;
constexpr uint64_t kPatienceNs = 60'000'000'000;

class DictFollowerTest : public ::testing::Test {
 protected:
  DictFollowerTest() {
    auto made = FollowLogWriter::Create(1, kFeedLogBytesMin);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    writer_ = *std::move(made);
    auto log = FollowLog::Map(writer_->facts(), writer_->fd());
    EXPECT_TRUE(log.ok()) << log.status().ToString();
    log_ = *std::move(log);
  }
  std::unique_ptr<DictFollower> Follow(ChangeSelection selection = {}, uint64_t progress_ns = 0) {
    return std::make_unique<DictFollower>(
        SelectedChanges(log_, writer_->head_position(), revision_, std::move(selection)),
        progress_ns);
  }
  static ChangeSelection OneKey(const std::string& key) {
    ChangeSelection selection;
    selection.key = key;
    return selection;
  }
  void Write(const std::string& key, FeedOperation operation = FeedOperation::kPut) {
    DictChange change;
    change.revision = ++revision_;
    change.operation = operation;
    change.kind = DictKind::kInt64;
    change.key = key;
    writer_->Append(change);
    writer_->Commit();
    writer_->Wake();
  }
  static Keys KeysOf(const DictFollower::Portion& portion) {
    Keys keys;
    for (const DictChange& change : portion.changes) keys.push_back(change.key);
    return keys;
  }
  static bool IsReadable(int fd, int timeout_ms = 0) {
    pollfd waits{fd, POLLIN, 0};
    return ::poll(&waits, 1, timeout_ms) == 1;
  }
  // Sleeps and reads until there is something.
  Found Await(DictFollower* follower) {
    for (;;) {
      const Found found = follower->Read(&portion_);
      if (found != Found::kNothing && found != Found::kMore) return found;
      if (found == Found::kNothing) follower->Sleep(kPatienceNs);
    }
  }

  std::unique_ptr<FollowLogWriter> writer_;
  std::shared_ptr<const FollowLog> log_;
  uint64_t revision_ = 10;
  DictFollower::Portion portion_;
};

TEST_F(DictFollowerTest, GivesEachChangeThatWasAskedForOnce) {
  ChangeSelection selection;
  selection.prefix = "web/";
  selection.kinds = 1u << static_cast<uint32_t>(FeedOperation::kDelete);
  const auto follower = Follow(selection);
  EXPECT_EQ(follower->Read(&portion_), Found::kNothing);
  Write("web/a");
  Write("web/a", FeedOperation::kDelete);
  Write("db", FeedOperation::kDelete);

  EXPECT_EQ(follower->Read(&portion_), Found::kChanges);
  EXPECT_EQ(KeysOf(portion_), (Keys{"web/a"}));
  EXPECT_EQ(portion_.revision, 13u);
  EXPECT_EQ(follower->Read(&portion_), Found::kNothing);
  EXPECT_EQ(follower->Stop(), 13u);
}

TEST_F(DictFollowerTest, PortionsAreBounded) {
  const auto follower = Follow();
  for (int i = 0; i < 513; ++i) Write("a");

  EXPECT_EQ(follower->Read(&portion_), Found::kChanges);
  EXPECT_EQ(portion_.changes.size(), 512u);
  EXPECT_EQ(follower->Read(&portion_), Found::kChanges);
  EXPECT_EQ(portion_.changes.size(), 1u);
}

TEST_F(DictFollowerTest, AChangeWakesWhoSleeps) {
  const auto follower = Follow(OneKey("mine"));
  std::thread writer([&] {
    for (int i = 0; i < 100; ++i) {
      Write("other");
      SleepNs(100'000);
    }
    Write("mine");
  });

  EXPECT_EQ(Await(follower.get()), Found::kChanges);

  EXPECT_EQ(KeysOf(portion_), (Keys{"mine"}));
  writer.join();
}

TEST_F(DictFollowerTest, StoppingWakesWhoSleepsAndLetsGoOfTheLog) {
  const auto follower = Follow();
  std::thread stopper([&] {
    SleepNs(10'000'000);
    EXPECT_EQ(follower->Stop(), 10u);
  });

  EXPECT_EQ(Await(follower.get()), Found::kOver);

  stopper.join();
  Write("a");
  EXPECT_EQ(follower->Read(&portion_), Found::kOver);
  EXPECT_EQ(follower->Stop(), 10u);
  EXPECT_EQ(log_.use_count(), 1);
}

TEST_F(DictFollowerTest, OneThatEndsGivesWhatIsThereAndNothingElse) {
  const auto follower = Follow({}, 1);  // Progress is always due.
  Write("a");
  follower->EndHere();
  Write("b");

  EXPECT_EQ(Await(follower.get()), Found::kChanges);
  EXPECT_EQ(KeysOf(portion_), (Keys{"a"}));
  EXPECT_EQ(Await(follower.get()), Found::kOver);
  EXPECT_EQ(log_.use_count(), 1);
}

TEST_F(DictFollowerTest, GapsOverrunsAndNonsenseAreToldAfterWhatCameBefore) {
  const auto gap = Follow();
  Write("a");
  Write("", FeedOperation::kGap);
  EXPECT_EQ(gap->Read(&portion_), Found::kChanges);
  EXPECT_EQ(gap->Read(&portion_), Found::kFallBack);
  EXPECT_EQ(gap->Stop(), 11u);  // The stream is asked for the gap.

  const auto broken = Follow();
  Write("a");
  ++revision_;
  Write("b");
  EXPECT_EQ(broken->Read(&portion_), Found::kChanges);
  EXPECT_EQ(broken->Read(&portion_), Found::kBroken);

  const auto slow = Follow();
  for (int i = 0; i < 2'000; ++i) Write("a");
  EXPECT_EQ(slow->Read(&portion_), Found::kFallBack);
}

TEST_F(DictFollowerTest, ProgressComesWhenNothingWasGivenForSoLong) {
  const auto follower = Follow(OneKey("mine"), 20'000'000);
  Write("other");
  const uint64_t began_ns = MonotonicNs();

  EXPECT_EQ(Await(follower.get()), Found::kProgress);

  EXPECT_EQ(portion_.revision, 11u);
  EXPECT_TRUE(portion_.changes.empty());
  EXPECT_GE(MonotonicNs() - began_ns, 10'000'000u);
  EXPECT_EQ(follower->Read(&portion_), Found::kNothing);
}

class DictFollowerLoopTest : public DictFollowerTest {
 protected:
  int Begin(DictFollower* follower) {
    const StatusOr<int> fd = follower->ReadyFd();
    EXPECT_TRUE(fd.ok()) << fd.status().ToString();
    EXPECT_EQ(*follower->ReadyFd(), *fd);
    return *fd;
  }
};

TEST_F(DictFollowerLoopTest, TheDescriptorTellsOfWhatWasAskedForAlone) {
  const auto mine = Follow(OneKey("mine"));
  const auto others = Follow(OneKey("other"));
  const int fd = Begin(mine.get());
  const int mark = Begin(others.get());
  for (int round = 0; round < 100; ++round) {
    Write("other");
    ASSERT_TRUE(IsReadable(mark, kPatienceMs));
    others->ClearReady();
    EXPECT_EQ(others->Read(&portion_), Found::kChanges);
    EXPECT_EQ(others->Read(&portion_), Found::kNothing);
    EXPECT_FALSE(IsReadable(fd));
  }
  Write("mine");

  ASSERT_TRUE(IsReadable(fd, kPatienceMs));
  mine->ClearReady();
  EXPECT_FALSE(IsReadable(fd));
  EXPECT_EQ(mine->Read(&portion_), Found::kChanges);
  EXPECT_EQ(KeysOf(portion_), (Keys{"mine"}));
}

TEST_F(DictFollowerLoopTest, NothingIsMissedWhileOthersWrite) {
  const auto follower = Follow();
  const int fd = Begin(follower.get());
  constexpr size_t kChanges = 20'000;
  std::atomic<size_t> taken{0};
  std::thread writer([&] {
    for (size_t i = 0; i < kChanges; ++i) {
      while (i > taken + 500) SleepNs(100'000);  // The log is not overrun.
      Write(std::to_string(i));
    }
  });
  Keys keys;
  while (keys.size() < kChanges) {
    ASSERT_TRUE(IsReadable(fd, kPatienceMs)) << keys.size();
    follower->ClearReady();
    Found found = Found::kMore;
    while ((found = follower->Read(&portion_)) != Found::kNothing) {
      ASSERT_EQ(found, Found::kChanges);
      for (const std::string& key : KeysOf(portion_)) {
        ASSERT_EQ(key, std::to_string(keys.size()));
        keys.push_back(key);
      }
      taken = keys.size();
    }
  }
  writer.join();
}

TEST_F(DictFollowerLoopTest, TheDescriptorTellsOfProgressAgainAndAgain) {
  const auto follower = Follow({}, 5'000'000);
  const int fd = Begin(follower.get());
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(IsReadable(fd, kPatienceMs)) << round;
    follower->ClearReady();
    EXPECT_EQ(follower->Read(&portion_), Found::kProgress);
    while (follower->Read(&portion_) != Found::kNothing) continue;
  }
}

TEST_F(DictFollowerLoopTest, TheDescriptorTellsOfGapsEndsAndStops) {
  const auto ends = Follow();
  const int ends_fd = Begin(ends.get());
  ends->EndHere();
  ASSERT_TRUE(IsReadable(ends_fd, kPatienceMs));
  EXPECT_EQ(ends->Read(&portion_), Found::kOver);

  const auto stops = Follow();
  const int stops_fd = Begin(stops.get());
  stops->Stop();
  ASSERT_TRUE(IsReadable(stops_fd, kPatienceMs));
  EXPECT_EQ(stops->Read(&portion_), Found::kOver);

  const auto gap = Follow();
  const int gap_fd = Begin(gap.get());
  Write("", FeedOperation::kGap);
  ASSERT_TRUE(IsReadable(gap_fd, kPatienceMs));
  EXPECT_EQ(gap->Read(&portion_), Found::kFallBack);
}

}  // namespace
}  // namespace statehouse::python
