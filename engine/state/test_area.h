// For tests: an area with few lanes over a memfd of its own, and a second mapping of it.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "engine/os/memory.h"
#include "engine/state/area.h"
#include "gtest/gtest.h"

namespace statehouse {

// Reaches an area's shared words, to damage and to inspect them.
class AreaInternals final {
 public:
  static StripeLine& Stripe(Area& area, uint32_t index) { return area.stripes_[index]; }
  static LaneRecord& Record(Area& area, uint32_t lane) { return area.lanes_[lane]; }
  static AreaLine& Line(Area& area) { return *area.line_; }
  static std::byte* Journal(Area& area, uint32_t lane) {
    return area.journals_ + lane * area.geometry_.atomic_range_bytes;
  }
  static std::byte* Control(Area& area) { return area.control_; }
};

struct TestArea {
  static constexpr uint32_t kLanes = 16;

  explicit TestArea(uint64_t size, uint64_t atomic_range_bytes = kAtomicRangeBytesDefault)
      : geometry(AreaGeometry::For(size, atomic_range_bytes, kLanes)) {
    auto made = CreateSealedMemory(
        "test-area", geometry.data_offset + (size + kPageBytes - 1) / kPageBytes * kPageBytes);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    fd = std::move(*made);
    const uint64_t uuid[2] = {1, 2};
    const Status formatted = Area::Format(geometry, uuid, fd.get());
    EXPECT_TRUE(formatted.ok()) << formatted.ToString();
    area = Map(Access::kReadWrite);
  }

  std::unique_ptr<Area> Map(Access access) const {
    auto mapped = Area::Map("t", geometry, fd.get(), -1, access);
    EXPECT_TRUE(mapped.ok()) << mapped.status().ToString();
    return mapped.ok() ? std::move(*mapped) : nullptr;
  }

  AreaGeometry geometry;
  UniqueFd fd;
  std::unique_ptr<Area> area;
};

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

// What [pos, pos + len) holds.
inline std::string ReadString(const Area& area, uint64_t pos, uint64_t len) {
  std::string text(len, '\0');
  const Status status = area.Read(pos, std::as_writable_bytes(std::span<char>(text.data(), len)));
  EXPECT_TRUE(status.ok()) << status.ToString();
  return text;
}

}  // namespace statehouse
