#include "service/session/bound_entries.h"

#include <algorithm>
#include <chrono>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// How long the thread stays with a bucket that somebody holds before it goes on to the next entry.
constexpr uint64_t kRemoveTimeoutNs = 1'000'000;
constexpr uint64_t kAgainNsMin = 10'000'000;
constexpr uint64_t kAgainNsMax = 1'000'000'000;
constexpr int kMovesMax = 16;
constexpr uint64_t kLookEveryNs = 1'000'000'000;
constexpr size_t kLooksPerTurn = 4096;
constexpr size_t kLooksPerBatch = 64;
constexpr uint64_t kFindTimeoutNs = 10'000'000;

Status NotFound(uint64_t session) {
  return Status(Reason::kSessionNotFound,
                "binding to session " + std::to_string(session) + ": it has ended; open one");
}

}  // namespace

std::shared_ptr<BoundEntries> BoundEntries::Start(BoundEntriesOptions options, DictStore* dicts,
                                                  Lane lane,
                                                  const std::vector<uint64_t>& sessions) {
  lane.operation_timeout_ns = std::min(lane.operation_timeout_ns, kRemoveTimeoutNs);
  std::shared_ptr<BoundEntries> entries(new BoundEntries(options, dicts, lane));
  for (const uint64_t session : sessions) entries->sessions_[session];
  BoundEntries* const raw = entries.get();
  entries->thread_ = std::thread([raw] { raw->Run(); });
  return entries;
}

BoundEntries::~BoundEntries() { Shutdown(); }

void BoundEntries::Shutdown() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
    changed_.notify_all();
  }
  if (thread.joinable()) thread.join();
}

void BoundEntries::BeginSession(uint64_t session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sessions_[session];
}

void BoundEntries::EndSession(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  notes_ -= found->second.notes;
  if (found->second.notes > 0) {
    ended_.push_back({id, std::move(found->second.dicts)});
    changed_.notify_all();
  }
  sessions_.erase(found);
}

bool BoundEntries::HasRoom(const Session& session, size_t notes) const {
  return session.notes + notes <= options_.entries_per_session_max &&
         notes_ + notes <= options_.entries_max;
}

StatusOr<BoundEntries::Intent> BoundEntries::Intend(uint64_t id, const std::string& dict,
                                                    std::span<const std::string_view> keys,
                                                    bool wait) {
  Intent intent;
  for (const std::string_view key : keys) intent.keys_.emplace_back(key);
  for (bool pruned = false;; pruned = true) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = sessions_.find(id);
      if (found == sessions_.end()) return NotFound(id);
      Session& session = found->second;
      const auto known = session.dicts.find(dict);
      const size_t added = static_cast<size_t>(
          std::count_if(intent.keys_.begin(), intent.keys_.end(), [&](const std::string& key) {
            return known == session.dicts.end() || !known->second.contains(key);
          }));
      if (added == 0 || HasRoom(session, added)) {
        Keys& notes = session.dicts[dict];
        for (const std::string& key : intent.keys_) {
          Note& note = notes[key];
          ++note.intents;
          note.stamp = ++stamp_;
        }
        session.notes += added;
        notes_ += added;
        intent.owner_ = this;
        intent.session_ = id;
        intent.dict_ = dict;
        return intent;
      }
      if (pruned) {
        return Status(Reason::kLimitExceeded,
                      "binding to session " + std::to_string(id) + ": " +
                          std::to_string(session.notes) + " entries are bound to it and " +
                          std::to_string(notes_) + " to all sessions; the limits are " +
                          std::to_string(options_.entries_per_session_max) + " and " +
                          std::to_string(options_.entries_max));
      }
    }
    if (!wait) {
      return Status(Reason::kStalled,
                    "binding to session " + std::to_string(id) + ": its entries are to be counted");
    }
    Place at;
    while (Prune(id, &at, kLooksPerBatch)) {
    }
  }
}

void BoundEntries::Intent::Settle(bool bound) {
  if (owner_ == nullptr) return;
  std::exchange(owner_, nullptr)->Settle(session_, dict_, keys_, bound);
}

void BoundEntries::Settle(uint64_t id, const std::string& dict,
                          const std::vector<std::string>& keys, bool bound) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {  // It ended meanwhile: then this is what is left of it.
    if (!bound) return;
    Ended ended{id, {}};
    for (const std::string& key : keys) ended.dicts[dict][key];
    ended_.push_back(std::move(ended));
    changed_.notify_all();
    return;
  }
  for (const std::string& key : keys) {
    Note& note = found->second.dicts[dict][key];
    --note.intents;
    note.bound |= bound;
    if (!note.bound && note.intents == 0) Forget(found->second, dict, key);
  }
}

void BoundEntries::Forget(Session& session, const std::string& dict, const std::string& key) {
  const auto notes = session.dicts.find(dict);
  if (notes == session.dicts.end() || notes->second.erase(key) == 0) return;
  if (notes->second.empty()) session.dicts.erase(notes);
  --session.notes;
  --notes_;
}

bool BoundEntries::IsBound(uint64_t session, const Place& place) const {
  const auto served = dicts_->Find(place.dict);
  if (!served.ok()) return false;
  DictEntry entry;
  bool found = false;
  const Status got = (*served)->dict().Get(place.key, &entry, &found, kRemoveTimeoutNs);
  // What cannot be read now may be bound.
  if (!got.ok()) return got.reason() != Reason::kDictNotFound;
  return found && entry.bound_session == session;
}

bool BoundEntries::Prune(uint64_t id, Place* at, size_t limit) {
  struct Look {
    Place place;
    uint64_t stamp = 0;
  };
  std::vector<Look> looks;
  bool has_more = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) return false;
    const auto& dicts = found->second.dicts;
    for (auto dict = dicts.lower_bound(at->dict); dict != dicts.end() && !has_more; ++dict) {
      const Keys& keys = dict->second;
      auto key = dict->first == at->dict ? keys.upper_bound(at->key) : keys.begin();
      for (; key != keys.end() && !has_more; ++key) {
        looks.push_back({{dict->first, key->first}, key->second.stamp});
        has_more = looks.size() == limit;
      }
    }
  }
  if (!looks.empty()) *at = looks.back().place;
  std::erase_if(looks, [&](const Look& look) { return IsBound(id, look.place); });
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return false;
  for (const Look& look : looks) {
    const auto dict = found->second.dicts.find(look.place.dict);
    if (dict == found->second.dicts.end()) continue;
    const auto note = dict->second.find(look.place.key);
    if (note == dict->second.end() || note->second.intents > 0) continue;
    if (note->second.stamp == look.stamp) {
      Forget(found->second, look.place.dict, look.place.key);
    }
  }
  return has_more;
}

BoundEntriesTotals BoundEntries::Totals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {notes_, removed_.load(std::memory_order_relaxed)};
}

// The thread.

void BoundEntries::Run() {
  FindAll();
  uint64_t look_ns = MonotonicNs() + kLookEveryNs;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping()) {
    if (!ended_.empty()) {
      Ended ended = std::move(ended_.front());
      ended_.pop_front();
      lock.unlock();
      RemoveAll(std::move(ended));
      lock.lock();
      continue;
    }
    const uint64_t now = MonotonicNs();
    lock.unlock();
    TryAgain(now);
    if (now >= look_ns) {
      LookAtSome();
      look_ns = now + kLookEveryNs;
    }
    uint64_t next = look_ns;
    for (const Removal& removal : again_) next = std::min(next, removal.due_ns);
    lock.lock();
    if (!ended_.empty() || stopping()) continue;
    const uint64_t then = MonotonicNs();
    changed_.wait_for(lock, std::chrono::nanoseconds(next > then ? next - then : 0));
  }
}

void BoundEntries::FindAll() {
  for (const auto& served : dicts_->List("", 0, SIZE_MAX)) {
    if (stopping()) return;
    if (served->Stats().bound_entries > 0) FindIn(served->record().name);
  }
}

// What was bound when this daemon started. A dict that moves meanwhile leaves its entries here.
void BoundEntries::FindIn(const std::string& dict) {
  const auto served = dicts_->Find(dict);
  if (!served.ok()) return;
  const Dict& mapped = (*served)->dict();
  bool complete = true;
  std::vector<DictBinding> bound;
  for (uint32_t bucket = 0; bucket < mapped.geometry().bucket_count && !stopping(); ++bucket) {
    const Status found = mapped.FindBound(bucket, &bound, kFindTimeoutNs);
    complete &= found.reason() != Reason::kStalled;
    if (!bound.empty()) Take(dict, std::exchange(bound, {}));
  }
  if (!complete) find_again_.push_back(dict);
}

void BoundEntries::Take(const std::string& dict, std::vector<DictBinding> bound) {
  for (DictBinding& binding : bound) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = sessions_.find(binding.session);
      if (found != sessions_.end()) {
        const auto [note, added] = found->second.dicts[dict].try_emplace(binding.key);
        note->second.bound = true;
        if (added) {
          ++found->second.notes;
          ++notes_;
        }
        continue;
      }
    }
    Remove({binding.session, {dict, std::move(binding.key)}});
  }
}

void BoundEntries::RemoveAll(Ended ended) {
  for (auto& [dict, keys] : ended.dicts) {
    for (auto& [key, note] : keys) {
      if (stopping()) return;
      Remove({ended.session, {dict, key}});
    }
  }
}

void BoundEntries::Remove(Removal removal) {
  if (TryRemove(removal)) return;
  removal.pause_ns = std::clamp(2 * removal.pause_ns, kAgainNsMin, kAgainNsMax);
  removal.due_ns = MonotonicNs() + removal.pause_ns;
  again_.push_back(std::move(removal));
}

// False where it is to be tried again.
bool BoundEntries::TryRemove(const Removal& removal) {
  DictDeleteOptions options;
  options.bound_session = removal.session;
  Status status;
  for (int round = 0; round < kMovesMax; ++round) {
    const auto served = dicts_->Find(removal.place.dict);
    if (!served.ok()) return true;
    DictResult result;
    status = (*served)->dict().Delete(lane_, removal.place.key, options, &result);
    if (status.ok() && result.applied) removed_.fetch_add(1, std::memory_order_relaxed);
    if (status.reason() != Reason::kDictMoved) break;
  }
  // A key that no caller can have given stands in a damaged entry.
  return status.ok() || status.reason() == Reason::kDictNotFound ||
         status.reason() == Reason::kKeyInvalid;
}

void BoundEntries::TryAgain(uint64_t now) {
  for (size_t i = again_.size(); i > 0 && !stopping(); --i) {
    Removal removal = std::move(again_.front());
    again_.pop_front();
    if (removal.due_ns <= now) {
      Remove(std::move(removal));
    } else {
      again_.push_back(std::move(removal));
    }
  }
  if (find_again_.empty() || now < find_again_ns_) return;
  find_again_ns_ = now + kAgainNsMax;
  for (const std::string& dict : std::exchange(find_again_, {})) FindIn(dict);
}

// A part of the notes, so that those whose entry was deleted or set again do not stay for ever.
void BoundEntries::LookAtSome() {
  for (size_t looked = 0; looked < kLooksPerTurn && !stopping(); looked += kLooksPerBatch) {
    if (Prune(look_session_, &look_at_, kLooksPerBatch)) continue;
    look_at_ = Place();
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto next = sessions_.upper_bound(look_session_);
    look_session_ = next == sessions_.end() ? 0 : next->first;
    if (look_session_ == 0) return;
  }
}

}  // namespace statehouse
