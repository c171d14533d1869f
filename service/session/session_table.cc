#include "service/session/session_table.h"

#include <algorithm>
#include <chrono>

#include "engine/os/futex.h"
#include "service/log.h"

namespace statehouse {
namespace {

// A held call is answered so long before its deadline, at most, so that the answer arrives.
constexpr uint64_t kAnswerAheadNsMax = 500'000'000;
constexpr uint64_t kAnswerAheadPart = 10;  // Of the time that it has.

Status NotFound(uint64_t session) {
  return Status(Reason::kSessionNotFound,
                "session " + std::to_string(session) +
                    ": there is none for this access token, or it has ended; open one");
}

Status Draining() {
  return Status(Reason::kDraining,
                "holding a session: the service is draining; it goes on with "
                "its successor");
}

uint64_t Later(uint64_t ns, uint64_t by) { return ns > UINT64_MAX - by ? UINT64_MAX : ns + by; }

std::chrono::steady_clock::time_point TimeOf(uint64_t monotonic_ns) {
  return std::chrono::steady_clock::time_point(
      std::chrono::nanoseconds(static_cast<int64_t>(monotonic_ns)));
}

}  // namespace

std::string_view SessionEndName(SessionEnd end) {
  switch (end) {
    case SessionEnd::kClosed: return "closed";
    case SessionEnd::kDisconnected: return "disconnected";
    case SessionEnd::kExpired: return "expired";
    case SessionEnd::kRevoked: return "revoked";
  }
  return "unknown";
}

std::shared_ptr<SessionTable> SessionTable::Start(SessionStore* store, Events events) {
  std::shared_ptr<SessionTable> table(new SessionTable(store, std::move(events)));
  {
    const std::lock_guard<std::mutex> lock(table->mutex_);
    const uint64_t grace_ends = MonotonicNs() + kSessionGraceNs;
    for (SessionRecord& record : store->Sessions()) {
      record.deadline_ns = std::max(record.deadline_ns, grace_ends);
      table->Insert(std::move(record));
    }
  }
  SessionTable* const raw = table.get();
  table->thread_ = std::thread([raw] { raw->Run(); });
  return table;
}

SessionTable::~SessionTable() { Shutdown(); }

void SessionTable::Insert(SessionRecord record) {
  Session& session = sessions_[record.id];
  session.record = std::move(record);
  Arm(session);
}

SessionTable::Session* SessionTable::Find(uint64_t id, const std::string& token_id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || found->second.record.token_id != token_id) return nullptr;
  return &found->second;
}

void SessionTable::Arm(Session& session) {
  session.armed_ns = session.record.deadline_ns;
  const bool is_first = due_.empty() || session.armed_ns < due_.top().first;
  due_.emplace(session.armed_ns, session.record.id);
  if (is_first) changed_.notify_one();
}

// A later deadline is seen when the earlier one is due.
void SessionTable::SetDeadline(Session& session, uint64_t deadline_ns) {
  session.record.deadline_ns = deadline_ns;
  store_->SetDeadline(session.record.slot, deadline_ns);
  if (deadline_ns < session.armed_ns) Arm(session);
}

StatusOr<uint64_t> SessionTable::Open(SessionSpec spec) {
  SessionRecord record;
  record.token_id = std::move(spec.token_id);
  record.client_name = std::move(spec.client_name);
  record.ttl_ns = spec.ttl_ns;
  record.linger_ns = spec.linger_ns;
  record.deadline_ns = MonotonicNs() + spec.ttl_ns;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return Draining();
  SH_RETURN_IF_ERROR(store_->Add(&record));
  const uint64_t id = record.id;
  Insert(std::move(record));
  events_.on_begin(id);
  return id;
}

StatusOr<SessionRenewal> SessionTable::Renew(uint64_t id, const std::string& token_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Session* const session = Find(id, token_id);
  if (session == nullptr) return NotFound(id);
  SetDeadline(*session, MonotonicNs() + session->record.ttl_ns);
  return SessionRenewal{session->record.ttl_ns, !session->holds.empty()};
}

std::string SessionTable::ClientName(uint64_t id) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? "" : found->second.record.client_name;
}

uint64_t SessionTable::Hold(uint64_t id, const std::string& token_id, uint64_t deadline_ns,
                            Done done) {
  StatusOr<HoldAnswer> answer = HoldAnswer();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Session* const session = Find(id, token_id);
    if (session != nullptr) {
      SetDeadline(*session, MonotonicNs() + session->record.ttl_ns);
    }
    if (stopping_) {
      answer = Draining();
    } else if (session == nullptr) {
      answer = NotFound(id);
    } else if (!session->lost.empty()) {
      answer->lost.swap(session->lost);
    } else if (session->holds.size() >= kSessionHoldsMax) {
      answer = Status(Reason::kLimitExceeded, "session " + std::to_string(id) + ": " +
                                                  std::to_string(kSessionHoldsMax) +
                                                  " calls hold it already, which is the limit");
    } else {
      const uint64_t hold = next_hold_++;
      HeldCall& call = holds_[hold];
      call.session = id;
      call.done = std::move(done);
      if (deadline_ns != UINT64_MAX) {
        const uint64_t now = MonotonicNs();
        const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
        call.ends_ns = deadline_ns - std::min(left / kAnswerAheadPart, kAnswerAheadNsMax);
        hold_timers_.emplace(call.ends_ns, hold);
        changed_.notify_one();
      }
      session->holds.insert(hold);
      return hold;
    }
  }
  done(std::move(answer));
  return 0;
}

bool SessionTable::ExtractHold(uint64_t hold, HeldCall* call) {
  const auto found = holds_.find(hold);
  if (found == holds_.end()) return false;
  *call = std::move(found->second);
  holds_.erase(found);
  hold_timers_.erase({call->ends_ns, hold});
  const auto session = sessions_.find(call->session);
  if (session != sessions_.end()) session->second.holds.erase(hold);
  return true;
}

void SessionTable::Break(uint64_t hold) {
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    HeldCall call;
    if (!ExtractHold(hold, &call)) return;
    outcome.answers.push_back(
        {std::move(call.done),
         Status(Reason::kCancelled, "holding a session: the caller is gone")});
    const auto found = sessions_.find(call.session);
    if (found != sessions_.end() && found->second.holds.empty()) {
      Session& session = found->second;
      if (session.record.linger_ns == 0) {
        End(found, SessionEnd::kDisconnected, &outcome);
      } else {
        SetDeadline(session, std::min(session.record.deadline_ns,
                                      Later(MonotonicNs(), session.record.linger_ns)));
      }
    }
  }
  Finish(std::move(outcome));
}

uint32_t SessionTable::Close(uint64_t id, const std::string& token_id) {
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (Find(id, token_id) == nullptr) return 0;
    End(sessions_.find(id), SessionEnd::kClosed, &outcome);
  }
  return Finish(std::move(outcome));
}

void SessionTable::AnswerHolds(Session& session, const StatusOr<HoldAnswer>& result,
                               Outcome* outcome) {
  const std::set<uint64_t> holds = session.holds;
  HeldCall call;
  for (const uint64_t hold : holds) {
    if (ExtractHold(hold, &call)) outcome->answers.push_back({std::move(call.done), result});
  }
}

void SessionTable::End(Sessions::iterator found, SessionEnd why, Outcome* outcome) {
  HoldAnswer answer;
  answer.ended = true;
  answer.lost = std::move(found->second.lost);
  AnswerHolds(found->second, answer, outcome);
  store_->Remove(found->second.record.slot);
  ++ends_[static_cast<size_t>(why)];
  outcome->ended.push_back({std::move(found->second.record), why});
  sessions_.erase(found);
}

void SessionTable::TellLost(uint64_t id, LostLock lost) {
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) return;
    Session& session = found->second;
    if (session.lost.size() >= kSessionLostMax) session.lost.erase(session.lost.begin());
    session.lost.push_back(std::move(lost));
    if (!session.holds.empty()) {
      HoldAnswer answer;
      answer.lost = std::move(session.lost);
      session.lost.clear();
      AnswerHolds(session, answer, &outcome);
    }
  }
  Finish(std::move(outcome));
}

void SessionTable::Recheck(const std::function<bool(const std::string& token_id)>& is_valid) {
  std::set<std::string> tokens;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, session] : sessions_) tokens.insert(session.record.token_id);
  }
  std::set<std::string> refused;
  for (const std::string& token : tokens) {
    if (!is_valid(token)) refused.insert(token);
  }
  if (refused.empty()) return;
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = sessions_.begin(); at != sessions_.end();) {
      const auto current = at++;
      if (refused.contains(current->second.record.token_id)) {
        End(current, SessionEnd::kRevoked, &outcome);
      }
    }
  }
  Finish(std::move(outcome));
}

std::vector<SessionInfo> SessionTable::List(uint64_t after, size_t limit) const {
  std::vector<SessionInfo> infos;
  const std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t now = MonotonicNs();
  for (auto at = sessions_.upper_bound(after); at != sessions_.end() && infos.size() < limit;
       ++at) {
    const SessionRecord& record = at->second.record;
    infos.push_back({record.id, record.client_name, record.token_id, record.ttl_ns,
                     record.deadline_ns > now ? record.deadline_ns - now : 0,
                     !at->second.holds.empty()});
  }
  return infos;
}

SessionTotals SessionTable::Totals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  SessionTotals totals;
  totals.open = static_cast<uint32_t>(sessions_.size());
  std::copy(std::begin(ends_), std::end(ends_), std::begin(totals.ends));
  return totals;
}

uint32_t SessionTable::Finish(Outcome outcome) {
  uint32_t held = 0;
  // The locks first: somebody may wait for them.
  for (const Ended& ended : outcome.ended) {
    const uint32_t locks = events_.on_end(ended.record.id);
    held += locks;
    const auto level =
        ended.why == SessionEnd::kClosed ? spdlog::level::debug : spdlog::level::info;
    spdlog::log(level, "session {} of token {} ({}) ended: {}; it held {} locks", ended.record.id,
                ended.record.token_id, ended.record.client_name, SessionEndName(ended.why), locks);
  }
  for (Answer& answer : outcome.answers) answer.done(std::move(answer.result));
  return held;
}

void SessionTable::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const uint64_t now = MonotonicNs();
    Outcome outcome;
    while (!due_.empty() && due_.top().first <= now) {
      const auto [time, id] = due_.top();
      due_.pop();
      const auto found = sessions_.find(id);
      if (found == sessions_.end() || found->second.armed_ns != time) continue;
      if (found->second.record.deadline_ns > now) {
        Arm(found->second);
      } else {
        End(found, SessionEnd::kExpired, &outcome);
      }
    }
    while (!hold_timers_.empty() && hold_timers_.begin()->first <= now) {
      HeldCall call;
      if (ExtractHold(hold_timers_.begin()->second, &call)) {
        outcome.answers.push_back({std::move(call.done), HoldAnswer()});
      }
    }
    if (!outcome.answers.empty() || !outcome.ended.empty()) {
      lock.unlock();
      Finish(std::move(outcome));
      lock.lock();
      continue;
    }
    uint64_t next = due_.empty() ? UINT64_MAX : due_.top().first;
    if (!hold_timers_.empty()) next = std::min(next, hold_timers_.begin()->first);
    if (next == UINT64_MAX) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, TimeOf(next));
    }
  }
}

void SessionTable::Shutdown() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
    changed_.notify_all();
  }
  if (thread.joinable()) thread.join();
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [id, session] : sessions_) AnswerHolds(session, Draining(), &outcome);
  }
  Finish(std::move(outcome));
}

}  // namespace statehouse
