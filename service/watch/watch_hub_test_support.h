// For tests of watches: a hub over a dict of its own, watchers, and a replayer that applies what a
// watcher is told to a map and refuses what repeats or goes backward. The map must be the dict once
// it is quiet.
#pragma once

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/state/test_dict.h"
#include "service/watch/watch_hub.h"

namespace statehouse {

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
      if (!std::exchange(waits_, false)) {
        const Watch::Found found = Ask(event);
        if (found != Watch::Found::kNothing) return found;
      }
      std::unique_lock<std::mutex> lock(mutex_);
      if (!changed_.wait_until(lock, until, [this] { return notified_; })) {
        return Watch::Found::kNothing;
      }
    }
  }
  // The same without patience: nothing, too, while it sleeps and was not notified.
  Watch::Found TryNext(WatchEvent* event) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if ((sleeps_ || waits_) && !notified_) return Watch::Found::kNothing;
    }
    const Watch::Found found = Ask(event);
    sleeps_ = found == Watch::Found::kNothing;
    return found;
  }
  const Status& status() const { return watch_->status(); }
  bool is_notified() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return notified_;
  }

 private:
  Watch::Found Ask(WatchEvent* event) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      notified_ = false;
    }
    const Watch::Found found = watch_->Poll(event, /*may_wait=*/true);
    waits_ = found == Watch::Found::kEvent && event->waits;
    return found;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool notified_ = false;
  bool sleeps_ = false;  // Of TryNext.
  bool waits_ = false;   // The last event said so: it is not asked before it notifies.
  std::shared_ptr<Watch> watch_;
};

// Of an entry or a put.
template <typename Entry>
std::string ValueText(const Entry& entry) {
  return entry.kind == DictKind::kBytes ? entry.bytes : std::to_string(entry.bits);
}

// What a watcher knows. Faults: a repeat, a step backward, or a change before a snapshot's entry.
class Replayer {
 public:
  using Fault = std::function<void(const std::string&)>;
  static constexpr const char* kValueGone = "gone";  // No value of a test is that.
  using Expired = std::function<void(const std::string& key, const std::string& value)>;
  explicit Replayer(Fault fault = [](const std::string& what) { ADD_FAILURE() << what; })
      : fault_(std::move(fault)) {}

  void Apply(const WatchEvent& event) {
    switch (event.kind) {
      case WatchEvent::Kind::kSnapshot:
        if (synced) fault_("a snapshot after `synced`");
        for (const DictEntry& entry : event.entries) {
          const auto value = std::pair(entry.version, ValueText(entry));
          if (!entries.emplace(entry.key, value).second) fault_(entry.key + " came twice");
          versions[entry.key] = entry.version;
        }
        break;
      case WatchEvent::Kind::kChanges:
        for (const WatchEvent::Told& told : event.changes) ApplyChange(told);
        break;
      case WatchEvent::Kind::kSynced:
        if (synced) fault_("`synced` twice");
        synced = true;
        break;
      case WatchEvent::Kind::kResync:
        ++resyncs;
        last_reason = event.reason;
        Forget();
        break;
      case WatchEvent::Kind::kProgress: ++progress; break;
      case WatchEvent::Kind::kHandedOver: break;
    }
    if (event.revision != 0) {
      if (event.revision < revision) fault_("the revision went backward");
      revision = event.revision;
    }
  }
  // As what has told nothing yet, but for the revision.
  void Forget() {
    entries.clear();
    versions.clear();
    synced = false;
  }

  std::map<std::string, std::pair<uint64_t, std::string>> entries;  // Key -> version, value.
  std::map<std::string, uint64_t> versions;                         // Also of what was deleted.
  uint64_t revision = 0;  // The last one that can be resumed from.
  uint64_t changes = 0;
  uint64_t resyncs = 0;
  uint64_t progress = 0;
  uint64_t previous_values = 0;  // Of changes: what their keys had before.
  uint64_t previous_gone = 0;
  bool synced = false;
  bool has_previous = false;  // It asked for previous values.
  // It has a value that is not told as previous, or the other way round: of what had expired both
  // is right.
  Expired on_expired = [this](const std::string& key, const std::string&) {
    fault_(key + " was there before, or was not, and is told otherwise");
  };
  bool is_partial = false;  // It is told of some changes only, or without a snapshot.
  ResyncReason last_reason{};

 private:
  void ApplyChange(const WatchEvent::Told& told) {
    const DictChange& change = told.change->change;
    ++changes;
    if (change.revision <= last_change_) fault_(change.key + ": a repeat, or out of order");
    last_change_ = change.revision;
    if (has_previous) CheckPrevious(change.key, told.previous);
    uint64_t& version = versions[change.key];
    if (change.version <= version) fault_(change.key + " went backward, or repeats");
    version = change.version;
    if (change.operation == FeedOperation::kPut) {
      DictEntry entry;
      entry.kind = change.kind;
      entry.bits = change.bits;
      entry.bytes = change.bytes;
      entries[change.key] = {change.version, change.value_gone ? kValueGone : ValueText(entry)};
    } else if (entries.erase(change.key) == 0 && !is_partial && !told.coalesced &&
               change.operation != FeedOperation::kExpire) {
      // A snapshot leaves out what is expired already.
      fault_(change.key + " was deleted, and not there");
    }
  }

  // It is what the changes before this one made of the key, or not known.
  void CheckPrevious(const std::string& key, const PreviousValue& previous) {
    if (previous.kind == PreviousValue::Kind::kUnknown) {
      ++previous_gone;
      return;
    }
    const bool is_there = previous.kind == PreviousValue::Kind::kValue;
    previous_values += is_there ? 1 : 0;
    if (is_partial) return;
    const std::string value = is_there ? ValueText(*previous.put) : "";
    const auto at = entries.find(key);
    if (at == entries.end()) {
      if (is_there) on_expired(key, value);
    } else if (!is_there) {
      on_expired(key, at->second.second);
    } else if (at->second.second != value && at->second.second != "gone") {
      fault_(key + ": another previous value than it had");
    }
  }

  const Fault fault_;
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
    Make(100'000);
  }
  ~WatchHubTest() override {
    if (hub != nullptr) hub->Shutdown();
  }

  void Make(uint64_t max_entries, bool evict = false) {
    DictSpec spec;
    spec.name = "d";
    spec.max_entries = max_entries;
    spec.max_bytes = 64 << 20;
    spec.evict = evict;
    auto created = store->Create(spec);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    served = created->dict;
    EXPECT_TRUE(served->dict().PrepareLanes(8, 8).ok());
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
  // Key -> version, value.
  std::map<std::string, std::pair<uint64_t, std::string>> Now(std::string_view prefix = "") {
    std::map<std::string, std::pair<uint64_t, std::string>> all;
    uint32_t bucket = 0;
    const Status status = served->dict().Scan(&bucket, SIZE_MAX, prefix, [&](DictEntry& entry) {
      all[entry.key] = {entry.version, ValueText(entry)};
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    return all;
  }
  void ExpectIsTheDict(const Replayer& replayer, std::string_view prefix = "") {
    EXPECT_EQ(replayer.entries, Now(prefix));
  }

  KeepingVault vault;
  std::unique_ptr<DictStore> store;
  std::shared_ptr<ServedDict> served;
  std::shared_ptr<WatchHub> hub;

 private:
  int marks_ = 0;
};

// A hub without a thread, whose clock the test moves.
class WatchTurnTest : public WatchHubTest {
 protected:
  WatchTurnTest() {
    now_ns_ = 1'000'000'000;
    StartWith({});
  }
  void StartWith(WatchHubOptions options) {
    options.clock_ns = [] { return now_ns_; };
    options.has_thread = false;
    Start(options);
  }
  // What the watcher is told now, after looks where it needs them.
  Watch::Found Poll(Watcher& watcher, WatchEvent* event) {
    for (;;) {
      const Watch::Found found = watcher.TryNext(event);
      if (found != Watch::Found::kNothing) return found;
      const bool more = hub->Turn() == 0;
      if (!more && !watcher.is_notified()) return found;
    }
  }
  // Up to and with an event of that kind.
  WatchEvent Await(Watcher& watcher, WatchEvent::Kind kind) {
    WatchEvent event;
    do {
      const Watch::Found found = Poll(watcher, &event);
      EXPECT_EQ(found, Watch::Found::kEvent);
      if (found != Watch::Found::kEvent) break;
    } while (event.kind != kind);
    return event;
  }
  void Sync(Watcher& watcher) { (void)Await(watcher, WatchEvent::Kind::kSynced); }
  static inline uint64_t now_ns_ = 0;
};

}  // namespace statehouse
