// LockStore: the daemon's keeping of the lock space: its segment in the vault, its geometry and the
// highest token in the catalogue, what it takes over from the daemon before it.
//
// Who owns it: Engine. Threads: Recover and RecoverProcess under the engine's recovery mutex, whose
// lane they use; Maintain on the maintenance thread; the rest from any.
// Always true: tokens are higher than every token that any earlier daemon can have given, also
// where the segment was lost.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/unique_fd.h"
#include "engine/state/catalogue.h"
#include "engine/state/descriptor_vault.h"
#include "engine/state/lock_space.h"

namespace statehouse {

class LockStore final {
 public:
  // Takes "locks" from `inherited`, or makes a space for `locks_max` locks. A space that was taken
  // over keeps its size. Errors: as Catalogue.
  static StatusOr<std::unique_ptr<LockStore>> Start(uint32_t locks_max,
                                                    std::map<std::string, UniqueFd>* inherited,
                                                    CatalogueHead* head, DescriptorVault* vault,
                                                    std::vector<std::string>* warnings);
  LockSpace& space() { return *space_; }
  const LockSpace& space() const { return *space_; }
  // The segment for a worker that may lock everything.
  StatusOr<UniqueFd> OpenForWorker() const;

  // The last daemon's own lanes.
  void Recover(const Lane& own);
  // The lanes and requests of a dead process. Returns how many redo records were applied.
  uint32_t RecoverProcess(const Lane& own, uint32_t block);
  // Every second or so. Returns how much was mended.
  uint32_t Maintain(const Lane& own, const std::function<bool(uint32_t lane)>& is_leased);

 private:
  LockStore(CatalogueHead* head, UniqueFd segment, std::unique_ptr<LockSpace> space)
      : head_(head), segment_(std::move(segment)), space_(std::move(space)) {}

  CatalogueHead* const head_;
  const UniqueFd segment_;
  const std::unique_ptr<LockSpace> space_;
  uint32_t sweep_next_ = 0;
};

}  // namespace statehouse
