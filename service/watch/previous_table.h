// PreviousTable: what a key had before each change of it, for the watches of one scope that ask.
//
//   history:   tail ... put a=1 ... put b=2 ... put a=3 ... head
//   links:              a: first    b: first    a: its change before, which the history has
//   last known: what the key had when its oldest change in the history came: as a scan read it, or
//               as its last change left it that the history does not have any more
//
// So the history's values are in it once, and the table grows by those that leave the history. A
// value that it is not sure of is unknown, never a guess: a scan counts only for changes with a
// higher version than what it read; a key that no scan showed was absent only where the table has
// all of a scan that came before the change; and where the feed has a gap the table ends, and those
// who begin again get a new one.
//
// Who owns it: WatchedDict, and the watches of its scope. Threads: all under the dict's mutex.
// Failure: what does not fit the budget is unknown.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/watch_limits.h"
#include "engine/state/dict_feed.h"

namespace statehouse {

struct WatchedChange;
using SharedChange = std::shared_ptr<const WatchedChange>;
using WatchHistory = std::deque<SharedChange>;

// What a key had before a change.
struct PreviousValue {
  enum class Kind : uint8_t { kUnknown, kAbsent, kValue };
  Kind kind = Kind::kUnknown;
  std::shared_ptr<const DictChange> put;  // kValue: kind, bits and bytes.

  size_t bytes() const { return put == nullptr ? 0 : put->bytes.size(); }
};

// The memory of all tables. Any thread.
class PreviousBudget final {
 public:
  explicit PreviousBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // False, and nothing is taken: it does not fit.
  bool Take(uint64_t bytes);
  void Give(uint64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  const uint64_t bytes_max_;
  std::atomic<uint64_t> used_{0};
};

// Which keys.
struct WatchScope {
  bool is_key = false;  // Else all with the prefix.
  std::string text;

  bool Has(std::string_view key) const { return is_key ? key == text : key.starts_with(text); }
};

class PreviousTable final {
 public:
  // What the history has up to `after` is none of its business.
  PreviousTable(WatchScope scope, uint64_t after, std::shared_ptr<PreviousBudget> budget)
      : scope_(std::move(scope)), after_(after), cursor_(after), budget_(std::move(budget)) {}
  ~PreviousTable() { budget_->Give(bytes_); }
  PreviousTable(const PreviousTable&) = delete;
  PreviousTable& operator=(const PreviousTable&) = delete;

  // What the history costs in the table, for each change and each key beside its bytes.
  static constexpr uint64_t kLinkBytes = 16;
  static constexpr uint64_t kKeyBytes = 128;
  static uint64_t ValueCost(const DictChange& put) { return sizeof(DictChange) + put.bytes.size(); }

  // Of the history that are looked at before others have their turn.
  static constexpr uint64_t kChangesPerTurn = 8192;

  // Links the changes up to `end`; those of one turn, and returns false, where they are more.
  // `tail` is the revision of the first one.
  bool Advance(const WatchHistory& history, uint64_t tail, uint64_t end);
  // What the key had before a change up to which it was advanced. `after_scan`: the change is not
  // in what the caller scanned, and all of that was told by TakeScanned.
  PreviousValue Before(const WatchHistory& history, uint64_t tail, const DictChange& change,
                       bool after_scan) const;
  // An entry that a scan read, in the segment of the feed.
  void TakeScanned(const DictEntry& entry);
  // Not all that a scan read is sure.
  void MissScanned() { has_all_ = false; }
  // Changes after this one came after a scan of which it was told everything.
  void Settle(uint64_t revision);
  // Whether a scan can add something.
  bool wants_scan() const { return settled_ == UINT64_MAX && !is_full_ && !is_broken_; }
  // It ends: what was changed is not known any more.
  void Break() { is_broken_ = true; }
  bool is_broken() const { return is_broken_; }
  // The oldest change of the history leaves it.
  void Leave(const DictChange& oldest);
  const WatchScope& scope() const { return scope_; }

 private:
  friend class PreviousTables;

  struct Key {
    enum class Known : uint8_t { kNothing, kUnknown, kAbsent, kValue };
    uint64_t last = 0;  // Its last change that was linked, whether or not the history has it.
    Known known = Known::kNothing;
    std::shared_ptr<const DictChange> put;
  };
  struct Link {
    uint64_t revision = 0;
    uint64_t before = 0;  // The change of the same key before it; 0: it is the first.
  };
  using Keys = std::unordered_map<std::string, Key>;

  void Add(const DictChange& change);
  bool Take(uint64_t bytes);
  void Know(Key* key, const DictChange& put);
  void Unknow(Key* key, Key::Known known);
  static PreviousValue ValueOf(const SharedChange& change);
  const Link* FindLink(uint64_t revision) const;

  const WatchScope scope_;
  const uint64_t after_;
  uint64_t cursor_;  // The last revision that was looked at.
  const std::shared_ptr<PreviousBudget> budget_;
  uint64_t bytes_ = 0;
  uint64_t settled_ = UINT64_MAX;
  bool has_all_ = true;  // A key that it does not have had no change, and no scan showed it.
  bool is_full_ = false;
  bool is_broken_ = false;
  size_t users_ = 0;
  Keys keys_;
  std::deque<Link> links_;  // In the order of their revisions.
};

// The tables of one dict, by scope. Under the dict's mutex.
class PreviousTables final {
 public:
  explicit PreviousTables(std::shared_ptr<PreviousBudget> budget) : budget_(std::move(budget)) {}

  // Whether a table may begin. Not at a gap, nor before the next drain is over: what is missing may
  // have happened between changes that are told after the gap, up to then.
  bool is_ready() const { return !is_after_gap_; }
  // The scope's table that is not broken; a new one begins at the history's tail, or after the last
  // gap. REQUIRES: is_ready().
  std::shared_ptr<PreviousTable> Join(const WatchScope& scope, uint64_t tail);
  // One user less. The last one frees it; what is returned is best let go without the mutex.
  std::shared_ptr<PreviousTable> Part(std::shared_ptr<PreviousTable> table);
  // The feed has a gap.
  void Break();
  // A drain is over, and told up to `head`.
  void EndDrain(bool has_gap, uint64_t head);
  void Leave(const DictChange& oldest);

 private:
  using ByText = std::map<std::string, std::shared_ptr<PreviousTable>, std::less<>>;

  const std::shared_ptr<PreviousBudget> budget_;
  ByText of_keys_;
  ByText of_prefixes_;
  std::vector<std::shared_ptr<PreviousTable>> broken_;  // That somebody still reads.
  bool is_after_gap_ = false;
  uint64_t begin_ = 0;  // After which revision tables may begin.
};

}  // namespace statehouse
