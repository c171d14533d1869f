// For tests that prove watches of dicts: writers that change a dict at random and note what they
// did, and the comparison of what a watch told with it. That needs no numbers of the service's own:
// a put tells whether there was an entry before, so the puts of a key, in the order of their
// versions, tell the removals between them too.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/state/dict_store.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {

inline size_t ValueSum(std::string_view text) { return std::hash<std::string_view>()(text); }

// What was done to a dict. Any thread.
class Ledger {
 public:
  struct Put {
    uint64_t version = 0;
    size_t value_sum = 0;
    bool existed = false;   // There was an entry; else the one of the put before is removed.
    bool is_brief = false;  // It may expire, and is then replaced without its removal being told.
    uint64_t began = 0;     // By Tick.
  };
  // What is to be told of a key: its puts, and the removals between.
  struct Item {
    bool is_put = false;
    bool may_be_untold = false;
    bool may_expire = false;  // A removal of what may have expired.
    uint64_t version = 0;     // Of a removal, of the put before it.
    size_t value_sum = 0;
    uint64_t began = 0;
  };
  using Items = std::map<std::string, std::vector<Item>>;

  uint64_t Tick() { return ticks_.fetch_add(1) + 1; }
  uint64_t ticks() const { return ticks_.load(); }
  void Note(const std::string& key, const Put& put) {
    const std::lock_guard<std::mutex> lock(mutex_);
    puts_[key][put.version] = put;
    uint64_t& last = last_versions_[key];
    last = std::max(last, put.version);
  }
  // Of what is noted by now.
  std::map<std::string, uint64_t> LastVersions() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return last_versions_;
  }
  // Whether a put of the key with this value was one that may expire.
  bool WasBrief(const std::string& key, const std::string& value) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = puts_.find(key);
    return at != puts_.end() &&
           std::any_of(at->second.begin(), at->second.end(), [&](const auto& put) {
             return put.second.is_brief && put.second.value_sum == ValueSum(value);
           });
  }
  // REQUIRES: nobody changes the dict any more, and it is empty.
  Items All() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    Items all;
    for (const auto& [key, puts] : puts_) {
      std::vector<Item>& items = all[key];
      const Put* before = nullptr;
      for (const auto& [version, put] : puts) {
        if (before != nullptr && !put.existed) items.push_back(RemovalOf(*before));
        items.push_back({true, false, false, version, put.value_sum, put.began});
        before = &put;
      }
      items.push_back(RemovalOf(*before));
    }
    return all;
  }

 private:
  static Item RemovalOf(const Put& put) {
    return {false, put.is_brief, put.is_brief, put.version, 0, 0};
  }

  std::atomic<uint64_t> ticks_{0};
  mutable std::mutex mutex_;
  std::map<std::string, std::map<uint64_t, Put>> puts_;
  std::map<std::string, uint64_t> last_versions_;
};

// The keys that are changed at random: of numbers, and of everything else. Two prefixes.
inline std::vector<std::string> ReplayedKeys() {
  std::vector<std::string> keys;
  for (const std::string prefix : {"a/", "b/"}) {
    for (int i = 0; i < 4; ++i) keys.push_back(prefix + "n" + std::to_string(i));
    for (int i = 0; i < 16; ++i) keys.push_back(prefix + std::to_string(i));
  }
  return keys;
}
inline bool IsNumber(std::string_view key) { return key.size() > 2 && key[2] == 'n'; }

// Changes dicts at random with a lane of its own. One thread.
class NotingWriter {
 public:
  NotingWriter(Ledger* ledger, uint32_t lane, uint64_t seed)
      : ledger_(*ledger), lane_{lane, 10 * kOperationTimeoutNsDefault}, random_(seed) {}

  // One change. DICT_MOVED where the dict is to be looked for again, and nothing happened.
  Status Step(Dict& dict) {
    const std::string& key = AnyKey();
    switch (random_() % 12) {
      case 0:
      case 1: return Delete(dict, key);
      case 2:
      case 3: return Transact(dict);
      case 4: return IsNumber(key) ? Add(dict, key) : Put(dict, key, 300 + random_() % 4000);
      case 5: return IsNumber(key) ? Add(dict, key) : Put(dict, key, 0, /*ttl_ms=*/1);
      default: return IsNumber(key) ? Add(dict, key) : Put(dict, key, random_() % 200);
    }
  }
  Status Put(Dict& dict, const std::string& key, size_t padding = 0, uint64_t ttl_ms = 0) {
    const std::string value = Unique(padding);
    const uint64_t began = ledger_.Tick();
    DictSetOptions options;
    options.ttl = {ttl_ms == 0 ? DictTtl::Kind::kNone : DictTtl::Kind::kSet, ttl_ms};
    DictResult result;
    SH_RETURN_IF_ERROR(dict.Set(lane_, key, DictValue::Bytes(value), options, &result));
    ledger_.Note(key, {result.version, ValueSum(value), result.existed, ttl_ms != 0, began});
    return Status();
  }
  Status Delete(Dict& dict, const std::string& key) {
    DictResult result;
    return dict.Delete(lane_, key, {}, &result);
  }
  Status Add(Dict& dict, const std::string& key) {
    const uint64_t began = ledger_.Tick();
    DictResult result;
    SH_RETURN_IF_ERROR(dict.Increment(lane_, key, OneMore(), &result));
    NoteNumber(key, result, began);
    return Status();
  }
  // Numbers and values get their last put, or everything is deleted.
  Status Close(Dict& dict, const std::string& key, bool deletes) {
    if (deletes) return Delete(dict, key);
    return IsNumber(key) ? Add(dict, key) : Put(dict, key);
  }

  // As a worker of the host has the dict: in a mapping of its own.
  Dict& Mapped(DictStore& store, const std::shared_ptr<ServedDict>& served) {
    if (mapped_from_ == served) return *mapping_;
    auto segment = store.OpenForWorker(*served, /*block=*/1, Access::kReadWrite);
    EXPECT_TRUE(segment.ok()) << segment.status().ToString();
    auto mapping = Dict::Map(served->record().name, served->record().geometry, segment->get(),
                             Access::kReadWrite);
    EXPECT_TRUE(mapping.ok()) << mapping.status().ToString();
    mapping_ = *std::move(mapping);
    EXPECT_TRUE(mapping_->PrepareLanes(lane_.id, 1).ok());
    mapped_from_ = served;
    return *mapping_;
  }
  std::mt19937_64& random() { return random_; }

 private:
  const std::string& AnyKey() { return keys_[random_() % keys_.size()]; }
  std::string Unique(size_t padding) {
    return std::to_string(lane_.id) + "." + std::to_string(++count_) + std::string(padding, '.');
  }
  // A number that begins where no other one was.
  DictIncrement OneMore() {
    DictIncrement increment;
    increment.delta = DictValue::Int64(1);
    increment.initial =
        DictValue::Int64(static_cast<int64_t>(uint64_t{lane_.id} << 48 | ++count_ << 20));
    return increment;
  }
  void NoteNumber(const std::string& key, const DictResult& result, uint64_t began) {
    const std::string text = std::to_string(result.bits);
    ledger_.Note(key, {result.version, ValueSum(text), result.existed, false, began});
  }
  Status Transact(Dict& dict) {
    std::vector<std::string> keys;
    for (size_t i = 2 + random_() % 3; i > 0; --i) {
      const std::string& key = AnyKey();
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
    std::vector<std::string> values(keys.size());
    std::vector<DictOperation> steps(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      using Kind = DictOperation::Kind;
      values[i] = Unique(random_() % 100);
      steps[i].key = keys[i];
      steps[i].kind = IsNumber(keys[i]) ? Kind::kIncrement : Kind::kSet;
      if (random_() % 4 == 0) steps[i].kind = Kind::kDelete;
      steps[i].value = DictValue::Bytes(values[i]);
      steps[i].increment = OneMore();
    }
    const uint64_t began = ledger_.Tick();
    DictTransactionResult result;
    const Status status = dict.Transact(lane_, {}, steps, {}, &result);
    // A transaction makes no room for itself.
    if (status.reason() == Reason::kLimitExceeded) return Status();
    SH_RETURN_IF_ERROR(status);
    for (size_t i = 0; i < keys.size(); ++i) {
      const DictResult& done = result.results[i].result;
      if (steps[i].kind == DictOperation::Kind::kIncrement) NoteNumber(keys[i], done, began);
      if (steps[i].kind != DictOperation::Kind::kSet) continue;
      ledger_.Note(keys[i], {done.version, ValueSum(values[i]), done.existed, false, began});
    }
    return Status();
  }

  Ledger& ledger_;
  const Lane lane_;
  std::mt19937_64 random_;
  const std::vector<std::string> keys_ = ReplayedKeys();
  uint64_t count_ = 0;
  std::shared_ptr<ServedDict> mapped_from_;
  std::unique_ptr<Dict> mapping_;
};

// Everything that a follower was told from a beginning on: its first watch, or a resync.
class Story {
 public:
  using Fault = Replayer::Fault;

  void Begin(const DictEntry& entry) { begins_[entry.key] = entry.version; }
  void Tell(const WatchEvent::Told& told) {
    const DictChange& change = told.change->change;
    const bool is_put = change.operation == FeedOperation::kPut;
    const bool has_value = is_put && !change.value_gone;
    told_[change.key].push_back({is_put, told.coalesced, change.version,
                                 has_value ? ValueSum(ValueText(change)) : std::optional<size_t>(),
                                 told.previous});
  }
  void Sync(uint64_t ticks) { synced_ = std::min(synced_, ticks); }
  void Complete() { is_complete_ = true; }
  // Of the key's last change that is known; 0: none is.
  uint64_t LastVersion(const std::string& key) const {
    if (const auto at = told_.find(key); at != told_.end()) return at->second.back().version;
    const auto at = begins_.find(key);
    return at == begins_.end() ? 0 : at->second;
  }
  // Whether it is what happened to the key: nothing is told that did not happen, and nothing is
  // left out between what was told, nor after it where the story is complete.
  void Check(const std::string& key, const std::vector<Ledger::Item>& items,
             const Fault& fault) const {
    size_t next = kUnknown;
    if (const auto at = begins_.find(key); at != begins_.end()) {
      next = Find(items, true, at->second);
      if (next == kUnknown) return fault(key + ": a snapshot has what never was");
      ++next;
    }
    if (const auto at = told_.find(key); at != told_.end()) {
      for (const Told& told : at->second) {
        const size_t i = Find(items, told.is_put, told.version);
        if (i == kUnknown) return fault(key + ": a change is told that never was");
        if (next != kUnknown && i < next) return fault(key + ": a change is told again");
        if (!told.coalesced && Misses(items, next, i)) {
          return fault(key + ": a change is missing before version " +
                       std::to_string(told.version) + ", which follows version " +
                       std::to_string(next == kUnknown || next == 0 ? 0 : items[next - 1].version));
        }
        if (told.value_sum && *told.value_sum != items[i].value_sum) {
          return fault(key + ": a change has another value");
        }
        if (!told.coalesced && !WasBefore(items, i, told.previous)) {
          return fault(key + ": it was told another previous value");
        }
        next = i + 1;
      }
    }
    if (is_complete_ && Misses(items, next, items.size())) {
      fault(key + ": the last changes are missing");
    }
  }

 private:
  static constexpr size_t kUnknown = SIZE_MAX;
  struct Told {
    bool is_put = false;
    bool coalesced = false;
    uint64_t version = 0;
    std::optional<size_t> value_sum;
    PreviousValue previous;
  };

  static size_t Find(const std::vector<Ledger::Item>& items, bool is_put, uint64_t version) {
    auto at = std::partition_point(items.begin(), items.end(), [&](const Ledger::Item& item) {
      return item.version < version || (is_put && item.is_put && item.version == version);
    });
    if (at == items.begin()) return kUnknown;
    --at;
    // The version of a removal is between those of the puts around it.
    const bool is_it = at->is_put == is_put && (at->version == version) == is_put;
    return is_it ? static_cast<size_t>(at - items.begin()) : kUnknown;
  }
  // Whether a key can have had this before one of its changes. What expired may still be there, or
  // not any more.
  static bool WasBefore(const std::vector<Ledger::Item>& items, size_t i,
                        const PreviousValue& previous) {
    using Kind = PreviousValue::Kind;
    if (previous.kind == Kind::kUnknown) return true;
    const bool is_after_put = i > 0 && items[i - 1].is_put;
    const bool may_have_expired = i > 1 && !is_after_put && items[i - 1].may_expire;
    if (previous.kind == Kind::kAbsent) return !is_after_put;
    if (!is_after_put && !may_have_expired) return false;
    return ValueSum(ValueText(*previous.put)) == items[is_after_put ? i - 1 : i - 2].value_sum;
  }
  // Whether something between is missing. Of what began before `synced` it is not known whether the
  // story has to have it, as long as nothing was told of the key.
  bool Misses(const std::vector<Ledger::Item>& items, size_t from, size_t to) const {
    for (size_t i = from == kUnknown ? 0 : from; i < to; ++i) {
      if (!items[i].may_be_untold && (from != kUnknown || items[i].began > synced_)) return true;
    }
    return false;
  }

  std::map<std::string, uint64_t> begins_;  // By its snapshot.
  std::map<std::string, std::vector<Told>> told_;
  uint64_t synced_ = UINT64_MAX;
  bool is_complete_ = false;
};

}  // namespace statehouse
