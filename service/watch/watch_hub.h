// WatchHub: follows the dicts that are watched and wakes their watches.
//
// Drawing:
//   workers' rings --> DictFeed --> WatchedDict's history --> Watch (many) --> door's streams
//
// Who owns it: the composition root; it shuts it down before the doors' queues close. Threads:
//   Open, LookNow and Recheck any; one thread of its own follows all dicts.
// Always true: a dict is followed from its first watch until `keep_ms` after its last one, over
//   restarts of the daemon, so that a watcher that comes back in time misses nothing. Revisions of
//   a dict only grow, also when it is followed anew.
// Failure: LIMIT_EXCEEDED at watches_max, DRAINING after Shutdown.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"
#include "engine/state/descriptor_vault.h"
#include "engine/state/dict_store.h"
#include "service/watch/watch.h"

namespace statehouse {

struct WatchHubOptions {
  DictFeedOptions feed;
  uint64_t keep_ms = 60'000;  // A dict that nobody watches is followed for so long.
  uint32_t watches_max = kWatchesMax;
  uint64_t previous_bytes_max = kPreviousBytesDefault;  // Of all tables of previous values.
  // Behind a change that a worker of the host made in a watched dict, the hub looks for the next
  // one for so long before it sleeps; 0: it sleeps at once.
  uint64_t poll_ns = 0;
  WatchPace::ClockNs clock_ns = &MonotonicNs;
  bool has_thread = true;  // False: a test calls Turn.
};

struct WatchTotals {
  uint32_t watches = 0;
  uint32_t waits = 0;   // Watches that are waits for entries; all else here is without them.
  uint32_t asleep = 0;  // Watches and waits that only a change of their key concerns.
  uint32_t dicts = 0;   // That are followed.
  uint32_t local_followers = 0;  // Watches that are handed over.
  uint64_t history_changes = 0;
  uint64_t previous_bytes = 0;  // Of what watches with `previous` need.
  uint64_t lag_revisions = 0;   // Of the slowest live watch.
  uint64_t lag_ns = 0;          // Of the live watch that is furthest behind in time.
  uint64_t changes = 0;         // Told to watchers, since this daemon started; as all below.
  uint64_t coalesced = 0;
  uint64_t gaps = 0;
  uint64_t handed_over = 0;
  uint64_t early_changes = 0;     // That a follower had taken from their ring.
  uint64_t follow_fallbacks = 0;  // Watches of clients that could not go on by themselves.
  uint64_t resyncs[kResyncReasons] = {};
  std::array<uint64_t, kWakeBucketsNs.size() + 1> wakes{};  // See WatchCounters.
  uint64_t wakes_ns = 0;
};

class WatchHub final {
 public:
  using Allowed = std::function<Status(const Identity&, const std::string& dict)>;

  // Takes over the feeds that an earlier daemon left in `kept` ("feed.<dict id>"). `dicts` and
  // `vault` outlive the hub.
  static std::shared_ptr<WatchHub> Start(const WatchHubOptions& options, DictStore* dicts,
                                         DescriptorVault* vault,
                                         std::map<std::string, UniqueFd> kept);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // Begins to watch. `notify` may be called at once, from any thread.
  StatusOr<std::shared_ptr<Watch>> Open(WatchAsk ask, std::function<void()> notify);
  // A dict was changed by the caller a moment ago: tells its watches now, on this thread, unless
  // the hub's is at it. Cheap where nobody watches. Any thread.
  void LookNow(uint64_t dict_id);
  // A descriptor of the dict's follow log. UNAVAILABLE where that log is no more: the client
  // watches anew.
  StatusOr<UniqueFd> OpenFollowLog(const FollowLogFacts& facts);
  // Whether any dict is followed; only a hint.
  bool FollowsAny() const { return followed_.load(std::memory_order_relaxed) > 0; }
  // Grants have changed: ends every watch that `allowed` refuses, with that status, and asks it for
  // later ones too.
  void Recheck(Allowed allowed);
  // Ends every watch with DRAINING and stops the thread; feeds stay for the next daemon.
  // Idempotent.
  void Shutdown();
  WatchTotals Totals() const;

  // How long what was changed before a dict ended is kept for those who watch it.
  static constexpr uint64_t kLastWordsNs = 10'000'000'000;
  // One look at every dict that is followed: when the next one is; 0: at once. Its thread's, or a
  // test's.
  uint64_t Turn() { return LookAt(All()); }

 private:
  WatchHub(const WatchHubOptions& options, DictStore* dicts, DescriptorVault* vault)
      : options_(options),
        dicts_(dicts),
        vault_(vault),
        previous_budget_(std::make_shared<PreviousBudget>(options.previous_bytes_max)) {}
  void Adopt(std::map<std::string, UniqueFd> kept);
  void Run();
  uint64_t LookAt(const std::vector<std::shared_ptr<WatchedDict>>& dicts);
  using Due = std::vector<std::shared_ptr<Watch>>;
  // Looks at one dict; true when there may be more at once. Notifies.
  bool Serve(WatchedDict& dict);
  // The part of it that needs drain_mutex; *due is to be notified when that is free.
  bool ServeDrained(WatchedDict& dict, Due* due);
  void BeginFeed(WatchedDict& dict, Due* due);
  // False: the dict was deleted meanwhile.
  bool FollowMove(WatchedDict& dict, std::vector<DictChange>* fresh);
  // `drain`: the one that is over; 0: none is. REQUIRES: drain_mutex held.
  void Publish(WatchedDict& dict, std::vector<DictChange> fresh, uint64_t drain, Due* due);
  // Wakes those that sleep and are concerned. REQUIRES: the dict's mutex held.
  static void WakeSleepers(WatchedDict& dict, uint64_t head_before, bool has_gap,
                           const std::unordered_set<std::string_view>& keys);
  void EndDict(WatchedDict& dict, const Status& why, Due* due) const;
  void Forget(const std::shared_ptr<WatchedDict>& dict);
  // Of dicts that have ended: those that nobody watches any more are forgotten, and of those whose
  // watchers did not take their last words in time no history is kept. Whether there are any.
  bool LookAtEnded();
  // Also those that have ended and still have watches.
  std::vector<std::shared_ptr<WatchedDict>> AllWatched() const;
  void Sleep(const std::vector<std::shared_ptr<WatchedDict>>& dicts, uint32_t bell_seen,
             uint64_t until_ns) const;
  // Looks for news without sleeping.
  void Poll(const std::vector<std::shared_ptr<WatchedDict>>& dicts, uint32_t bell_seen,
            uint64_t until_ns) const;
  std::vector<std::shared_ptr<WatchedDict>> All() const;

  const WatchHubOptions options_;
  DictStore* const dicts_;
  DescriptorVault* const vault_;
  const std::shared_ptr<PreviousBudget> previous_budget_;
  const std::shared_ptr<HubBell> bell_ = std::make_shared<HubBell>();
  const std::shared_ptr<WatchCounters> counters_ = std::make_shared<WatchCounters>();
  std::atomic<uint64_t> gaps_{0};
  std::atomic<size_t> followed_{0};  // by_id_.size()
  // The thread's: until when it polls, and whether it does until its next look.
  uint64_t poll_until_ns_ = 0;
  bool is_polling_ = false;

  // Taken before a dict's mutex and after its drain_mutex.
  mutable std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<WatchedDict>> by_id_;
  std::vector<std::shared_ptr<WatchedDict>> ended_;
  std::shared_ptr<const Allowed> allowed_;
  bool stopping_ = false;
  uint64_t last_head_ = 0;  // Of all feeds that were given up.
  std::thread thread_;
};

}  // namespace statehouse
