#include "engine/state/lane_registry.h"

#include "engine/os/memory.h"
#include "engine/os/record_lock.h"

namespace statehouse {

StatusOr<UniqueFd> LaneRegistry::CreateLiveness() {
  return CreateSealedMemory("statehouse-liveness", kLaneBlocksMax);
}

StatusOr<LaneRegistry::Claim> LaneRegistry::ClaimBlock() {
  for (uint32_t tried = 1; tried < kLaneBlocksMax; ++tried) {
    const uint32_t block = next_;
    next_ = next_ + 1 < kLaneBlocksMax ? next_ + 1 : 1;
    if (catalogue_->IsLeased(block)) continue;
    SH_ASSIGN_OR_RETURN(UniqueFd description, ReopenDescription(liveness_.get(), true));
    // A dead worker's forked child can still hold the byte; such a block waits.
    if (!TryLockByte(description.get(), block)) continue;
    catalogue_->SetLeased(block, true);
    return Claim{block, std::move(description)};
  }
  return Status(Reason::kLanesExhausted,
                "attaching a worker: all " + std::to_string(kLaneBlocksMax - 1) +
                    " lane blocks are leased; close idle workers or use the network door");
}

bool LaneRegistry::IsLeased(uint32_t block) const {
  return block > 0 && block < kLaneBlocksMax && catalogue_->IsLeased(block);
}

bool LaneRegistry::IsHeld(uint32_t block) const {
  return block > 0 && block < kLaneBlocksMax && ByteIsLocked(liveness_.get(), block);
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
