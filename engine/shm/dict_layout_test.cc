// The layout of dicts is a promise between processes built at different times: every offset is
// pinned.
#include "engine/shm/dict_layout.h"

#include "gtest/gtest.h"

namespace statehouse {
namespace {

TEST(DictLayoutTest, HeaderFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(offsetof(DictSegmentHeader, magic), 0u);
  EXPECT_EQ(offsetof(DictSegmentHeader, abi_major), 8u);
  EXPECT_EQ(offsetof(DictSegmentHeader, abi_minor), 10u);
  EXPECT_EQ(offsetof(DictSegmentHeader, byte_order_probe), 12u);
  EXPECT_EQ(offsetof(DictSegmentHeader, required_features), 16u);
  EXPECT_EQ(offsetof(DictSegmentHeader, bucket_count), 20u);
  EXPECT_EQ(offsetof(DictSegmentHeader, uuid), 24u);
  EXPECT_EQ(offsetof(DictSegmentHeader, lane_count), 40u);
  EXPECT_EQ(offsetof(DictSegmentHeader, data_bytes), 48u);
}

TEST(DictLayoutTest, LinesStandWhereTheFormatSays) {
  EXPECT_EQ(kDictLineOffset, 4096u);
  EXPECT_EQ(kAdmissionLineOffset, 4160u);
  EXPECT_EQ(kAllocatorLineOffset, 4224u);
  EXPECT_EQ(kWaitLinesOffset, 8192u);
  EXPECT_EQ(kSlabTableOffset, 24'576u);
  EXPECT_EQ(offsetof(DictLine, state), 0u);
  EXPECT_EQ(offsetof(DictLine, armed), 4u);
  EXPECT_EQ(offsetof(DictLine, event), 8u);
  EXPECT_EQ(offsetof(DictLine, strict), 12u);
  EXPECT_EQ(offsetof(DictLine, lane_high), 16u);
  EXPECT_EQ(offsetof(DictLine, operations), 20u);
  EXPECT_EQ(offsetof(DictLine, follow_event), 24u);
  EXPECT_EQ(offsetof(DictLine, claim), 32u);
  EXPECT_EQ(offsetof(AllocatorLine, slab_hint), 8u);
  EXPECT_EQ(offsetof(AllocatorLine, heads), 16u);
  EXPECT_EQ(offsetof(AllocatorLine, bump_next), 336u);
  EXPECT_EQ(offsetof(AllocatorLine, bump_end), 656u);
  EXPECT_EQ(offsetof(AllocatorLine, slabs_backed), 976u);
  EXPECT_EQ(sizeof(AllocatorLine), 1024u);
}

TEST(DictLayoutTest, BucketsAndEntriesStandWhereTheFormatSays) {
  EXPECT_EQ(offsetof(BucketLine, slots), 8u);
  EXPECT_EQ(offsetof(BucketLine, link), 56u);
  EXPECT_EQ(offsetof(OverflowLine, slots), 0u);
  EXPECT_EQ(offsetof(OverflowLine, link), 56u);
  EXPECT_EQ(offsetof(EntryHeader, hash), 0u);
  EXPECT_EQ(offsetof(EntryHeader, shape), 8u);
  EXPECT_EQ(offsetof(EntryHeader, version), 16u);
  EXPECT_EQ(offsetof(EntryHeader, expires_ms), 24u);
  EXPECT_EQ(offsetof(EntryHeader, fence), 32u);
  EXPECT_EQ(offsetof(EntryHeader, ordinal), 40u);
  EXPECT_EQ(sizeof(NumberCells), 32u);
  EXPECT_EQ(offsetof(NumberCell, version), 8u);
}

TEST(DictLayoutTest, LaneRecordFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(kLaneRecordBytes, 131'072u);
  EXPECT_EQ(kChangeRingBytes, 65'536u);
  EXPECT_EQ(sizeof(DictLaneRecord), 68'096u);
  EXPECT_EQ(offsetof(DictLaneRecord, intent), 0u);
  EXPECT_EQ(offsetof(DictLaneRecord, tag), 8u);
  EXPECT_EQ(offsetof(DictLaneRecord, redo_count), 16u);
  EXPECT_EQ(offsetof(DictLaneRecord, entries), 32u);
  EXPECT_EQ(offsetof(DictLaneRecord, changes), 48u);
  EXPECT_EQ(offsetof(DictLaneRecord, ring_reserve), 64u);
  EXPECT_EQ(offsetof(DictLaneRecord, ring_head), 72u);
  EXPECT_EQ(offsetof(DictLaneRecord, staged_count), 80u);
  EXPECT_EQ(offsetof(DictLaneRecord, extent), 88u);
  EXPECT_EQ(offsetof(DictLaneRecord, evictions), 104u);
  EXPECT_EQ(offsetof(DictLaneRecord, expirations), 112u);
  EXPECT_EQ(offsetof(DictLaneRecord, magazines), 128u);
  EXPECT_EQ(offsetof(DictLaneRecord, redo), 5568u);
  EXPECT_EQ(offsetof(DictLaneRecord, more_locks), 55'744u);
  EXPECT_EQ(offsetof(DictLaneRecord, staged), 59'840u);
  EXPECT_EQ(sizeof(Magazine), 136u);
  EXPECT_EQ(kRedoPairsMax, 3136u);
}

TEST(DictLayoutTest, RecordsOfChangesAndOperationsStandWhereTheFormatSays) {
  EXPECT_EQ(offsetof(ChangeHeader, operation), 4u);
  EXPECT_EQ(offsetof(ChangeHeader, kind), 5u);
  EXPECT_EQ(offsetof(ChangeHeader, key_bytes), 6u);
  EXPECT_EQ(offsetof(ChangeHeader, value_bytes), 8u);
  EXPECT_EQ(offsetof(ChangeHeader, version), 16u);
  EXPECT_EQ(offsetof(ChangeHeader, bits), 24u);
  EXPECT_EQ(offsetof(OperationRecord, session), 0u);
  EXPECT_EQ(offsetof(OperationRecord, sequence), 8u);
  EXPECT_EQ(offsetof(OperationRecord, version), 16u);
  EXPECT_EQ(offsetof(OperationRecord, facts), 24u);
  EXPECT_EQ(offsetof(OperationRecord, bits), 32u);
  EXPECT_EQ(offsetof(OperationRecord, block), 40u);
  EXPECT_EQ(offsetof(OperationRow, used), 8u);
  EXPECT_EQ(offsetof(OperationRow, records), 64u);
  EXPECT_EQ(kOperationBytes, 4'259'840u);
}

TEST(DictLayoutTest, SizeClassesCutSlabsAndAreFoundBySize) {
  EXPECT_EQ(ClassFor(1), 1u);
  EXPECT_EQ(ClassFor(64), 1u);
  EXPECT_EQ(ClassFor(65), 2u);
  EXPECT_EQ(BytesOfClass(ClassFor(65)), 96u);
  for (uint32_t code = 1; code < kSizeClasses; ++code) {
    EXPECT_EQ(ClassFor(kClassBytes[code]), code);
    EXPECT_EQ(kClassBytes[code] % kBlockUnitBytes, 0u);
  }
  EXPECT_EQ(ClassFor(kSlabBytes), 39u);
  EXPECT_EQ(ClassFor(kSlabBytes + 1), kExtentCodeBase + 2);
  EXPECT_EQ(ClassFor(kExtentSlabsMax * kSlabBytes), kExtentCodeBase + kExtentSlabsMax);
  EXPECT_EQ(ClassFor(kExtentSlabsMax * kSlabBytes + 1), 0u) << "one past the largest block";
}

}  // namespace
}  // namespace statehouse
