// The messages of the benchmarks of batches: made once, in which only the digits of the keys
// change, as redis-benchmark's; and their answers, each of which is looked through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statehouse::bench {

inline constexpr uint32_t kBatchKeys = 100'000;
inline constexpr char kBatchValue[] = "xxx";  // Of all keys of "texts", which are set and got.

enum class BatchKind { kIncrement, kSet, kGet };
// With redis-benchmark's names of them.
inline constexpr std::pair<BatchKind, const char*> kBatchKinds[] = {
    {BatchKind::kIncrement, "incr"}, {BatchKind::kSet, "set"}, {BatchKind::kGet, "get"}};

std::string BatchKeyOf(uint32_t number);

// A RunBatchesRequest of `depth` operations of one kind.
class BatchMessage final {
 public:
  BatchMessage() = default;
  BatchMessage(BatchKind kind, int depth);
  // Puts other keys into it.
  void DrawKeys(std::minstd_rand* random);
  std::string_view bytes() const { return bytes_; }
  // How many operations the answer says were done. Null `why`: all of them, each with a result of
  // its kind, and gets with the value. Otherwise what is wrong with it.
  size_t Check(std::string_view answer, const char** why) const;

 private:
  BatchKind kind_ = BatchKind::kIncrement;
  std::string bytes_;
  std::vector<size_t> digits_;  // Where those of the keys begin.
};

}  // namespace statehouse::bench
