#include "service/watch/area_hub.h"

#include <algorithm>
#include <set>
#include <span>
#include <utility>

namespace statehouse {
namespace {

// Where somebody waits the hub looks this often whatever the words say: a worker may have written
// anything over them.
constexpr uint64_t kLookNs = 1'000'000'000;
// Where somebody is inside a stripe, or there are more words than it can sleep on.
constexpr uint64_t kBusyLookNs = 1'000'000;
constexpr uint64_t kManyLookNs = 2'000'000;
// One is the bell.
constexpr size_t kWordsMax = kFutexWordsMax - 1;

std::string Watching(const std::string& area) { return "watching area \"" + area + "\": "; }

// Why an area cannot be watched any more.
Status WhyGone(const WatchedRange& range) {
  const Area& area = range.served()->area();
  const Status why = area.UpdatesOfRange(range.part().pos, range.part().len).status();
  return Status(why.ok() ? Reason::kAreaNotFound : why.reason(),
                Watching(area.name()) + (why.ok() ? "it was deleted" : why.message()));
}

}  // namespace

std::shared_ptr<AreaHub> AreaHub::Start(const AreaHubOptions& options, Engine* engine) {
  std::shared_ptr<AreaHub> hub(new AreaHub(options, engine));
  if (options.has_thread) hub->thread_ = std::thread([raw = hub.get()] { raw->Run(); });
  return hub;
}

AreaHub::~AreaHub() { Shutdown(); }

// REQUIRES: mutex_ is held.
void AreaHub::Drop(std::map<Key, std::shared_ptr<WatchedRange>>::iterator at) {
  if (at->second->keeps_copy()) copy_bytes_ -= WatchedRange::CopyCost(at->second->part().len);
  ranges_.erase(at);
}

// REQUIRES: mutex_ is held.
std::shared_ptr<WatchedRange> AreaHub::RangeFor(const AreaWatchAsk& ask) {
  const Key key{ask.served->info().id, ask.part.pos, ask.part.len};
  if (const auto at = ranges_.find(key); at != ranges_.end()) {
    const std::lock_guard<std::mutex> lock(at->second->mutex);
    if (at->second->ended.ok()) return at->second;
    Drop(at);
  }
  const uint64_t cost = WatchedRange::CopyCost(ask.part.len);
  const auto fits = [&] { return copy_bytes_ + cost <= options_.copy_bytes_max; };
  const bool may_copy = ask.part.len <= kAreaCopyRangeBytesMax && cost <= options_.copy_bytes_max;
  // Copies that nobody uses make room.
  for (auto at = ranges_.begin(); may_copy && !fits() && at != ranges_.end();) {
    const auto current = at++;
    bool is_idle = false;
    {
      const std::lock_guard<std::mutex> lock(current->second->mutex);
      is_idle = current->second->watches.empty();
    }
    if (is_idle) Drop(current);
  }
  const bool keeps_copy = may_copy && fits();
  if (keeps_copy) copy_bytes_ += cost;
  auto range = std::make_shared<WatchedRange>(engine_, ask.served, ask.part, keeps_copy);
  ranges_.emplace(key, range);
  return range;
}

StatusOr<std::shared_ptr<AreaWatch>> AreaHub::Open(AreaWatchAsk ask, std::function<void()> notify) {
  const std::string name = ask.served->info().name;
  const auto refuse = [&name](Reason reason, const std::string& why) {
    return Status(reason, Watching(name) + why);
  };
  const std::shared_ptr<const Identity> identity = ask.identity;
  std::shared_ptr<const Allowed> allowed;
  std::shared_ptr<AreaWatch> watch;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return refuse(Reason::kDraining, "the service is draining; try its successor");
    size_t open = 0;
    for (const auto& [key, range] : ranges_) {
      const std::lock_guard<std::mutex> range_lock(range->mutex);
      open += range->watches.size();
    }
    if (open >= options_.watches_max) {
      return refuse(Reason::kLimitExceeded,
                    std::to_string(open) + " watches are open, which is the limit")
          .WithRetryAfter(kWatchesFullRetryMs);
    }
    const std::shared_ptr<WatchedRange> range = RangeFor(ask);
    watch = std::make_shared<AreaWatch>(std::move(ask), range, bell_, counters_, options_.clock_ns,
                                        std::move(notify));
    const std::lock_guard<std::mutex> range_lock(range->mutex);
    range->watches.insert(watch.get());
    range->idle_since_ns = 0;
    allowed = allowed_;
  }
  if (allowed != nullptr && identity != nullptr) {
    if (const Status still = (*allowed)(*identity, name); !still.ok()) {
      watch->Close();
      return refuse(still.reason(), still.message());
    }
  }
  return watch;
}

void AreaHub::Recheck(Allowed allowed) {
  const auto shared = std::make_shared<const Allowed>(std::move(allowed));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_ = shared;
  }
  for (const std::shared_ptr<WatchedRange>& range : All()) {
    std::vector<std::shared_ptr<AreaWatch>> watches;
    {
      const std::lock_guard<std::mutex> lock(range->mutex);
      for (AreaWatch* const watch : range->watches) {
        if (auto held = watch->weak_from_this().lock()) watches.push_back(std::move(held));
      }
    }
    const std::string& name = range->served()->info().name;
    for (const std::shared_ptr<AreaWatch>& watch : watches) {
      if (watch->ask().identity == nullptr) continue;
      const Status still = (*shared)(*watch->ask().identity, name);
      if (!still.ok()) watch->End(Status(still.reason(), Watching(name) + still.message()));
    }
  }
}

void AreaHub::Shutdown() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(stopping_, true)) return;
  }
  bell_->Ring();
  if (thread_.joinable()) thread_.join();
  for (const std::shared_ptr<WatchedRange>& range : All()) {
    EndRange(*range, Status(Reason::kDraining,
                            Watching(range->served()->info().name) +
                                "the service is draining; go on at its successor, from the last "
                                "updates"));
  }
}

std::vector<std::shared_ptr<WatchedRange>> AreaHub::All() const {
  std::vector<std::shared_ptr<WatchedRange>> all;
  const std::lock_guard<std::mutex> lock(mutex_);
  all.reserve(ranges_.size());
  for (const auto& [key, range] : ranges_) all.push_back(range);
  return all;
}

void AreaHub::Run() {
  for (;;) {
    const uint32_t bell_seen = bell_->word().load(std::memory_order_seq_cst);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    const uint64_t until_ns = Turn();
    if (until_ns > options_.clock_ns()) Sleep(bell_seen, until_ns);
  }
}

uint64_t AreaHub::Turn() {
  const uint64_t now_ns = options_.clock_ns();
  words_.clear();
  const std::vector<std::shared_ptr<WatchedRange>> ranges = All();
  std::vector<std::shared_ptr<WatchedRange>> unchanged;
  uint64_t until_ns = UINT64_MAX / 2;
  for (const std::shared_ptr<WatchedRange>& range : ranges) {
    uint64_t look_at_ns = 0;
    {
      const std::lock_guard<std::mutex> lock(range->mutex);
      range->armed = false;
      look_at_ns = LookAtNs(*range);
    }
    if (!range->served()->area().live()) {
      EndRange(*range, WhyGone(*range));
    } else if (look_at_ns <= now_ns) {
      if (LookAndTell(*range) == WatchedRange::Looked::kBusy) {
        until_ns = std::min(until_ns, now_ns + kBusyLookNs);
      }
      const std::lock_guard<std::mutex> lock(range->mutex);
      if (LookAtNs(*range) <= now_ns) unchanged.push_back(range);
    }
  }
  until_ns = std::min(until_ns, SleepOn(unchanged, now_ns));
  for (const std::shared_ptr<WatchedRange>& range : ranges) {
    until_ns = std::min(until_ns, TimerNs(*range, now_ns));
    Forget(range, now_ns);
  }
  return until_ns;
}

// When a watch of the range wants a look. REQUIRES: the range's mutex is held.
uint64_t AreaHub::LookAtNs(WatchedRange& range) {
  uint64_t at_ns = UINT64_MAX;
  for (const AreaWatch* const watch : range.watches) {
    at_ns = std::min({at_ns, watch->look_at_ns(), watch->due_ns()});
  }
  return at_ns;
}

uint64_t AreaHub::TimerNs(WatchedRange& range, uint64_t now_ns) const {
  const std::lock_guard<std::mutex> lock(range.mutex);
  if (!range.ended.ok()) return now_ns;
  if (range.watches.empty()) return range.idle_since_ns + options_.keep_ms * 1'000'000;
  uint64_t until_ns = UINT64_MAX / 2;
  for (const AreaWatch* const watch : range.watches) {
    const uint64_t look_at_ns = watch->look_at_ns();
    if (look_at_ns == UINT64_MAX) continue;  // It does not wait.
    until_ns = std::min({until_ns, now_ns + kLookNs, watch->due_ns()});
    if (look_at_ns > now_ns) until_ns = std::min(until_ns, look_at_ns);
  }
  return until_ns;
}

WatchedRange::Looked AreaHub::LookAndTell(WatchedRange& range) {
  const WatchedRange::Looked looked = range.Look(scratch_);
  const uint64_t now_ns = options_.clock_ns();
  std::vector<std::shared_ptr<AreaWatch>> due;
  {
    const std::lock_guard<std::mutex> lock(range.mutex);
    for (AreaWatch* const watch : range.watches) {
      if (!watch->TakeDue(now_ns)) continue;
      if (auto held = watch->weak_from_this().lock()) due.push_back(std::move(held));
    }
  }
  for (const std::shared_ptr<AreaWatch>& watch : due) watch->Notify();
  return looked;
}

void AreaHub::ChooseWords(const std::vector<std::shared_ptr<WatchedRange>>& ranges) {
  for (const bool by_stripe : {true, false}) {
    words_.clear();
    std::set<std::pair<uint64_t, uint32_t>> chosen;
    for (const std::shared_ptr<WatchedRange>& range : ranges) {
      const uint32_t cell = by_stripe ? range->wait_cell() : Area::kWholeArea;
      if (!chosen.emplace(range->served()->info().id, cell).second) continue;
      words_.push_back({range->served(), cell, 0});
    }
    if (words_.size() <= kWordsMax) return;
  }
}

// Arms what the ranges can be slept on, and looks at them once more.
uint64_t AreaHub::SleepOn(const std::vector<std::shared_ptr<WatchedRange>>& ranges,
                          uint64_t now_ns) {
  uint64_t until_ns = UINT64_MAX / 2;
  ChooseWords(ranges);
  if (words_.size() > kWordsMax) {
    words_.clear();
    return now_ns + kManyLookNs;
  }
  for (Word& word : words_) {
    word.seen = word.served->area().EventWord(word.cell).load(std::memory_order_seq_cst);
    word.served->area().ArmEvent(word.cell);
  }
  for (const std::shared_ptr<WatchedRange>& range : ranges) {
    {
      const std::lock_guard<std::mutex> lock(range->mutex);
      range->armed = true;
    }
    switch (LookAndTell(*range)) {
      case WatchedRange::Looked::kNothing: break;
      case WatchedRange::Looked::kChanged: until_ns = 0; break;
      case WatchedRange::Looked::kBusy: until_ns = std::min(until_ns, now_ns + kBusyLookNs); break;
    }
    if (!range->served()->area().live()) until_ns = 0;
  }
  return until_ns;
}

void AreaHub::EndRange(WatchedRange& range, const Status& why) {
  std::vector<std::shared_ptr<AreaWatch>> watches;
  {
    const std::lock_guard<std::mutex> lock(range.mutex);
    if (!range.ended.ok()) return;
    range.ended = why;
    for (AreaWatch* const watch : range.watches) {
      if (auto held = watch->weak_from_this().lock()) watches.push_back(std::move(held));
    }
  }
  for (const std::shared_ptr<AreaWatch>& watch : watches) watch->Notify();
}

// Gives up what nobody needs any more.
void AreaHub::Forget(const std::shared_ptr<WatchedRange>& range, uint64_t now_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  {
    const std::lock_guard<std::mutex> range_lock(range->mutex);
    const bool is_idle =
        range->watches.empty() && now_ns >= range->idle_since_ns + options_.keep_ms * 1'000'000;
    if (range->ended.ok() && !is_idle) return;
  }
  const auto at = ranges_.find({range->served()->info().id, range->part().pos, range->part().len});
  if (at != ranges_.end() && at->second == range) Drop(at);
}

void AreaHub::Sleep(uint32_t bell_seen, uint64_t until_ns) const {
  const std::atomic<uint32_t>* words[kFutexWordsMax] = {&bell_->word()};
  uint32_t seen[kFutexWordsMax] = {bell_seen};
  size_t count = 1;
  for (const Word& word : words_) {
    words[count] = &word.served->area().EventWord(word.cell);
    seen[count++] = word.seen;
  }
  const uint64_t now_ns = options_.clock_ns();
  if (until_ns <= now_ns) return;
  if (FutexWaitAny(std::span(words, count), std::span(seen, count), until_ns - now_ns)) return;
  SleepNs(std::min(until_ns - now_ns, kManyLookNs));
}

AreaWatchTotals AreaHub::Totals() const {
  AreaWatchTotals totals;
  for (const std::shared_ptr<WatchedRange>& range : All()) {
    const std::lock_guard<std::mutex> lock(range->mutex);
    ++totals.ranges;
    totals.watches += static_cast<uint32_t>(range->watches.size());
    for (const AreaWatch* const watch : range->watches) {
      totals.lag_updates = std::max(totals.lag_updates, watch->LagUpdates());
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    totals.copy_bytes = copy_bytes_;
  }
  totals.changes = counters_->changes.load(std::memory_order_relaxed);
  totals.coalesced = counters_->coalesced.load(std::memory_order_relaxed);
  for (size_t i = 0; i < kResyncReasons; ++i) {
    totals.resyncs[i] = counters_->resyncs[i].load(std::memory_order_relaxed);
  }
  return totals;
}

}  // namespace statehouse
