// WatchedDict: one dict that is followed, with the history that its watches read. Part of WatchHub.
//
// Drawing:
//   DictFeed --Publish--> history: tail … head <-- each Watch reads from its own place
//
// Who owns it: WatchHub and its watches. Threads: what is marked "hub" on the hub's thread only,
// what is marked "drain" under `drain_mutex`, the rest under `mutex`. No callback runs under them.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/dict_feed.h"
#include "engine/state/follow_log.h"
#include "service/watch/previous_table.h"

namespace statehouse {

class Watch;

// A change as all watches share it.
struct WatchedChange {
  DictChange change;
  uint64_t noticed_ns = 0;  // When it was read from its ring, or its feed taken over.

  // A message that tells of it alone, with its value; at its end, behind what says so, the change
  // as any message holds it.
  struct Message {
    std::string bytes;
    size_t change_begin = 0;
    std::string_view change() const { return std::string_view(bytes).substr(change_begin); }
  };
  // Encoded for the first watcher that needs it.
  template <typename Encode>
  const Message& Encoded(const Encode& encode) const {
    std::call_once(was_encoded, [&] { message = encode(change); });
    return message;
  }

 private:
  mutable std::once_flag was_encoded;
  mutable Message message;
};

// Wakes the hub's thread.
class HubBell final {
 public:
  void Ring();
  // For the hub's sleep: read it before looking for work.
  const std::atomic<uint32_t>& word() const { return word_; }

 private:
  std::atomic<uint32_t> word_{0};
};

struct WatchedDict {
  WatchedDict(std::shared_ptr<ServedDict> served_in, std::shared_ptr<HubBell> bell_in,
              std::shared_ptr<PreviousBudget> budget)
      : id(served_in->record().id),
        name(served_in->record().name),
        bell(std::move(bell_in)),
        served(std::move(served_in)),
        previous(std::move(budget)) {}

  // The oldest change that is kept.
  uint64_t tail() const { return head - history.size() + 1; }
  // Asks for a drain that begins from now on; `drains` reaches the ticket when it is over.
  // REQUIRES: mutex held.
  uint64_t AskForDrain() {
    wanted = begun + 1;
    bell->Ring();
    return wanted;
  }

  // A watch that may hand over begins: whether there is a follow log. REQUIRES: mutex held.
  bool JoinFollowLog();
  // Tells those who follow by themselves, before all others; the log in which they are told.
  // REQUIRES: drain_mutex held, mutex not.
  std::shared_ptr<FollowLogWriter> TellFollowers(const std::vector<DictChange>& fresh,
                                                 uint64_t now_ns);
  // For how long a wake-up may be owed.
  static constexpr uint64_t kOwedWakeNs = 50'000'000;
  // From now on those who follow the rings may claim the next change. REQUIRES: drain_mutex held,
  // and the log has everything.
  void ShowRings(FollowLogWriter& log);
  // Nothing is told of it any more: *history is to be freed without the mutex. REQUIRES: mutex
  // held, it has ended.
  void LetGo(WatchHistory* history);
  // It ends, with the last one the log: to be freed without the mutex. REQUIRES: mutex held.
  std::shared_ptr<FollowLogWriter> LeaveFollowLog();

  const uint64_t id;
  const std::string name;
  const std::shared_ptr<HubBell> bell;
  // Held while the feed is drained and its changes are published. Taken before `mutex` and the
  // hub's.
  std::mutex drain_mutex;
  // drain; null before the first drain. Set on the hub's thread, so that it reads it without.
  std::unique_ptr<DictFeed> feed;
  bool is_given_up = false;  // drain: the hub follows it no more.
  uint32_t event_seen = 0;   // hub: the dict's event word before the last look.
  bool may_sleep = false;    // hub: nothing was there at the last look, after arming.
  uint32_t busy_looks = 0;   // hub: looks in a row that found something.
  // drain: since when nobody was woken for a change that all followers should have; 0: none.
  uint64_t owes_wake_ns = 0;

  std::mutex mutex;
  std::shared_ptr<ServedDict> served;  // The segment that the feed is in.
  bool ready = false;                  // The feed has begun.
  Status ended;                        // Not OK: the dict is gone, or cannot be followed.
  uint64_t ended_ns = 0;               // Since when.
  WatchHistory history;
  PreviousTables previous;
  uint64_t head = 0;            // The revision of the last change.
  bool is_nearly_full = false;  // The oldest changes leave the history soon.
  uint64_t begun = 0;           // Drains that began …
  uint64_t drains = 0;          // … and are over.
  uint64_t wanted = 0;
  uint64_t idle_since_ns = 0;  // 0: it has watches.
  std::unordered_set<Watch*> watches;
  // Each batch of changes is offered to those that are awake. The others wait for a change of their
  // key, or are handed over, and cost nothing meanwhile.
  std::unordered_set<Watch*> awake;
  std::multimap<std::string_view, Watch*> asleep;  // By their key, which is theirs.
  // Those of the awake ones that a look without changes may concern: they are not live yet, wait
  // for a time, or have a window.
  std::unordered_set<Watch*> unsettled;
  size_t waits = 0;  // Watches that are waits for an entry.
  // The changes since its first follower, for clients of this host; null: none. Whoever holds
  // drain_mutex writes it, and may be ahead of the history.
  std::shared_ptr<FollowLogWriter> follow_log;
  uint64_t follow_position = 0;  // In it, behind the change with the revision `head`.
  uint64_t follow_log_bytes = kFeedLogBytesDefault;
  size_t followers = 0;       // Watches that hand over, or will …
  size_t ring_followers = 0;  // … and that did, to clients that follow the rings.
};

}  // namespace statehouse
