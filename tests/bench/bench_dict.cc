#include "tests/bench/bench_dict.h"

#include <cstdio>
#include <cstdlib>

#include "engine/os/memory.h"
#include "tests/bench/dict_peers.h"

namespace statehouse::bench {
namespace {

constexpr uint32_t kLanes = 16;
constexpr uint32_t kSpareEntries = 1024;
constexpr uint64_t kDataBytes = uint64_t{1} << 30;  // Sparse.

}  // namespace

void Die(const std::string& what) {
  std::fprintf(stderr, "dict_bench: %s failed\n", what.c_str());
  std::exit(2);
}

BenchDict BenchDict::Filled(uint32_t keys) {
  DictGeometry geometry = DictGeometry::For(uint64_t{keys} + kSpareEntries, kDataBytes, kLanes);
  geometry.seed = {0x9e3779b97f4a7c15, 0xd1b54a32d192ed03};
  auto segment = CreateSealedMemory("dict-bench", geometry.segment_bytes());
  if (!segment.ok()) Die("making a segment");
  const uint64_t uuid[2] = {1, 1};
  Require(Dict::Format(geometry, uuid, segment->get()));
  auto dict = Dict::Map("bench", geometry, segment->get(), Access::kReadWrite);
  if (!dict.ok()) Die(dict.status().ToString());
  Require((*dict)->PrepareLanes(1, kLanes - 1));
  const std::string value(kValueBytes, 'v');
  DictResult result;
  for (uint32_t i = 0; i < keys; ++i) {
    Require((*dict)->Set(LaneOf(0), KeyOf(i).view(), DictValue::Bytes(value), {}, &result));
  }
  return {*std::move(segment), *std::move(dict)};
}

double BenchDict::AllocatedBytesNow() const {
  const auto bytes = AllocatedBytes(segment.get());
  if (!bytes.ok()) Die("asking for the memory of the segment");
  return static_cast<double>(*bytes);
}

}  // namespace statehouse::bench
