// Watches: snapshot, synced, changes; resumes; slow watchers; moves, gaps and restarts. A replayer
// applies what a watcher is told to a map of its own, refuses what repeats or goes backward, and the
// map must be the dict once it is quiet.
#include "service/watch/watch_hub.h"

#include <unistd.h>

#include <array>
#include <condition_variable>
#include <random>

#include "engine/os/futex.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;

class KeepingVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_[name] = UniqueFd(dup(fd));
    return Status();
  }
  Status Remove(const std::string& name) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.erase(name);
    return Status();
  }
  std::map<std::string, UniqueFd> Inherit(std::string_view prefix) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::map<std::string, UniqueFd> copies;
    for (const auto& [name, fd] : kept_) {
      if (name.starts_with(prefix)) copies[name] = UniqueFd(dup(fd.get()));
    }
    return copies;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, UniqueFd> kept_;
};

// A watch with somewhere to sleep until it is notified.
class Watcher {
 public:
  Watcher(WatchHub& hub, WatchAsk ask) {
    auto opened = hub.Open(std::move(ask), [this] {
      const std::lock_guard<std::mutex> lock(mutex_);
      notified_ = true;
      changed_.notify_one();
    });
    if (opened.ok()) watch_ = *std::move(opened);
  }
  bool is_open() const { return watch_ != nullptr; }
  ~Watcher() {
    if (watch_ != nullptr) watch_->Close();
  }

  // The next event, or what it was instead within `patience`.
  Watch::Found Next(WatchEvent* event, milliseconds patience = milliseconds(10'000)) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        notified_ = false;
      }
      const Watch::Found found = watch_->Poll(event);
      if (found != Watch::Found::kNothing) return found;
      std::unique_lock<std::mutex> lock(mutex_);
      if (!changed_.wait_until(lock, until, [this] { return notified_; })) return found;
    }
  }
  const Status& status() const { return watch_->status(); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool notified_ = false;
  std::shared_ptr<Watch> watch_;
};

std::string ValueText(const DictEntry& entry) {
  return entry.kind == DictKind::kBytes ? entry.bytes : std::to_string(entry.bits);
}

// What a watcher knows. Faults: a repeat, a step backward, or a change before a snapshot's entry.
class Replayer {
 public:
  void Apply(const WatchEvent& event) {
    switch (event.kind) {
      case WatchEvent::Kind::kSnapshot:
        EXPECT_FALSE(synced);
        for (const DictEntry& entry : event.entries) {
          EXPECT_TRUE(entries.emplace(entry.key, std::pair(entry.version, ValueText(entry))).second)
              << entry.key << " came twice";
          versions[entry.key] = entry.version;
        }
        break;
      case WatchEvent::Kind::kChanges:
        for (const WatchEvent::Told& told : event.changes) ApplyChange(told.change->change);
        break;
      case WatchEvent::Kind::kSynced:
        EXPECT_FALSE(synced);
        synced = true;
        break;
      case WatchEvent::Kind::kResync:
        ++resyncs;
        last_reason = event.reason;
        entries.clear();
        versions.clear();
        synced = false;
        break;
      case WatchEvent::Kind::kProgress: ++progress; break;
    }
    if (event.revision != 0) {
      EXPECT_GE(event.revision, revision);
      revision = event.revision;
    }
  }

  std::map<std::string, std::pair<uint64_t, std::string>> entries;  // Key -> version, value.
  std::map<std::string, uint64_t> versions;                         // Also of what was deleted.
  uint64_t revision = 0;  // The last one that can be resumed from.
  uint64_t changes = 0;
  uint64_t resyncs = 0;
  uint64_t progress = 0;
  bool synced = false;
  ResyncReason last_reason{};

 private:
  void ApplyChange(const DictChange& change) {
    ++changes;
    EXPECT_GT(change.revision, last_change_) << "a repeat, or out of order";
    last_change_ = change.revision;
    uint64_t& version = versions[change.key];
    EXPECT_GT(change.version, version) << change.key << " went backward, or repeats";
    version = change.version;
    if (change.operation == FeedOperation::kPut) {
      DictEntry entry;
      entry.kind = change.kind;
      entry.bits = change.bits;
      entry.bytes = change.bytes;
      entries[change.key] = {change.version, change.value_gone ? "gone" : ValueText(entry)};
    } else {
      EXPECT_EQ(entries.erase(change.key), 1u) << change.key << " was deleted, and not there";
    }
  }

  uint64_t last_change_ = 0;
};

class WatchHubTest : public testing::Test {
 protected:
  WatchHubTest() {
    std::map<std::string, UniqueFd> nothing;
    std::vector<std::string> warnings;
    auto started = DictStore::Start({}, &nothing, &vault, &warnings);
    EXPECT_TRUE(started.ok()) << started.status().ToString();
    store = std::move(*started);
    DictSpec spec;
    spec.name = "d";
    spec.max_entries = 100'000;
    spec.max_bytes = 64 << 20;
    auto created = store->Create(spec);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    served = created->dict;
    EXPECT_TRUE(served->dict().PrepareLanes(8, 8).ok());
  }
  ~WatchHubTest() override {
    if (hub != nullptr) hub->Shutdown();
  }

  void Start(WatchHubOptions options = {}) {
    if (hub != nullptr) hub->Shutdown();
    hub = WatchHub::Start(options, store.get(), &vault, vault.Inherit("feed."));
  }
  WatchAsk Ask() const {
    WatchAsk ask;
    ask.served = served;
    return ask;
  }
  static Lane At(uint32_t lane) { return {lane, kOperationTimeoutNsDefault}; }
  void Put(std::string_view key, std::string_view value, uint32_t lane = 1) {
    DictResult result;
    const Status status = served->dict().Set(At(lane), key, DictValue::Bytes(value), {}, &result);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void Delete(std::string_view key, uint32_t lane = 1) {
    DictResult result;
    const Status status = served->dict().Delete(At(lane), key, {}, &result);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // Until it is synced, and then until it has all that was changed before this call.
  void CatchUp(Watcher& watcher, Replayer& replayer) {
    ASSERT_TRUE(watcher.is_open());
    WatchEvent event;
    while (!replayer.synced) {
      ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
      replayer.Apply(event);
    }
    Put("zz-mark", std::to_string(++marks_));
    const auto has_mark = [&] {
      const auto at = replayer.entries.find("zz-mark");
      return at != replayer.entries.end() && at->second.second == std::to_string(marks_);
    };
    while (!has_mark() || !replayer.synced) {
      ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
      replayer.Apply(event);
    }
  }
  void ExpectIsTheDict(const Replayer& replayer, std::string_view prefix = "") {
    std::map<std::string, std::pair<uint64_t, std::string>> all;
    uint32_t bucket = 0;
    const Status status =
        served->dict().Scan(&bucket, SIZE_MAX, prefix, [&](DictEntry& entry) {
          all[entry.key] = {entry.version, ValueText(entry)};
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(replayer.entries, all);
  }

  KeepingVault vault;
  std::unique_ptr<DictStore> store;
  std::shared_ptr<ServedDict> served;
  std::shared_ptr<WatchHub> hub;

 private:
  int marks_ = 0;
};

TEST_F(WatchHubTest, ASnapshotThenSyncedThenChanges) {
  Put("a", "1");
  Put("b", "2");
  Start();
  Watcher watcher(*hub, Ask());
  WatchEvent event;
  Replayer replayer;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSnapshot);
  EXPECT_EQ(event.entries.size(), 2u);
  EXPECT_EQ(event.revision, 0u);
  replayer.Apply(event);
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSynced);
  EXPECT_GT(event.revision, 0u);
  replayer.Apply(event);
  EXPECT_EQ(watcher.Next(&event, milliseconds(20)), Watch::Found::kNothing);
  Put("a", "3");
  Delete("b");
  while (replayer.changes < 2) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  ExpectIsTheDict(replayer);
  const WatchTotals totals = hub->Totals();
  EXPECT_EQ(totals.watches, 1u);
  EXPECT_EQ(totals.dicts, 1u);
  EXPECT_EQ(totals.changes, 2u);
}

TEST_F(WatchHubTest, AnEmptyDictIsSyncedToo) {
  Start();
  Watcher watcher(*hub, Ask());
  WatchEvent event;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSynced);
}

TEST_F(WatchHubTest, OneKeyAPrefixKindsAndNoSnapshot) {
  Put("web/a", "1");
  Put("web/b", "2");
  Put("db/a", "3");
  Start();
  WatchAsk one = Ask();
  one.key = "web/a";
  WatchAsk prefix = Ask();
  prefix.prefix = "web/";
  WatchAsk deletes = Ask();
  deletes.snapshot = false;
  deletes.kinds = 1u << static_cast<int>(FeedOperation::kDelete);
  std::array<Watcher*, 3> watchers = {new Watcher(*hub, one), new Watcher(*hub, prefix),
                                      new Watcher(*hub, deletes)};
  std::array<Replayer, 3> replayers;
  WatchEvent event;
  for (size_t i = 0; i < watchers.size(); ++i) {
    while (!replayers[i].synced) {
      ASSERT_EQ(watchers[i]->Next(&event), Watch::Found::kEvent);
      replayers[i].Apply(event);
    }
  }
  EXPECT_EQ(replayers[0].entries.size(), 1u);
  EXPECT_EQ(replayers[1].entries.size(), 2u);
  EXPECT_EQ(replayers[2].entries.size(), 0u);
  Put("db/a", "4");
  Put("web/a", "5");
  Put("web/ab", "6");
  Delete("web/b");
  ASSERT_EQ(watchers[0]->Next(&event), Watch::Found::kEvent);
  ASSERT_EQ(event.changes.size(), 1u);
  EXPECT_EQ(event.changes[0].change->change.bytes, "5");
  EXPECT_EQ(watchers[0]->Next(&event, milliseconds(20)), Watch::Found::kNothing);
  while (replayers[1].changes < 3) {
    ASSERT_EQ(watchers[1]->Next(&event), Watch::Found::kEvent);
    replayers[1].Apply(event);
  }
  ExpectIsTheDict(replayers[1], "web/");
  ASSERT_EQ(watchers[2]->Next(&event), Watch::Found::kEvent);
  ASSERT_EQ(event.changes.size(), 1u);
  EXPECT_EQ(event.changes[0].change->change.key, "web/b");
  for (Watcher* watcher : watchers) delete watcher;
}

TEST_F(WatchHubTest, AWatchGoesOnAfterItsLastRevisionAlsoInTheNextDaemon) {
  Start();
  std::mt19937_64 random(11);
  Replayer replayer;
  uint64_t count = 0;
  for (int round = 0; round < 60; ++round) {
    WatchAsk ask = Ask();
    if (replayer.revision != 0) ask.from_revision = replayer.revision;
    Watcher watcher(*hub, ask);
    replayer.synced = false;
    CatchUp(watcher, replayer);
    ExpectIsTheDict(replayer);
    for (uint64_t i = random() % 20; i > 0; --i) {
      const std::string key = "k" + std::to_string(random() % 10);
      if (random() % 4 == 0) {
        Delete(key);
      } else {
        Put(key, std::to_string(count++), 8 + random() % 3);
      }
    }
    WatchEvent event;
    // Some of what came, so that the next watch begins in the middle.
    if (random() % 2 == 0 && watcher.Next(&event, milliseconds(1)) == Watch::Found::kEvent) {
      replayer.Apply(event);
    }
    if (round % 3 == 2) Start();  // The next daemon.
  }
  EXPECT_EQ(replayer.resyncs, 0u);
}

TEST_F(WatchHubTest, RevisionsThatNobodyKnowsOrThatAreGoneMeanResync) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  Start(options);
  Replayer first;
  {
    Watcher watcher(*hub, Ask());
    CatchUp(watcher, first);
  }
  for (int i = 0; i < 3000; ++i) {
    Put("k" + std::to_string(i % 7), std::to_string(i));
    if (i % 100 == 99) SleepNs(2'000'000);
  }
  WatchAsk old = Ask();
  old.from_revision = first.revision;
  Replayer replayer;
  Watcher watcher(*hub, old);
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 1u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kHistoryGone);
  ExpectIsTheDict(replayer);
  WatchAsk future = Ask();
  future.from_revision = replayer.revision + 1000;
  Replayer other;
  Watcher from_future(*hub, future);
  CatchUp(from_future, other);
  EXPECT_EQ(other.resyncs, 1u);
  EXPECT_EQ(other.last_reason, ResyncReason::kRevisionUnknown);
  ExpectIsTheDict(other);
}

TEST_F(WatchHubTest, AFollowedDictIsGivenUpAndLaterRevisionsAreHigher) {
  WatchHubOptions options;
  options.keep_ms = 30;
  Start(options);
  Replayer replayer;
  {
    Watcher watcher(*hub, Ask());
    CatchUp(watcher, replayer);
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (hub->Totals().dicts > 0 && std::chrono::steady_clock::now() < until) SleepNs(1'000'000);
  EXPECT_EQ(hub->Totals().dicts, 0u);
  EXPECT_TRUE(vault.Inherit("feed.").empty());
  WatchAsk again = Ask();
  again.from_revision = replayer.revision;
  Replayer later;
  Watcher watcher(*hub, again);
  CatchUp(watcher, later);
  EXPECT_EQ(later.resyncs, 1u);
  EXPECT_GT(later.revision, replayer.revision);
}

TEST_F(WatchHubTest, SlowWatchersAreTreatedAsTheyAsked) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  Start(options);
  WatchAsk latest = Ask();
  latest.slow_policy = SlowPolicy::kLatest;
  WatchAsk cancel = Ask();
  cancel.slow_policy = SlowPolicy::kCancel;
  Watcher resyncs(*hub, Ask());
  Watcher cancels(*hub, cancel);
  Replayer of_resyncs;
  Replayer of_cancels;
  CatchUp(resyncs, of_resyncs);
  CatchUp(cancels, of_cancels);
  const auto write = [&](int changes) {
    for (int i = 0; i < changes; ++i) {
      Put("k" + std::to_string(i % 7), std::to_string(i));
      if (i % 100 == 99) SleepNs(2'000'000);
    }
  };
  write(4000);
  CatchUp(resyncs, of_resyncs);
  EXPECT_EQ(of_resyncs.resyncs, 1u);
  EXPECT_EQ(of_resyncs.last_reason, ResyncReason::kSlowWatcher);
  ExpectIsTheDict(of_resyncs);
  WatchEvent event;
  ASSERT_EQ(cancels.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(cancels.status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(hub->Totals().resyncs[static_cast<size_t>(ResyncReason::kSlowWatcher)], 1u);

  options.feed.log_bytes = 4 << 20;
  hub->Shutdown();
  for (const auto& [name, fd] : vault.Inherit("feed.")) ASSERT_TRUE(vault.Remove(name).ok());
  Start(options);
  Watcher latest_watcher(*hub, latest);
  Replayer of_latest;
  CatchUp(latest_watcher, of_latest);
  write(4000);
  const uint64_t before = of_latest.changes;
  CatchUp(latest_watcher, of_latest);
  EXPECT_EQ(of_latest.resyncs, 0u);
  EXPECT_LT(of_latest.changes - before, 4000u);
  EXPECT_GT(hub->Totals().coalesced, 0u);
  ExpectIsTheDict(of_latest);
}

TEST_F(WatchHubTest, AnOverrunIsToldToEveryWatcher) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  CatchUp(watcher, replayer);
  // The hub cannot follow what it does not get to see: the ring is written over many times at once.
  for (int round = 0; round < 100 && replayer.resyncs == 0; ++round) {
    for (int i = 0; i < 20'000; ++i) Put("k" + std::to_string(i % 7), std::to_string(i));
    CatchUp(watcher, replayer);
  }
  EXPECT_GT(replayer.resyncs, 0u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kOverrun);
  EXPECT_GT(hub->Totals().gaps, 0u);
  ExpectIsTheDict(replayer);
}

TEST_F(WatchHubTest, AGrowingDictIsFollowedAClearedOneIsToldAndADeletedOneEnds) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  Put("a", "1");
  CatchUp(watcher, replayer);
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  Put("b", "2");
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 0u);
  EXPECT_EQ(replayer.entries.count("b"), 1u);
  uint64_t entries = 0;
  bool cleared = false;
  ASSERT_TRUE(store->ClearDict(At(3), served, &entries, &cleared).ok());
  served = *store->Find("d");
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 1u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kReplaced);
  ExpectIsTheDict(replayer);
  ASSERT_TRUE(store->Delete("d").ok());
  WatchEvent event;
  Watch::Found found = Watch::Found::kEvent;
  while (found == Watch::Found::kEvent) found = watcher.Next(&event);
  EXPECT_EQ(found, Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kDictNotFound);
}

TEST_F(WatchHubTest, ProgressComesWhenAskedForAndNothingHappens) {
  Start();
  WatchAsk ask = Ask();
  ask.key = "mine";
  ask.progress_ms = kProgressMsMin;
  Watcher watcher(*hub, ask);
  Replayer replayer;
  WatchEvent event;
  while (replayer.progress < 1) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  const uint64_t before = replayer.revision;
  for (int i = 0; i < 5; ++i) Put("another", "x");
  while (replayer.progress < 3) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  EXPECT_EQ(replayer.revision, before + 5);
  EXPECT_EQ(replayer.changes, 0u);
}

TEST_F(WatchHubTest, LimitsGrantsAndTheEnd) {
  WatchHubOptions options;
  options.watches_max = 2;
  Start(options);
  WatchAsk ask = Ask();
  ask.identity = std::make_shared<const Identity>("token", "", 0, std::vector<Grant>());
  auto first = std::make_unique<Watcher>(*hub, ask);
  Watcher second(*hub, Ask());
  EXPECT_EQ(hub->Open(Ask(), [] {}).status().reason(), Reason::kLimitExceeded);
  Replayer replayer;
  CatchUp(*first, replayer);
  hub->Recheck([](const Identity&, const std::string&) {
    return Status(Reason::kPermissionDenied, "not any more");
  });
  WatchEvent event;
  ASSERT_EQ(first->Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(first->status().reason(), Reason::kPermissionDenied);
  first.reset();
  EXPECT_EQ(hub->Open(ask, [] {}).status().reason(), Reason::kPermissionDenied);
  Replayer other;
  CatchUp(second, other);
  hub->Shutdown();
  ASSERT_EQ(second.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(second.status().reason(), Reason::kDraining);
  EXPECT_EQ(hub->Open(Ask(), [] {}).status().reason(), Reason::kDraining);
}

// Writers, watchers that come and go and resume anywhere, and a hub that is restarted: nobody misses
// or repeats anything.
TEST_F(WatchHubTest, EveryWatcherEndsWithTheDictWhateverHappened) {
  constexpr int kWatchers = 4;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr auto kFor = milliseconds(1500);
#else
  constexpr auto kFor = milliseconds(3000);
#endif
  Start();
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (uint32_t writer = 0; writer < 3; ++writer) {
    writers.emplace_back([&, writer] {
      std::mt19937_64 random(writer);
      for (uint64_t i = 0; !stop.load(); ++i) {
        const std::string key = "k" + std::to_string(random() % 50);
        DictResult result;
        if (random() % 5 == 0) {
          (void)served->dict().Delete(At(8 + writer), key, {}, &result);
        } else {
          (void)served->dict().Set(At(8 + writer), key, DictValue::Bytes(std::to_string(i)), {},
                                   &result);
        }
        if (i % 50 == 0) SleepNs(random() % 300'000);
      }
    });
  }
  std::vector<std::thread> threads;
  std::array<Replayer, kWatchers> replayers;
  std::mutex hub_mutex;  // Of the pointer.
  const auto current = [&] {
    const std::lock_guard<std::mutex> lock(hub_mutex);
    return hub;
  };
  const auto until = std::chrono::steady_clock::now() + kFor;
  for (int i = 0; i < kWatchers; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937_64 random(100 + i);
      Replayer& replayer = replayers[i];
      while (std::chrono::steady_clock::now() < until) {
        WatchAsk ask = Ask();
        if (replayer.revision != 0 && replayer.synced) {
          ask.from_revision = replayer.revision;
        } else {
          replayer.entries.clear();
          replayer.versions.clear();
        }
        replayer.synced = false;
        const std::shared_ptr<WatchHub> here = current();
        Watcher watcher(*here, ask);
        if (!watcher.is_open()) continue;  // It is being restarted.
        for (uint64_t events = random() % 200 + 3; events > 0; --events) {
          WatchEvent event;
          const Watch::Found found = watcher.Next(&event, milliseconds(50));
          if (found == Watch::Found::kEnd) break;
          if (found == Watch::Found::kEvent) replayer.Apply(event);
        }
      }
    });
  }
  int restarts = 0;
  while (std::chrono::steady_clock::now() < until) {
    SleepNs(300'000'000);
    const std::lock_guard<std::mutex> lock(hub_mutex);
    hub->Shutdown();
    hub = WatchHub::Start({}, store.get(), &vault, vault.Inherit("feed."));
    ++restarts;
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  for (std::thread& writer : writers) writer.join();
  uint64_t changes = 0;
  for (Replayer& replayer : replayers) {
    WatchAsk ask = Ask();
    if (replayer.revision != 0 && replayer.synced) {
      ask.from_revision = replayer.revision;
    } else {
      replayer.entries.clear();
      replayer.versions.clear();
    }
    replayer.synced = false;
    Watcher watcher(*hub, ask);
    CatchUp(watcher, replayer);
    changes += replayer.changes;
  }
  // All are quiet now but for the marks.
  for (Replayer& replayer : replayers) replayer.entries.erase("zz-mark");
  Delete("zz-mark");
  for (Replayer& replayer : replayers) ExpectIsTheDict(replayer);
  EXPECT_GT(changes, 1000u);
  EXPECT_GT(restarts, 2);
}

}  // namespace
}  // namespace statehouse
