// A daemon that is killed while it writes the feed of a dict: at each store that the next daemon
// would see, what it left is copied, and the next daemon goes on from the copy. It must have what
// the dead one had given, and tell all that is still in the rings, or a gap.
#include <functional>
#include <set>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/memory.h"
#include "engine/state/change_claim.h"
#include "engine/state/test_dict_feed.h"

namespace statehouse {
namespace {

constexpr DictFeedOptions kSmall{kFeedLogBytesMin, 600'000};

class DictFeedKillTest : public DictFeedTest {
 protected:
  using Check = std::function<void(int left)>;

  ~DictFeedKillTest() override {
    at_watch_point = nullptr;
    chosen_watch_mutant = WatchMutant::kNone;
  }

  // A history that has no room for another change.
  void Fill() {
    constexpr size_t kRecord = 512;
    const std::string key = "full";
    Begin(kSmall);
    for (uint64_t i = 0; i < kFeedLogBytesMin / kRecord; ++i) {
      Put(key, std::string(kRecord - sizeof(FeedRecord) - key.size(), 'x'));
      (void)Drain();
    }
    ASSERT_EQ(feed->tail_revision(), 1u);
  }
  // Checks what a daemon leaves that is killed at any store of `done` into the feed `fd`, and what
  // it leaves when it is through. Returns how many that were.
  size_t KillWhile(const std::function<void()>& done, int fd, const Check& check) {
    size_t kills = 0;
    const auto kill = [&] {
      ++kills;
      check(Copy(fd).get());
    };
    at_watch_point = [&](WatchPoint point) {
      if (point != WatchPoint::kFeedBeforeStore) return;
      const std::function<void(WatchPoint)> outer = std::exchange(at_watch_point, nullptr);
      kill();
      at_watch_point = outer;
    };
    done();
    at_watch_point = nullptr;
    kill();
    return kills;
  }
  // What the next daemon tells after `revision`, from what was left and from the rings.
  Strings Told(int left, uint64_t revision) {
    std::vector<DictChange> changes;
    auto adopted = Adopt(left, &changes, kSmall);
    EXPECT_TRUE(adopted.ok()) << adopted.status().ToString();
    if (!adopted.ok()) return {};
    while ((*adopted)->HasNews()) (*adopted)->Drain(&changes);
    std::erase_if(changes, [&](const DictChange& change) { return change.revision <= revision; });
    return Texts(changes);
  }
  // The same by the daemon after the next one, wherever that is killed.
  std::set<Strings> ToldAfterTheNext(int left, uint64_t revision) {
    std::set<Strings> stories;
    KillWhile([&] { (void)Told(left, revision); }, left,
              [&](int left_by_next) { stories.insert(Told(left_by_next, revision)); });
    return stories;
  }
  // In the next segment there are two new entries.
  void MoveOn(bool clears) {
    uint64_t entries = 0;
    bool cleared = false;
    const Status moved = clears ? store->ClearDict(At(3), served, &entries, &cleared)
                                : store->MoveDict(At(3), served, DictStore::Move::kGrow);
    ASSERT_TRUE(moved.ok()) << moved.ToString();
    served = *store->Find("d");
    Put("a", "1");
    Put("b", "2", 2);
  }
  // The stories that next daemons tell when one is killed that follows into the next segment.
  std::set<Strings> StoriesOfMove(bool clears) {
    Fill();
    first_ = feed->head_revision() + 1;
    MoveOn(clears);
    std::vector<DictChange> fresh;
    std::set<Strings> stories;
    KillWhile([&] { feed->Follow(served, &fresh); }, feed->fd(),
              [&](int left) { stories.insert(Told(left, first_ - 1)); });
    return stories;
  }
  Strings FromFirst(Strings what) const {
    what.insert(what.end(), {"put a=1", "put b=2"});
    uint64_t revision = first_;
    for (std::string& each : what) each = std::to_string(revision++) + ":" + each;
    return what;
  }
  // Of a clear, whose daemon was killed after it had followed or before.
  std::set<Strings> StoriesOfClear() const {
    return {FromFirst({"gap 3"}), FromFirst({"moved", "gap 3"})};
  }

  uint64_t first_ = 0;  // Revision of what comes first after the move.

 private:
  static UniqueFd Copy(int fd) {
    const uint64_t bytes = *FileBytes(fd);
    std::vector<std::byte> all(bytes);
    EXPECT_EQ(pread(fd, all.data(), bytes, 0), static_cast<ssize_t>(bytes));
    UniqueFd copy = *CreateSealedMemory("statehouse-feed", bytes);
    EXPECT_EQ(pwrite(copy.get(), all.data(), bytes, 0), static_cast<ssize_t>(bytes));
    return copy;
  }
};

TEST_F(DictFeedKillTest, WhatWasReadFromTheRingsIsToldOnce) {
  Fill();
  const uint64_t given = feed->head_revision();
  for (int round = 0; round < 3; ++round) {
    Put("a", std::to_string(round));
    Put("b", "y" + std::to_string(round), 2);
  }
  std::vector<DictChange> fresh;
  std::vector<std::set<Strings>> stories;
  const size_t kills =
      KillWhile([&] { feed->Drain(&fresh); }, feed->fd(),
                [&](int left) { stories.push_back(ToldAfterTheNext(left, given)); });
  EXPECT_GE(kills, 15u);
  ASSERT_EQ(fresh.size(), 6u);
  for (size_t i = 0; i < kills; ++i) {
    EXPECT_EQ(stories[i], std::set<Strings>{Texts(fresh)}) << "store " << i;
  }
}

TEST_F(DictFeedKillTest, AClearIsToldWhateverTheDaemonWasKilledAt) {
  const std::set<Strings> stories = StoriesOfMove(/*clears=*/true);
  EXPECT_EQ(stories, StoriesOfClear());
}

TEST_F(DictFeedKillTest, AGrowthIsToldOrAGapWhateverTheDaemonWasKilledAt) {
  const std::set<Strings> stories = StoriesOfMove(/*clears=*/false);
  EXPECT_EQ(stories, (std::set<Strings>{FromFirst({"moved", "gap 3"}), FromFirst({"moved"})}));
}

TEST_F(DictFeedKillTest, AClearIsToldAlsoByTheDaemonAfterTheNext) {
  Fill();
  first_ = feed->head_revision() + 1;
  MoveOn(/*clears=*/true);
  EXPECT_EQ(ToldAfterTheNext(feed->fd(), first_ - 1),
            std::set<Strings>{FromFirst({"moved", "gap 3"})});
}

TEST_F(DictFeedKillTest, MarksThatNameTheNextSegmentTooEarlyAreFound) {
  chosen_watch_mutant = WatchMutant::kFeedNextGenerationEarly;
  const std::set<Strings> stories = StoriesOfMove(/*clears=*/true);
  EXPECT_NE(stories, StoriesOfClear());
}

// Whoever was given a change before the daemon had read it keeps its revision, wherever the daemon
// and the next one are killed.
TEST_F(DictFeedKillTest, WhatSomebodyWasGivenIsHonoured) {
  Fill();
  const uint64_t given = feed->head_revision();
  feed->OpenClaims();
  Put("z", "1", 9);
  const uint64_t claim = ChangeClaim::Of(given, 9);
  dict().claim().store(claim);
  Put("a", "2", 1);
  Put("b", "3", 8);
  const std::string first = std::to_string(given + 1) + ":put z=1";
  std::vector<DictChange> fresh;
  size_t stories = 0;
  KillWhile(
      [&] {
        feed->Drain(&fresh);
        feed->OpenClaims();
      },
      feed->fd(),
      [&](int left) {
        const uint64_t word = dict().claim().load();
        for (const Strings& story : ToldAfterTheNext(left, given)) {
          ++stories;
          ASSERT_EQ(story.size(), 3u);
          EXPECT_EQ(story.front(), first);
        }
        dict().claim().store(word);
      });
  EXPECT_GE(stories, 15u);
  EXPECT_EQ(Text(fresh.front()), first);
}

}  // namespace
}  // namespace statehouse
