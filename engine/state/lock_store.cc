#include "engine/state/lock_store.h"

#include <sys/random.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/memory.h"

namespace statehouse {
namespace {

constexpr const char* kVaultName = "locks";
// More grants than anybody makes between two looks at the counter.
constexpr uint64_t kTokensBetweenLooks = uint64_t{1} << 32;
constexpr uint32_t kLocksPerSweep = 4096;

// A new space begins at the time, so that its tokens are higher also where everything was lost: a
// million grants a second until then, and no more than 2^53, which JSON readers can hold.
uint64_t TokenOfNow() { return static_cast<uint64_t>(time(nullptr)) << 20; }

LockGeometry GeometryOf(const CatalogueHead& head) {
  LockGeometry geometry =
      LockGeometry::For(static_cast<uint32_t>(head.locks_max.load(std::memory_order_relaxed)));
  geometry.seed = {head.locks_seed_a, head.locks_seed_b};
  return geometry;
}

StatusOr<UniqueFd> MakeSegment(uint32_t locks_max, CatalogueHead* head, DescriptorVault* vault) {
  // First: a daemon that is killed from here on leaves no space that the catalogue describes.
  head->locks_max.store(0, std::memory_order_relaxed);
  uint64_t random[4];
  if (getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) {
    return ErrnoStatus("reading random bytes");
  }
  LockGeometry geometry = LockGeometry::For(locks_max);
  geometry.seed = {random[0], random[1]};
  SH_ASSIGN_OR_RETURN(UniqueFd segment,
                      CreateSealedMemory("statehouse-locks", geometry.segment_bytes()));
  const uint64_t mark = head->lock_token_mark.load(std::memory_order_relaxed);
  const uint64_t last = std::max(TokenOfNow(), mark == 0 ? 0 : mark + kTokensBetweenLooks);
  SH_RETURN_IF_ERROR(LockSpace::Format(geometry, &random[2], last, segment.get()));
  SH_RETURN_IF_ERROR(vault->Store(kVaultName, segment.get()));
  head->locks_seed_a = random[0];
  head->locks_seed_b = random[1];
  head->lock_token_mark.store(last, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  head->locks_max.store(locks_max, std::memory_order_release);
  return segment;
}

}  // namespace

StatusOr<std::unique_ptr<LockStore>> LockStore::Start(uint32_t locks_max,
                                                      std::map<std::string, UniqueFd>* inherited,
                                                      CatalogueHead* head, DescriptorVault* vault,
                                                      std::vector<std::string>* warnings) {
  UniqueFd segment;
  if (auto found = inherited->find(kVaultName); found != inherited->end()) {
    segment = std::move(found->second);
    inherited->erase(found);
  }
  const bool described = GeometryOf(*head).Validate().ok();
  std::unique_ptr<LockSpace> space;
  if (segment.valid() && described) {
    // Workers can write the header, so it proves nothing.
    Status taken = LockSpace::RestoreHeader(GeometryOf(*head), segment.get());
    if (taken.ok()) {
      auto mapped = LockSpace::Map(GeometryOf(*head), segment.get());
      if (mapped.ok()) space = *std::move(mapped);
      taken = mapped.status();
    }
    if (!taken.ok()) warnings->push_back("dropped the locks: " + taken.ToString());
  }
  if (space == nullptr) {
    SH_ASSIGN_OR_RETURN(segment, MakeSegment(locks_max, head, vault));
    SH_ASSIGN_OR_RETURN(space, LockSpace::Map(GeometryOf(*head), segment.get()));
  }
  SH_RETURN_IF_ERROR(space->PrepareLanes(0, kLanesPerBlock));
  return std::unique_ptr<LockStore>(new LockStore(head, std::move(segment), std::move(space)));
}

StatusOr<UniqueFd> LockStore::OpenForWorker() const {
  return ReopenDescription(segment_.get(), true);
}

void LockStore::Recover(const Lane& own) {
  // The lane that does it comes first: its record is overwritten by what it does for the others.
  (void)space_->RecoverLane(own, own.id);
  for (uint32_t lane = 1; lane < kLanesPerBlock; ++lane) (void)space_->RecoverLane(own, lane);
}

uint32_t LockStore::RecoverProcess(const Lane& own, uint32_t block) {
  uint32_t redos = 0;
  const uint32_t first = block * kLanesPerBlock;
  for (uint32_t lane = first; lane < first + kLanesPerBlock; ++lane) {
    redos += space_->RecoverLane(own, lane).redo_applied ? 1 : 0;
  }
  (void)space_->RecoverBlock(own, block);
  return redos;
}

uint32_t LockStore::Maintain(const Lane& own, const std::function<bool(uint32_t lane)>& is_leased) {
  uint32_t mended = space_->Sweep(own, &sweep_next_, kLocksPerSweep, is_leased);
  const uint64_t mark = head_->lock_token_mark.load(std::memory_order_relaxed);
  const uint64_t last = space_->LastToken();
  if (last < mark || last > mark + kTokensBetweenLooks) {
    // Somebody stored into the counter. Going back is undone; going ahead cannot be.
    space_->RaiseToken(mark + kTokensBetweenLooks);
    ++mended;
  }
  head_->lock_token_mark.store(std::max(mark, space_->LastToken()), std::memory_order_relaxed);
  return mended;
}

}  // namespace statehouse
