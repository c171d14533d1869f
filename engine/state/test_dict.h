// For tests: a dict with few lanes over a memfd of its own.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "engine/os/memory.h"
#include "engine/state/dict.h"
#include "gtest/gtest.h"

namespace statehouse {

// Reaches a dict's shared words, to damage and to inspect them.
class DictInternals final {
 public:
  static BucketLine& Bucket(Dict& dict, uint32_t index) { return dict.buckets_[index]; }
  static DictLaneRecord& Record(Dict& dict, uint32_t lane) { return dict.Record(lane); }
  static DictLine& Line(Dict& dict) { return *dict.line_; }
  static AllocatorLine& Allocator(Dict& dict) { return *dict.allocator_; }
  static std::byte* Base(Dict& dict) { return dict.base_; }
  static uint32_t BucketOf(const Dict& dict, std::string_view key) {
    return dict.BucketOf(HashKey(dict.geometry_.seed, key));
  }
};

struct TestDict {
  static constexpr uint32_t kLanes = 16;

  explicit TestDict(uint64_t entries_max = 1000, uint64_t data_bytes = 16 << 20, bool evict = false,
                    uint64_t default_ttl_ms = 0)
      : geometry(DictGeometry::For(entries_max, data_bytes, kLanes)) {
    geometry.seed = {0x1234567890abcdef, 0xfedcba0987654321};
    geometry.evict = evict;
    geometry.default_ttl_ms = default_ttl_ms;
    auto made = CreateSealedMemory("test-dict", geometry.segment_bytes());
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    fd = std::move(*made);
    const uint64_t uuid[2] = {1, 2};
    const Status formatted = Dict::Format(geometry, uuid, fd.get());
    EXPECT_TRUE(formatted.ok()) << formatted.ToString();
    dict = Map(Access::kReadWrite);
    const Status prepared = dict->PrepareLanes(0, kLanes);
    EXPECT_TRUE(prepared.ok()) << prepared.ToString();
  }

  std::unique_ptr<Dict> Map(Access access) const {
    auto mapped = Dict::Map("t", geometry, fd.get(), access);
    EXPECT_TRUE(mapped.ok()) << mapped.status().ToString();
    return mapped.ok() ? std::move(*mapped) : nullptr;
  }

  // Short forms of the usual calls; a refusal fails the test.
  DictResult Set(std::string_view key, const DictValue& value, DictSetOptions options = {}) {
    DictResult result;
    const Status status = dict->Set(lane, key, value, options, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return result;
  }
  DictResult Put(std::string_view key, std::string_view bytes) {
    return Set(key, DictValue::Bytes(bytes));
  }
  DictResult Delete(std::string_view key, DictDeleteOptions options = {}) {
    DictResult result;
    const Status status = dict->Delete(lane, key, options, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return result;
  }
  DictResult Add(std::string_view key, int64_t delta) {
    DictIncrement increment;
    increment.delta = DictValue::Int64(delta);
    DictResult result;
    const Status status = dict->Increment(lane, key, increment, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return result;
  }
  // The entry's bytes, its number as text, or "(absent)".
  std::string Text(std::string_view key) const {
    DictEntry entry;
    bool found = false;
    const Status status = dict->Get(key, &entry, &found);
    EXPECT_TRUE(status.ok()) << status.ToString();
    if (!found) return "(absent)";
    if (entry.kind == DictKind::kInt64) return std::to_string(static_cast<int64_t>(entry.bits));
    return entry.bytes;
  }
  // Everything is sound; only while nobody writes.
  void ExpectSound() const {
    const DictCheck check = dict->Check(true);
    for (const std::string& fault : check.faults) ADD_FAILURE() << fault;
    EXPECT_EQ(check.entries, dict->Stats().entries);
  }

  DictGeometry geometry;
  UniqueFd fd;
  std::unique_ptr<Dict> dict;
  Lane lane{1, kOperationTimeoutNsDefault};
};

}  // namespace statehouse
