// The sizes of a dict's blocks: 64 to 65,536 bytes in 39 classes that cut one slab each, and
// extents of whole slabs above. A block is named by a BlockRef: class code and position.
//
//   63   48 47      40 39                  0
//   |  0   | class    | position / 32       |      0 = no block
#pragma once

#include <array>
#include <cstdint>

namespace statehouse {

inline constexpr uint64_t kSlabBytes = 64 << 10;
inline constexpr uint64_t kBlockUnitBytes = 32;  // Positions are multiples of this.
inline constexpr uint32_t kSizeClasses = 40;     // Codes 1 … 39 are in use; 0 is no class.
inline constexpr uint32_t kExtentCodeBase = 64;  // Code 64 + n is an extent of n slabs.
inline constexpr uint32_t kExtentSlabsMax = 17;  // 1 MiB of value, a key and the entry's header.

using BlockRef = uint64_t;

inline constexpr uint32_t kRefClassShift = 40;
inline constexpr uint64_t kRefIndexMask = (uint64_t{1} << kRefClassShift) - 1;
inline constexpr uint64_t kRefMask = (uint64_t{1} << 48) - 1;

namespace size_class_internal {

constexpr std::array<uint32_t, kSizeClasses> MakeTable() {
  // 64 … 256 in steps of 32, then four steps for each doubling.
  std::array<uint32_t, kSizeClasses> bytes{};
  uint32_t code = 1;
  for (uint32_t size = 64; size <= 256; size += 32) bytes[code++] = size;
  for (uint32_t base = 256; base < kSlabBytes; base *= 2) {
    for (uint32_t step = 1; step <= 4; ++step) bytes[code++] = base + base / 4 * step;
  }
  return bytes;
}

}  // namespace size_class_internal

inline constexpr std::array<uint32_t, kSizeClasses> kClassBytes = size_class_internal::MakeTable();
static_assert(kClassBytes[1] == 64 && kClassBytes[7] == 256 && kClassBytes[39] == kSlabBytes);

// The code of the smallest block that holds `bytes`; 0 when none does.
constexpr uint32_t ClassFor(uint64_t bytes) {
  if (bytes <= 256) return bytes <= 64 ? 1 : static_cast<uint32_t>((bytes - 1) / 32);
  if (bytes <= kSlabBytes) {
    const auto doubling = static_cast<uint32_t>(63 - __builtin_clzll(bytes - 1));  // 8 … 15
    const uint64_t base = uint64_t{1} << doubling;
    const auto step = static_cast<uint32_t>((bytes - base + base / 4 - 1) / (base / 4));
    return 7 + (doubling - 8) * 4 + step;
  }
  const uint64_t slabs = (bytes + kSlabBytes - 1) / kSlabBytes;
  return slabs <= kExtentSlabsMax ? kExtentCodeBase + static_cast<uint32_t>(slabs) : 0;
}

constexpr bool IsExtent(uint32_t code) {
  return code > kExtentCodeBase + 1 && code <= kExtentCodeBase + kExtentSlabsMax;
}

// 0 for a code that is none.
constexpr uint64_t BytesOfClass(uint32_t code) {
  if (code < kSizeClasses) return kClassBytes[code];
  return IsExtent(code) ? (code - kExtentCodeBase) * kSlabBytes : 0;
}

constexpr uint32_t ClassOf(BlockRef ref) {
  return static_cast<uint32_t>(ref >> kRefClassShift) & 0xff;
}
constexpr uint64_t PositionOf(BlockRef ref) { return (ref & kRefIndexMask) * kBlockUnitBytes; }
constexpr BlockRef MakeRef(uint32_t code, uint64_t position) {
  return uint64_t{code} << kRefClassShift | position / kBlockUnitBytes;
}

// How many blocks of a class a lane keeps for itself.
inline constexpr uint32_t kMagazineBlocksMax = 16;
constexpr uint32_t MagazineBlocks(uint32_t code) {
  const uint64_t fit = 16384 / kClassBytes[code];
  return fit < 2 ? 2 : fit > kMagazineBlocksMax ? kMagazineBlocksMax : static_cast<uint32_t>(fit);
}

}  // namespace statehouse
