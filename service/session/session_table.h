// SessionTable: the sessions of clients that call: who they are, until when they live, and which
// connections hold them.
//
// Who owns it: the composition root, shared with whoever may break a hold later. Threads: any; one
// of its own ends what is due.
// Always true: `done` runs exactly once for each Hold, and OnEnd once for each session that ends,
//   with no lock held. A session lives until its deadline, which every call of its client moves on;
//   it is in the store, so the next daemon finds it and gives it at least kSessionGraceNs.
// Failure: SESSION_NOT_FOUND, also for a session of another access token; LIMIT_EXCEEDED; DRAINING
//   after Shutdown, which ends no session.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/session_store.h"

namespace statehouse {

enum class SessionEnd : uint8_t { kClosed, kDisconnected, kExpired, kRevoked };
inline constexpr size_t kSessionEnds = 4;
// "closed" for kClosed, and so on.
std::string_view SessionEndName(SessionEnd end);

struct SessionSpec {
  std::string token_id;
  std::string client_name;
  uint64_t ttl_ns = kSessionTtlNsDefault;
  uint64_t linger_ns = 0;  // How long it goes on when its last hold breaks.
};

// For people.
struct SessionInfo {
  uint64_t id = 0;
  std::string client_name;
  std::string token_id;
  uint64_t ttl_ns = 0;
  uint64_t expires_in_ns = 0;
  bool held = false;
};

struct SessionRenewal {
  uint64_t expires_in_ns = 0;
  bool held = false;
};

struct LostLock {
  std::string name;
  uint64_t token = 0;
};

struct HoldAnswer {
  bool ended = false;
  std::vector<LostLock> lost;
};

struct SessionTotals {
  uint32_t open = 0;
  uint64_t ends[kSessionEnds] = {};  // Since this daemon started.
};

class SessionTable final {
 public:
  using Done = std::function<void(StatusOr<HoldAnswer>)>;
  // A session begins, and has ended; the latter returns how many locks it held.
  struct Events {
    std::function<void(uint64_t session)> on_begin;
    std::function<uint32_t(uint64_t session)> on_end;
  };

  // Takes over the sessions that stand in `store`, which outlives the table.
  static std::shared_ptr<SessionTable> Start(SessionStore* store, Events events);
  ~SessionTable();
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  StatusOr<uint64_t> Open(SessionSpec spec);
  // Moves the deadline on.
  StatusOr<SessionRenewal> Renew(uint64_t session, const std::string& token_id);
  // The owner, for texts. Empty where there is no such session.
  std::string ClientName(uint64_t session) const;
  // Holds the session until Break, which ends it unless another call holds it too. `done` is told
  // of losses and of the session's end, and of nothing shortly before `deadline_ns`. Returns a
  // number for Break, or 0 when `done` has run already.
  uint64_t Hold(uint64_t session, const std::string& token_id, uint64_t deadline_ns, Done done);
  // The connection of the call is gone.
  void Break(uint64_t hold);
  // How many locks it held; 0 where there is no such session.
  uint32_t Close(uint64_t session, const std::string& token_id);
  // A grant of the session ended before it was released.
  void TellLost(uint64_t session, LostLock lost);
  // Ends each session whose access token `is_valid` refuses.
  void Recheck(const std::function<bool(const std::string& token_id)>& is_valid);
  // At most `limit` with ids above `after`, in order.
  std::vector<SessionInfo> List(uint64_t after, size_t limit) const;
  SessionTotals Totals() const;
  // Answers every hold with DRAINING and joins the thread. Idempotent.
  void Shutdown();

 private:
  struct Session {
    SessionRecord record;
    uint64_t armed_ns = UINT64_MAX;  // The one entry of due_ that counts.
    std::vector<LostLock> lost;      // Since the last answer; the latest kSessionLostMax.
    std::set<uint64_t> holds;
  };
  struct HeldCall {
    uint64_t session = 0;
    uint64_t ends_ns = UINT64_MAX;
    Done done;
  };
  struct Answer {
    Done done;
    StatusOr<HoldAnswer> result;
  };
  // A session that has left the table, to be told of.
  struct Ended {
    SessionRecord record;
    SessionEnd why = SessionEnd::kClosed;
  };
  struct Outcome {
    std::vector<Answer> answers;
    std::vector<Ended> ended;
  };
  using Sessions = std::map<uint64_t, Session>;

  SessionTable(SessionStore* store, Events events) : store_(store), events_(std::move(events)) {}
  void Run();
  // Tells; returns how many locks the ended sessions held.
  uint32_t Finish(Outcome outcome);

  // All below REQUIRE mutex_ held.
  void Insert(SessionRecord record);
  Session* Find(uint64_t session, const std::string& token_id);
  void SetDeadline(Session& session, uint64_t deadline_ns);
  void Arm(Session& session);
  void AnswerHolds(Session& session, const StatusOr<HoldAnswer>& result, Outcome* outcome);
  void End(Sessions::iterator session, SessionEnd why, Outcome* outcome);
  bool ExtractHold(uint64_t hold, HeldCall* call);

  SessionStore* const store_;
  const Events events_;

  mutable std::mutex mutex_;
  // Everything below is guarded by mutex_.
  std::condition_variable changed_;
  Sessions sessions_;
  using Due = std::pair<uint64_t, uint64_t>;  // Time, session.
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::unordered_map<uint64_t, HeldCall> holds_;
  std::set<std::pair<uint64_t, uint64_t>> hold_timers_;  // Time, hold.
  uint64_t next_hold_ = 1;
  uint64_t ends_[kSessionEnds] = {};
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace statehouse
