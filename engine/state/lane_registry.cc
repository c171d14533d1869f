#include "engine/state/lane_registry.h"

#include <string>

#include "engine/os/errno_status.h"
#include "engine/os/memory.h"
#include "engine/os/record_lock.h"

namespace statehouse {

namespace {

constexpr uint64_t kLivenessByte = 0;  // Locked; it lies beyond the end of the empty file.

}  // namespace

StatusOr<Liveness> LaneRegistry::NewLiveness() {
  Liveness liveness;
  SH_ASSIGN_OR_RETURN(liveness.file, CreateSealedMemory("statehouse-alive", 0));
  // A description of its own: a copy of ours would keep the lock when the worker is gone.
  SH_ASSIGN_OR_RETURN(liveness.description, ReopenDescription(liveness.file.get(), true));
  if (!TryLockByte(liveness.description.get(), kLivenessByte)) {
    return ErrnoStatus("locking the liveness file of a new lease");
  }
  return liveness;
}

StatusOr<uint32_t> LaneRegistry::ClaimBlock() {
  for (uint32_t tried = 1; tried < kLaneBlocksMax; ++tried) {
    const uint32_t block = next_;
    next_ = next_ + 1 < kLaneBlocksMax ? next_ + 1 : 1;
    if (catalogue_->IsLeased(block)) continue;
    catalogue_->SetLeased(block, true);
    return block;
  }
  return Status(Reason::kLanesExhausted,
                "attaching a worker: all " + std::to_string(kLaneBlocksMax - 1) +
                    " lane blocks are leased; close idle workers or use the network door");
}

void LaneRegistry::Free(uint32_t block) {
  files_[block].Reset();
  catalogue_->SetLeased(block, false);
}

bool LaneRegistry::IsLeased(uint32_t block) const {
  return block > 0 && block < kLaneBlocksMax && catalogue_->IsLeased(block);
}

bool LaneRegistry::IsHeld(uint32_t block) const {
  return block > 0 && block < kLaneBlocksMax && files_[block].valid() &&
         ByteIsLocked(files_[block].get(), kLivenessByte);
}

std::vector<uint32_t> LaneRegistry::LeasedBlocks() const {
  std::vector<uint32_t> blocks;
  for (uint32_t block = 1; block < kLaneBlocksMax; ++block) {
    if (catalogue_->IsLeased(block)) blocks.push_back(block);
  }
  return blocks;
}

std::vector<uint32_t> LaneRegistry::BlocksEverLeased() const {
  std::vector<uint32_t> blocks;
  for (uint32_t block = 1; block < kLaneBlocksMax; ++block) {
    if (catalogue_->WasEverLeased(block)) blocks.push_back(block);
  }
  return blocks;
}

}  // namespace statehouse
