// Histogram: how often each duration was seen, in buckets whose width is at most 1/128 of what they
// hold, so that any percentile is right to 0.8 %; durations below 128 ns are kept exactly.
//
// Owned by one thread; several are added up by Add. 58 KiB whatever comes; nothing is allocated
// while recording.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace statehouse::cli {

// Values below 2^kBits have a bucket each; then each power of two has 2^kBits of them.
struct HistogramBuckets {
  static constexpr uint32_t kBits = 7;
  static constexpr uint32_t kHalf = 1u << kBits;
  static constexpr uint32_t kCount = (64 - kBits + 1) * kHalf;

  static constexpr uint32_t IndexOf(uint64_t ns) {
    if (ns < kHalf) return static_cast<uint32_t>(ns);
    const auto shift = static_cast<uint32_t>(std::bit_width(ns)) - 1 - kBits;
    return (shift + 1) * kHalf + static_cast<uint32_t>((ns >> shift) - kHalf);
  }
  static constexpr uint64_t HighestOf(uint32_t index) {
    if (index < kHalf) return index;
    const uint32_t shift = index / kHalf - 1;
    return (uint64_t{index % kHalf + kHalf} << shift) + ((uint64_t{1} << shift) - 1);
  }
};
static_assert(HistogramBuckets::IndexOf(UINT64_MAX) + 1 == HistogramBuckets::kCount);
static_assert(HistogramBuckets::HighestOf(HistogramBuckets::kCount - 1) == UINT64_MAX);

class Histogram final {
 public:
  void Record(uint64_t ns);
  void Add(const Histogram& other);

  uint64_t count() const { return count_; }
  // 0 where nothing was recorded.
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const;
  // The duration that `percent` of all do not exceed: the highest of its bucket, never beyond
  // max(). 0 where nothing was recorded.
  uint64_t Percentile(double percent) const;

 private:
  std::array<uint64_t, HistogramBuckets::kCount> counts_{};
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace statehouse::cli
