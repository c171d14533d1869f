#include "service/watch/watch.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/futex.h"

namespace statehouse {
namespace {

// Of one message.
constexpr size_t kEntriesPerMessage = 256;
constexpr size_t kChangesPerMessage = 512;
constexpr size_t kBytesPerMessage = 64 << 10;
constexpr size_t kFilledBytesPerMessage = 4 << 20;
// A watch that changes of other keys passed by so often in a row sleeps until its own changes.
constexpr uint32_t kPassesToSleep = 4;
// A watch that has no more than that before it hands over.
constexpr uint64_t kHandOverLagMax = 4096;
// Each change wakes all who follow a dict, whichever key they watch: beyond so many followers a
// watch of one key is better off with its stream, where it sleeps until its key changes.
constexpr size_t kKeyFollowersMax = 8;
// Read before others have their turn.
constexpr uint32_t kBucketsPerTurn = 8192;
// A watcher with SlowPolicy::kLatest that is further behind gets the newest change of each key.
constexpr uint64_t kFarBehind = 1024;
constexpr uint64_t kLatestWindow = 65'536;
// A bucket that somebody is inside of is tried again then, so often. After that he is stopped or
// dead, and a deletion of his that the snapshot has may be told again.
constexpr uint64_t kRetryNs = 5'000'000;
constexpr uint32_t kStallsMax = 200;
constexpr uint64_t kScanTimeoutNs = 100'000;

}  // namespace

std::string_view ResyncReasonName(ResyncReason reason) {
  constexpr std::string_view kNames[kResyncReasons] = {
      "unspecified", "history_gone", "revision_unknown", "slow_watcher",
      "overrun",     "replaced",     "damaged"};
  return kNames[static_cast<size_t>(reason)];
}

void Watch::Close() {
  std::shared_ptr<PreviousTable> parted;
  std::shared_ptr<FollowLogWriter> given_up;  // Freed without the lock.
  {
    const std::lock_guard<std::mutex> lock(dict_->mutex);
    WakeUp(dict_->head);
    dict_->awake.erase(this);
    dict_->unsettled.erase(this);
    if (dict_->watches.erase(this) > 0) {
      if (ask_.is_wait) --dict_->waits;
      if (is_handed_over() && ask_.follows_rings) --dict_->ring_followers;
      if (dict_->watches.empty()) dict_->idle_since_ns = std::max<uint64_t>(clock_ns_(), 1);
    }
    parted = dict_->previous.Part(std::exchange(previous_, nullptr));
    if (std::exchange(has_log_, false)) given_up = dict_->LeaveFollowLog();
    waits_ = false;
    if (ended_.ok()) ended_ = Status(Reason::kCancelled, "the watch was closed");
  }
  const std::lock_guard<std::mutex> lock(notify_mutex_);
  notify_ = nullptr;
}

void Watch::End(const Status& why) {
  {
    const std::lock_guard<std::mutex> lock(dict_->mutex);
    if (!ended_.ok()) return;
    ended_ = why;
    waits_ = false;
  }
  Notify();
}

void Watch::Notify() {
  const std::lock_guard<std::mutex> lock(notify_mutex_);
  if (notify_) notify_();
}

bool Watch::TakeDue(uint64_t now_ns) {
  if (!waits_ || is_notified_) return false;
  if (is_handed_over()) return is_notified_ = !dict_->ended.ok();
  const bool has_news = cursor_ < dict_->head && !IsInWindow(now_ns);
  is_notified_ = (dict_->ready && (phase_ == Phase::kStarting || has_news)) || !dict_->ended.ok() ||
                 (ticket_ != 0 && dict_->drains >= ticket_) || due_ns_ <= now_ns;
  return is_notified_;
}

uint64_t Watch::due_ns() const {
  if (!waits_ || is_notified_) return UINT64_MAX;
  const bool has_news = phase_ == Phase::kLive && cursor_ < dict_->head;
  return has_news ? std::min(due_ns_, pace_.open_ns()) : due_ns_;
}

bool Watch::TakeDeferred(uint64_t now_ns) {
  if (!waits_ || cursor_ >= dict_->head || !IsInWindow(now_ns)) return false;
  return !std::exchange(is_deferred_, true);
}

// Whether it is live and has nothing to tell but what is yet to be changed.
bool Watch::HasToldAll() const {
  return phase_ == Phase::kLive && cursor_ == dict_->head && !resync_ && ask_.window_ns == 0 &&
         ask_.progress_ms == 0;
}

// Whether values are filled in, which takes time.
bool Watch::HasGoneValues(const WatchEvent& event) {
  return std::any_of(event.changes.begin(), event.changes.end(),
                     [](const WatchEvent::Told& told) { return told.change->change.value_gone; });
}

Watch::Found Watch::Wait(uint64_t due_ns) {
  waits_ = true;
  is_notified_ = false;
  due_ns_ = due_ns;
  // Then only changes concern it, or the end.
  const bool is_settled = is_handed_over() || (due_ns == UINT64_MAX && HasToldAll());
  if (std::exchange(is_settled_, is_settled) != is_settled) {
    if (is_settled) {
      dict_->unsettled.erase(this);
    } else {
      dict_->unsettled.insert(this);
    }
  }
  if (due_ns != UINT64_MAX) dict_->bell->Ring();
  return Found::kNothing;
}

void Watch::Begin() {
  const uint64_t from = ask_.from_revision.value_or(0);
  // From here on the log has every change, so that the place that is handed over is in it.
  const bool has_room = !ask_.key || dict_->followers < kKeyFollowersMax;
  if (ask_.hand_over && has_room) has_log_ = dict_->JoinFollowLog();
  if (!ask_.from_revision) {
    cursor_ = dict_->head;
    BeginAnew();
  } else if (from > dict_->head) {
    resync_ = ResyncReason::kRevisionUnknown;
  } else if (from + 1 < dict_->tail() && ask_.has_followed) {
    cursor_ = from;  // TakeChanges finds that it fell behind.
    can_resume_ = true;
    CatchUp();
  } else if (from + 1 < dict_->tail() && !WatchMutantIs(WatchMutant::kWatchHistoryGoneHidden)) {
    resync_ = ResyncReason::kHistoryGone;
  } else {
    cursor_ = std::max(from, dict_->tail() - 1);
    if (WatchMutantIs(WatchMutant::kWatchResumesTooFar) && from < dict_->head) ++cursor_;
    if (WatchMutantIs(WatchMutant::kWatchResumesTooEarly) && from >= dict_->tail()) --cursor_;
    can_resume_ = true;
    CatchUp();
  }
}

// With a snapshot, else with what comes after cursor_.
void Watch::BeginAnew() {
  can_resume_ = !ask_.snapshot;
  ask_.snapshot ? BeginSnapshot() : CatchUp();
}

void Watch::JoinPrevious() {
  has_scanned_ = false;
  if (!ask_.previous || (previous_ != nullptr && !previous_->is_broken())) return;
  parted_ = dict_->previous.Part(std::exchange(previous_, nullptr));
  const WatchScope scope{ask_.key.has_value(), ask_.key ? *ask_.key : ask_.prefix};
  previous_ = dict_->previous.Join(scope, dict_->tail());
}

void Watch::BeginSnapshot() {
  cursor_ = dict_->head;
  is_silent_ = false;
  JoinPrevious();
  BeginScan();
}

void Watch::BeginScan() {
  phase_ = Phase::kSnapshot;
  scanned_ = dict_->served;
  sequences_.clear();
  const Dict& dict = scanned_->dict();
  first_bucket_ = ask_.key ? dict.BucketOfKey(*ask_.key) : 0;
  end_bucket_ = ask_.key ? first_bucket_ + 1 : dict.geometry().bucket_count;
  bucket_ = first_bucket_;
  stalls_ = 0;
}

// Whether its place may soon leave the history while a scan goes on of which it tells nothing.
bool Watch::IsFallingBehind() const {
  return dict_->is_nearly_full && cursor_ < dict_->tail() + dict_->history.size() / 2;
}

void Watch::EndScan(bool is_whole) {
  has_scanned_ = is_whole;
  phase_ = Phase::kCatchingUp;
  ticket_ = dict_->AskForDrain();
}

// Goes on after cursor_, without a snapshot.
void Watch::CatchUp() {
  sequences_.clear();
  JoinPrevious();
  is_silent_ = previous_ != nullptr && previous_->wants_scan();
  is_silent_ ? BeginScan() : EndScan(false);
}

Watch::Found Watch::Resync(ResyncReason reason, WatchEvent* event) {
  counters_->resyncs[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
  resync_.reset();
  event->kind = WatchEvent::Kind::kResync;
  event->reason = reason;
  event->revision = 0;
  cursor_ = dict_->head;
  can_resume_ = false;
  if (!dict_->ended.ok()) {
    phase_ = Phase::kStarting;  // The end comes next.
  } else if (ask_.previous) {
    // A table of previous values may have to wait before it begins.
    phase_ = Phase::kStarting;
    begins_anew_ = true;
  } else {
    BeginAnew();
  }
  return Found::kEvent;
}

Watch::Found Watch::Poll(WatchEvent* event, bool may_wait) {
  *event = WatchEvent();
  parted_.reset();
  std::unique_lock<std::mutex> lock(dict_->mutex);
  WakeUp(dict_->head);
  waits_ = false;
  is_deferred_ = false;
  may_wait_ = may_wait;
  if (ended_.ok() && !dict_->ended.ok()) {
    if (TakeLastWords(lock, event)) return Found::kEvent;
    if (ended_.ok()) ended_ = dict_->ended;
  }
  if (!ended_.ok()) {
    status_ = ended_;
    return Found::kEnd;
  }
  if (phase_ == Phase::kStarting) {
    if (!dict_->ready) return Wait(UINT64_MAX);
    // A follow log is ahead of the history for a moment, and so may be who has followed it.
    if (ask_.from_revision.value_or(0) > dict_->head && ticket_ == 0) {
      ticket_ = dict_->AskForDrain();
    }
    if (ticket_ > dict_->drains) return Wait(UINT64_MAX);
    if (ask_.previous && !dict_->previous.is_ready()) {
      if (ticket_ == 0) ticket_ = dict_->AskForDrain();
      return Wait(UINT64_MAX);
    }
    ticket_ = 0;
    pace_.Told(clock_ns_());
    begins_anew_ ? BeginAnew() : Begin();
  }
  if (resync_) return Resync(*resync_, event);
  if (is_handed_over()) return Wait(UINT64_MAX);
  if (HandOver(event)) return Found::kEvent;
  const Found found = phase_ == Phase::kSnapshot ? ScanPage(lock, event) : TakeChanges(lock, event);
  // Of changes it is done already: others may look at the watch then.
  if (found == Found::kEvent && event->changes.empty()) pace_.Told(clock_ns_());
  return found;
}

// Counts changes that are told now.
void Watch::CountTold(const WatchEvent& event, uint64_t now_ns) {
  told_ = cursor_;
  if (!ask_.is_wait) {
    counters_->changes.fetch_add(event.changes.size(), std::memory_order_relaxed);
  }
  if (phase_ != Phase::kLive) return pace_.Told(now_ns);
  // Its window is not the service's time.
  const uint64_t noticed_ns = std::max(event.changes.front().change->noticed_ns, pace_.open_ns());
  counters_->CountWake(now_ns - std::min(noticed_ns, now_ns));
  cursor_ >= dict_->head ? pace_.ToldChanges(now_ns) : pace_.Told(now_ns);
}

// What was changed before; and where another service goes on, from where, unless that was told
// already. Nobody looks at the dict any more, so nothing is waited for.
bool Watch::TakeLastWords(std::unique_lock<std::mutex>& lock, WatchEvent* event) {
  if (phase_ != Phase::kLive || ask_.is_wait) return false;
  if (cursor_ < dict_->head) {
    const bool is_there = cursor_ + 1 >= dict_->tail();
    while (is_there && previous_ != nullptr &&
           !previous_->Advance(dict_->history, dict_->tail(), dict_->head)) {
    }
    if (TakeChanges(lock, event) == Found::kEvent) return true;
  }
  if (dict_->ended.reason() != Reason::kDraining || cursor_ == told_) return false;
  told_ = cursor_;
  event->kind = WatchEvent::Kind::kProgress;
  event->revision = cursor_;
  return true;
}

// The watcher goes on where it is, in the follow log.
bool Watch::HandOver(WatchEvent* event) {
  if (!has_log_ || phase_ != Phase::kLive || dict_->head - cursor_ > kHandOverLagMax) return false;
  // A gap is told here: the log's readers come back for it.
  if (cursor_ + 1 < dict_->tail()) return false;
  const FollowLogWriter& log = *dict_->follow_log;
  uint64_t bytes = 0;
  for (uint64_t revision = cursor_ + 1; revision <= dict_->head; ++revision) {
    bytes += log.RecordBytesOf(dict_->history[revision - dict_->tail()]->change);
  }
  if (bytes > dict_->follow_position) return false;
  const uint64_t position = dict_->follow_position - bytes;
  if (position < log.tail_position()) return false;
  phase_ = Phase::kHandedOver;
  if (ask_.follows_rings) ++dict_->ring_followers;
  counters_->handed_over.fetch_add(1, std::memory_order_relaxed);
  event->kind = WatchEvent::Kind::kHandedOver;
  event->revision = cursor_;
  event->log_id = log.facts().log_id;
  event->position = position;
  if (WatchMutantIs(WatchMutant::kFollowHandOverLate) && cursor_ < dict_->head) {
    const DictChange& next = dict_->history[cursor_ + 1 - dict_->tail()]->change;
    event->position += log.RecordBytesOf(next);
    ++event->revision;
  }
  if (WatchMutantIs(WatchMutant::kFollowHandOverEarly) && cursor_ >= dict_->tail()) {
    event->position -= log.RecordBytesOf(dict_->history[cursor_ - dict_->tail()]->change);
    --event->revision;
  }
  return true;
}

uint64_t Watch::LagNs(uint64_t now_ns) const {
  const uint64_t next = std::max(cursor_ + 1, dict_->tail());
  if (LagRevisions() == 0 || next > dict_->head) return 0;
  const uint64_t noticed_ns = dict_->history[next - dict_->tail()]->noticed_ns;
  return now_ns - std::min(noticed_ns, now_ns);
}

// One page of the snapshot, read without the lock.
Watch::Found Watch::ScanPage(std::unique_lock<std::mutex>& lock, WatchEvent* event) {
  const Dict& dict = scanned_->dict();
  lock.unlock();
  event->kind = WatchEvent::Kind::kSnapshot;
  size_t bytes = 0;
  std::vector<DictEntry> entries;
  bool is_sure = true;
  const auto take = [&](DictEntry& entry) {
    if (ask_.key && entry.key != *ask_.key) return;
    if (ask_.keys_only) entry.bytes.clear();
    bytes += entry.key.size() + entry.bytes.size();
    entries.push_back(std::move(entry));
  };
  const std::string_view prefix = ask_.key ? *ask_.key : ask_.prefix;
  Status status;
  const uint32_t end = bucket_ + std::min(end_bucket_ - bucket_, kBucketsPerTurn);
  while (bucket_ < end && entries.size() < kEntriesPerMessage && bytes < kBytesPerMessage) {
    uint64_t sequence = 0;
    const bool accepts_held = stalls_ > kStallsMax;
    status = dict.ScanBucket(bucket_, prefix, accepts_held, take, &sequence, kScanTimeoutNs);
    stalls_ = status.reason() == Reason::kStalled ? stalls_ + 1 : 0;
    if (!status.ok()) break;
    is_sure = is_sure && !accepts_held;
    if (!is_silent_) sequences_.push_back(sequence);
    ++bucket_;
    AtWatchPoint(WatchPoint::kScanBetweenBuckets);
  }
  lock.lock();
  if (previous_ != nullptr) TakeScanned(entries, is_sure);
  if (bucket_ == end_bucket_) {
    EndScan(true);
    if (WatchMutantIs(WatchMutant::kWatchPlaceAfterScan)) cursor_ = dict_->head;
  } else if (is_silent_ && (!previous_->wants_scan() || IsFallingBehind())) {
    // What was there before the changes that are told is not known then.
    if (bucket_ != end_bucket_) previous_->MissScanned();
    EndScan(false);
  }
  if (!is_silent_ && !entries.empty()) {
    event->entries = std::move(entries);
    return Found::kEvent;
  }
  if (phase_ == Phase::kCatchingUp) return TakeChanges(lock, event);
  if (status.ok()) return Wait(0);  // It goes on at once, after others.
  if (status.reason() == Reason::kStalled) return Wait(clock_ns_() + kRetryNs);
  // It moved: the hub follows it soon. It was deleted: the hub says so.
  if (dict_->served == scanned_) return Wait(clock_ns_() + kRetryNs);
  if (!is_silent_) return Resync(ResyncReason::kReplaced, event);
  BeginScan();
  return Wait(0);
}

// Entries of a page. Of a bucket that somebody was inside of nothing is sure.
void Watch::TakeScanned(const std::vector<DictEntry>& entries, bool is_sure) {
  if (!is_sure) return previous_->MissScanned();
  for (const DictEntry& entry : entries) previous_->TakeScanned(entry);
}

PreviousValue Watch::Before(const DictChange& change) const {
  if (previous_ == nullptr) return {};
  return previous_->Before(dict_->history, dict_->tail(), change, has_scanned_ && !is_silent_);
}

bool Watch::Wants(const DictChange& change) const {
  if (change.operation == FeedOperation::kGap || change.operation == FeedOperation::kMoved) {
    return false;
  }
  if ((ask_.kinds >> static_cast<uint32_t>(change.operation) & 1) == 0) return false;
  if (ask_.key ? change.key != *ask_.key : !change.key.starts_with(ask_.prefix)) return false;
  if (sequences_.empty() || WatchMutantIs(WatchMutant::kWatchSnapshotRepeated)) return true;
  const uint32_t bucket = scanned_->dict().BucketOfKey(change.key);
  return bucket < first_bucket_ || bucket - first_bucket_ >= sequences_.size() ||
         change.version > sequences_[bucket - first_bucket_];
}

Watch::Found Watch::TakeChanges(std::unique_lock<std::mutex>& lock, WatchEvent* event) {
  const uint64_t tail = dict_->tail();
  if (WatchMutantIs(WatchMutant::kWatchSlowHidden)) cursor_ = std::max(cursor_, tail - 1);
  if (cursor_ + 1 < tail) {
    if (ask_.slow_policy != SlowPolicy::kCancel) return Resync(ResyncReason::kSlowWatcher, event);
    ended_ =
        Status(Reason::kLimitExceeded,
               "watching dict \"" + dict_->name +
                   "\": the watcher fell behind: the history (watches.history_bytes) goes back "
                   "to revision " +
                   std::to_string(tail) + ", it has read up to " + std::to_string(cursor_));
    status_ = ended_;
    return Found::kEnd;
  }
  const bool is_drained =
      dict_->drains >= ticket_ || WatchMutantIs(WatchMutant::kWatchSyncedTooEarly);
  if (ticket_ != 0 && is_drained) {
    ticket_ = 0;
    sync_at_ = dict_->head;
  }
  event->kind = WatchEvent::Kind::kChanges;
  const bool has_sync = phase_ == Phase::kCatchingUp && ticket_ == 0;
  const uint64_t end = has_sync ? sync_at_ : dict_->head;
  const uint64_t now_ns = clock_ns_();
  if (cursor_ < end && !IsInWindow(now_ns)) {
    if (previous_ != nullptr && !previous_->Advance(dict_->history, tail, end)) return Wait(0);
    const bool has_window = ask_.window_ns != 0 && phase_ == Phase::kLive;
    if (ask_.slow_policy == SlowPolicy::kLatest && (has_window || end > cursor_ + kFarBehind)) {
      TakeLatest(end, event);
    }
    if (event->changes.empty()) TakeEach(end, event);
    if (event->changes.empty() && resync_) return Resync(*resync_, event);
  }
  event->revision = can_resume_ ? cursor_ : 0;
  if (!event->changes.empty()) {
    CountTold(*event, now_ns);
    // One that hands over is asked for that.
    event->waits = may_wait_ && dict_->ended.ok() && !has_log_ && previous_ == nullptr &&
                   HasToldAll() && !HasGoneValues(*event);
    if (event->waits) (void)Wait(UINT64_MAX);
    lock.unlock();
    FillValues(event);
    return Found::kEvent;
  }
  if (has_sync && cursor_ >= sync_at_) {
    phase_ = Phase::kLive;
    if (has_scanned_ && previous_ != nullptr) previous_->Settle(sync_at_);
    sequences_.clear();
    sequences_.shrink_to_fit();
    scanned_.reset();
    can_resume_ = true;
    event->kind = WatchEvent::Kind::kSynced;
    event->revision = told_ = cursor_;
    return Found::kEvent;
  }
  if (phase_ != Phase::kLive) return Wait(UINT64_MAX);
  const uint64_t due_ns = pace_.progress_ns();
  if (now_ns < due_ns) return Wait(cursor_ < end ? std::min(due_ns, pace_.open_ns()) : due_ns);
  event->kind = WatchEvent::Kind::kProgress;
  told_ = cursor_;
  return Found::kEvent;
}

// One change after another, as many as fit a message. Stops before a gap, which is resync_.
void Watch::TakeEach(uint64_t end, WatchEvent* event) {
  const uint64_t tail = dict_->tail();
  size_t bytes = 0;
  while (cursor_ < end && event->changes.size() < kChangesPerMessage && bytes < kBytesPerMessage) {
    const SharedChange& next = dict_->history[cursor_ + 1 - tail];
    if (next->change.operation == FeedOperation::kGap &&
        !WatchMutantIs(WatchMutant::kWatchGapHidden)) {
      constexpr ResyncReason kReasons[] = {ResyncReason::kDamaged, ResyncReason::kOverrun,
                                           ResyncReason::kDamaged, ResyncReason::kReplaced};
      resync_ = kReasons[std::min<uint64_t>(next->change.bits, 3)];
      return;
    }
    ++cursor_;
    if (!Wants(next->change)) continue;
    event->changes.push_back({next, false, Before(next->change)});
    bytes += next->change.key.size() + next->change.bytes.size() + sizeof(DictEntry) +
             event->changes.back().previous.bytes();
  }
}

void Watch::PassBy(uint64_t head_before, bool has_gap,
                   const std::unordered_set<std::string_view>& keys) {
  if (!waits_ || phase_ != Phase::kLive || cursor_ != head_before || has_gap) return;
  const bool concerned = ask_.key ? keys.count(*ask_.key) > 0
                                  : std::any_of(keys.begin(), keys.end(), [this](auto key) {
                                      return key.starts_with(ask_.prefix);
                                    });
  if (WatchMutantIs(WatchMutant::kWatchPassedTooFar) && keys.size() > 1) cursor_ = dict_->head;
  if (!concerned) cursor_ = dict_->head;
}

bool Watch::MayFallAsleep() {
  if (is_handed_over()) return waits_;
  const bool is_passed = waits_ && phase_ == Phase::kLive && cursor_ == dict_->head;
  passes_ = is_passed ? passes_ + 1 : 0;
  // Nothing but a change of its key is worth a look at it: no time, and no table of its own.
  return passes_ >= kPassesToSleep && ask_.key && due_ns_ == UINT64_MAX && previous_ == nullptr;
}

void Watch::FallAsleep() {
  dict_->awake.erase(this);
  dict_->unsettled.erase(this);
  // No change concerns one that is handed over.
  asleep_at_ = is_handed_over() ? dict_->asleep.end() : dict_->asleep.emplace(*ask_.key, this);
  is_asleep_ = true;
}

void Watch::WakeUp(uint64_t head) {
  passes_ = 0;
  if (!std::exchange(is_asleep_, false)) return;
  if (asleep_at_ != dict_->asleep.end()) dict_->asleep.erase(asleep_at_);
  dict_->awake.insert(this);
  if (!is_settled_) dict_->unsettled.insert(this);
  cursor_ = WatchMutantIs(WatchMutant::kWatchSleptTooLong) ? dict_->head : head;
}

// The newest change of each key in a window, in their order. Stops before a gap.
void Watch::TakeLatest(uint64_t end, WatchEvent* event) {
  const uint64_t tail = dict_->tail();
  const uint64_t window_end = std::min(end, cursor_ + kLatestWindow);
  std::unordered_map<std::string_view, size_t> newest;  // Views into the history.
  size_t left_out = 0;
  size_t bytes = 0;
  while (cursor_ < window_end && bytes < kBytesPerMessage) {
    const SharedChange& next = dict_->history[cursor_ + 1 - tail];
    if (next->change.operation == FeedOperation::kGap) break;
    ++cursor_;
    if (!Wants(next->change)) continue;
    const auto [at, is_new] = newest.try_emplace(next->change.key, event->changes.size());
    PreviousValue previous;  // Of the oldest one.
    if (!is_new) {
      bytes += next->change.bytes.size();
      bytes -= std::min(bytes, event->changes[at->second].change->change.bytes.size());
      event->changes[at->second].change = nullptr;
      previous = std::move(event->changes[at->second].previous);
      at->second = event->changes.size();
      ++left_out;
    } else {
      previous = Before(next->change);
      bytes += next->change.key.size() + next->change.bytes.size() + sizeof(DictEntry) +
               previous.bytes();
    }
    if (WatchMutantIs(WatchMutant::kPreviousOfNewest)) previous = Before(next->change);
    const bool is_flagged = !WatchMutantIs(WatchMutant::kWatchCoalescedHidden);
    event->changes.push_back({next, !is_new && is_flagged, std::move(previous)});
  }
  std::erase_if(event->changes, [](const WatchEvent::Told& told) { return !told.change; });
  counters_->coalesced.fetch_add(left_out, std::memory_order_relaxed);
}

// A value that the history could not keep is taken from the entry, if that is still the one and the
// message does not become too large.
void Watch::FillValues(WatchEvent* event) const {
  if (ask_.keys_only) return;
  size_t filled_bytes = 0;
  for (WatchEvent::Told& told : event->changes) {
    if (!told.change->change.value_gone || filled_bytes >= kFilledBytesPerMessage) continue;
    DictEntry entry;
    bool found = false;
    std::shared_ptr<ServedDict> served;
    {
      const std::lock_guard<std::mutex> lock(dict_->mutex);
      served = dict_->served;
    }
    const Status status = served->dict().Get(told.change->change.key, &entry, &found, 0);
    if (!status.ok() || !found || entry.version != told.change->change.version) continue;
    auto filled = std::make_shared<WatchedChange>();
    filled->change = told.change->change;
    filled->noticed_ns = told.change->noticed_ns;
    filled->change.value_gone = false;
    filled->change.bytes = std::move(entry.bytes);
    filled_bytes += filled->change.bytes.size();
    told.change = std::move(filled);
  }
}

}  // namespace statehouse
