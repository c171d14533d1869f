#include "service/api/lock_verbs.h"

#include <algorithm>
#include <charconv>

#include "engine/os/futex.h"
#include "service/api/durations.h"
#include "service/api/paging.h"
#include "service/log.h"

namespace statehouse {
namespace {

constexpr std::string_view kOfDict = "dict/";  // What the names of locks of entries begin with.
constexpr size_t kPartiesMax = 1000;           // Of a description,
constexpr size_t kListedPartiesMax = 10;       // and in a list.
constexpr DurationBounds kTtlBounds{kLockTtlNsMin, kLockTtlNsMax, "100 ms to 7 days"};
constexpr DurationBounds kHoldBounds{kLockTtlNsMin, UINT64_MAX, "100 ms and more"};

Status CheckLockName(std::string_view name) {
  if (!name.empty() && name.size() <= kNameBytesMax) return Status();
  return Status(Reason::kNameInvalid, "field name: it has " + std::to_string(name.size()) +
                                          " bytes; 1 to 255 are allowed");
}

// Every object that the rest of a derived name can stand for: each part before a slash, and all of
// it where `whole`.
template <typename Exists>
bool AllowsDerived(const Identity& identity, ObjectKind kind, std::string_view rest, bool whole,
                   Verb verb, const Exists& exists) {
  bool allows = false;
  for (size_t end = 1; end <= rest.size(); ++end) {
    const bool is_end = end == rest.size();
    if (is_end ? !whole : rest[end] != '/' || (!whole && end + 1 == rest.size())) continue;
    const std::string_view name = rest.substr(0, end);
    if (identity.Allows(kind, name, verb)) {
      allows = true;
    } else if (exists(name)) {
      return false;
    }
  }
  return allows;
}

bool AllowsLock(const Engine& engine, const Identity& identity, std::string_view name, Verb verb) {
  constexpr std::string_view kOfArea = "area/";
  if (identity.Allows(ObjectKind::kLock, name, verb)) return true;
  if (name.starts_with(kOfDict)) {
    return AllowsDerived(identity, ObjectKind::kDict, name.substr(kOfDict.size()), /*whole=*/false,
                         verb,
                         [&](std::string_view dict) { return engine.dicts().Find(dict).ok(); });
  }
  if (name.starts_with(kOfArea)) {
    return AllowsDerived(identity, ObjectKind::kArea, name.substr(kOfArea.size()), /*whole=*/true,
                         verb, [&](std::string_view area) { return engine.FindArea(area).ok(); });
  }
  return false;
}

bool MaySee(const VerbContext& context, std::string_view name) {
  return AllowsLock(*context.engine, *context.identity, name, Verb::kLock) ||
         AllowsLock(*context.engine, *context.identity, name, Verb::kRead);
}

// Name, grant and session of a call, in this order.
template <typename Request>
Status Enter(const VerbContext& context, const Request& request) {
  SH_RETURN_IF_ERROR(CheckLockName(request.name()));
  SH_RETURN_IF_ERROR(RequireLock(*context.engine, *context.identity, request.name(), Verb::kLock));
  return context.sessions->Renew(request.session_id(), context.identity->token_id()).status();
}

void Fill(const LockParty& party, bool holds, uint64_t now, v1::LockParty* to) {
  to->set_owner(ShownText(party.owner));
  to->set_mode(party.mode == LockMode::kShared ? v1::LOCK_MODE_SHARED : v1::LOCK_MODE_EXCLUSIVE);
  to->set_session_id(party.session);
  SetDuration(now > party.since_ns ? now - party.since_ns : 0, to->mutable_since());
  if (!holds) return;
  to->set_token(party.token);
  SetDuration(party.expires_ns > now ? party.expires_ns - now : 0, to->mutable_expires_in());
}

void Fill(const LockDescription& lock, uint64_t now, v1::Lock* to) {
  to->set_name(ShownText(lock.name));
  to->set_limit(lock.limit);
  uint32_t over = 0;  // Leases that are over and that nobody has taken away yet.
  for (const LockParty& party : lock.holders) {
    if (party.expires_ns <= now) {
      ++over;
    } else {
      Fill(party, true, now, to->add_holders());
    }
  }
  to->set_holder_count(lock.holder_count - std::min(over, lock.holder_count));
  to->set_waiter_count(lock.waiter_count);
  for (const LockParty& party : lock.waiters) Fill(party, false, now, to->add_waiters());
}

// Where a page of locks ends: behind the lock `after` of a bucket.
struct ListPlace {
  uint32_t bucket = 0;
  std::string after;
};

// Names may hold bytes that no text has, so they travel as hex digits.
std::string Hex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    hex.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
    hex.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
  }
  return hex;
}

std::string ListToken(const ListPlace& place, std::string_view prefix) {
  return "locks." + std::to_string(place.bucket) + "." + Hex(place.after) + "." +
         std::string(prefix);
}

StatusOr<ListPlace> ParseListToken(std::string_view token, std::string_view prefix) {
  ListPlace place;
  if (token.empty()) return place;
  constexpr std::string_view kBegin = "locks.";
  if (token.starts_with(kBegin)) {
    const char* at = token.data() + kBegin.size();
    const char* const end = token.data() + token.size();
    at = std::from_chars(at, end, place.bucket).ptr;
    if (at < end && *at == '.') ++at;
    for (uint8_t byte = 0; end - at >= 2 && *at != '.'; at += 2) {
      if (std::from_chars(at, at + 2, byte, 16).ptr != at + 2) break;
      place.after.push_back(static_cast<char>(byte));
    }
    if (ListToken(place, prefix) == token) return place;
  }
  return Status(
      Reason::kInvalidArgument,
      "field page_token: it does not come from a call with this prefix; begin without one");
}

}  // namespace

std::string LoggedLockName(const Engine& engine, std::string_view name) {
  if (!name.starts_with(kOfDict)) return std::string(name);
  const std::string_view rest = name.substr(kOfDict.size());
  const size_t first = rest.find('/');
  if (first == std::string_view::npos) return std::string(name);  // It has no key.
  // The shortest dict that there is; else what every dict of this name begins with.
  size_t shown = first;
  for (size_t end = first; end != std::string_view::npos; end = rest.find('/', end + 1)) {
    if (!engine.dicts().Find(rest.substr(0, end)).ok()) continue;
    shown = end;
    break;
  }
  return std::string(name.substr(0, kOfDict.size() + shown)) + "/...";
}

Status RequireLock(const Engine& engine, const Identity& identity, std::string_view name,
                   Verb verb) {
  if (AllowsLock(engine, identity, name, verb)) return Status();
  return identity.Require(ObjectKind::kLock, name, verb);
}

StatusOr<LockAsk> PlanAcquire(const VerbContext& context, const v1::AcquireLockRequest& request) {
  SH_RETURN_IF_ERROR(CheckLockName(request.name()));
  SH_RETURN_IF_ERROR(RequireLock(*context.engine, *context.identity, request.name(), Verb::kLock));
  const auto refuse = [](const char* field, const std::string& why) {
    return Status(Reason::kInvalidArgument, "field " + std::string(field) + ": " + why);
  };
  LockAsk ask;
  ask.name = request.name();
  ask.session = request.session_id();
  ask.request_id = request.request_id();
  if (ask.request_id == 0) return refuse("request_id", "it must be 1 or more");
  switch (request.mode()) {
    case v1::LOCK_MODE_EXCLUSIVE: ask.mode = LockMode::kExclusive; break;
    case v1::LOCK_MODE_SHARED: ask.mode = LockMode::kShared; break;
    default: return refuse("mode", "set LOCK_MODE_EXCLUSIVE or LOCK_MODE_SHARED");
  }
  ask.limit = std::max(request.limit(), 1u);
  if (ask.limit > kLockHoldersMax) return refuse("limit", "at most 1,048,576 may hold a lock");
  if (ask.mode == LockMode::kShared && ask.limit != 1) {
    return refuse("limit", "shared holders have none; leave it unset");
  }
  SH_ASSIGN_OR_RETURN(ask.ttl_ns, ToBounded(request.has_ttl(), request.ttl(), "ttl",
                                            kLockTtlNsDefault, kTtlBounds));
  SH_ASSIGN_OR_RETURN(ask.hold_ns_max, ToBounded(request.has_hold_max(), request.hold_max(),
                                                 "hold_max", 0, kHoldBounds));
  if (ask.hold_ns_max == UINT64_MAX) ask.hold_ns_max = 0;
  if (request.has_timeout()) {
    SH_ASSIGN_OR_RETURN(const uint64_t timeout, ToNanoseconds(request.timeout(), "timeout"));
    ask.queue = timeout != 0;
    if (timeout != UINT64_MAX) ask.timeout_at_ns = MonotonicNs() + timeout;
  }
  SH_RETURN_IF_ERROR(context.sessions->Renew(ask.session, context.identity->token_id()).status());
  ask.owner =
      CutText(request.owner().empty() ? context.sessions->ClientName(ask.session) : request.owner(),
              kLockOwnerBytesMax);
  return ask;
}

Status RenewLock(const VerbContext& context, const v1::RenewLockRequest& request,
                 v1::RenewLockResponse* response) {
  SH_RETURN_IF_ERROR(Enter(context, request));
  SH_ASSIGN_OR_RETURN(const uint64_t ttl,
                      ToBounded(request.has_ttl(), request.ttl(), "ttl", 0, kTtlBounds));
  SH_ASSIGN_OR_RETURN(
      const uint64_t left,
      context.locks->Renew(request.session_id(), request.name(), request.token(), ttl));
  SetDuration(left, response->mutable_expires_in());
  return Status();
}

Status ReleaseLock(const VerbContext& context, const v1::ReleaseLockRequest& request,
                   v1::ReleaseLockResponse* response) {
  SH_RETURN_IF_ERROR(Enter(context, request));
  SH_ASSIGN_OR_RETURN(const bool held, context.locks->Release(request.session_id(), request.name(),
                                                              request.token()));
  response->set_held(held);
  return Status();
}

Status DescribeLock(const VerbContext& context, const v1::DescribeLockRequest& request,
                    v1::DescribeLockResponse* response) {
  SH_RETURN_IF_ERROR(CheckLockName(request.name()));
  if (!MaySee(context, request.name())) {
    return RequireLock(*context.engine, *context.identity, request.name(), Verb::kRead);
  }
  LockDescription lock;
  bool found = false;
  SH_RETURN_IF_ERROR(
      context.engine->locks().Describe(context.lane, request.name(), kPartiesMax, &lock, &found));
  lock.name = request.name();
  Fill(lock, context.engine->locks().NowNs(), response->mutable_lock());
  return Status();
}

Status ListLocks(const VerbContext& context, const v1::ListLocksRequest& request,
                 v1::ListLocksResponse* response) {
  if (request.prefix().size() > kNameBytesMax) {
    return Status(Reason::kNameInvalid, "field prefix: it is longer than 255 bytes");
  }
  SH_ASSIGN_OR_RETURN(ListPlace place, ParseListToken(request.page_token(), request.prefix()));
  response->Clear();  // A second try after a held bucket.
  const LockSpace& locks = context.engine->locks();
  const size_t page = PageSize(request.page_size());
  const uint64_t now = locks.NowNs();
  while (place.bucket < locks.geometry().bucket_count) {
    // A bucket at a time, in the order of names, so that a page may end in the middle of one.
    std::vector<LockDescription> found;
    uint32_t next = place.bucket;
    SH_RETURN_IF_ERROR(
        locks.List(context.lane, request.prefix(), &next, 1, kListedPartiesMax,
                   [&](LockDescription& lock) { found.push_back(std::move(lock)); }));
    // List goes on to the first bucket that has any.
    const uint32_t bucket = next == 0 ? 0 : next - 1;
    if (bucket != place.bucket) place.after.clear();
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    for (const LockDescription& lock : found) {
      if (lock.name <= place.after || !MaySee(context, lock.name)) continue;
      if (static_cast<size_t>(response->locks_size()) == page) {
        response->set_next_page_token(ListToken({bucket, place.after}, request.prefix()));
        return Status();
      }
      v1::Lock* const listed = response->add_locks();
      Fill(lock, now, listed);
      if (listed->holder_count() + listed->waiter_count() == 0) {
        response->mutable_locks()->RemoveLast();
      } else {
        place.after = lock.name;
      }
    }
    place.bucket = next;
    place.after.clear();
  }
  return Status();
}

Status ForceReleaseLock(const VerbContext& context, const v1::ForceReleaseLockRequest& request,
                        v1::ForceReleaseLockResponse* response) {
  SH_RETURN_IF_ERROR(CheckLockName(request.name()));
  SH_RETURN_IF_ERROR(RequireLock(*context.engine, *context.identity, request.name(), Verb::kAdmin));
  SH_ASSIGN_OR_RETURN(const uint32_t released,
                      context.locks->ForceRelease(request.name(), request.token()));
  spdlog::warn("token {} took lock \"{}\" from {} holders (asked for token {})",
               context.identity->token_id(),
               ShownText(LoggedLockName(*context.engine, request.name())), released,
               request.token());
  response->set_released(released);
  return Status();
}

std::string EncodeAcquire(const LockAnswer& answer) {
  v1::AcquireLockResponse response;
  response.set_acquired(answer.acquired);
  if (answer.acquired) {
    response.set_token(answer.token);
    SetDuration(answer.expires_in_ns, response.mutable_expires_in());
  }
  return response.SerializeAsString();
}

}  // namespace statehouse
