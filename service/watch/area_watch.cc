#include "service/watch/area_watch.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/base/watch_mutant.h"

namespace statehouse {
namespace {

// Where somebody holds what is to be read, it is tried again then.
constexpr uint64_t kRetryNs = 2'000'000;
constexpr uint64_t kReadTimeoutNs = 100'000;

// What a part costs in a message beside its bytes.
constexpr uint64_t kPartBytes = 16;

uint64_t EndOf(const AreaPart& part) { return part.pos + part.len; }

}  // namespace

uint64_t IncarnationOf(const ServedArea& served) {
  return static_cast<uint64_t>(served.info().create_time_ns);
}

void AreaWatch::Close() {
  {
    const std::lock_guard<std::mutex> lock(range_->mutex);
    if (range_->watches.erase(this) > 0 && range_->watches.empty()) {
      range_->idle_since_ns = std::max<uint64_t>(clock_ns_(), 1);
    }
    waits_ = false;
    if (ended_.ok()) ended_ = Status(Reason::kCancelled, "the watch was closed");
  }
  const std::lock_guard<std::mutex> lock(notify_mutex_);
  notify_ = nullptr;
}

void AreaWatch::End(const Status& why) {
  {
    const std::lock_guard<std::mutex> lock(range_->mutex);
    if (!ended_.ok()) return;
    ended_ = why;
    waits_ = false;
  }
  Notify();
}

void AreaWatch::Notify() {
  const std::lock_guard<std::mutex> lock(notify_mutex_);
  if (notify_) notify_();
}

bool AreaWatch::TakeDue(uint64_t now_ns) {
  if (!waits_) return false;
  const bool can_begin = phase_ == Phase::kStarting && range_->ready() && range_->looks() >= look_;
  const bool has_news = phase_ != Phase::kStarting && HasNews() && look_at_ns_ <= now_ns;
  if (!can_begin && !has_news && range_->ended.ok() && due_ns_ > now_ns) return false;
  waits_ = false;
  return true;
}

AreaWatch::Found AreaWatch::Wait(uint64_t look_at_ns, uint64_t due_ns) {
  waits_ = true;
  look_at_ns_ = look_at_ns;
  due_ns_ = due_ns;
  // A hub that sleeps on the range wakes with it; for anything else it has to be told.
  const bool is_looked_after = range_->armed && phase_ != Phase::kStarting &&
                               due_ns == UINT64_MAX && look_at_ns <= clock_ns_();
  if (!is_looked_after) bell_->Ring();
  return Found::kNothing;
}

AreaWatch::Found AreaWatch::Poll(AreaWatchEvent* event) {
  *event = {};
  std::unique_lock<std::mutex> lock(range_->mutex);
  waits_ = false;
  if (ended_.ok() && !range_->ended.ok()) ended_ = range_->ended;
  if (!ended_.ok()) {
    status_ = ended_;
    return Found::kEnd;
  }
  if (phase_ == Phase::kStarting) {
    if (look_ == 0) look_ = range_->NextLook();
    if (!range_->ready() || range_->looks() < look_) return Wait(0, UINT64_MAX);
    Begin();
  }
  if (resync_) return Resync(event);
  if (phase_ == Phase::kSnapshot) return TakeSnapshot(lock, event);
  if (phase_ == Phase::kCatchingUp) {
    if (!caught_up_ && HasNews()) {
      const Found found = TakeChanges(lock, event);
      if (found == Found::kEvent) caught_up_ = !is_telling_;
      return found;
    }
    phase_ = Phase::kLive;
    pace_.ToldChanges(clock_ns_());
    event->kind = AreaWatchEvent::Kind::kSynced;
    event->updates = told_updates_;
    return Found::kEvent;
  }
  return TakeLive(lock, event);
}

void AreaWatch::Begin() {
  if (!ask_.from_updates) {
    ask_.snapshot && !ask_.ranges_only ? BeginSnapshot() : BeginLive();
    return;
  }
  const uint64_t from = *ask_.from_updates;
  if (ask_.from_incarnation != 0 && ask_.from_incarnation != IncarnationOf(*range_->served())) {
    resync_ = ResyncReason::kReplaced;
  } else if (from > range_->updates()) {
    resync_ = ResyncReason::kRevisionUnknown;
  } else {
    // What changed since then; everything, where that is not known.
    phase_ = Phase::kCatchingUp;
    told_tick_ = range_->TickOf(from).value_or(0);
    told_updates_ = from;
    if (told_tick_ == range_->tick()) told_updates_ = range_->updates();
  }
}

void AreaWatch::BeginSnapshot() {
  phase_ = Phase::kSnapshot;
  told_tick_ = range_->tick();
  told_updates_ = range_->updates();
  next_pos_ = range_->part().pos;
}

void AreaWatch::BeginLive() {
  phase_ = Phase::kCatchingUp;
  told_tick_ = range_->tick();
  told_updates_ = range_->updates();
}

AreaWatch::Found AreaWatch::Resync(AreaWatchEvent* event) {
  event->kind = AreaWatchEvent::Kind::kResync;
  event->reason = *resync_;
  counters_->resyncs[static_cast<size_t>(*resync_)].fetch_add(1, std::memory_order_relaxed);
  resync_.reset();
  ask_.snapshot && !ask_.ranges_only ? BeginSnapshot() : BeginLive();
  return Found::kEvent;
}

AreaWatch::Found AreaWatch::TakeSnapshot(std::unique_lock<std::mutex>& lock,
                                         AreaWatchEvent* event) {
  event->kind = AreaWatchEvent::Kind::kSnapshot;
  const AreaPart& whole = range_->part();
  const AreaPart piece{next_pos_, std::min(EndOf(whole) - next_pos_, ask_.piece_bytes)};
  event->parts.push_back({piece, {}});
  if (!FillBytes(lock, event)) return Wait(0, clock_ns_() + kRetryNs);
  next_pos_ = EndOf(piece);
  event->more = next_pos_ < EndOf(whole);
  if (!event->more) phase_ = Phase::kCatchingUp;
  return Found::kEvent;
}

// The parts of a message. True when what changed does not end with it.
bool AreaWatch::Collect(AreaWatchEvent* event) {
  std::vector<AreaPart> parts;
  uint64_t bytes = 0;
  const size_t cells = range_->cell_count();
  const size_t parts_max = std::min<uint64_t>(kAreaPartsPerMessage, ask_.piece_bytes / kPartBytes);
  for (size_t i = 0; i < cells; ++i) {
    const AreaPart cell = range_->CellPart(i);
    if (EndOf(cell) <= next_pos_ || !range_->ChangedSince(i, told_tick_)) continue;
    if (bytes >= ask_.piece_bytes || event->parts.size() >= parts_max) return true;
    parts.clear();
    range_->ChangedParts(i, told_tick_, &parts);
    for (AreaPart part : parts) {
      const uint64_t begin = std::max(part.pos, next_pos_);
      if (begin >= EndOf(part)) continue;
      part = {begin, EndOf(part) - begin};
      // A cell without a copy is a stripe, which may be longer than a message.
      const uint64_t room = ask_.ranges_only ? part.len : ask_.piece_bytes - bytes;
      const bool fits = part.len <= room || part.len <= kAreaCellBytes;
      if (!fits) part.len = room;
      if (part.len > 0) {
        std::vector<AreaWatchEvent::Told>& told = event->parts;
        if (!told.empty() && EndOf(told.back().part) == part.pos) {
          told.back().part.len += part.len;
        } else {
          told.push_back({part, {}});
        }
      }
      next_pos_ = EndOf(part);
      if (!ask_.ranges_only) bytes += part.len;
      if (!fits) return true;
    }
    next_pos_ = std::max(next_pos_, EndOf(cell));
  }
  return false;
}

AreaWatch::Found AreaWatch::TakeChanges(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event) {
  event->kind = AreaWatchEvent::Kind::kChanges;
  if (!is_telling_) {
    is_telling_ = true;
    telling_tick_ = range_->tick();
    telling_updates_ = range_->updates();
    next_pos_ = range_->part().pos;
  }
  const uint64_t began_at = next_pos_;
  event->more = Collect(event);
  if (!ask_.ranges_only && !FillBytes(lock, event)) {
    next_pos_ = began_at;
    return Wait(0, clock_ns_() + kRetryNs);
  }
  pace_.ToldChanges(clock_ns_());
  if (event->more) return Found::kEvent;
  is_telling_ = false;
  const uint64_t updates = telling_updates_ - std::min(told_updates_, telling_updates_);
  told_tick_ = telling_tick_;
  told_updates_ = telling_updates_;
  event->updates = told_updates_;
  counters_->changes.fetch_add(1, std::memory_order_relaxed);
  if (updates > 1) counters_->coalesced.fetch_add(updates - 1, std::memory_order_relaxed);
  return Found::kEvent;
}

AreaWatch::Found AreaWatch::TakeLive(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event) {
  const uint64_t now_ns = clock_ns_();
  const bool is_open = pace_.IsOpen(now_ns);
  if (HasNews() && WatchMutantIs(WatchMutant::kLastChangeLost) && !is_open) {
    told_tick_ = range_->tick();
  }
  if (HasNews() && (is_telling_ || is_open)) return TakeChanges(lock, event);
  // What changed no byte is no news, but a place to go on from.
  if (!HasNews()) told_updates_ = range_->updates();
  if (now_ns < pace_.progress_ns()) return Wait(pace_.open_ns(), pace_.progress_ns());
  pace_.Told(now_ns);
  event->kind = AreaWatchEvent::Kind::kProgress;
  event->updates = told_updates_;
  return Found::kEvent;
}

// False when the bytes cannot be had now. Without a copy they are read from the area, without the
// lock.
bool AreaWatch::FillBytes(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event) const {
  if (range_->keeps_copy()) {
    for (AreaWatchEvent::Told& told : event->parts) range_->AppendCopy(told.part, &told.bytes);
    return true;
  }
  lock.unlock();
  bool read = true;
  for (AreaWatchEvent::Told& told : event->parts) {
    told.bytes.resize(told.part.len);
    const std::span<std::byte> out = std::as_writable_bytes(std::span(told.bytes));
    read = read && range_->served()->area().Read(told.part.pos, out, nullptr, kReadTimeoutNs).ok();
  }
  lock.lock();
  return read;
}

}  // namespace statehouse
