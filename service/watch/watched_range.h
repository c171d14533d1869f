// WatchedRange: one range of an area that is watched, with what its watches compare: when each part
// of it changed. Part of AreaHub.
//
//   area's stripes --Look--> copy, cells: [tick of the last change] <-- each AreaWatch: "told up to
//   tick"
//
// A look compares the sequence of each stripe with the one it saw, reads the stripes that changed,
// and compares their bytes with its copy, cell by cell. A cell keeps which of its bytes changed.
// Where no copy is kept a cell is a stripe.
//
// Who owns it: AreaHub and its watches. Threads: Look on the hub's thread only; the rest under
// `mutex`. No callback runs under it.
// Always true: bytes of a cell that are not as they were told at tick t have a tick above t, from
// the look on that saw them. `updates` is no more than what the copy has.
// Failure: a stripe that somebody holds and does not let go is looked at again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/engine.h"

namespace statehouse {

class AreaWatch;

inline constexpr uint64_t kAreaCellBytes = 64;
// Ticks and their `updates` that a range remembers for watches that come back.
inline constexpr size_t kAreaMarksMax = 256;

// Part of an area: [pos, pos + len), from its beginning.
struct AreaPart {
  uint64_t pos = 0;
  uint64_t len = 0;
  friend bool operator==(const AreaPart&, const AreaPart&) = default;
};

class WatchedRange final {
 public:
  enum class Looked : uint8_t {
    kNothing,  // All is as it was.
    kChanged,
    kBusy,  // Somebody is inside a stripe, whose change may not wake anybody: look again soon.
  };
  // What a look needs and nobody keeps: one for all ranges of a hub.
  struct Scratch {
    std::vector<std::byte> bytes;
    std::vector<uint64_t> before;
    std::vector<uint64_t> after;
    std::vector<uint8_t> got;
  };

  // REQUIRES: the part lies in the area and is not empty.
  WatchedRange(Engine* engine, std::shared_ptr<ServedArea> served, AreaPart part, bool keeps_copy);

  // What a copy of a range of `len` bytes costs.
  static uint64_t CopyCost(uint64_t len);

  // Hub's thread.
  Looked Look(Scratch& scratch);

  const std::shared_ptr<ServedArea>& served() const { return served_; }
  const AreaPart& part() const { return part_; }
  bool keeps_copy() const { return keeps_copy_; }
  // Where its changes can be slept on: its only stripe, or the area.
  uint32_t wait_cell() const { return stripe_count_ == 1 ? first_stripe_ : Area::kWholeArea; }

  // Under `mutex`.
  mutable std::mutex mutex;
  std::unordered_set<AreaWatch*> watches;
  Status ended;                // Not OK: the area is gone.
  bool armed = false;          // The hub sleeps on it, and looked after it had armed.
  uint64_t idle_since_ns = 0;  // 0: it has watches.

  bool ready() const { return ready_; }  // Every stripe was seen.
  uint64_t tick() const { return tick_; }
  uint64_t updates() const { return updates_; }
  uint64_t looks() const { return looks_; }
  // A look that begins from now on is over when looks() reaches it.
  uint64_t NextLook() const { return looks_begun_ + 1; }
  // The tick at which the range had these updates.
  std::optional<uint64_t> TickOf(uint64_t updates) const;
  size_t cell_count() const { return keeps_copy_ ? cells_.size() : stripe_count_; }
  // From the area's beginning.
  AreaPart CellPart(size_t cell) const;
  // What of the cell changed after `tick`: whole, or up to kCellPartsMax parts, in order.
  static constexpr size_t kCellPartsMax = 2;
  void ChangedParts(size_t cell, uint64_t tick, std::vector<AreaPart>* parts) const;
  bool ChangedSince(size_t cell, uint64_t tick) const { return TickOfCell(cell) > tick; }
  // REQUIRES: keeps_copy(), the part lies in this one.
  void AppendCopy(const AreaPart& part, std::string* bytes) const;

 private:
  // `mask` has the bytes that changed after tick `since`.
  struct Cell {
    uint64_t mask = 0;
    uint64_t tick = 0;
    uint64_t since = 0;
  };

  Area& area() const { return served_->area(); }
  uint64_t TickOfCell(size_t cell) const {
    return keeps_copy_ ? cells_[cell].tick : stripe_ticks_[cell];
  }
  AreaPart StripePart(uint32_t stripe) const;
  void ReadWords(std::vector<uint64_t>* words) const;
  bool IsNews(uint32_t stripe, uint64_t word) const;
  bool ReadNews(Scratch& scratch, bool is_last) const;
  bool ReadCopy(Scratch& scratch);
  static bool IsHeld(const std::vector<uint64_t>& words);
  Status ReadPart(const AreaPart& part, std::byte* out, bool may_lock) const;
  bool Apply(const Scratch& scratch);
  bool CompareCopy(uint32_t stripe, const std::byte* fresh, uint64_t new_tick, uint64_t told);
  uint64_t ToldByMost() const;

  Engine* const engine_;
  const std::shared_ptr<ServedArea> served_;
  const AreaPart part_;
  const bool keeps_copy_;
  const uint32_t first_stripe_;
  const uint32_t stripe_count_;

  // The hub's thread.
  std::vector<uint64_t> seen_;  // Sequences.
  uint32_t stuck_looks_ = 0;    // In vain, one after another.

  // Under `mutex`.
  std::vector<std::byte> copy_;
  std::vector<Cell> cells_;                          // With a copy,
  std::vector<uint64_t> stripe_ticks_;               // and without.
  std::deque<std::pair<uint64_t, uint64_t>> marks_;  // Updates and tick, rising.
  uint64_t tick_ = 0;
  uint64_t updates_ = 0;
  uint64_t looks_begun_ = 0;
  uint64_t looks_ = 0;
  bool ready_ = false;
};

}  // namespace statehouse
