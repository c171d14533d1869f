// LaneRegistry: which lane block belongs to which process, and whether that process lives.
//
// A block's liveness is one byte of the liveness memfd, locked (OFD record lock) by a description
// that the worker holds. The kernel frees it when the worker is gone, however it went, and a
// restarted daemon can ask for it. Threads: not safe by itself; Engine's lock serialises.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/catalogue.h"

namespace statehouse {

class LaneRegistry final {
 public:
  LaneRegistry(Catalogue* catalogue, UniqueFd liveness)
      : catalogue_(catalogue), liveness_(std::move(liveness)) {}
  static StatusOr<UniqueFd> CreateLiveness();

  int liveness_fd() const { return liveness_.get(); }

  struct Claim {
    uint32_t block = 0;
    UniqueFd description;  // Holds the block's byte.
  };
  // Takes a free block and marks it leased. LANES_EXHAUSTED when every one is in use.
  StatusOr<Claim> ClaimBlock();
  void Free(uint32_t block) { catalogue_->SetLeased(block, false); }
  bool IsLeased(uint32_t block) const;
  // Whether somebody holds the block's byte.
  bool IsHeld(uint32_t block) const;
  std::vector<uint32_t> LeasedBlocks() const;
  // Also those that were freed since: their lanes' counters still count.
  std::vector<uint32_t> BlocksEverLeased() const;

 private:
  Catalogue* catalogue_;
  UniqueFd liveness_;
  uint32_t next_ = 1;  // Where the next search begins: a block freed a moment ago is taken last.
};

}  // namespace statehouse
