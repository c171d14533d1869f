// LaneRegistry: which lane block belongs to which process, and whether that process lives.
//
// Each lease has a liveness file of its own: an empty memfd whose byte 0 is locked (OFD record
// lock) by a description that the worker holds. The kernel gives the lock up when the worker is
// gone, however it went, and a restarted daemon can ask for it. A worker can lock what it likes in
// its own file; it never sees another one. Threads: not safe by itself; Engine's lock serialises.
#pragma once

#include <array>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/catalogue.h"

namespace statehouse {

// The two ends of a lease's liveness file.
struct Liveness {
  UniqueFd file;         // Stays with the daemon and in the vault; asks for the lock.
  UniqueFd description;  // For the worker; holds the lock.
};

class LaneRegistry final {
 public:
  explicit LaneRegistry(Catalogue* catalogue) : catalogue_(catalogue) {}
  // A new file, locked by its description. MEMORY_EXHAUSTED when no descriptor is left.
  static StatusOr<Liveness> NewLiveness();

  // Takes a free block and marks it leased. LANES_EXHAUSTED when every one is in use.
  StatusOr<uint32_t> ClaimBlock();
  // The liveness file of a leased block. Until it is there, the block counts as held by nobody.
  void SetFile(uint32_t block, UniqueFd file) { files_[block] = std::move(file); }
  // REQUIRES: the vault has forgotten the block's descriptors, or it may give them to a daemon that
  // leased the block anew.
  void Free(uint32_t block);
  bool IsLeased(uint32_t block) const;
  // Whether somebody holds the block's lock. False without a file: nobody can hold it then.
  bool IsHeld(uint32_t block) const;
  std::vector<uint32_t> LeasedBlocks() const;
  // Also those that were freed since: their lanes' counters still count.
  std::vector<uint32_t> BlocksEverLeased() const;

 private:
  Catalogue* catalogue_;
  std::array<UniqueFd, kLaneBlocksMax> files_;
  uint32_t next_ = 1;  // Where the next search begins: a block freed a moment ago is taken last.
};

}  // namespace statehouse
