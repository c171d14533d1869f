#include "service/watch/watch_hub.h"

#include <algorithm>
#include <ctime>
#include <span>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "service/log.h"

namespace statehouse {
namespace {

constexpr std::string_view kFeedPrefix = "feed.";
// The hub looks at every dict this often whatever its words say: a worker on an old kernel takes
// part in no barrier, and its wake-up may be missed.
constexpr uint64_t kLookNs = 100'000'000;
// Where more dicts are watched than it can sleep on.
constexpr uint64_t kBusyLookNs = 2'000'000;
// Where changes come faster than it looks: so many looks follow each other at once, the further
// ones in strides, since each takes the rings' cache lines from their writers.
constexpr uint32_t kBusyLooksAtOnce = 4;
constexpr uint64_t kStrideNs = 100'000;
// Between two looks of a hub that polls, about a microsecond: see kStrideNs.
constexpr int kPollPauses = 32;

std::string FeedName(uint64_t dict_id) {
  return std::string(kFeedPrefix) + std::to_string(dict_id);
}

// The first revision of a feed: above all that an earlier feed of the dict can have given, also
// when that is forgotten: no dict has 2^22 changes in each second of its life. Below 2^53, which a
// JavaScript number holds, until 2038.
uint64_t RevisionSeed() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const auto nanoseconds = static_cast<uint64_t>(now.tv_nsec);
  return (static_cast<uint64_t>(now.tv_sec) << 22) + (nanoseconds << 22) / 1'000'000'000;
}

}  // namespace

void HubBell::Ring() {
  word_.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(word_);
}

std::shared_ptr<WatchHub> WatchHub::Start(const WatchHubOptions& options, DictStore* dicts,
                                          DescriptorVault* vault,
                                          std::map<std::string, UniqueFd> kept) {
  std::shared_ptr<WatchHub> hub(new WatchHub(options, dicts, vault));
  hub->Adopt(std::move(kept));
  if (options.has_thread) hub->thread_ = std::thread([raw = hub.get()] { raw->Run(); });
  return hub;
}

WatchHub::~WatchHub() { Shutdown(); }

void WatchHub::Adopt(std::map<std::string, UniqueFd> kept) {
  for (const std::shared_ptr<ServedDict>& served : dicts_->List("", 0, SIZE_MAX)) {
    const auto at = kept.find(FeedName(served->record().id));
    if (at == kept.end()) continue;
    std::vector<DictChange> history;
    auto feed = DictFeed::Adopt(options_.feed, std::move(at->second), served, &history);
    if (!feed.ok()) {
      // Its watchers will be told that their history is gone.
      spdlog::error("{}; it begins anew", feed.status().message());
      continue;
    }
    kept.erase(at);
    auto dict = std::make_shared<WatchedDict>(served, bell_, previous_budget_);
    dict->follow_log_bytes = options_.feed.log_bytes;
    const uint64_t now_ns = options_.clock_ns();
    for (DictChange& change : history) {
      if (change.operation == FeedOperation::kGap) dict->previous.Break();
      auto shared = std::make_shared<WatchedChange>();
      shared->noticed_ns = now_ns;
      shared->change = std::move(change);
      dict->history.push_back(std::move(shared));
    }
    dict->head = (*feed)->head_revision();
    dict->is_nearly_full = (*feed)->is_nearly_full();
    dict->feed = *std::move(feed);
    dict->ready = true;
    dict->idle_since_ns = std::max<uint64_t>(now_ns, 1);
    by_id_.emplace(dict->id, std::move(dict));
  }
  followed_ = by_id_.size();
  for (const auto& [name, fd] : kept) {
    const Status removed = vault_->Remove(name);
    if (!removed.ok()) spdlog::error("giving up {}: {}", name, removed.message());
  }
}

StatusOr<std::shared_ptr<Watch>> WatchHub::Open(WatchAsk ask, std::function<void()> notify) {
  const std::string name = ask.served->record().name;
  const auto refuse = [&name](Reason reason, const std::string& why) {
    return Status(reason, "watching dict \"" + name + "\": " + why);
  };
  const std::shared_ptr<const Identity> identity = ask.identity;
  std::shared_ptr<const Allowed> allowed;
  std::shared_ptr<Watch> watch;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return refuse(Reason::kDraining, "the service is draining; try its successor");
    size_t open = 0;
    const auto count = [&open](WatchedDict& dict) {
      const std::lock_guard<std::mutex> dict_lock(dict.mutex);
      open += dict.watches.size() - dict.waits;
    };
    for (const auto& [id, dict] : by_id_) count(*dict);
    for (const std::shared_ptr<WatchedDict>& dict : ended_) count(*dict);
    if (!ask.is_wait && open >= options_.watches_max) {
      return refuse(Reason::kLimitExceeded,
                    std::to_string(open) + " watches are open, which is the limit")
          .WithRetryAfter(kWatchesFullRetryMs);
    }
    std::shared_ptr<WatchedDict>& dict = by_id_[ask.served->record().id];
    if (dict == nullptr) {
      dict = std::make_shared<WatchedDict>(ask.served, bell_, previous_budget_);
      dict->follow_log_bytes = options_.feed.log_bytes;
    }
    if (ask.has_followed || ask.declines) {
      counters_->follow_fallbacks.fetch_add(1, std::memory_order_relaxed);
    }
    followed_ = by_id_.size();
    watch = std::make_shared<Watch>(std::move(ask), dict, counters_, options_.clock_ns,
                                    std::move(notify));
    const std::lock_guard<std::mutex> dict_lock(dict->mutex);
    dict->watches.insert(watch.get());
    dict->awake.insert(watch.get());
    dict->unsettled.insert(watch.get());
    if (watch->ask().is_wait) ++dict->waits;
    dict->idle_since_ns = 0;
    allowed = allowed_;
  }
  if (allowed != nullptr && identity != nullptr) {
    if (const Status still = (*allowed)(*identity, name); !still.ok()) {
      watch->Close();
      return refuse(still.reason(), still.message());
    }
  }
  bell_->Ring();
  return watch;
}

StatusOr<UniqueFd> WatchHub::OpenFollowLog(const FollowLogFacts& facts) {
  std::shared_ptr<WatchedDict> dict;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = by_id_.find(facts.dict_id);
    if (found != by_id_.end()) dict = found->second;
  }
  if (dict != nullptr) {
    const std::lock_guard<std::mutex> lock(dict->mutex);
    if (dict->follow_log != nullptr && dict->follow_log->facts().log_id == facts.log_id) {
      // Its clients can never write it, however they open it.
      return ReopenDescription(dict->follow_log->fd(), false);
    }
  }
  return Status(Reason::kUnavailable,
                "opening the follow log of a dict: it is no more; watch the dict anew");
}

void WatchHub::Recheck(Allowed allowed) {
  const auto shared = std::make_shared<const Allowed>(std::move(allowed));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_ = shared;
  }
  for (const std::shared_ptr<WatchedDict>& dict : AllWatched()) {
    std::vector<std::shared_ptr<Watch>> watches;
    const std::string& name = dict->name;
    {
      const std::lock_guard<std::mutex> lock(dict->mutex);
      for (Watch* const watch : dict->watches) {
        if (auto held = watch->weak_from_this().lock()) watches.push_back(std::move(held));
      }
    }
    for (const std::shared_ptr<Watch>& watch : watches) {
      if (watch->ask().identity == nullptr) continue;
      const Status still = (*shared)(*watch->ask().identity, name);
      if (still.ok()) continue;
      watch->End(Status(still.reason(), "watching dict \"" + name + "\": " + still.message()));
    }
  }
}

void WatchHub::Shutdown() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(stopping_, true)) return;
  }
  bell_->Ring();
  if (thread_.joinable()) thread_.join();
  Due due;
  for (const std::shared_ptr<WatchedDict>& dict : All()) {
    // Whoever is at it in LookNow ends first: the feed is the next daemon's from now on.
    const std::lock_guard<std::mutex> lock(dict->drain_mutex);
    dict->is_given_up = true;
    EndDict(*dict,
            Status(Reason::kDraining,
                   "watching dict \"" + dict->name +
                       "\": the service is draining; go on at its successor, from the last "
                       "revision"),
            &due);
  }
  for (const std::shared_ptr<Watch>& watch : due) watch->Notify();
}

std::vector<std::shared_ptr<WatchedDict>> WatchHub::AllWatched() const {
  std::vector<std::shared_ptr<WatchedDict>> all = All();
  const std::lock_guard<std::mutex> lock(mutex_);
  all.insert(all.end(), ended_.begin(), ended_.end());
  return all;
}

std::vector<std::shared_ptr<WatchedDict>> WatchHub::All() const {
  std::vector<std::shared_ptr<WatchedDict>> all;
  const std::lock_guard<std::mutex> lock(mutex_);
  all.reserve(by_id_.size());
  for (const auto& [id, dict] : by_id_) all.push_back(dict);
  return all;
}

void WatchHub::Run() {
  for (;;) {
    const uint32_t bell_seen = bell_->word().load(std::memory_order_seq_cst);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    const std::vector<std::shared_ptr<WatchedDict>> dicts = All();
    const uint64_t until_ns = LookAt(dicts);
    if (until_ns == 0) continue;
    is_polling_ ? Poll(dicts, bell_seen, until_ns) : Sleep(dicts, bell_seen, until_ns);
  }
}

uint64_t WatchHub::LookAt(const std::vector<std::shared_ptr<WatchedDict>>& dicts) {
  bool more = false;
  is_polling_ = options_.clock_ns() < poll_until_ns_;
  uint64_t until_ns = dicts.empty() ? UINT64_MAX / 2 : options_.clock_ns() + kLookNs;
  for (const std::shared_ptr<WatchedDict>& dict : dicts) {
    const bool has_more = Serve(*dict);
    dict->busy_looks = has_more ? dict->busy_looks + 1 : 0;
    more = more || (has_more && dict->busy_looks <= kBusyLooksAtOnce);
    if (has_more) until_ns = std::min(until_ns, options_.clock_ns() + kStrideNs);
    const std::lock_guard<std::mutex> lock(dict->mutex);
    for (const Watch* const watch : dict->unsettled) until_ns = std::min(until_ns, watch->due_ns());
  }
  for (const std::shared_ptr<WatchedDict>& dict : dicts) Forget(dict);
  if (LookAtEnded()) until_ns = std::min(until_ns, options_.clock_ns() + kLookNs);
  return more ? 0 : until_ns;
}

bool WatchHub::Serve(WatchedDict& dict) {
  Due due;
  bool more = false;
  {
    const std::lock_guard<std::mutex> lock(dict.drain_mutex);
    more = ServeDrained(dict, &due);
  }
  for (const std::shared_ptr<Watch>& watch : due) watch->Notify();
  return more;
}

bool WatchHub::ServeDrained(WatchedDict& dict, Due* due) {
  uint64_t drain = 0;
  bool is_watched = false;
  uint32_t who = kArmedWatch;
  {
    const std::lock_guard<std::mutex> lock(dict.mutex);
    if (!dict.ended.ok()) return false;
    drain = ++dict.begun;
    is_watched = !dict.watches.empty();
    // Those who follow the rings need nobody before them, and wake the hub themselves.
    if (is_watched && dict.ring_followers == dict.watches.size()) who = kArmedLate;
  }
  if (dict.feed == nullptr) {
    BeginFeed(dict, due);
    if (dict.feed == nullptr) return false;
  }
  Dict& state = dict.feed->served()->dict();
  // The state first: in a segment that was given up nothing is written any more, so what the rings
  // have after this look is all.
  const DictState is = state.state();
  dict.event_seen = state.watch_event().load(std::memory_order_seq_cst);
  std::vector<DictChange> fresh;
  bool more = dict.feed->HasNews();
  if (!more && !is_polling_) {
    // Only now: while it is busy anyway, no writer pays for waking it.
    dict.may_sleep = state.ArmWatch(who);
    more = dict.feed->HasNews();
  }
  if (more && is_watched) poll_until_ns_ = options_.clock_ns() + options_.poll_ns;
  const uint64_t gaps = dict.feed->gaps();
  if (more) dict.feed->Drain(&fresh);
  bool is_deleted = is == DictState::kDeleted;
  if (is == DictState::kMoved) {
    while (dict.feed->HasNews()) dict.feed->Drain(&fresh);
    is_deleted = !FollowMove(dict, &fresh);
    more = true;
    drain = 0;  // What the next segment has already is not read.
  }
  gaps_.fetch_add(dict.feed->gaps() - gaps, std::memory_order_relaxed);
  Publish(dict, std::move(fresh), drain, due);
  if (!is_deleted) return more;
  EndDict(dict,
          Status(Reason::kDictNotFound, "watching dict \"" + dict.name + "\": it was deleted"),
          due);
  return false;
}

// What it leaves to the hub's thread is not lost: the change has woken that, or it has yet to look.
void WatchHub::LookNow(uint64_t dict_id) {
  if (!FollowsAny()) return;
  std::shared_ptr<WatchedDict> dict;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = by_id_.find(dict_id);
    if (stopping_ || found == by_id_.end()) return;
    dict = found->second;
  }
  Due due;
  {
    const std::unique_lock<std::mutex> lock(dict->drain_mutex, std::try_to_lock);
    if (!lock.owns_lock() || dict->is_given_up || dict->feed == nullptr) return;
    if (!dict->feed->HasNews()) return;
    uint64_t drain = 0;
    {
      const std::lock_guard<std::mutex> dict_lock(dict->mutex);
      if (!dict->ended.ok()) return;
      drain = ++dict->begun;
    }
    // Only now: who asked for a drain meanwhile wants what the next segment has, too.
    if (dict->feed->served()->dict().state() != DictState::kLive) return;
    std::vector<DictChange> fresh;
    const uint64_t gaps = dict->feed->gaps();
    dict->feed->Drain(&fresh);
    gaps_.fetch_add(dict->feed->gaps() - gaps, std::memory_order_relaxed);
    Publish(*dict, std::move(fresh), drain, &due);
  }
  for (const std::shared_ptr<Watch>& watch : due) watch->Notify();
}

void WatchHub::BeginFeed(WatchedDict& dict, Due* due) {
  std::shared_ptr<ServedDict> served;
  {
    const std::lock_guard<std::mutex> lock(dict.mutex);
    served = dict.served;
  }
  // It may have moved since the watch was opened.
  if (served->dict().state() == DictState::kMoved) {
    auto now = dicts_->Find("#" + std::to_string(served->record().index));
    if (now.ok()) served = *std::move(now);
  }
  uint64_t first = RevisionSeed();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // One is left out, so that nobody seems to go on from the last feed.
    first = std::max(first, last_head_ + 2);
  }
  auto feed = DictFeed::Create(options_.feed, served, first);
  Status status = feed.status();
  if (status.ok()) status = vault_->Store(FeedName(dict.id), (*feed)->fd());
  if (!status.ok()) {
    spdlog::error("following dict \"{}\": {}", served->record().name, status.message());
    return EndDict(dict,
                   Status(status.reason(),
                          "watching dict \"" + served->record().name + "\": " + status.message()),
                   due);
  }
  dict.feed = *std::move(feed);
  const std::lock_guard<std::mutex> lock(dict.mutex);
  dict.served = std::move(served);
  dict.head = first - 1;
  dict.ready = true;
}

bool WatchHub::FollowMove(WatchedDict& dict, std::vector<DictChange>* fresh) {
  const DictRecord& record = dict.feed->served()->record();
  auto next = dicts_->Find("#" + std::to_string(record.index));
  if (!next.ok()) return false;
  dict.feed->Follow(*next, fresh);
  const std::lock_guard<std::mutex> lock(dict.mutex);
  // Before anybody scans the next segment, for which the values so far are none.
  const DictChange& last = fresh->back();
  if (last.operation == FeedOperation::kGap) dict.previous.Break();
  dict.served = *std::move(next);
  return true;
}

void WatchHub::Publish(WatchedDict& dict, std::vector<DictChange> fresh, uint64_t drain, Due* due) {
  if (!fresh.empty() && dict.feed->has_claimed()) {
    counters_->early_changes.fetch_add(1, std::memory_order_relaxed);
  }
  const std::shared_ptr<FollowLogWriter> told = dict.TellFollowers(fresh, options_.clock_ns());
  std::vector<SharedChange> shared;
  shared.reserve(fresh.size());
  const uint64_t noticed_ns = options_.clock_ns();
  for (DictChange& change : fresh) {
    auto next = std::make_shared<WatchedChange>();
    next->noticed_ns = noticed_ns;
    next->change = std::move(change);
    shared.push_back(std::move(next));
  }
  bool has_gap = false;
  bool has_deferred = false;
  std::unordered_set<std::string_view> keys;  // Views into `shared`.
  for (const SharedChange& next : shared) {
    has_gap = has_gap || next->change.operation == FeedOperation::kGap;
    keys.insert(next->change.key);
  }
  std::vector<SharedChange> old;  // Freed without the lock.
  {
    const std::lock_guard<std::mutex> lock(dict.mutex);
    const uint64_t head_before = dict.head;
    if (dict.follow_log != nullptr) {
      // A log that was made since: nobody was handed over to it before `head` is what it has.
      if (dict.follow_log != told) {
        for (const SharedChange& next : shared) dict.follow_log->Append(next->change);
        dict.follow_log->Commit();
      }
      dict.follow_position = dict.follow_log->head_position();
      if (dict.follow_log != told || shared.empty()) dict.ShowRings(*dict.follow_log);
    }
    dict.history.insert(dict.history.end(), shared.begin(), shared.end());
    dict.head = dict.feed->head_revision();
    dict.is_nearly_full = dict.feed->is_nearly_full();
    dict.previous.EndDrain(has_gap, dict.head);
    while (!dict.history.empty() && dict.tail() < dict.feed->tail_revision()) {
      dict.previous.Leave(dict.history.front()->change);
      old.push_back(std::move(dict.history.front()));
      dict.history.pop_front();
    }
    dict.drains = std::max(dict.drains, drain);
    const uint64_t now_ns = options_.clock_ns();
    WakeSleepers(dict, head_before, has_gap, keys);
    std::vector<Watch*> tired;
    for (Watch* const watch : keys.empty() ? dict.unsettled : dict.awake) {
      watch->PassBy(head_before, has_gap, keys);
      has_deferred = watch->TakeDeferred(now_ns) || has_deferred;
      if (!keys.empty() && watch->MayFallAsleep()) tired.push_back(watch);
      if (!watch->TakeDue(now_ns) || WatchMutantIs(WatchMutant::kWatchNotNotified)) continue;
      if (auto held = watch->weak_from_this().lock()) due->push_back(std::move(held));
    }
    for (Watch* const watch : tired) watch->FallAsleep();
  }
  if (has_deferred) bell_->Ring();
}

void WatchHub::WakeSleepers(WatchedDict& dict, uint64_t head_before, bool has_gap,
                            const std::unordered_set<std::string_view>& keys) {
  while (has_gap && !dict.asleep.empty()) dict.asleep.begin()->second->WakeUp(head_before);
  if (WatchMutantIs(WatchMutant::kWatchSleeperForgotten)) return;
  for (auto key = keys.begin(); key != keys.end() && !dict.asleep.empty(); ++key) {
    for (auto at = dict.asleep.lower_bound(*key); at != dict.asleep.end() && at->first == *key;) {
      (at++)->second->WakeUp(head_before);
    }
  }
}

void WatchHub::EndDict(WatchedDict& dict, const Status& why, Due* due) const {
  const std::lock_guard<std::mutex> lock(dict.mutex);
  if (dict.ended.ok()) {
    dict.ended = why;
    dict.ended_ns = options_.clock_ns();
  }
  for (Watch* const watch : dict.watches) {
    if (auto held = watch->weak_from_this().lock()) due->push_back(std::move(held));
  }
}

// Gives up a feed that nobody needs any more.
void WatchHub::Forget(const std::shared_ptr<WatchedDict>& dict) {
  {
    const std::lock_guard<std::mutex> drain_lock(dict->drain_mutex);
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::lock_guard<std::mutex> dict_lock(dict->mutex);
    const bool is_idle = dict->watches.empty() &&
                         options_.clock_ns() - dict->idle_since_ns >= options_.keep_ms * 1'000'000;
    if (dict->ended.ok() && !is_idle) return;
    // A dict that could not be followed is tried again by the next watch.
    dict->is_given_up = true;
    by_id_.erase(dict->id);
    if (!dict->watches.empty()) ended_.push_back(dict);
    followed_ = by_id_.size();
    last_head_ = std::max(last_head_, dict->head);
  }
  if (dict->feed == nullptr) return;
  const Status removed = vault_->Remove(FeedName(dict->id));
  if (!removed.ok()) spdlog::error("giving up {}: {}", FeedName(dict->id), removed.message());
  const std::lock_guard<std::mutex> drain_lock(dict->drain_mutex);
  dict->feed.reset();
}

bool WatchHub::LookAtEnded() {
  WatchHistory histories;  // Freed without the locks.
  const uint64_t now_ns = options_.clock_ns();
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(ended_, [&](const std::shared_ptr<WatchedDict>& dict) {
    const std::lock_guard<std::mutex> dict_lock(dict->mutex);
    if (dict->watches.empty()) return true;
    if (now_ns - dict->ended_ns >= kLastWordsNs) dict->LetGo(&histories);
    return false;
  });
  return !ended_.empty();
}

void WatchHub::Sleep(const std::vector<std::shared_ptr<WatchedDict>>& dicts, uint32_t bell_seen,
                     uint64_t until_ns) const {
  const std::atomic<uint32_t>* words[kFutexWordsMax] = {&bell_->word()};
  uint32_t seen[kFutexWordsMax] = {bell_seen};
  size_t count = 1;
  bool sees_all = true;
  for (const std::shared_ptr<WatchedDict>& dict : dicts) {
    if (dict->feed == nullptr) continue;
    sees_all = sees_all && dict->may_sleep && count < kFutexWordsMax;
    if (count == kFutexWordsMax) break;
    words[count] = &dict->feed->served()->dict().watch_event();
    seen[count++] = dict->event_seen;
  }
  uint64_t now_ns = MonotonicNs();
  if (!sees_all) until_ns = std::min(until_ns, now_ns + kBusyLookNs);
  if (until_ns <= now_ns) return;
  if (FutexWaitAny(std::span(words, count), std::span(seen, count), until_ns - now_ns)) return;
  SleepNs(std::min(until_ns - now_ns, kBusyLookNs));
}

void WatchHub::Poll(const std::vector<std::shared_ptr<WatchedDict>>& dicts, uint32_t bell_seen,
                    uint64_t until_ns) const {
  until_ns = std::min(until_ns, poll_until_ns_);
  do {
    for (const std::shared_ptr<WatchedDict>& dict : dicts) {
      if (dict->busy_looks > kBusyLooksAtOnce) continue;  // It is read in strides.
      // Else somebody drains it in LookNow.
      const std::unique_lock<std::mutex> lock(dict->drain_mutex, std::try_to_lock);
      if (!lock.owns_lock() || dict->feed == nullptr) continue;
      const Dict& state = dict->feed->served()->dict();
      const bool is_told = state.watch_event().load(std::memory_order_acquire) != dict->event_seen;
      if (is_told || dict->feed->HasNews()) return;
    }
    for (int i = 0; i < kPollPauses; ++i) CpuRelax();
    if (bell_->word().load(std::memory_order_acquire) != bell_seen) return;
  } while (options_.clock_ns() < until_ns);
}

WatchTotals WatchHub::Totals() const {
  WatchTotals totals;
  const uint64_t now_ns = options_.clock_ns();
  for (const std::shared_ptr<WatchedDict>& dict : AllWatched()) {
    const std::lock_guard<std::mutex> lock(dict->mutex);
    totals.dicts += dict->ended.ok() ? 1 : 0;
    totals.watches += static_cast<uint32_t>(dict->watches.size() - dict->waits);
    totals.waits += static_cast<uint32_t>(dict->waits);
    totals.asleep += static_cast<uint32_t>(dict->asleep.size());
    totals.history_changes += dict->history.size();
    for (const Watch* const watch : dict->watches) {
      if (watch->ask().is_wait) continue;
      totals.local_followers += watch->is_handed_over() ? 1 : 0;
      totals.lag_revisions = std::max(totals.lag_revisions, watch->LagRevisions());
      totals.lag_ns = std::max(totals.lag_ns, watch->LagNs(now_ns));
    }
  }
  totals.changes = counters_->changes.load(std::memory_order_relaxed);
  totals.previous_bytes = previous_budget_->used();
  totals.coalesced = counters_->coalesced.load(std::memory_order_relaxed);
  totals.handed_over = counters_->handed_over.load(std::memory_order_relaxed);
  totals.early_changes = counters_->early_changes.load(std::memory_order_relaxed);
  totals.follow_fallbacks = counters_->follow_fallbacks.load(std::memory_order_relaxed);
  totals.gaps = gaps_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < kResyncReasons; ++i) {
    totals.resyncs[i] = counters_->resyncs[i].load(std::memory_order_relaxed);
  }
  for (size_t i = 0; i < totals.wakes.size(); ++i) {
    totals.wakes[i] = counters_->wakes[i].load(std::memory_order_relaxed);
  }
  totals.wakes_ns = counters_->wakes_ns.load(std::memory_order_relaxed);
  return totals;
}

}  // namespace statehouse
