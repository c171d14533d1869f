#include "service/watch/watched_range.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "engine/base/watch_mutant.h"
#include "engine/shm/owned_lock.h"
#include "service/watch/area_watch.h"

namespace statehouse {
namespace {

constexpr uint64_t kNeverSeen = UINT64_MAX;  // No word has this sequence.
// Tries to read all that changed as of one moment.
constexpr int kTries = 8;
// How long the hub waits for a writer that is inside a stripe.
constexpr uint64_t kReadTimeoutNs = 100'000;
// After so many looks in vain, a millisecond or more apart, somebody is stuck inside the range:
// then each stripe is told by itself.
constexpr uint32_t kStuckLooks = 100;
// Watches that are further behind than so many ticks do not keep others from exact parts.
constexpr uint64_t kNearTicks = 16;

uint32_t StripeOf(const Area& area, uint64_t pos) {
  return static_cast<uint32_t>(pos >> area.geometry().stripe_shift);
}

}  // namespace

WatchedRange::WatchedRange(Engine* engine, std::shared_ptr<ServedArea> served, AreaPart part,
                           bool keeps_copy)
    : engine_(engine),
      served_(std::move(served)),
      part_(part),
      keeps_copy_(keeps_copy),
      first_stripe_(StripeOf(area(), part.pos)),
      stripe_count_(StripeOf(area(), part.pos + part.len - 1) - first_stripe_ + 1),
      seen_(stripe_count_, kNeverSeen) {
  if (keeps_copy_) {
    copy_.resize(part_.len);
    cells_.resize((part_.len + kAreaCellBytes - 1) / kAreaCellBytes);
  } else {
    stripe_ticks_.resize(stripe_count_);
  }
}

uint64_t WatchedRange::CopyCost(uint64_t len) {
  return len + (len + kAreaCellBytes - 1) / kAreaCellBytes * sizeof(Cell);
}

AreaPart WatchedRange::StripePart(uint32_t stripe) const {
  const uint32_t shift = area().geometry().stripe_shift;
  const uint64_t stripe_begin = uint64_t{first_stripe_ + stripe} << shift;
  const uint64_t begin = std::max(stripe_begin, part_.pos);
  const uint64_t end = std::min(stripe_begin + (uint64_t{1} << shift), part_.pos + part_.len);
  return {begin, end - begin};
}

AreaPart WatchedRange::CellPart(size_t cell) const {
  if (!keeps_copy_) return StripePart(static_cast<uint32_t>(cell));
  const uint64_t begin = cell * kAreaCellBytes;
  return {part_.pos + begin, std::min(kAreaCellBytes, part_.len - begin)};
}

void WatchedRange::ReadWords(std::vector<uint64_t>* words) const {
  words->resize(stripe_count_);
  for (uint32_t i = 0; i < stripe_count_; ++i) {
    (*words)[i] = area().ControlWord(first_stripe_ + i);
  }
}

bool WatchedRange::IsNews(uint32_t stripe, uint64_t word) const {
  if (WatchMutantIs(WatchMutant::kStripeSkipped) && stripe == 1 && seen_[stripe] != kNeverSeen) {
    return false;
  }
  return SequenceOf(word) != seen_[stripe];
}

Status WatchedRange::ReadPart(const AreaPart& part, std::byte* out, bool may_lock) const {
  const std::span<std::byte> target(out, part.len);
  const Status read = area().Read(part.pos, target, nullptr, kReadTimeoutNs);
  if (read.ok() || !may_lock || read.reason() != Reason::kStalled) return read;
  return engine_->ReadArea(*served_, part.pos, target);
}

// Reads the stripes that changed into the scratch, and marks those that it got. False: some were
// held all the while. Neighbours are read together, up to what the area reads at once.
bool WatchedRange::ReadNews(Scratch& scratch, bool is_last) const {
  bool got_all = true;
  const uint64_t at_once = area().geometry().atomic_range_bytes;
  const auto out = [&](const AreaPart& part) {
    return scratch.bytes.data() + (part.pos - part_.pos);
  };
  for (uint32_t i = 0; i < stripe_count_;) {
    if (!IsNews(i, scratch.before[i])) {
      ++i;
      continue;
    }
    AreaPart piece = StripePart(i);
    uint32_t end = i + 1;
    for (; end < stripe_count_ && IsNews(end, scratch.before[end]); ++end) {
      const uint64_t more = StripePart(end).len;
      if (piece.len + more > at_once) break;
      piece.len += more;
    }
    bool got = ReadPart(piece, out(piece), is_last).ok();
    std::fill(scratch.got.begin() + i, scratch.got.begin() + end, got ? 1 : 0);
    for (uint32_t alone = i; is_last && !got && alone < end; ++alone) {
      const AreaPart part = StripePart(alone);
      const std::span<std::byte> target(out(part), part.len);
      scratch.got[alone] = area().Read(part.pos, target, nullptr, 0).ok() ? 1 : 0;
    }
    got_all = got_all && got;
    i = end;
  }
  return got_all;
}

// As of one moment if that can be had; of a range that the area reads at once it must be, unless
// somebody is stuck inside. Returns whether somebody was inside.
bool WatchedRange::ReadCopy(Scratch& scratch) {
  for (int tries_left = kTries; tries_left > 0; --tries_left) {
    const bool got_all = ReadNews(scratch, tries_left == 1);
    ReadWords(&scratch.after);
    if (got_all && !IsHeld(scratch.before) && scratch.before == scratch.after) {
      stuck_looks_ = 0;
      return false;
    }
    if (tries_left == 1) break;
    if (!got_all) tries_left = 2;  // Waiting once more is enough.
    ReadWords(&scratch.before);
  }
  if (part_.len > area().geometry().atomic_range_bytes || stuck_looks_ >= kStuckLooks) return true;
  // Also while writers never pause.
  std::vector<uint64_t> words;
  ReadWords(&words);
  const bool got = engine_->ReadArea(*served_, part_.pos, {scratch.bytes.data(), part_.len}).ok();
  stuck_looks_ = got ? 0 : stuck_looks_ + 1;
  scratch.before = std::move(words);
  scratch.got.assign(stripe_count_, got ? 1 : 0);
  return true;
}

bool WatchedRange::IsHeld(const std::vector<uint64_t>& words) {
  return std::any_of(words.begin(), words.end(), [](uint64_t word) { return OwnerOf(word) != 0; });
}

WatchedRange::Looked WatchedRange::Look(Scratch& scratch) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    ++looks_begun_;
  }
  if (keeps_copy_ && scratch.bytes.size() < part_.len) scratch.bytes.resize(part_.len);
  ReadWords(&scratch.before);
  scratch.got.assign(stripe_count_, 0);
  bool has_news = false;
  for (uint32_t stripe = 0; stripe < stripe_count_; ++stripe) {
    const bool is_news = IsNews(stripe, scratch.before[stripe]);
    has_news = has_news || is_news;
    if (!keeps_copy_) scratch.got[stripe] = is_news ? 1 : 0;
  }
  bool is_busy = IsHeld(scratch.before);
  if (has_news && keeps_copy_) is_busy = ReadCopy(scratch) || is_busy;
  const bool changed = Apply(scratch);
  return changed ? Looked::kChanged : is_busy ? Looked::kBusy : Looked::kNothing;
}

// The tick that every watch was told which is not far behind.
uint64_t WatchedRange::ToldByMost() const {
  uint64_t told = tick_;
  for (const AreaWatch* const watch : watches) {
    if (!watch->has_begun()) continue;
    if (watch->told_tick() + kNearTicks >= tick_) told = std::min(told, watch->told_tick());
  }
  return told;
}

bool WatchedRange::CompareCopy(uint32_t stripe, const std::byte* fresh, uint64_t new_tick,
                               uint64_t told) {
  const AreaPart part = StripePart(stripe);
  const uint64_t end = part.pos - part_.pos + part.len;
  const bool is_first = seen_[stripe] == kNeverSeen;
  bool changed = false;
  for (uint64_t begin = part.pos - part_.pos; begin < end;) {
    const uint64_t cell_begin = begin / kAreaCellBytes * kAreaCellBytes;
    const uint64_t len = std::min(cell_begin + kAreaCellBytes, end) - begin;
    if (is_first || std::memcmp(copy_.data() + begin, fresh + begin, len) != 0) {
      uint64_t mask = 0;
      for (uint64_t i = begin; i < begin + len; ++i) {
        if (is_first || copy_[i] != fresh[i]) mask |= uint64_t{1} << (i - cell_begin);
      }
      Cell& cell = cells_[begin / kAreaCellBytes];
      if (cell.tick != new_tick && cell.tick <= told) {
        cell.since = cell.tick;
        cell.mask = 0;
      }
      cell.mask |= mask;
      cell.tick = new_tick;
      if (is_first || !WatchMutantIs(WatchMutant::kOldBytesRepeated)) {
        std::memcpy(copy_.data() + begin, fresh + begin, len);
      }
      changed = true;
    }
    begin += len;
  }
  return changed;
}

// Takes over what the look got.
bool WatchedRange::Apply(const Scratch& scratch) {
  const std::lock_guard<std::mutex> lock(mutex);
  const uint64_t new_tick = tick_ + 1;
  const uint64_t told = ToldByMost();
  bool changed = false;
  uint64_t updates = 0;
  bool all_seen = true;
  for (uint32_t stripe = 0; stripe < stripe_count_; ++stripe) {
    if (scratch.got[stripe] != 0) {
      if (keeps_copy_) {
        changed = CompareCopy(stripe, scratch.bytes.data(), new_tick, told) || changed;
      } else {
        stripe_ticks_[stripe] = new_tick;
        changed = true;
      }
      seen_[stripe] = SequenceOf(scratch.before[stripe]);
    }
    all_seen = all_seen && seen_[stripe] != kNeverSeen;
    updates += seen_[stripe];
  }
  looks_ = looks_begun_;
  if (changed) tick_ = new_tick;
  if (!all_seen) return changed;
  if (!ready_ || updates != updates_ || changed) {
    marks_.emplace_back(updates, tick_);
    if (marks_.size() > kAreaMarksMax) marks_.pop_front();
  }
  ready_ = true;
  updates_ = updates;
  return changed;
}

std::optional<uint64_t> WatchedRange::TickOf(uint64_t updates) const {
  for (const auto& [marked, tick] : marks_) {
    if (marked == updates) return tick;  // The first: nothing that came later is taken for told.
  }
  return std::nullopt;
}

void WatchedRange::ChangedParts(size_t index, uint64_t tick, std::vector<AreaPart>* parts) const {
  const AreaPart whole = CellPart(index);
  if (!keeps_copy_ || cells_[index].since > tick) {
    parts->push_back(whole);
    return;
  }
  uint64_t mask = cells_[index].mask;
  std::vector<AreaPart>& out = *parts;
  const size_t first = out.size();
  for (uint64_t at = 0; mask != 0;) {
    const auto skip = static_cast<uint64_t>(std::countr_zero(mask));
    at += skip;
    mask >>= skip;
    const auto len = static_cast<uint64_t>(std::countr_one(mask));
    if (out.size() - first == kCellPartsMax) {
      // Many small ones: the last reaches to the end of all.
      out.back().len = whole.pos + at + len - out.back().pos;
    } else {
      out.push_back({whole.pos + at, len});
    }
    at += len;
    mask = len == 64 ? 0 : mask >> len;
  }
}

void WatchedRange::AppendCopy(const AreaPart& part, std::string* bytes) const {
  bytes->append(reinterpret_cast<const char*>(copy_.data() + (part.pos - part_.pos)), part.len);
}

}  // namespace statehouse
