// Windows of watches of dicts: what changes inside one comes at its end, together and in order, and
// nothing waits longer or is lost.
#include <string>
#include <vector>

#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

using Kind = WatchEvent::Kind;
using Texts = std::vector<std::string>;

constexpr uint64_t kWindowNs = kWatchWindowMsMax * 1'000'000;

class WatchWindowTest : public WatchTurnTest {
 protected:
  WatchAsk Windowed(SlowPolicy slow_policy = SlowPolicy::kResync) const {
    WatchAsk ask = Ask();
    ask.window_ns = kWindowNs;
    ask.slow_policy = slow_policy;
    return ask;
  }
  // "key=value", and "*" where it stands for older ones.
  static Texts TextsOf(const WatchEvent& event) {
    Texts texts;
    for (const WatchEvent::Told& told : event.changes) {
      const DictChange& change = told.change->change;
      texts.push_back(change.key + "=" + change.bytes + (told.coalesced ? "*" : ""));
    }
    return texts;
  }
  // The first change, which is told at once.
  void OpenWindow(Watcher& watcher) {
    Put("first", "1");
    WatchEvent event;
    ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
    ASSERT_EQ(TextsOf(event), (Texts{"first=1"}));
  }
};

TEST_F(WatchWindowTest, WhatChangesInItComesTogetherAtItsEnd) {
  Watcher watcher(*hub, Windowed());
  Sync(watcher);
  OpenWindow(watcher);
  WatchEvent event;
  for (const char* text : {"2", "3"}) {
    Put("a", text);
    EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  }
  Put("b", "4");
  now_ns_ += kWindowNs - 1;
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_EQ(hub->Turn(), now_ns_ + 1);
  now_ns_ += 1;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(TextsOf(event), (Texts{"a=2", "a=3", "b=4"}));
  EXPECT_EQ(hub->Totals().coalesced, 0u);
  // Of a quiet dict nothing is told, and the next change at once.
  now_ns_ += kWindowNs;
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_GT(hub->Turn(), now_ns_ + kWindowNs);
  Put("c", "5");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(TextsOf(event), (Texts{"c=5"}));
}

TEST_F(WatchWindowTest, WithLatestTheNewestOfEachKeyAloneComes) {
  Watcher watcher(*hub, Windowed(SlowPolicy::kLatest));
  Sync(watcher);
  OpenWindow(watcher);
  for (const char* text : {"2", "3", "4"}) Put("a", text);
  Put("b", "5");
  Delete("a");
  now_ns_ += kWindowNs;
  WatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(TextsOf(event), (Texts{"b=5", "a=*"}));
  EXPECT_EQ(event.changes[1].change->change.operation, FeedOperation::kDelete);
  EXPECT_EQ(hub->Totals().coalesced, 3u);
  EXPECT_EQ(hub->Totals().changes, 3u);
}

TEST_F(WatchWindowTest, WithoutOneEveryChangeComesAsItIsMade) {
  WatchAsk ask = Ask();
  ask.slow_policy = SlowPolicy::kLatest;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  OpenWindow(watcher);
  for (const char* text : {"2", "3"}) Put("a", text);
  WatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(TextsOf(event), (Texts{"a=2", "a=3"}));
}

TEST_F(WatchWindowTest, AFullMessageIsFollowedAtOnce) {
  constexpr size_t kChanges = 1200;
  Watcher watcher(*hub, Windowed());
  Sync(watcher);
  OpenWindow(watcher);
  for (size_t i = 0; i < kChanges; ++i) {
    Put("k" + std::to_string(i), "x");
    hub->Turn();
  }
  now_ns_ += kWindowNs;
  size_t told = 0;
  size_t messages = 0;
  WatchEvent event;
  for (; told < kChanges; ++messages) {
    ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
    told += event.changes.size();
  }
  EXPECT_EQ(told, kChanges);
  EXPECT_GT(messages, 1u);
  // The window came after the last one.
  Put("k0", "y");
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
}

TEST_F(WatchWindowTest, SyncedWaitsForNoneAndAResyncForOneAtMost) {
  Watcher watcher(*hub, Windowed());
  Sync(watcher);
  OpenWindow(watcher);
  uint64_t entries = 0;
  bool cleared = false;
  ASSERT_TRUE(store->ClearDict(At(3), served, &entries, &cleared).ok());
  served = *store->Find("d");
  Put("new", "1");
  now_ns_ += kWindowNs;
  EXPECT_EQ(Await(watcher, Kind::kResync).reason, ResyncReason::kReplaced);
  EXPECT_EQ(Await(watcher, Kind::kSnapshot).entries.size(), 1u);
  Sync(watcher);
  // Another one goes on with changes that come before `synced`, and none is held back.
  WatchAsk resumes = Windowed();
  resumes.from_revision = 0;
  {
    Watcher earlier(*hub, Windowed());
    resumes.from_revision = Await(earlier, Kind::kSynced).revision;
  }
  Put("a", "1");
  hub->Turn();
  Watcher other(*hub, resumes);
  EXPECT_EQ(TextsOf(Await(other, Kind::kChanges)), (Texts{"a=1"}));
  Sync(other);
}

TEST_F(WatchWindowTest, ProgressComesAfterAsLongAsWithoutOne) {
  WatchAsk ask = Windowed();
  ask.progress_ms = kProgressMsMin;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  OpenWindow(watcher);
  now_ns_ += kProgressMsMin * 1'000'000 - 1;
  WatchEvent event;
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  now_ns_ += 1;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kProgress);
  // It opens no window.
  Put("a", "1");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(TextsOf(event), (Texts{"a=1"}));
}

// Whoever changes the dict and looks himself has to wake the hub, which else sleeps on.
TEST_F(WatchHubTest, TheLastChangeInAWindowIsToldByTheHubsThread) {
  Start();
  WatchAsk ask = Ask();
  ask.window_ns = kWindowNs;
  Watcher watcher(*hub, ask);
  Replayer replayer;
  CatchUp(watcher, replayer);
  for (int i = 0; i < 200; ++i) {
    Put("a", std::to_string(i));
    hub->LookNow(served->record().id);
    WatchEvent event;
    if (watcher.TryNext(&event) == Watch::Found::kEvent) replayer.Apply(event);
  }
  while (replayer.entries["a"].second != "199") {
    WatchEvent event;
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  ExpectIsTheDict(replayer);
}

}  // namespace
}  // namespace statehouse
