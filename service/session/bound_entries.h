// BoundEntries: which entries of dicts are bound to which sessions, and the thread that removes
// them when their session ends.
//
// An entry says itself which session it is bound to (docs/formats/dict_segment.md), so nothing has
// to be kept for the next daemon: it looks through the dicts that have bound entries. What stands
// here is where to look; that an entry is still bound is decided where it is removed, under its
// bucket's lock.
//
// Who owns it: the composition root, shared with whoever binds. Threads: any; one of its own, which
// alone changes dicts, with a lane that nobody else uses in them.
// Always true: an entry that is bound to a session that lives is noted here, or was bound before
//   this daemon started and has not been found yet. What is bound to a session that does not live
//   is removed soon, and nothing else is.
// Failure: SESSION_NOT_FOUND; LIMIT_EXCEEDED. A removal that meets a held or damaged bucket is
// tried
//   again; what Shutdown leaves is the next daemon's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/state/dict_store.h"

namespace statehouse {

// Whose lane it has, for Engine::DaemonLane. It is that of the thread of the locks, which works in
// the locks' segment only; no area is changed with it, so Engine::UseDaemonLane is not needed.
inline constexpr uint32_t kBoundEntriesThread = 5;

struct BoundEntriesOptions {
  uint32_t entries_per_session_max = kSessionEntriesMax;
  uint32_t entries_max = kBoundEntriesMax;
};

struct BoundEntriesTotals {
  uint64_t noted = 0;    // Entries that are noted, those that are not bound any more included.
  uint64_t removed = 0;  // Entries that went with their session, since this daemon started.
};

class BoundEntries final {
 public:
  // Takes over what is bound in `dicts`, which outlives it; `sessions` are those that live. `lane`
  // is kBoundEntriesThread's.
  static std::shared_ptr<BoundEntries> Start(BoundEntriesOptions options, DictStore* dicts,
                                             Lane lane, const std::vector<uint64_t>& sessions);
  ~BoundEntries();
  BoundEntries(const BoundEntries&) = delete;
  BoundEntries& operator=(const BoundEntries&) = delete;

  // Entries may be bound to the session from now on; and no more: those that are go.
  void BeginSession(uint64_t session);
  void EndSession(uint64_t session);

  // Stands from before entries are bound until it is known what became of that, so that they are
  // not overlooked when their session ends meanwhile.
  class Intent final {
   public:
    Intent() = default;
    Intent(Intent&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {
      session_ = other.session_;
      dict_ = std::move(other.dict_);
      keys_ = std::move(other.keys_);
    }
    Intent& operator=(Intent&&) = delete;
    ~Intent() { Settle(false); }
    // Whether they were bound; without this call: they were not. For several, true where any was.
    void Settle(bool bound);

   private:
    friend class BoundEntries;
    BoundEntries* owner_ = nullptr;
    uint64_t session_ = 0;
    std::string dict_;
    std::vector<std::string> keys_;
  };
  // Errors: SESSION_NOT_FOUND; LIMIT_EXCEEDED; without `wait` STALLED where it takes a longer look
  // to know which.
  StatusOr<Intent> Intend(uint64_t session, const std::string& dict,
                          std::span<const std::string_view> keys, bool wait);

  BoundEntriesTotals Totals() const;
  // Joins the thread. Idempotent.
  void Shutdown();

 private:
  struct Note {
    uint32_t intents = 0;
    bool bound = false;
    uint64_t stamp = 0;  // Of its last intent.
  };
  using Keys = std::map<std::string, Note>;
  struct Session {
    std::map<std::string, Keys> dicts;
    size_t notes = 0;
  };
  struct Place {
    std::string dict;
    std::string key;
  };
  struct Removal {
    uint64_t session = 0;
    Place place;
    uint64_t due_ns = 0;
    uint64_t pause_ns = 0;  // Before the next try.
  };
  // What is left of a session that ended.
  struct Ended {
    uint64_t session = 0;
    std::map<std::string, Keys> dicts;
  };

  BoundEntries(BoundEntriesOptions options, DictStore* dicts, Lane lane)
      : options_(options), dicts_(dicts), lane_(lane) {}

  void Run();
  void FindAll();
  void FindIn(const std::string& dict);
  void Take(const std::string& dict, std::vector<DictBinding> bound);
  void RemoveAll(Ended ended);
  void Remove(Removal removal);
  bool TryRemove(const Removal& removal);
  void TryAgain(uint64_t now);
  void LookAtSome();
  // Looks at up to `limit` notes of a session from *at on and forgets those whose entry is not
  // bound to it any more. False when all were seen.
  bool Prune(uint64_t session, Place* at, size_t limit);
  bool IsBound(uint64_t session, const Place& place) const;
  void Settle(uint64_t session, const std::string& dict, const std::vector<std::string>& keys,
              bool bound);
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  // All below REQUIRE mutex_ held.
  bool HasRoom(const Session& session, size_t notes) const;
  void Forget(Session& session, const std::string& dict, const std::string& key);

  const BoundEntriesOptions options_;
  DictStore* const dicts_;
  const Lane lane_;

  mutable std::mutex mutex_;
  // Guarded by mutex_: up to the thread.
  std::condition_variable changed_;
  std::map<uint64_t, Session> sessions_;
  std::deque<Ended> ended_;
  size_t notes_ = 0;  // Of all sessions.
  uint64_t stamp_ = 0;
  std::atomic<bool> stopping_{false};  // Set under mutex_.
  std::thread thread_;

  std::atomic<uint64_t> removed_{0};
  // The thread's own.
  std::deque<Removal> again_;            // In no order.
  std::vector<std::string> find_again_;  // Dicts with a bucket that did not stand still.
  uint64_t find_again_ns_ = 0;
  uint64_t look_session_ = 0;
  Place look_at_;
};

}  // namespace statehouse
