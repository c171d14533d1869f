#include "service/watch/previous_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "service/watch/watched_dict.h"

namespace statehouse {
namespace {

bool IsOfEntry(FeedOperation operation) {
  return operation != FeedOperation::kGap && operation != FeedOperation::kMoved;
}

}  // namespace

bool PreviousBudget::Take(uint64_t bytes) {
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (bytes > bytes_max_ || used > bytes_max_ - bytes) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

bool PreviousTable::Take(uint64_t bytes) {
  if (!budget_->Take(bytes)) return false;
  bytes_ += bytes;
  return true;
}

bool PreviousTable::Advance(const WatchHistory& history, uint64_t tail, uint64_t end) {
  if (is_broken_) return true;
  // What left the history before was looked at then.
  cursor_ = std::max(cursor_, tail - 1);
  const uint64_t until = std::min(end, cursor_ + kChangesPerTurn);
  while (cursor_ < until) {
    const DictChange& next = history[cursor_ + 1 - tail]->change;
    ++cursor_;
    if (IsOfEntry(next.operation) && scope_.Has(next.key)) Add(next);
  }
  return cursor_ >= end;
}

void PreviousTable::Add(const DictChange& change) {
  auto at = keys_.find(change.key);
  if (at == keys_.end()) {
    if (!Take(kKeyBytes + change.key.size())) {
      has_all_ = false;
      is_full_ = true;
      return;
    }
    at = keys_.emplace(change.key, Key()).first;
    // It may have had changes that did not fit, so no scan tells what was before this one.
    if (!has_all_) at->second.known = Key::Known::kUnknown;
  }
  // Without a link it is unknown what was before this change, and the next one still finds it.
  const uint64_t before = std::exchange(at->second.last, change.revision);
  if (Take(kLinkBytes)) links_.push_back({change.revision, before});
}

const PreviousTable::Link* PreviousTable::FindLink(uint64_t revision) const {
  const auto at =
      std::lower_bound(links_.begin(), links_.end(), revision,
                       [](const Link& link, uint64_t wanted) { return link.revision < wanted; });
  return at == links_.end() || at->revision != revision ? nullptr : &*at;
}

PreviousValue PreviousTable::ValueOf(const SharedChange& change) {
  const DictChange& before = change->change;
  if (before.operation != FeedOperation::kPut) return {PreviousValue::Kind::kAbsent, nullptr};
  if (before.value_gone) return {};
  return {PreviousValue::Kind::kValue, std::shared_ptr<const DictChange>(change, &before)};
}

PreviousValue PreviousTable::Before(const WatchHistory& history, uint64_t tail,
                                    const DictChange& change, bool after_scan) const {
  using Kind = PreviousValue::Kind;
  const Link* const link = FindLink(change.revision);
  const auto at = keys_.find(change.key);
  if (link == nullptr || at == keys_.end()) return {};
  const Key& key = at->second;
  PreviousValue value;
  uint64_t before = link->before;
  if (WatchMutantIs(WatchMutant::kPreviousLags) && before >= tail) {
    if (const Link* const earlier = FindLink(before); earlier != nullptr) before = earlier->before;
  }
  if (before >= tail) {
    value = ValueOf(history[before - tail]);
  } else if (key.known == Key::Known::kValue) {
    // A scan may have read what this change did, or a later one.
    const bool is_earlier = before != 0 || change.version > key.put->version ||
                            WatchMutantIs(WatchMutant::kPreviousOfAnyScan);
    if (is_earlier) value = {Kind::kValue, key.put};
  } else if (key.known == Key::Known::kAbsent) {
    value.kind = Kind::kAbsent;
  } else if (key.known == Key::Known::kNothing && has_all_) {
    const bool is_after = settled_ == UINT64_MAX ? after_scan : change.revision > settled_;
    if (is_after) value.kind = Kind::kAbsent;
  }
  // Of what is removed, something was there: a scan leaves out what is expired, for example.
  if (value.kind == Kind::kAbsent && change.operation != FeedOperation::kPut) return {};
  return value;
}

void PreviousTable::Unknow(Key* key, Key::Known known) {
  if (key->put != nullptr) {
    const uint64_t cost = ValueCost(*key->put);
    bytes_ -= cost;
    budget_->Give(cost);
    key->put.reset();
  }
  key->known = known;
}

void PreviousTable::Know(Key* key, const DictChange& put) {
  Unknow(key, Key::Known::kUnknown);
  if (!Take(ValueCost(put))) return;
  auto value = std::make_shared<DictChange>();
  value->version = put.version;
  value->kind = put.kind;
  value->bits = put.bits;
  value->bytes = put.bytes;
  key->put = std::move(value);
  key->known = Key::Known::kValue;
}

void PreviousTable::TakeScanned(const DictEntry& entry) {
  // Once it is settled a key that is gone is forgotten, which a late page must not undo.
  if (settled_ != UINT64_MAX || !scope_.Has(entry.key)) return;
  if (is_broken_ || is_full_) return MissScanned();
  auto at = keys_.find(entry.key);
  if (at == keys_.end()) {
    if (!Take(kKeyBytes + entry.key.size())) {
      has_all_ = false;
      is_full_ = true;
      return;
    }
    at = keys_.emplace(entry.key, Key()).first;
  }
  if (at->second.known != Key::Known::kNothing) return;
  DictChange put;
  put.version = entry.version;
  put.kind = entry.kind;
  put.bits = entry.bits;
  put.bytes = entry.bytes;
  Know(&at->second, put);
}

void PreviousTable::Settle(uint64_t revision) {
  if (!is_broken_) settled_ = std::min(settled_, revision);
}

void PreviousTable::Leave(const DictChange& oldest) {
  if (oldest.revision <= after_ || !scope_.Has(oldest.key)) return;
  if (oldest.revision > cursor_) {
    if (is_broken_) return;
    cursor_ = oldest.revision;
    Add(oldest);
  }
  if (!links_.empty() && links_.front().revision == oldest.revision) {
    links_.pop_front();
    bytes_ -= kLinkBytes;
    budget_->Give(kLinkBytes);
  }
  const auto at = keys_.find(oldest.key);
  if (at == keys_.end()) return;  // It did not fit.
  Key* const key = &at->second;
  if (oldest.operation == FeedOperation::kPut) {
    if (oldest.value_gone) return Unknow(key, Key::Known::kUnknown);
    return Know(key, oldest);
  }
  Unknow(key, Key::Known::kAbsent);
  // As one that was never there. While pages of a scan may come it is needed against a late one.
  if (key->last != oldest.revision || (settled_ == UINT64_MAX && !is_full_)) return;
  const uint64_t cost = kKeyBytes + at->first.size();
  keys_.erase(at);
  bytes_ -= cost;
  budget_->Give(cost);
}

std::shared_ptr<PreviousTable> PreviousTables::Join(const WatchScope& scope, uint64_t tail) {
  ByText& by_text = scope.is_key ? of_keys_ : of_prefixes_;
  std::shared_ptr<PreviousTable>& table = by_text[scope.text];
  if (table == nullptr) {
    table = std::make_shared<PreviousTable>(scope, std::max(begin_, tail - 1), budget_);
  }
  ++table->users_;
  return table;
}

std::shared_ptr<PreviousTable> PreviousTables::Part(std::shared_ptr<PreviousTable> table) {
  if (table == nullptr || --table->users_ > 0) return nullptr;
  if (table->is_broken()) {
    std::erase(broken_, table);
  } else {
    (table->scope().is_key ? of_keys_ : of_prefixes_).erase(table->scope().text);
  }
  return table;
}

void PreviousTables::Break() {
  if (WatchMutantIs(WatchMutant::kPreviousNotReset)) return;
  is_after_gap_ = true;
  for (ByText* const by_text : {&of_keys_, &of_prefixes_}) {
    for (auto& [text, table] : *by_text) {
      table->Break();
      broken_.push_back(std::move(table));
    }
    by_text->clear();
  }
}

void PreviousTables::EndDrain(bool has_gap, uint64_t head) {
  if (is_after_gap_) begin_ = head;
  is_after_gap_ = false;
  if (has_gap) Break();
}

void PreviousTables::Leave(const DictChange& oldest) {
  if (!IsOfEntry(oldest.operation)) return;
  if (const auto at = of_keys_.find(oldest.key); at != of_keys_.end()) at->second->Leave(oldest);
  for (const auto& [text, table] : of_prefixes_) table->Leave(oldest);
  for (const std::shared_ptr<PreviousTable>& table : broken_) table->Leave(oldest);
}

}  // namespace statehouse
