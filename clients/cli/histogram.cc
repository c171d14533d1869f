#include "clients/cli/histogram.h"

#include <algorithm>
#include <cmath>

namespace statehouse::cli {

void Histogram::Record(uint64_t ns) {
  ++counts_[HistogramBuckets::IndexOf(ns)];
  ++count_;
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
  sum_ += static_cast<double>(ns);
}

void Histogram::Add(const Histogram& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

double Histogram::mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

uint64_t Histogram::Percentile(double percent) const {
  if (count_ == 0) return 0;
  // A hair less, so that 99.9 % of 1,000 is 999 although 99.9 is no binary number.
  const double wanted = std::ceil(percent * static_cast<double>(count_) / 100 * (1 - 1e-12));
  const auto rank = std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 1, count_);
  uint64_t seen = 0;
  for (uint32_t i = 0; i < HistogramBuckets::kCount; ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(HistogramBuckets::HighestOf(i), max_);
  }
  return max_;
}

}  // namespace statehouse::cli
