// The layout of lock spaces is a promise between processes built at different times: every offset
// is pinned.
#include "engine/shm/lock_layout.h"

#include "gtest/gtest.h"

namespace statehouse {
namespace {

TEST(LockLayoutTest, HeaderFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(offsetof(LockSegmentHeader, magic), 0u);
  EXPECT_EQ(offsetof(LockSegmentHeader, abi_major), 8u);
  EXPECT_EQ(offsetof(LockSegmentHeader, abi_minor), 10u);
  EXPECT_EQ(offsetof(LockSegmentHeader, byte_order_probe), 12u);
  EXPECT_EQ(offsetof(LockSegmentHeader, required_features), 16u);
  EXPECT_EQ(offsetof(LockSegmentHeader, bucket_count), 20u);
  EXPECT_EQ(offsetof(LockSegmentHeader, uuid), 24u);
  EXPECT_EQ(offsetof(LockSegmentHeader, lane_count), 40u);
  EXPECT_EQ(offsetof(LockSegmentHeader, locks_max), 44u);
  EXPECT_EQ(offsetof(LockSegmentHeader, requests_max), 48u);
}

TEST(LockLayoutTest, LinesStandWhereTheFormatSays) {
  EXPECT_EQ(kSpaceLineOffset, 4096u);
  EXPECT_EQ(kTokenLineOffset, 4160u);
  EXPECT_EQ(kPoolLineOffset, 4224u);
  EXPECT_EQ(kLockBucketsOffset, 8192u);
  EXPECT_EQ(offsetof(SpaceLine, state), 0u);
  EXPECT_EQ(offsetof(SpaceLine, armed), 4u);
  EXPECT_EQ(offsetof(SpaceLine, event), 8u);
  EXPECT_EQ(offsetof(SpaceLine, looks_ns), 16u);
  EXPECT_EQ(offsetof(TokenLine, last), 0u);
  EXPECT_EQ(offsetof(PoolLine, locks_high), 0u);
  EXPECT_EQ(offsetof(PoolLine, locks_hint), 4u);
  EXPECT_EQ(offsetof(PoolLine, requests_high), 8u);
  EXPECT_EQ(offsetof(PoolLine, requests_hint), 12u);
  EXPECT_EQ(offsetof(LockBucketLine, control), 0u);
  EXPECT_EQ(offsetof(LockBucketLine, head), 8u);
}

TEST(LockLayoutTest, LocksAndRequestsStandWhereTheFormatSays) {
  EXPECT_EQ(sizeof(LockSlot), 320u);
  EXPECT_EQ(offsetof(LockSlot, state), 0u);
  EXPECT_EQ(offsetof(LockSlot, hash), 8u);
  EXPECT_EQ(offsetof(LockSlot, next), 16u);
  EXPECT_EQ(offsetof(LockSlot, holders), 24u);
  EXPECT_EQ(offsetof(LockSlot, queue), 32u);
  EXPECT_EQ(offsetof(LockSlot, shape), 40u);
  EXPECT_EQ(offsetof(LockSlot, waiting), 48u);
  EXPECT_EQ(offsetof(LockSlot, used_ns), 56u);
  EXPECT_EQ(offsetof(LockSlot, name), 64u);
  EXPECT_EQ(sizeof(RequestSlot), 128u);
  EXPECT_EQ(offsetof(RequestSlot, state), 0u);
  EXPECT_EQ(offsetof(RequestSlot, links), 8u);
  EXPECT_EQ(offsetof(RequestSlot, token), 16u);
  EXPECT_EQ(offsetof(RequestSlot, expires_ns), 24u);
  EXPECT_EQ(offsetof(RequestSlot, ttl_ns), 32u);
  EXPECT_EQ(offsetof(RequestSlot, session), 40u);
  EXPECT_EQ(offsetof(RequestSlot, request_id), 48u);
  EXPECT_EQ(offsetof(RequestSlot, event), 56u);
  EXPECT_EQ(offsetof(RequestSlot, sleeping), 60u);
  EXPECT_EQ(offsetof(RequestSlot, hold_ns_max), 64u);
  EXPECT_EQ(offsetof(RequestSlot, since_ns), 72u);
  EXPECT_EQ(offsetof(RequestSlot, wait_until_ns), 80u);
  EXPECT_EQ(offsetof(RequestSlot, owner), 88u);
}

TEST(LockLayoutTest, LaneRecordFieldsStandWhereTheFormatSays) {
  EXPECT_EQ(kLockLaneRecordBytes, 1024u);
  EXPECT_EQ(sizeof(LockLaneRecord), 448u);
  EXPECT_EQ(offsetof(LockLaneRecord, intent), 0u);
  EXPECT_EQ(offsetof(LockLaneRecord, tag), 8u);
  EXPECT_EQ(offsetof(LockLaneRecord, redo_count), 16u);
  EXPECT_EQ(offsetof(LockLaneRecord, pending_wake), 24u);
  EXPECT_EQ(offsetof(LockLaneRecord, grants), 32u);
  EXPECT_EQ(offsetof(LockLaneRecord, releases), 40u);
  EXPECT_EQ(offsetof(LockLaneRecord, expirations), 48u);
  EXPECT_EQ(offsetof(LockLaneRecord, contended), 56u);
  EXPECT_EQ(offsetof(LockLaneRecord, redo), 64u);
  EXPECT_EQ(kLockRedoStoresMax, 16u);
  EXPECT_EQ(sizeof(LockRedoStore), 24u);
  EXPECT_EQ(offsetof(LockRedoStore, before), 8u);
  EXPECT_EQ(offsetof(LockRedoStore, value), 16u);
}

TEST(LockLayoutTest, StatesAreTheFormatsNumbers) {
  EXPECT_EQ(kLockClaimed, 1u);
  EXPECT_EQ(kLockLinked, 2u);
  EXPECT_EQ(static_cast<int>(RequestKind::kFree), 0);
  EXPECT_EQ(static_cast<int>(RequestKind::kClaimed), 1);
  EXPECT_EQ(static_cast<int>(RequestKind::kWaiting), 2);
  EXPECT_EQ(static_cast<int>(RequestKind::kHolding), 3);
  EXPECT_EQ(static_cast<int>(RequestKind::kLost), 4);
  EXPECT_EQ(kRequestShared, 16u);
  EXPECT_EQ(kRequestRemote, 128u);
  EXPECT_EQ(kRequestBlockShift, 8);
  EXPECT_EQ(kRequestLockShift, 32);
}

}  // namespace
}  // namespace statehouse
