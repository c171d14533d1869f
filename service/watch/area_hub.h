// AreaHub: looks at the areas that are watched and wakes their watches.
//
// Drawing:
//   stripes' sequences and event words --> WatchedRange (each part of an area) --> AreaWatch (many)
//
// It looks at a range when a watch of it waits and its window is over, and arms the area's event
// only when a look found nothing: writers pay for waking it once, not while it is busy or nobody
// waits.
//
// Who owns it: the composition root; it shuts it down before the doors' queues close. Threads: Open
//   and Recheck any; one thread of its own looks at all areas.
// Always true: watches of the same part of an area share one copy of it. A range is kept until
//   `keep_ms` after its last watch, so that one that comes back gets only what changed.
// Failure: LIMIT_EXCEEDED at watches_max, DRAINING after Shutdown. Where the copies of all ranges
//   would be more than copy_bytes_max, further ones are told by stripes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/futex.h"
#include "service/watch/area_watch.h"

namespace statehouse {

struct AreaHubOptions {
  uint64_t keep_ms = 60'000;
  uint32_t watches_max = kWatchesMax;
  uint64_t copy_bytes_max = kAreaCopyBytesDefault;
  AreaWatch::ClockNs clock_ns = &MonotonicNs;
  bool has_thread = true;  // False: a test calls Turn.
};

struct AreaWatchTotals {
  uint32_t watches = 0;
  uint32_t ranges = 0;       // That are kept.
  uint64_t copy_bytes = 0;   // With their cells.
  uint64_t lag_updates = 0;  // Of the slowest live watch.
  uint64_t changes = 0;      // Told to watchers, since this daemon started; as all below.
  uint64_t coalesced = 0;
  uint64_t resyncs[kResyncReasons] = {};
};

class AreaHub final {
 public:
  using Allowed = std::function<Status(const Identity&, const std::string& area)>;

  // `engine` outlives the hub.
  static std::shared_ptr<AreaHub> Start(const AreaHubOptions& options, Engine* engine);
  ~AreaHub();
  AreaHub(const AreaHub&) = delete;
  AreaHub& operator=(const AreaHub&) = delete;

  // Begins to watch. `notify` may be called at once, from any thread.
  StatusOr<std::shared_ptr<AreaWatch>> Open(AreaWatchAsk ask, std::function<void()> notify);
  // As WatchHub::Recheck.
  void Recheck(Allowed allowed);
  // Ends every watch with DRAINING and stops the thread. Idempotent.
  void Shutdown();
  AreaWatchTotals Totals() const;

  // One look at everything that is due: when the next one is. Its thread's, or a test's.
  uint64_t Turn();

 private:
  // Area id, pos, len.
  using Key = std::tuple<uint64_t, uint64_t, uint64_t>;

  AreaHub(const AreaHubOptions& options, Engine* engine) : options_(options), engine_(engine) {}
  void Run();
  std::shared_ptr<WatchedRange> RangeFor(const AreaWatchAsk& ask);
  WatchedRange::Looked LookAndTell(WatchedRange& range);
  uint64_t SleepOn(const std::vector<std::shared_ptr<WatchedRange>>& ranges, uint64_t now_ns);
  void ChooseWords(const std::vector<std::shared_ptr<WatchedRange>>& ranges);
  static uint64_t LookAtNs(WatchedRange& range);
  uint64_t TimerNs(WatchedRange& range, uint64_t now_ns) const;
  void EndRange(WatchedRange& range, const Status& why);
  void Forget(const std::shared_ptr<WatchedRange>& range, uint64_t now_ns);
  void Drop(std::map<Key, std::shared_ptr<WatchedRange>>::iterator at);
  void Sleep(uint32_t bell_seen, uint64_t until_ns) const;
  std::vector<std::shared_ptr<WatchedRange>> All() const;

  const AreaHubOptions options_;
  Engine* const engine_;
  const std::shared_ptr<HubBell> bell_ = std::make_shared<HubBell>();
  const std::shared_ptr<AreaWatchCounters> counters_ = std::make_shared<AreaWatchCounters>();

  // Taken before a range's mutex.
  mutable std::mutex mutex_;
  std::map<Key, std::shared_ptr<WatchedRange>> ranges_;
  std::shared_ptr<const Allowed> allowed_;
  uint64_t copy_bytes_ = 0;
  bool stopping_ = false;
  std::thread thread_;

  // The thread's.
  struct Word {
    std::shared_ptr<ServedArea> served;
    uint32_t cell = 0;
    uint32_t seen = 0;
  };
  WatchedRange::Scratch scratch_;
  std::vector<Word> words_;  // That it sleeps on, all armed.
};

}  // namespace statehouse
