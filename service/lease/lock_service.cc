#include "service/lease/lock_service.h"

#include <algorithm>
#include <unordered_set>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// How many places of a session are given back before its end returns; the thread does the rest.
constexpr size_t kLeaveAtOnceMax = 256;
// A request that stands in the queue is not granted any more so long after its call's end: what a
// daemon that was killed meanwhile cannot say.
constexpr uint64_t kWaitSlackNs = kSessionGraceNs;
// So soon a wait that outlives its call is asked for again, and so much before the deadline the
// caller may have given the call up because of it.
constexpr uint64_t kBetweenCallsNs = 1'000'000'000;
constexpr uint64_t kAtDeadlineNs = 100'000'000;

Status NoSession(const std::string& doing) {
  return Status(Reason::kSessionNotFound,
                doing + ": there is no such session, or it has ended; open one");
}

Status LeaseOver(const std::string& name) {
  return Status(Reason::kLockLost, "lock \"" + name +
                                       "\": the lease is over: it ran out, was released, or was "
                                       "taken away; acquire it again");
}

uint64_t Later(uint64_t ns, uint64_t by) { return ns > UINT64_MAX - by ? UINT64_MAX : ns + by; }

void EraseFrom(std::unordered_map<std::string, std::set<uint64_t>>* named, const std::string& name,
               uint64_t entry) {
  const auto found = named->find(name);
  if (found == named->end()) return;
  found->second.erase(entry);
  if (found->second.empty()) named->erase(found);
}

}  // namespace

std::shared_ptr<LockService> LockService::Start(Options options, Engine* engine,
                                                const std::vector<uint64_t>& sessions) {
  std::shared_ptr<LockService> service(new LockService(options, engine));
  service->TakeOver(sessions);
  LockService* const raw = service.get();
  service->thread_ = std::thread([raw] { raw->Run(); });
  return service;
}

LockService::~LockService() { Shutdown(); }

void LockService::SetOnLoss(OnLoss on_loss) {
  std::vector<LockLoss> losses;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    on_loss_ = on_loss;
    losses.swap(early_losses_);
  }
  for (const LockLoss& loss : losses) on_loss(loss);
}

void LockService::Finish(Outcome outcome) {
  for (auto& [done, result] : outcome.answers) done(std::move(result));
  if (outcome.losses.empty()) return;
  OnLoss on_loss;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (on_loss_ == nullptr) {
      early_losses_.insert(early_losses_.end(), outcome.losses.begin(), outcome.losses.end());
      return;
    }
    on_loss = on_loss_;
  }
  for (const LockLoss& loss : outcome.losses) on_loss(loss);
}

void LockService::TakeOver(const std::vector<uint64_t>& sessions) {
  const Guard guard(this);
  std::vector<LockRemote> remotes = space_.TakeRemotes();
  std::sort(remotes.begin(), remotes.end(), [](const LockRemote& a, const LockRemote& b) {
    return std::pair(a.since_ns, a.place) < std::pair(b.since_ns, b.place);
  });
  for (const uint64_t session : sessions) sessions_[session];
  const uint64_t now = MonotonicNs();
  for (LockRemote& remote : remotes) {
    const auto session = sessions_.find(remote.session);
    const LockLook look = space_.Look(remote.place);
    const bool stands = look.phase == LockPhase::kWaiting || look.phase == LockPhase::kHolding;
    if (session == sessions_.end() || session->second.entries.contains(remote.request_id)) {
      leaving_.push_back(remote.place);
      continue;
    }
    if (!stands) {
      leaving_.push_back(remote.place);
      session->second.lost.push_back({remote.request_id, remote.name, look.token});
      if (!remote.name.empty()) early_losses_.push_back({remote.session, remote.name, look.token});
      continue;
    }
    const uint64_t id = next_entry_++;
    Entry& entry = entries_[id];
    entry.id = id;
    entry.ask.name = std::move(remote.name);
    entry.ask.session = remote.session;
    entry.ask.request_id = remote.request_id;
    entry.place = remote.place;
    session->second.entries[remote.request_id] = id;
    by_place_[remote.place] = id;
    queues_[entry.ask.name].insert(id);
    Outcome none;  // Nobody waits yet.
    if (look.phase == LockPhase::kHolding) {
      Promote(entry, look, &none);
    } else {
      Orphan(entry, now + kSessionGraceNs);
    }
  }
}

void LockService::BeginSession(uint64_t session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sessions_[session];
}

uint32_t LockService::HeldBy(uint64_t session) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(session);
  return found == sessions_.end() ? 0 : found->second.held;
}

uint32_t LockService::EndSession(uint64_t session) {
  Outcome outcome;
  uint32_t held = 0;
  {
    const Guard guard(this);
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) return 0;
    held = found->second.held;
    const std::map<uint64_t, uint64_t> entries = found->second.entries;
    // What waits goes first, so that nothing is granted to the session now.
    std::deque<LockPlace> places;
    for (const auto& [request_id, id] : entries) {
      Entry& entry = entries_.at(id);
      EndCalls(entry, NoSession("lock \"" + entry.ask.name + "\""), &outcome);
      if (entry.place != 0 && entry.phase == LockPhase::kHolding) places.push_back(entry.place);
      if (entry.place != 0 && entry.phase != LockPhase::kHolding) places.push_front(entry.place);
      Forget(entry);
    }
    sessions_.erase(session);
    leave_stalled_ = false;
    for (size_t i = 0; i < kLeaveAtOnceMax && !places.empty() && !leave_stalled_; ++i) {
      (void)Leave(places.front(), &outcome);
      places.pop_front();
    }
    leaving_.insert(leaving_.end(), places.begin(), places.end());
    if (!leaving_.empty()) WakeIfEarlier(0);
  }
  Finish(std::move(outcome));
  return held;
}

uint64_t LockService::Acquire(LockAsk ask, Done done) {
  Outcome outcome;
  uint64_t call = 0;
  std::shared_ptr<const Allowed> allowed;
  const std::shared_ptr<const Identity> identity = ask.identity;
  const std::string name = ask.name;
  {
    const Guard guard(this);
    allowed = allowed_;
    StatusOr<LockAnswer> answer = Begin(std::move(ask), &done, &call, &outcome);
    if (call == 0) outcome.answers.emplace_back(std::move(done), std::move(answer));
  }
  Finish(std::move(outcome));
  if (call == 0 || allowed == nullptr || identity == nullptr) return call;
  // Its token may have been authenticated before the grants changed.
  Status still = (*allowed)(*identity, name);
  if (still.ok()) return call;
  {
    const Guard guard(this);
    EndCall(call, std::move(still), &outcome);
  }
  Finish(std::move(outcome));
  return 0;
}

// *call is set where the call waits; then *done was moved.
StatusOr<LockAnswer> LockService::Begin(LockAsk ask, Done* done, uint64_t* call, Outcome* outcome) {
  if (stopping_) {
    return Status(Reason::kDraining,
                  "lock \"" + ask.name + "\": the service is draining; try its successor");
  }
  const auto session = sessions_.find(ask.session);
  if (session == sessions_.end()) return NoSession("lock \"" + ask.name + "\"");
  Entry* entry = FindRequest(session->second, ask.request_id);
  if (entry != nullptr && entry->ask.name != ask.name) {
    return Status(Reason::kInvalidArgument, "field request_id: " + std::to_string(ask.request_id) +
                                                " names a request for lock \"" + entry->ask.name +
                                                "\"; use a new one");
  }
  if (entry != nullptr) LookAt(*entry, outcome);
  entry = FindRequest(session->second, ask.request_id);
  const auto is_it = [&](const Lost& lost) { return lost.request_id == ask.request_id; };
  const std::deque<Lost>& lost = session->second.lost;
  if (std::any_of(lost.begin(), lost.end(), is_it)) return LeaseOver(ask.name);
  const bool has_room = calls_.size() < options_.waiters_max;
  const Status full(Reason::kLimitExceeded, "lock \"" + ask.name +
                                                "\": " + std::to_string(calls_.size()) +
                                                " calls wait, which is the limit");
  if (entry != nullptr) {
    Claim(*entry);
    if (entry->phase == LockPhase::kHolding) return AnswerOf(*entry);
    if (!ask.queue) return LockAnswer();
    if (!has_room) return full;
    *call = Park(*entry, std::move(ask), std::move(*done));
    return LockAnswer();
  }
  if (session->second.entries.size() >= options_.locks_per_session_max) {
    return Status(Reason::kLimitExceeded, "lock \"" + ask.name +
                                              "\": the session holds or waits for " +
                                              std::to_string(session->second.entries.size()) +
                                              " locks, which is the limit");
  }
  const uint64_t id = next_entry_++;
  entry = &entries_[id];
  entry->id = id;
  entry->ask = ask;
  entry->ask.queue = ask.queue && has_room;
  entry->asked_ns = MonotonicNs();
  session->second.entries[ask.request_id] = id;
  Status asked = AskSpace(*entry, outcome);
  if (!asked.ok() && asked.reason() != Reason::kStalled) {
    Forget(*entry);
    return asked;
  }
  if (entry->phase == LockPhase::kHolding) return AnswerOf(*entry);
  if (asked.ok() && entry->place == 0) {
    Forget(*entry);
    if (ask.queue) return full;
    return LockAnswer();
  }
  *call = Park(*entry, std::move(ask), std::move(*done));
  return LockAnswer();
}

LockService::Entry* LockService::FindRequest(const SessionLocks& session, uint64_t request_id) {
  const auto found = session.entries.find(request_id);
  return found == session.entries.end() ? nullptr : &entries_.at(found->second);
}

LockAnswer LockService::AnswerOf(const Entry& entry) const {
  const uint64_t now = MonotonicNs();
  return {true, entry.token, entry.expires_ns > now ? entry.expires_ns - now : 0};
}

// Asks for the entry's lock. The entry holds or waits then, or has no place: where it does not
// queue, and where the answer is STALLED, after which the thread tries again.
Status LockService::AskSpace(Entry& entry, Outcome* outcome) {
  LockRequest request;
  request.mode = entry.ask.mode;
  request.limit = entry.ask.limit;
  request.ttl_ns = entry.ask.ttl_ns;
  request.hold_ns_max = entry.ask.hold_ns_max;
  request.queue = entry.ask.queue;
  const uint64_t ends = entry.ask.outlives_call
                            ? entry.ask.timeout_at_ns
                            : std::min(entry.ask.timeout_at_ns, entry.ask.deadline_ns);
  request.wait_until_ns = ends == UINT64_MAX ? 0 : Later(ends, kWaitSlackNs);
  request.owner = entry.ask.owner;
  request.remote = true;
  request.session = entry.ask.session;
  request.request_id = entry.ask.request_id;
  LockLook look;
  Status status = space_.Acquire(lane_, entry.ask.name, request, &entry.place, &look);
  if (status.reason() == Reason::kStalled) {
    stalled_.insert(entry.id);
    WakeIfEarlier(0);
  }
  if (entry.place == 0) return status;
  stalled_.erase(entry.id);
  by_place_[entry.place] = entry.id;
  queues_[entry.ask.name].insert(entry.id);
  if (look.phase == LockPhase::kHolding) Promote(entry, look, outcome);
  return Status();
}

uint64_t LockService::Park(Entry& entry, LockAsk ask, Done done) {
  const uint64_t id = next_call_++;
  const uint64_t ends = std::min(ask.timeout_at_ns, ask.deadline_ns);
  Call& call = calls_[id];
  call.entry = entry.id;
  call.timeout_at_ns = ask.timeout_at_ns;
  call.deadline_ns = ask.deadline_ns;
  call.outlives_call = ask.outlives_call;
  call.identity = ask.identity;
  call.done = std::move(done);
  if (ends != UINT64_MAX) timers_.emplace(ends, id);
  entry.calls.insert(id);
  entry.ask = std::move(ask);  // A later call may wait longer.
  // Somebody has to see when the lease of the holder before it ends.
  next_scan_ns_ = std::min(next_scan_ns_, Later(last_scan_ns_, scan_pause_ns_));
  WakeIfEarlier(std::min(ends, next_scan_ns_));
  return id;
}

void LockService::Orphan(Entry& entry, uint64_t until_ns) {
  entry.orphan_until_ns = until_ns;
  orphans_.emplace(until_ns, entry.id);
  WakeIfEarlier(until_ns);
}

void LockService::Claim(Entry& entry) {
  if (entry.orphan_until_ns == 0) return;
  orphans_.erase({entry.orphan_until_ns, entry.id});
  entry.orphan_until_ns = 0;
}

void LockService::Promote(Entry& entry, const LockLook& look, Outcome* outcome) {
  EraseFrom(&queues_, entry.ask.name, entry.id);
  entry.phase = LockPhase::kHolding;
  entry.token = look.token;
  SetExpiry(entry, look.expires_ns);
  by_token_[look.token] = entry.id;
  holders_[entry.ask.name].insert(entry.id);
  ++sessions_.at(entry.ask.session).held;
  EndCalls(entry, AnswerOf(entry), outcome);
}

void LockService::SetExpiry(Entry& entry, uint64_t expires_ns) {
  if (entry.expires_ns == expires_ns) return;
  if (entry.expires_ns != 0) expiries_.erase({entry.expires_ns, entry.id});
  entry.expires_ns = expires_ns;
  expiries_.emplace(expires_ns, entry.id);
  WakeIfEarlier(expires_ns);
}

void LockService::Lose(Entry& entry, Outcome* outcome) {
  ++losses_;
  SessionLocks& session = sessions_.at(entry.ask.session);
  session.lost.push_back({entry.ask.request_id, entry.ask.name, entry.token});
  if (session.lost.size() > kLostMax) session.lost.pop_front();
  outcome->losses.push_back({entry.ask.session, entry.ask.name, entry.token});
  (void)Drop(entry, outcome);
}

void LockService::EndCalls(Entry& entry, const StatusOr<LockAnswer>& result, Outcome* outcome) {
  const std::set<uint64_t> calls = std::move(entry.calls);
  entry.calls.clear();
  Call call;
  for (const uint64_t id : calls) {
    if (ExtractCall(id, &call)) outcome->answers.emplace_back(std::move(call.done), result);
  }
}

bool LockService::ExtractCall(uint64_t id, Call* extracted) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return false;
  *extracted = std::move(found->second);
  calls_.erase(found);
  timers_.erase({std::min(extracted->timeout_at_ns, extracted->deadline_ns), id});
  return true;
}

void LockService::EndCall(uint64_t id, StatusOr<LockAnswer> result, Outcome* outcome) {
  Call call;
  if (!ExtractCall(id, &call)) return;
  outcome->answers.emplace_back(std::move(call.done), std::move(result));
  Entry& entry = entries_.at(call.entry);
  entry.calls.erase(id);
  if (!entry.calls.empty() || entry.phase != LockPhase::kWaiting) return;
  const uint64_t now = MonotonicNs();
  if (call.outlives_call && Later(now, kAtDeadlineNs) >= call.deadline_ns) {
    Orphan(entry, std::min(now + kBetweenCallsNs, call.timeout_at_ns));
  } else {
    (void)Drop(entry, outcome);
  }
}

// Takes the entry out of every map. Its place is the caller's.
void LockService::Forget(Entry& entry) {
  EraseFrom(&queues_, entry.ask.name, entry.id);
  EraseFrom(&holders_, entry.ask.name, entry.id);
  if (entry.expires_ns != 0) expiries_.erase({entry.expires_ns, entry.id});
  Claim(entry);
  stalled_.erase(entry.id);
  if (entry.place != 0) by_place_.erase(entry.place);
  const auto token = by_token_.find(entry.token);
  if (token != by_token_.end() && token->second == entry.id) by_token_.erase(token);
  const auto session = sessions_.find(entry.ask.session);
  if (session != sessions_.end()) {
    session->second.entries.erase(entry.ask.request_id);
    if (entry.phase == LockPhase::kHolding) --session->second.held;
  }
  entries_.erase(entry.id);
}

bool LockService::Drop(Entry& entry, Outcome* outcome) {
  const LockPlace place = entry.place;
  Forget(entry);
  return place != 0 && Leave(place, outcome);
}

// Gives a place back that no entry has any more.
bool LockService::Leave(LockPlace place, Outcome* outcome) {
  bool held = false;
  std::vector<LockPlace> granted;
  const Status left = space_.Release(lane_, place, &held, &granted);
  if (left.reason() == Reason::kStalled) {
    leave_stalled_ = true;
    leaving_.push_back(place);
    WakeIfEarlier(0);
  }
  NoticeGrants(granted, outcome);
  return held;
}

void LockService::NoticeGrants(const std::vector<LockPlace>& granted, Outcome* outcome) {
  for (const LockPlace place : granted) {
    const auto found = by_place_.find(place);
    if (found != by_place_.end()) LookAt(entries_.at(found->second), outcome);
  }
}

// Sees how the entry's request stands. The entry may be gone then.
void LockService::LookAt(Entry& entry, Outcome* outcome) {
  if (entry.place == 0) return;
  const LockLook look = space_.Look(entry.place);
  if (entry.phase == LockPhase::kHolding) {
    if (look.phase == LockPhase::kHolding && look.token == entry.token) {
      return SetExpiry(entry, look.expires_ns);
    }
    return Lose(entry, outcome);
  }
  if (look.phase == LockPhase::kWaiting) return;
  if (look.phase == LockPhase::kHolding) return Promote(entry, look, outcome);
  if (entry.calls.empty()) return (void)Drop(entry, outcome);
  // Thrown out of the queue, which was damaged, or given up for late by its first call's time:
  // it asks again.
  EraseFrom(&queues_, entry.ask.name, entry.id);
  by_place_.erase(entry.place);
  const LockPlace place = std::exchange(entry.place, 0);
  entry.asked_ns = MonotonicNs();
  stalled_.insert(entry.id);
  WakeIfEarlier(0);
  (void)Leave(place, outcome);
}

LockService::Entry* LockService::FindHolder(uint64_t session, const std::string& name,
                                            uint64_t token) {
  const auto found = by_token_.find(token);
  if (found == by_token_.end()) return nullptr;
  Entry& entry = entries_.at(found->second);
  return entry.ask.session == session && entry.ask.name == name ? &entry : nullptr;
}

void LockService::Cancel(uint64_t call) {
  Outcome outcome;
  {
    const Guard guard(this);
    EndCall(call, Status(Reason::kCancelled, "waiting for a lock: the caller gave up"), &outcome);
  }
  Finish(std::move(outcome));
}

StatusOr<uint64_t> LockService::Renew(uint64_t session, const std::string& name, uint64_t token,
                                      uint64_t ttl_ns) {
  Outcome outcome;
  const auto renew = [&]() -> StatusOr<uint64_t> {
    const Guard guard(this);
    if (!sessions_.contains(session)) return NoSession("renewing lock \"" + name + "\"");
    Entry* const entry = FindHolder(session, name, token);
    if (entry == nullptr) return LeaseOver(name);
    LockLook look;
    Status renewed = space_.Renew(lane_, entry->place, ttl_ns, &look);
    if (renewed.reason() == Reason::kLockLost) {
      Lose(*entry, &outcome);
      return LeaseOver(name);
    }
    if (!renewed.ok()) return renewed;
    SetExpiry(*entry, look.expires_ns);
    return AnswerOf(*entry).expires_in_ns;
  };
  StatusOr<uint64_t> left = renew();
  Finish(std::move(outcome));
  return left;
}

StatusOr<bool> LockService::Release(uint64_t session, const std::string& name, uint64_t token) {
  Outcome outcome;
  const auto release = [&]() -> StatusOr<bool> {
    const Guard guard(this);
    if (!sessions_.contains(session)) return NoSession("releasing lock \"" + name + "\"");
    Entry* const entry = FindHolder(session, name, token);
    if (entry == nullptr) return false;
    bool held = false;
    std::vector<LockPlace> granted;
    Status left = space_.Release(lane_, entry->place, &held, &granted);
    if (left.reason() == Reason::kStalled) return left;
    Forget(*entry);
    NoticeGrants(granted, &outcome);
    return held;
  };
  StatusOr<bool> held = release();
  Finish(std::move(outcome));
  return held;
}

StatusOr<uint32_t> LockService::ForceRelease(const std::string& name, uint64_t token) {
  Outcome outcome;
  const auto release = [&]() -> StatusOr<uint32_t> {
    const Guard guard(this);
    SH_ASSIGN_OR_RETURN(const uint32_t released, space_.ForceRelease(lane_, name, token));
    forced_releases_ += released;
    for (const auto* named : {&holders_, &queues_}) {
      const auto found = named->find(name);
      if (found == named->end()) continue;
      const std::set<uint64_t> ids = found->second;
      for (const uint64_t id : ids) {
        const auto entry = entries_.find(id);
        if (entry != entries_.end()) LookAt(entry->second, &outcome);
      }
    }
    return released;
  };
  StatusOr<uint32_t> released = release();
  Finish(std::move(outcome));
  return released;
}

void LockService::Recheck(Allowed allowed) {
  const auto shared = std::make_shared<const Allowed>(std::move(allowed));
  struct Waiter {
    uint64_t call;
    std::shared_ptr<const Identity> identity;
    std::string name;
  };
  std::vector<Waiter> waiters;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_ = shared;
    for (const auto& [id, call] : calls_) {
      if (call.identity == nullptr) continue;
      waiters.push_back({id, call.identity, entries_.at(call.entry).ask.name});
    }
  }
  for (const Waiter& waiter : waiters) {
    Status still = (*shared)(*waiter.identity, waiter.name);
    if (still.ok()) continue;
    Outcome outcome;
    {
      const Guard guard(this);
      EndCall(waiter.call, std::move(still), &outcome);
    }
    Finish(std::move(outcome));
  }
}

void LockService::Shutdown() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
    space_.WakeDaemon();
  }
  if (thread.joinable()) thread.join();
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Call call;
    while (!calls_.empty()) {
      const uint64_t id = calls_.begin()->first;
      ExtractCall(id, &call);
      Entry& entry = entries_.at(call.entry);
      entry.calls.erase(id);
      outcome.answers.emplace_back(
          std::move(call.done),
          Status(Reason::kDraining, "waiting for lock \"" + entry.ask.name +
                                        "\": the service is draining; try its successor"));
    }
  }
  Finish(std::move(outcome));
}

LockServiceTotals LockService::Totals() const {
  LockServiceTotals totals;
  totals.stats = space_.Stats();
  totals.last_token = space_.LastToken();
  const std::lock_guard<std::mutex> lock(mutex_);
  totals.holding = holding_;
  totals.waiting = waiting_;
  totals.parked_calls = static_cast<uint32_t>(calls_.size());
  totals.forced_releases = forced_releases_;
  totals.losses = losses_;
  return totals;
}

}  // namespace statehouse
