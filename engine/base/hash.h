// A fast hash of short keys under a secret seed, so that a caller who does not know the seed cannot
// choose keys that collide. Not a message authentication code: who can read the seed can make
// collisions.
//
// Each step multiplies two 64-bit words to 128 bits and folds the halves, which mixes every input
// bit into every output bit; the last bytes are read as one overlapping word, without a loop.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace statehouse {

struct HashSeed {
  uint64_t a = 0;
  uint64_t b = 0;
  friend bool operator==(const HashSeed&, const HashSeed&) = default;
};

namespace hash_internal {

// Odd, about half of the bits set.
inline constexpr uint64_t kStep = 0xd6e8feb86659fd93;
inline constexpr uint64_t kEnd = 0xa0761d6478bd642f;

inline uint64_t Fold(uint64_t x, uint64_t y) {
  const auto product = static_cast<unsigned __int128>(x) * y;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

template <typename T>
inline uint64_t Take(const char* from) {
  T word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

}  // namespace hash_internal

inline uint64_t HashKey(const HashSeed& seed, std::string_view key) {
  using hash_internal::Fold;
  using hash_internal::Take;
  const char* from = key.data();
  size_t left = key.size();
  uint64_t state = seed.a ^ (left * hash_internal::kStep);
  while (left > 16) {
    state = Fold(Take<uint64_t>(from) ^ state, Take<uint64_t>(from + 8) ^ seed.b);
    from += 16;
    left -= 16;
  }
  uint64_t low = 0;
  uint64_t high = 0;
  if (left >= 8) {
    low = Take<uint64_t>(from);
    high = Take<uint64_t>(from + left - 8);
  } else if (left >= 4) {
    low = Take<uint32_t>(from);
    high = Take<uint32_t>(from + left - 4);
  } else if (left > 0) {
    low = Take<uint8_t>(from) | Take<uint8_t>(from + left / 2) << 8;
    high = Take<uint8_t>(from + left - 1);
  }
  state = Fold(low ^ state, high ^ seed.b);
  return Fold(state ^ seed.a, hash_internal::kEnd);
}

}  // namespace statehouse
