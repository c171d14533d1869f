// The layout is a promise between processes built at different times: every offset is pinned.
#include "engine/shm/layout.h"

#include "gtest/gtest.h"

namespace statehouse {
namespace {

TEST(LayoutTest, HeaderFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(offsetof(SegmentHeader, magic), 0u);
  EXPECT_EQ(offsetof(SegmentHeader, abi_major), 8u);
  EXPECT_EQ(offsetof(SegmentHeader, abi_minor), 10u);
  EXPECT_EQ(offsetof(SegmentHeader, byte_order_probe), 12u);
  EXPECT_EQ(offsetof(SegmentHeader, required_features), 16u);
  EXPECT_EQ(offsetof(SegmentHeader, uuid), 24u);
  EXPECT_EQ(offsetof(SegmentHeader, size), 40u);
  EXPECT_EQ(offsetof(SegmentHeader, stripe_shift), 48u);
  EXPECT_EQ(offsetof(SegmentHeader, stripe_count), 52u);
  EXPECT_EQ(offsetof(SegmentHeader, lane_count), 56u);
  EXPECT_EQ(offsetof(SegmentHeader, atomic_range_bytes), 64u);
}

TEST(LayoutTest, SharedLinesFillWholeCacheLines) {
  EXPECT_EQ(sizeof(AreaLine), 64u);
  EXPECT_EQ(offsetof(AreaLine, armed), 4u);
  EXPECT_EQ(offsetof(AreaLine, event), 8u);
  EXPECT_EQ(sizeof(StripeLine), 64u);
  EXPECT_EQ(offsetof(StripeLine, range_counter), 8u);
  EXPECT_EQ(offsetof(StripeLine, armed), 16u);
  EXPECT_EQ(offsetof(StripeLine, event), 20u);
  EXPECT_EQ(offsetof(StripeLine, fence), 24u);
}

TEST(LayoutTest, LaneRecordFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(sizeof(LaneRecord), 256u);
  EXPECT_EQ(offsetof(LaneRecord, intent), 0u);
  EXPECT_EQ(offsetof(LaneRecord, tag), 8u);
  EXPECT_EQ(offsetof(LaneRecord, redo_pos), 16u);
  EXPECT_EQ(offsetof(LaneRecord, redo_len), 24u);
  EXPECT_EQ(offsetof(LaneRecord, pending_wake), 32u);
  EXPECT_EQ(offsetof(LaneRecord, mutations), 40u);
}

}  // namespace
}  // namespace statehouse
