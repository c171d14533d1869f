// Arbitrary bytes as an area's control memory: recovery, scrubbing and every read path must come to
// an end and touch nothing outside the segment, and the area must work afterwards.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/os/memory.h"
#include "engine/state/area.h"

namespace {

using statehouse::Area;
using statehouse::AreaGeometry;
using statehouse::Lane;

constexpr uint64_t kSize = 6 * 4096 + 17;
constexpr uint32_t kLanes = 16;

void Require(bool holds) {
  if (!holds) std::abort();
}

// One area for all inputs: each lays its bytes over stripe lines and lane records.
struct Scene {
  Scene() : geometry(AreaGeometry::For(kSize, 8192, kLanes)) {
    auto made = statehouse::CreateSealedMemory("fuzz", geometry.data_offset + 7 * 4096);
    Require(made.ok());
    fd = std::move(*made);
    const uint64_t uuid[2] = {1, 2};
    Require(Area::Format(geometry, uuid, fd.get()).ok());
    auto mapped = Area::Map("fuzz", geometry, fd.get(), -1, statehouse::Access::kReadWrite);
    Require(mapped.ok());
    area = std::move(*mapped);
    auto raw = statehouse::MapShared(fd.get(), 0, geometry.control_bytes, true);
    Require(raw.ok());
    control = *raw;
  }

  AreaGeometry geometry;
  statehouse::UniqueFd fd;
  std::unique_ptr<Area> area;
  std::byte* control = nullptr;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Scene& scene = *new Scene;
  Area& area = *scene.area;
  const size_t stripes = scene.geometry.stripe_count * sizeof(statehouse::StripeLine);
  const size_t records = kLanes * sizeof(statehouse::LaneRecord);
  const size_t for_stripes = size < stripes ? size : stripes;
  const size_t for_records = size - for_stripes < records ? size - for_stripes : records;
  std::memcpy(scene.control + statehouse::kStripeLinesOffset, data, for_stripes);
  std::memcpy(scene.control + statehouse::kStripeLinesOffset + 4096, data + for_stripes,
              for_records);

  for (uint32_t lane = 0; lane < kLanes + 2; ++lane) (void)area.RecoverLane(lane);
  (void)area.Scrub([](uint32_t, uint64_t) { return true; });
  (void)area.Poll(0);
  (void)area.HolderOf(size * 37);
  (void)area.CountersOf(static_cast<uint32_t>(size));

  const Lane lane{1, 1'000'000};
  uint64_t bits = 0;
  std::vector<std::byte> bytes(9000);
  Require(area.AddAs<uint64_t>(lane, 8, 1, &bits).ok());
  Require(area.Write(lane, 4000, bytes).ok());
  // Whatever the fences say, it is a number, and the highest one is refused by none.
  Require(area.Write(lane, 4000, bytes, UINT64_MAX).ok());
  Require(area.StoreAs<uint64_t>(lane, 4096, 1, 1).reason() == statehouse::Reason::kFenced);
  Require(area.Read(4000, bytes).ok());
  Require(area.LoadAs(4096, &bits).ok());
  return 0;
}
