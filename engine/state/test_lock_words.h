// For tests: the words of a lock space.
#pragma once

#include <string_view>

#include "engine/base/hash.h"
#include "engine/state/lock_space.h"

namespace statehouse {

// Reaches a space's shared words, to damage and to inspect them.
class LockInternals final {
 public:
  static LockBucketLine& Bucket(LockSpace& space, uint32_t index) { return space.buckets_[index]; }
  static LockLaneRecord& Record(LockSpace& space, uint32_t lane) { return space.Record(lane); }
  static LockSlot& Lock(LockSpace& space, uint32_t number) { return *space.LockAt(number); }
  static RequestSlot& Request(LockSpace& space, LockPlace place) { return *space.RequestAt(place); }
  static PoolLine& Pool(LockSpace& space) { return *space.pool_; }
  static TokenLine& Tokens(LockSpace& space) { return *space.tokens_; }
  static std::byte* Base(LockSpace& space) { return space.base_; }
  static uint32_t BucketOf(const LockSpace& space, std::string_view name) {
    return space.BucketOf(HashKey(space.geometry_.seed, name));
  }
};

}  // namespace statehouse
