// For tests of area watches: an engine with an area, a hub, watchers, and a replayer that puts what
// a watcher is told over its snapshot. The result must be the range once it rests.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/state/test_area.h"
#include "service/watch/area_hub.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {

// A watch with somewhere to sleep until it is notified.
class AreaWatcher {
 public:
  AreaWatcher(AreaHub& hub, AreaWatchAsk ask) {
    auto opened = hub.Open(std::move(ask), [this] {
      const std::lock_guard<std::mutex> lock(mutex_);
      notified_ = true;
      changed_.notify_one();
    });
    if (opened.ok()) watch_ = *std::move(opened);
  }
  ~AreaWatcher() {
    if (watch_ != nullptr) watch_->Close();
  }
  bool is_open() const { return watch_ != nullptr; }
  AreaWatch& watch() { return *watch_; }
  // Since the last call.
  bool TakeNotified() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(notified_, false);
  }

  // The next event, or what it was instead within `patience`.
  Watch::Found Next(AreaWatchEvent* event, milliseconds patience = milliseconds(10'000)) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      TakeNotified();
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
  std::shared_ptr<AreaWatch> watch_;
};

// What a watcher knows.
class AreaReplayer {
 public:
  explicit AreaReplayer(AreaPart part) : part_(part), bytes(part.len, '\0') {}

  void Apply(const AreaWatchEvent& event) {
    switch (event.kind) {
      case AreaWatchEvent::Kind::kSnapshot:
        EXPECT_FALSE(synced);
        ++snapshots;
        Put(event);
        break;
      case AreaWatchEvent::Kind::kChanges:
        Put(event);
        if (!event.more) ++changes;
        break;
      case AreaWatchEvent::Kind::kSynced: synced = true; break;
      case AreaWatchEvent::Kind::kResync:
        ++resyncs;
        last_reason = event.reason;
        synced = false;
        break;
      case AreaWatchEvent::Kind::kProgress: ++progress; break;
    }
    if (event.updates) {
      EXPECT_GE(*event.updates, updates.value_or(0)) << "backward";
      updates = event.updates;
    }
  }

  const AreaPart part_;
  std::string bytes;
  std::optional<uint64_t> updates;
  uint64_t snapshots = 0;
  uint64_t changes = 0;
  uint64_t told_bytes = 0;
  uint64_t resyncs = 0;
  uint64_t progress = 0;
  bool synced = false;
  ResyncReason last_reason{};

 private:
  void Put(const AreaWatchEvent& event) {
    uint64_t last_end = part_.pos;
    for (const AreaWatchEvent::Told& told : event.parts) {
      EXPECT_GE(told.part.pos, last_end);
      last_end = told.part.pos + told.part.len;
      ASSERT_LE(last_end, part_.pos + part_.len);
      ASSERT_EQ(told.bytes.size(), told.part.len);
      bytes.replace(told.part.pos - part_.pos, told.part.len, told.bytes);
      if (event.kind == AreaWatchEvent::Kind::kChanges) told_bytes += told.part.len;
    }
  }
};

class AreaHubTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 256 << 10;  // 64 stripes.

  AreaHubTest() {
    auto started = Engine::Start({}, {}, &vault);
    EXPECT_TRUE(started.ok()) << started.status().ToString();
    engine = *std::move(started);
    served = Make("a", kSize);
  }
  ~AreaHubTest() override {
    if (hub != nullptr) hub->Shutdown();
  }

  std::shared_ptr<ServedArea> Make(const std::string& name, uint64_t size) {
    AreaSpec spec;
    spec.name = name;
    spec.size = size;
    auto made = engine->CreateArea(std::move(spec));
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return made->area;
  }
  void Start(AreaHubOptions options = {}) {
    if (hub != nullptr) hub->Shutdown();
    hub = AreaHub::Start(options, engine.get());
  }
  AreaWatchAsk Ask(uint64_t pos = 0, uint64_t len = kSize) const {
    AreaWatchAsk ask;
    ask.served = served;
    ask.part = {pos, len};
    return ask;
  }
  static Lane At(uint32_t lane) { return {lane, kOperationTimeoutNsDefault}; }
  void Write(uint64_t pos, std::string_view bytes, uint32_t lane = 8) {
    const Status status = served->area().Write(At(lane), pos, Bytes(bytes));
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  std::string Now(const AreaPart& part) const {
    return ReadString(served->area(), part.pos, part.len);
  }
  // Until it is synced, and has nothing more to tell of an area that rests.
  void CatchUp(AreaWatcher& watcher, AreaReplayer& replayer) {
    ASSERT_TRUE(watcher.is_open());
    AreaWatchEvent event;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!replayer.synced || replayer.bytes != Now(replayer.part_)) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "it never became the range";
      const Watch::Found found = watcher.Next(&event, milliseconds(100));
      ASSERT_NE(found, Watch::Found::kEnd) << watcher.status().ToString();
      if (found == Watch::Found::kEvent) replayer.Apply(event);
    }
  }

  KeepingVault vault;
  std::unique_ptr<Engine> engine;
  std::shared_ptr<ServedArea> served;
  std::shared_ptr<AreaHub> hub;
};

// A hub without a thread, whose clock the test moves.
class AreaTurnTest : public AreaHubTest {
 protected:
  AreaTurnTest() {
    now_ns_ = 1'000'000'000;
    StartWith({});
  }
  void StartWith(AreaHubOptions options) {
    options.clock_ns = [] { return now_ns_; };
    options.has_thread = false;
    Start(options);
  }
  // What the watcher is told now, after a look where it needs one.
  Watch::Found Poll(AreaWatcher& watcher, AreaWatchEvent* event) {
    Watch::Found found = watcher.watch().Poll(event);
    if (found != Watch::Found::kNothing) return found;
    hub->Turn();
    return watcher.TakeNotified() ? watcher.watch().Poll(event) : found;
  }
  void Sync(AreaWatcher& watcher, AreaReplayer* replayer = nullptr) {
    AreaWatchEvent event;
    do {
      ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
      if (replayer != nullptr) replayer->Apply(event);
    } while (event.kind != AreaWatchEvent::Kind::kSynced);
  }
  static inline uint64_t now_ns_ = 0;
};

}  // namespace statehouse
