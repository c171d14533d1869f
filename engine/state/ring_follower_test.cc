// Those who follow the rings: what they are given before the daemon has drained them, and that the
// log says the same afterwards. Built a second time with seeded bugs that the story must show.
#include "engine/state/ring_follower.h"

#include <atomic>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/watch_mutant.h"
#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/state/change_claim.h"
#include "engine/state/ring_record.h"
#include "engine/state/test_dict_feed.h"

namespace statehouse {
namespace {

constexpr DictFeedOptions kSmall{kFeedLogBytesMin, 600'000};

TEST(ChangeClaimTest, AWordSaysWhoseRecordIsNext) {
  constexpr uint64_t kRevision = (uint64_t{1} << 50) + 7;
  EXPECT_EQ(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Of(kRevision, 1)), 1u);
  EXPECT_EQ(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Of(kRevision, kLanesMax - 1)),
            kLanesMax - 1);
  EXPECT_FALSE(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Of(kRevision, kLanesMax)));
  EXPECT_FALSE(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Open(kRevision)));
  EXPECT_FALSE(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Closed(kRevision)));
  EXPECT_FALSE(ChangeClaim::LaneAfter(kRevision, ChangeClaim::Of(kRevision + 1, 1)));
  EXPECT_FALSE(ChangeClaim::LaneAfter(kRevision, 0));
}

// Reads the log, and where that has no more the rings.
struct Follower {
  Follower(std::shared_ptr<const FollowLog> log, std::shared_ptr<ServedDict> served,
           uint64_t revision = 0)
      : reader(log, 0, revision),
        rings(std::shared_ptr<Dict>(served, &served->dict()), std::move(log)) {}

  // "1:put a=x"; "early 1:put a=x" of one that the log does not have yet, and then not again;
  // "lie: …" where the log says something else; "" for nothing.
  std::string Next() {
    DictChange change;
    for (;;) {
      const FollowLogReader::Found found = reader.Next(&change);
      if (found == FollowLogReader::Found::kNothing) break;
      if (found != FollowLogReader::Found::kChange) return "lie: the log";
      if (!early.has_value()) return Text(change);
      const std::string told = *std::exchange(early, std::nullopt);
      if (Text(change) != told) return "lie: " + told + " is " + Text(change);
    }
    if (rings.Next(reader.revision(), &change) != RingFollower::Found::kChange) return "";
    if (early.has_value()) return "lie: " + *early + " and " + Text(change);
    early = Text(change);
    return "early " + *early;
  }

  FollowLogReader reader;
  RingFollower rings;
  std::optional<std::string> early;
};

class RingFollowerTest : public DictFeedTest {
 protected:
  ~RingFollowerTest() override { chosen_mutant() = WatchMutant::kNone; }
  void SetUp() override {
    ASSERT_TRUE(JoinBarriers() && RingFollower::IsSupported()) << "this kernel has no membarrier";
    Begin(kSmall);
    auto made = FollowLogWriter::Create(served->record().id, kFeedLogBytesMin);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    writer = *std::move(made);
    auto mapped = FollowLog::Map(writer->facts(), writer->fd());
    ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
    log = *std::move(mapped);
    Publish();
  }

  // What the daemon does.
  void Publish() {
    std::vector<DictChange> fresh;
    while (feed->HasNews()) feed->Drain(&fresh);
    for (const DictChange& change : fresh) {
      writer->Append(change);
      story.push_back(Text(change));
    }
    if (!fresh.empty()) writer->Commit();
    writer->ShowCursors(feed->cursors(), dict().lane_high(), feed->head_revision() + 1);
    feed->OpenClaims();
    if (!fresh.empty()) writer->Wake();
  }
  // The daemon is killed, and the next one goes on.
  void AdoptFeed() {
    std::vector<DictChange> history;
    auto next = Adopt(feed->fd(), &history, kSmall);
    ASSERT_TRUE(next.ok()) << next.status().ToString();
    feed = *std::move(next);
  }
  Follower Follow() { return Follower(log, served, feed->head_revision()); }
  static void AfterPause() { SleepNs(kRingPauseNs + 100'000); }
#ifdef SH_WATCH_MUTANT
  static WatchMutant& chosen_mutant() { return chosen_watch_mutant; }
#else
  static WatchMutant& chosen_mutant() {
    static WatchMutant none = WatchMutant::kNone;
    return none;
  }
#endif

  std::unique_ptr<FollowLogWriter> writer;
  std::shared_ptr<const FollowLog> log;
  Strings story;  // What the log was given.
};

TEST_F(RingFollowerTest, AChangeIsGivenBeforeTheDaemonHasReadIt) {
  Follower follower = Follow();
  EXPECT_EQ(follower.Next(), "");
  Put("a", "x");
  EXPECT_EQ(follower.Next(), "early 1:put a=x");
  EXPECT_EQ(follower.Next(), "");
  Publish();
  EXPECT_EQ(follower.Next(), "");
  EXPECT_FALSE(follower.early.has_value());
  Delete("a", 9);
  EXPECT_EQ(follower.Next(), "early 2:delete a");
  Publish();
  EXPECT_EQ(follower.Next(), "");
  EXPECT_EQ(story, (Strings{"1:put a=x", "2:delete a"}));
}

TEST_F(RingFollowerTest, OnlyOneAtATimeIsGivenBeforeTheLogHasIt) {
  Follower follower = Follow();
  Put("a", "1");
  Put("b", "2");
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
  EXPECT_EQ(follower.Next(), "");
  Publish();
  EXPECT_EQ(follower.Next(), "2:put b=2");
  EXPECT_EQ(follower.Next(), "");
  AfterPause();
  Put("c", "3");
  EXPECT_EQ(follower.Next(), "early 3:put c=3");
}

TEST_F(RingFollowerTest, ChangesOfTwoLanesAreLeftToTheDaemon) {
  Follower follower = Follow();
  Put("a", "1", 1);
  Put("b", "2", 8);
  EXPECT_EQ(follower.Next(), "");
  const uint64_t due_ns = follower.rings.due_ns();
  EXPECT_LE(due_ns, MonotonicNs() + kRingPauseNs);
  Publish();
  EXPECT_EQ(follower.Next(), "1:put a=1");
  EXPECT_EQ(follower.Next(), "2:put b=2");
  Put("c", "3");
  std::string next = follower.Next();
  if (MonotonicNs() < due_ns) {
    EXPECT_EQ(next, "") << "it leaves the rings alone for a while";
  }
  AfterPause();
  if (next.empty()) next = follower.Next();
  EXPECT_EQ(next, "early 3:put c=3");
  EXPECT_EQ(follower.rings.due_ns(), UINT64_MAX);
}

TEST_F(RingFollowerTest, WhatWasGivenEarlyComesFirstWhateverElseTheDaemonFinds) {
  Follower follower = Follow();
  Put("z", "1", 9);
  EXPECT_EQ(follower.Next(), "early 1:put z=1");
  Put("a", "2", 1);
  Put("b", "3", 8);
  Publish();
  EXPECT_EQ(story, (Strings{"1:put z=1", "2:put a=2", "3:put b=3"}));
  EXPECT_EQ(follower.Next(), "2:put a=2");
}

TEST_F(RingFollowerTest, AllWhoFollowAreGivenTheSame) {
  Follower one = Follow();
  Follower two = Follow();
  Put("a", "1");
  EXPECT_EQ(one.Next(), "early 1:put a=1");
  EXPECT_EQ(two.Next(), "early 1:put a=1");
  Follower three = Follow();
  Put("b", "2", 8);
  EXPECT_EQ(three.Next(), "") << "it cannot know which of the two was claimed first";
  Publish();
  EXPECT_EQ(three.Next(), "1:put a=1");
  EXPECT_EQ(two.Next(), "2:put b=2");
}

TEST_F(RingFollowerTest, TheNextDaemonHonoursWhatWasGivenUnderTheOneBefore) {
  Follower follower = Follow();
  Put("z", "1", 9);
  EXPECT_EQ(follower.Next(), "early 1:put z=1");
  Put("a", "2", 1);
  AdoptFeed();
  Publish();
  EXPECT_EQ(story, (Strings{"1:put z=1", "2:put a=2"}));
}

// Else nobody is woken for the move: the daemon wakes no one for a change that all have.
TEST_F(RingFollowerTest, AMoveWasGivenToNobody) {
  Follower follower = Follow();
  Put("a", "1");
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
  Publish();
  EXPECT_TRUE(feed->has_claimed());
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  std::vector<DictChange> fresh;
  feed->Follow(*store->Find("d"), &fresh);
  EXPECT_EQ(Texts(fresh), Strings{"2:moved"});
  EXPECT_FALSE(feed->has_claimed());
}

TEST_F(RingFollowerTest, AClaimSurvivesADaemonThatFoundNothingElse) {
  Follower follower = Follow();
  Put("z", "1", 9);
  EXPECT_EQ(follower.Next(), "early 1:put z=1");
  feed->OpenClaims();  // As after a look that came just before the change.
  Put("a", "2", 1);
  Publish();
  EXPECT_EQ(story, (Strings{"1:put z=1", "2:put a=2"}));
}

// Whoever goes on after the revision that he was given must not miss the gap.
TEST_F(RingFollowerTest, AGapComesAfterWhatWasGivenEarlyAndLost) {
  Follower follower = Follow();
  Put("a", "1");
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
  for (int i = 0; i < 400; ++i) Put("a", std::string(250, 'x'));
  Publish();
  EXPECT_EQ(story, (Strings{"1:moved", "2:gap 1"}));
}

TEST_F(RingFollowerTest, LargeValuesAreLeftToTheDaemon) {
  Follower follower = Follow();
  Put("a", std::string(kInlineValueBytesMax, 'x'));
  EXPECT_EQ(follower.Next(), "early 1:put a=" + std::string(kInlineValueBytesMax, 'x'));
  Publish();
  EXPECT_EQ(follower.Next(), "");
  Put("a", std::string(kInlineValueBytesMax + 1, 'y'));
  EXPECT_EQ(follower.Next(), "");
  Publish();
  EXPECT_EQ(follower.Next(), "2:put a=" + std::string(kInlineValueBytesMax + 1, 'y'));
}

TEST_F(RingFollowerTest, ARecordThatWrapsAroundIsGivenWhole) {
  Follower follower = Follow();
  const std::string value(200, 'v');
  uint64_t revision = 0;
  for (uint64_t bytes = 0; bytes < 3 * kChangeRingBytes; bytes += value.size()) {
    Put("key", value);
    ASSERT_EQ(follower.Next(), "early " + std::to_string(++revision) + ":put key=" + value);
    Publish();
    ASSERT_EQ(follower.Next(), "");
  }
}

TEST_F(RingFollowerTest, NothingIsGivenWhereTheLogDoesNotSayHowFarItIs) {
  auto made = FollowLogWriter::Create(served->record().id, kFeedLogBytesMin);
  ASSERT_TRUE(made.ok());
  auto mapped = FollowLog::Map((*made)->facts(), (*made)->fd());
  ASSERT_TRUE(mapped.ok());
  Follower follower(*mapped, served);
  Put("a", "1");
  EXPECT_EQ(follower.Next(), "");
  EXPECT_FALSE(dict().IsArmed(kArmedFollow));
}

TEST_F(RingFollowerTest, NothingIsGivenOfADictThatMovesOrIsDeleted) {
  Follower follower = Follow();
  Put("a", "1");
  for (const DictState state : {DictState::kMoving, DictState::kMoved, DictState::kDeleted}) {
    dict().SetState(state);
    EXPECT_EQ(follower.Next(), "");
  }
  dict().SetState(DictState::kLive);
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
}

// Its change may have woken the follower alone, which cannot take it any more.
TEST_F(RingFollowerTest, OfADictThatMovesTheDaemonIsWoken) {
  Follower follower = Follow();
  ASSERT_TRUE(dict().ArmWatch(kArmedLate));
  dict().SetState(DictState::kMoving);
  const uint32_t before = dict().watch_event().load();
  EXPECT_EQ(follower.Next(), "");
  EXPECT_EQ(dict().watch_event().load(), before + 1);
}

// What a worker writes that ignores the protocol.
TEST_F(RingFollowerTest, AForgedClaimChangesNothingButTheOrder) {
  for (const uint64_t word : {ChangeClaim::Of(0, 3), ChangeClaim::Of(0, kLanesMax - 1),
                              ChangeClaim::Closed(0), ~uint64_t{0}, ChangeClaim::Of(0, 8)}) {
    dict().claim().store(word);
    feed = nullptr;
    story.clear();
    Begin(kSmall);
    Put("a", "1", 1);
    Put("a", "2", 8);
    Publish();
    EXPECT_EQ(story, (Strings{"1:put a=1", "2:put a=2"})) << word;
  }
}

TEST_F(RingFollowerTest, AForgedRecordIsLeftToTheDaemon) {
  Follower follower = Follow();
  Put("a", "1");
  const std::span<const std::byte> ring = dict().RingOf(1);
  const_cast<std::byte&>(ring[0]) = std::byte{3};  // Of its length.
  EXPECT_EQ(follower.Next(), "");
  Publish();
  EXPECT_EQ(story, (Strings{"1:gap 2"}));
  DictInternals::Record(dict(), 1).ring_head.store(8);  // Before what was read.
  AfterPause();
  DictChange change;
  EXPECT_EQ(RingFollower(std::shared_ptr<Dict>(served, &dict()), log).Next(1, &change),
            RingFollower::Found::kNothing);
}

TEST_F(RingFollowerTest, TheDaemonIsWokenByWhoFollowsAndByAChangeThatFindsNobody) {
  Follower follower = Follow();
  const std::atomic<uint32_t>& late = dict().watch_event();
  const std::atomic<uint32_t>& first = dict().follow_event();
  EXPECT_EQ(follower.Next(), "");  // Arms.
  ASSERT_TRUE(dict().ArmWatch(kArmedLate));
  const uint32_t late_before = late.load();
  const uint32_t first_before = first.load();
  Put("a", "1");
  EXPECT_EQ(late.load(), late_before);
  EXPECT_EQ(first.load(), first_before + 1);
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
  EXPECT_EQ(late.load(), late_before) << "first of all he has his change";
  EXPECT_EQ(follower.Next(), "");
  EXPECT_EQ(late.load(), late_before + 1);
  Publish();

  ASSERT_TRUE(dict().ArmWatch(kArmedLate));
  EXPECT_EQ(follower.Next(), "");
  Put("b", "2");
  Put("c", "3");  // Nobody has looked since.
  EXPECT_EQ(late.load(), late_before + 2);
  EXPECT_EQ(first.load(), first_before + 2);

  ASSERT_TRUE(dict().ArmWatch(kArmedWatch | kArmedFollow));
  Put("d", "4");
  EXPECT_EQ(late.load(), late_before + 3) << "whoever is not late is woken at once";
  EXPECT_EQ(first.load(), first_before + 3);
}

// Writers, followers that sleep, and a daemon that is late and is replaced now and then.
class RingFollowerSoak : public RingFollowerTest {
 protected:
  static constexpr int kWriters = 3;
  // So far writers are ahead of who follows at most: less than the log and a ring hold.
  static constexpr size_t kAheadMax = 300;

  // How many stories were not what the log says, and how many followers slept through the end.
  struct Lies {
    int stories = 0;
    int sleeps = 0;
    uint64_t early = 0;
    size_t changes = 0;
    std::string first;
  };
  // Goes on until more than `early` changes were told early. Who has not been told all
  // `patience_ns` after the last change sleeps through it.
  Lies Run(int changes, uint64_t seed, uint64_t patience_ns, uint64_t early = 0) {
    is_over_ = false;
    std::vector<Listener> listeners(2);
    std::atomic<size_t> puts{0};
    const uint64_t give_up_ns = MonotonicNs() + patience_ns;
    const auto await_listeners = [&] {
      for (const Listener& each : listeners) {
        while (puts > each.count + kAheadMax && MonotonicNs() < give_up_ns) SleepNs(100'000);
      }
    };
    std::vector<std::thread> threads;
    for (Listener& each : listeners) threads.emplace_back([&, this] { Listen(&each); });
    std::thread daemon([&, this] { Serve(seed); });
    std::vector<std::thread> writers;
    for (uint32_t i = 0; i < kWriters; ++i) {
      writers.emplace_back([&, this, i] {
        std::mt19937_64 random(seed + i);
        for (int n = 0; n < changes; ++n) {
          await_listeners();
          ++puts;
          Put("k" + std::to_string(random() % 2), std::to_string(n), 8 + i);
          if (random() % 4 != 0) SleepNs(random() % 200'000);
        }
      });
    }
    for (std::thread& each : writers) each.join();
    // The last changes come one by one, to those who sleep.
    const auto told_early = [&] { return listeners[0].early + listeners[1].early; };
    for (int n = 0; n < kLast || (told_early() <= early && MonotonicNs() < give_up_ns); ++n) {
      SleepNs(5'000'000);
      ++puts;
      Put("last", std::to_string(n), 8);
    }
    Lies lies;
    const size_t all = lies.changes = puts;
    const uint64_t until_ns = MonotonicNs() + patience_ns;
    for (const Listener& each : listeners) {
      while (each.count < all && MonotonicNs() < until_ns) SleepNs(1'000'000);
      lies.sleeps += each.count < all ? 1 : 0;
    }
    lies.early = told_early();
    is_over_ = true;
    dict().SetState(DictState::kLive);  // Wakes all.
    for (std::thread& each : threads) each.join();
    daemon.join();
    for (const Listener& each : listeners) {
      const std::span<const std::string> begun(story.data(),
                                               std::min(story.size(), each.told.size()));
      const auto [mine, logged] =
          std::mismatch(each.told.begin(), each.told.end(), begun.begin(), begun.end());
      if (mine == each.told.end()) continue;
      ++lies.stories;
      lies.first = *mine + ", not " + (logged == begun.end() ? "a further one" : *logged);
    }
    return lies;
  }

 private:
  static constexpr int kLast = 20;

  struct Listener {
    Strings told;
    std::atomic<size_t> count{0};
    std::atomic<uint64_t> early{0};
  };
  void Listen(Listener* mine) {
    Follower follower(log, served);
    while (!is_over_) {
      const std::atomic<uint32_t>* const words[] = {&log->event(), &follower.rings.event()};
      const uint32_t seen[] = {words[0]->load(), words[1]->load()};
      std::string next = follower.Next();
      if (next.starts_with("early ")) {
        ++mine->early;
        next = next.substr(6);
      }
      if (!next.empty()) {
        mine->told.push_back(std::move(next));
        ++mine->count;
        continue;
      }
      const uint64_t now_ns = MonotonicNs();
      const uint64_t due_ns = follower.rings.due_ns();
      constexpr uint64_t kLongNs = 3'600'000'000'000;
      if (due_ns > now_ns) FutexWaitAny(words, seen, std::min(due_ns - now_ns, kLongNs));
    }
  }
  // Is asleep for the most part, and looks each 2 ms whatever its word says, so that no ring is
  // lost.
  void Serve(uint64_t seed) {
    std::mt19937_64 random(seed * 7);
    while (!is_over_) {
      const uint32_t event = dict().watch_event().load();
      dict().ArmWatch(kArmedLate);
      FutexWait(dict().watch_event(), event, 2'000'000);
      if (random() % 50 == 0) AdoptFeed();
      if (random() % 3 == 0) SleepNs(random() % 300'000);
      Publish();
    }
    Publish();
  }

  std::atomic<bool> is_over_{false};
};

TEST_F(RingFollowerSoak, WhatIsGivenEarlyIsWhatTheLogSays) {
  const Lies lies = Run(4'000, 1, 60'000'000'000, 20);
  EXPECT_EQ(lies.stories, 0) << lies.first;
  EXPECT_EQ(lies.sleeps, 0);
  EXPECT_GT(lies.early, 20u);
  EXPECT_EQ(story.size(), lies.changes);
}

#ifdef SH_WATCH_MUTANT

TEST_F(RingFollowerSoak, SeededBugsAreFound) {
  for (const WatchMutant mutant : {WatchMutant::kClaimIgnored, WatchMutant::kClaimAnyLane}) {
    chosen_watch_mutant = mutant;
    int lies = 0;
    for (uint64_t seed = 1; lies == 0 && seed < 20; ++seed) {
      story.clear();
      lies += Run(1'000, seed, 200'000'000).stories;
      if (lies > 0) break;
      chosen_watch_mutant = WatchMutant::kNone;
      SetUp();
      chosen_watch_mutant = mutant;
    }
    EXPECT_GT(lies, 0) << static_cast<int>(mutant);
    chosen_watch_mutant = WatchMutant::kNone;
    story.clear();
    SetUp();
  }
}

TEST_F(RingFollowerTest, AGapThatTakesTheGivenRevisionIsFound) {
  chosen_watch_mutant = WatchMutant::kClaimGivenToGap;
  Follower follower = Follow();
  Put("a", "1");
  EXPECT_EQ(follower.Next(), "early 1:put a=1");
  for (int i = 0; i < 400; ++i) Put("a", std::string(250, 'x'));
  Publish();
  EXPECT_EQ(story, (Strings{"1:gap 1"}));
}

// Between the looks at two lanes the first gets a change, and the second one that comes after it.
TEST_F(RingFollowerTest, WhatCameWhileTheLanesWereLookedAtIsFoundByTheSecondLook) {
  for (const bool has_bug : {false, true}) {
    SetUp();
    Follower follower = Follow();
    EXPECT_EQ(follower.Next(), "");
    chosen_watch_mutant = has_bug ? WatchMutant::kClaimOneLook : WatchMutant::kNone;
    int lanes = 0;
    at_watch_point = [&](WatchPoint) {
      if (++lanes != 5) return;
      Put("k", "1", 1);
      Put("k", "2", 9);
    };
    const std::string next = follower.Next();
    at_watch_point = nullptr;
    chosen_watch_mutant = WatchMutant::kNone;
    EXPECT_EQ(next, has_bug ? "early 1:put k=2" : "");
    Publish();
    if (!has_bug) {
      EXPECT_EQ(follower.Next(), "1:put k=1");
    }
    EXPECT_EQ(follower.Next().starts_with("lie"), has_bug);
  }
}

TEST_F(RingFollowerTest, WhoDoesNotArmIsNotWoken) {
  chosen_watch_mutant = WatchMutant::kClaimNotArmed;
  Follower follower = Follow();
  EXPECT_EQ(follower.Next(), "");
  const uint32_t before = dict().follow_event().load();
  Put("a", "1");
  EXPECT_EQ(dict().follow_event().load(), before);
}

#endif

}  // namespace
}  // namespace statehouse
