// What ends `statehouse watch area --until`: a word that compares with a number.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/base/word.h"

namespace statehouse::cli {

// Holds the bytes of its word, as far as they were told.
class AreaUntil final {
 public:
  // "u32@16>=10": a word type, a position, one of = != < <= > >=, and a number that the type holds;
  // without a type u64. INVALID_ARGUMENT for any other text.
  static StatusOr<AreaUntil> Parse(std::string_view text);

  uint64_t pos() const { return pos_; }
  uint64_t len() const { return WordBytes(type_); }
  // `bytes` are at `pos` now.
  void Take(uint64_t pos, std::string_view bytes);
  // Whether the whole word is known and compares so.
  bool IsMet() const;

 private:
  enum class Comparison : uint8_t {
    kEqual,
    kUnequal,
    kLess,
    kLessOrEqual,
    kGreater,
    kGreaterOrEqual
  };

  WordType type_ = WordType::kU64;
  uint64_t pos_ = 0;
  Comparison comparison_ = Comparison::kEqual;
  uint64_t bits_ = 0;  // Of the number, in 64 bits.
  char bytes_[8] = {};
  uint32_t known_ = 0;  // Bit n: bytes_[n] was told.
};

}  // namespace statehouse::cli
