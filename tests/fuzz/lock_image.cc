#include "tests/fuzz/lock_image.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/memory.h"
#include "engine/shm/lock_layout.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/lock_space.h"
#include "engine/state/test_lock_words.h"

namespace statehouse {
namespace {

constexpr uint32_t kLocks = 16;
constexpr uint32_t kLanes = 4 * kLanesPerBlock;
constexpr size_t kGuardBytes = 1 << 20;
constexpr int kEditsMax = 24;
// Nobody else is there: what is held stays held.
const Lane kDaemon{1, 1};
const Lane kFirst{1 * kLanesPerBlock, 1};
const Lane kSecond{2 * kLanesPerBlock, 1};

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a damaged lock space: %s\n", what);
  std::abort();
}

// A part of the segment that is damaged and restored.
struct Region {
  uint64_t offset;
  uint64_t bytes;
};

class Scene final {
 public:
  Scene() : geometry_(LockGeometry::For(kLocks, kLanes)) {
    geometry_.seed = {0x1234567890abcdef, 0xfedcba0987654321};
    Make();
    Fill();
    image_.assign(base_, base_ + geometry_.segment_bytes());
    const auto lane = [&](uint64_t id) {
      return Region{geometry_.lanes_offset() + id * kLockLaneRecordBytes, sizeof(LockLaneRecord)};
    };
    const Region locks{geometry_.locks_offset(), 6 * sizeof(LockSlot)};
    const Region requests{geometry_.requests_offset(), 16 * sizeof(RequestSlot)};
    regions_ = {{kSpaceLineOffset, 64},
                {kTokenLineOffset, 64},
                {kPoolLineOffset, 64},
                {kLockBucketsOffset, geometry_.bucket_count * sizeof(LockBucketLine)},
                lane(1),
                lane(8),
                lane(16),
                lane(24),
                locks,
                locks,
                requests,
                requests,
                {geometry_.locks_offset(), kLocks * sizeof(LockSlot)},
                {geometry_.requests_offset(), geometry_.requests_max * sizeof(RequestSlot)}};
  }

  void Restore() {
    std::memcpy(base_, image_.data(), image_.size());
    Require(space_->PrepareLanes(0, kLanes).ok(), "no lanes");
    space_->SetClockOffset(0);
  }

  void Damage(ImageSource& source) {
    bool more = true;
    const uint64_t edits = 1 + source.Next(&more) % kEditsMax;
    for (uint64_t i = 0; i < edits && more; ++i) {
      const uint64_t word = source.Next(&more);
      uint64_t* const at = Word(word & 0xff, word >> 8);
      const uint64_t argument = source.Next(&more);
      // A space that says that it is not live refuses everything, which proves little.
      if ((word & 0xff) % regions_.size() == 0 && argument % 16 != 0) continue;
      switch (word >> 60) {
        case 0: *at = argument; break;
        case 1: *at ^= uint64_t{1} << argument % 64; break;
        case 2: *at = argument % 20; break;
        case 3: *at = argument % 20 | (argument >> 32) % 20 << 32; break;
        case 4: *at = 0; break;
        case 5: *at = ~uint64_t{0}; break;
        case 6: *at = (*at & ~kOwnerMask) | argument % kLanes; break;
        case 7: *at = (*at & ~kRequestKindMask) | argument % 6; break;
        // A redo record that is armed for the bucket that its lane says it holds.
        case 8: Arm(argument); break;
        // What stands elsewhere is the most plausible: a request twice, a lock's word as a tag.
        default: *at = *Word(argument & 0xff, argument >> 8); break;
      }
    }
  }

  void Use(uint64_t turn);

 private:
  void Make();
  void Fill();
  uint64_t* Word(uint64_t region, uint64_t index) {
    const Region& in = regions_[region % regions_.size()];
    return reinterpret_cast<uint64_t*>(base_ + in.offset) + index % (in.bytes / sizeof(uint64_t));
  }
  void Arm(uint64_t argument) {
    const uint64_t id = argument % kLanes;
    const uint64_t bucket = (argument >> 8) % geometry_.bucket_count;
    auto& record = *reinterpret_cast<LockLaneRecord*>(base_ + geometry_.lanes_offset() +
                                                      id * kLockLaneRecordBytes);
    auto& line = reinterpret_cast<LockBucketLine*>(base_ + kLockBucketsOffset)[bucket];
    line.control = (line.control & ~kOwnerMask) | id;
    record.intent = bucket + 1;
    record.tag = line.control.load();
    record.redo_count = argument % 7 == 0 ? kLockRedoMend : (argument >> 16) % 20;
  }
  LockPlace Ask(const Lane& lane, const std::string& name, LockRequest request = {});
  void Work(uint64_t turn);
  void Look();
  void Mend();
  void ExpectUsable();

  LockGeometry geometry_;
  UniqueFd fd_;
  std::unique_ptr<LockSpace> space_;
  std::byte* base_ = nullptr;
  std::vector<Region> regions_;
  std::vector<std::byte> image_;
};

// Nothing may be mapped beside the segment, so that a stray access is seen.
void Guard(std::byte* at) {
  (void)mmap(at, kGuardBytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

void Scene::Make() {
  auto made = CreateSealedMemory("fuzz-locks", geometry_.segment_bytes());
  Require(made.ok(), "no memory");
  fd_ = std::move(*made);
  const uint64_t uuid[2] = {1, 2};
  Require(LockSpace::Format(geometry_, uuid, 1000, fd_.get()).ok(), "not formatted");
  auto mapped = LockSpace::Map(geometry_, fd_.get());
  Require(mapped.ok(), "not mapped");
  space_ = std::move(*mapped);
  base_ = LockInternals::Base(*space_);
  Guard(base_ - kGuardBytes);
  Guard(base_ + (geometry_.segment_bytes() + kPageBytes - 1) / kPageBytes * kPageBytes);
  Require(space_->PrepareLanes(0, kLanes).ok(), "no lanes");
}

LockPlace Scene::Ask(const Lane& lane, const std::string& name, LockRequest request) {
  LockPlace place = 0;
  LockLook look;
  (void)space_->Acquire(lane, name, request, &place, &look);
  Require(place <= geometry_.requests_max, "a place that there is not");
  return place;
}

LockRequest Remote(uint64_t session, uint64_t id) {
  LockRequest request;
  request.remote = true;
  request.session = session;
  request.request_id = id;
  return request;
}
LockRequest Shared() {
  LockRequest request;
  request.mode = LockMode::kShared;
  return request;
}

// Holders and waiters of every kind, of two processes and of two sessions, and a past.
void Scene::Fill() {
  LockRequest semaphore;
  semaphore.limit = 2;
  bool held = false;
  (void)space_->Release(kSecond, Ask(kSecond, "idle"), &held);
  for (int i = 0; i < 2; ++i) {
    Ask(kFirst, "a");
    Ask(kSecond, "b", Shared());
    Ask(kFirst, "c", semaphore);
    Ask(kSecond, "a");
    Ask(kDaemon, "b", Remote(7, static_cast<uint64_t>(i)));
    Ask(kSecond, "c", semaphore);
  }
  Ask(kDaemon, "d", Remote(8, 9));
  Require(space_->Check().empty(), "the image is not sound");
}

void Scene::Look() {
  for (LockPlace place = 0; place <= geometry_.requests_max + 1; ++place) {
    (void)space_->Look(place);
  }
  LockDescription description;
  bool found = false;
  for (const char* name : {"a", "b", "c", "absent"}) {
    (void)space_->Describe(kDaemon, name, 10, &description, &found);
    Require(description.holders.size() <= 10 && description.waiters.size() <= 10,
            "more parties than were asked for");
  }
  uint32_t bucket = 0;
  (void)space_->List(kDaemon, "", &bucket, SIZE_MAX, 10, [](LockDescription&) {});
  Require(bucket <= geometry_.bucket_count, "a list went past the end");
  (void)space_->Stats();
  (void)space_->LastToken();
  (void)space_->FindRemote(7, 1);
}

void Scene::Work(uint64_t turn) {
  bool held = false;
  LockLook look;
  std::vector<LockPlace> granted;
  for (LockPlace place = 1 + turn % 3; place <= 16; place += 3) {
    const Lane& lane = place % 2 == 0 ? kFirst : kSecond;
    (void)space_->Renew(lane, place, 0, &look);
    (void)space_->Wait(lane, place, turn % 32 == 0 ? 1000 : 0);
    (void)space_->Release(lane, place, &held, &granted);
  }
  const LockPlace place = Ask(kFirst, "a");
  const LockPlace other = Ask(kSecond, "absent", Shared());
  (void)space_->Wait(kFirst, place, 0);
  (void)space_->Release(kFirst, place, &held);
  (void)space_->Release(kSecond, other, &held);
  (void)space_->ForceRelease(kDaemon, turn % 2 == 0 ? "b" : "c", 0);
  if (turn % 4 == 0) space_->SetClockOffset(100'000'000'000);
}

void Scene::Mend() {
  const auto nobody = [](uint32_t) { return false; };
  uint32_t next = 0;
  (void)space_->ScanRequests(kDaemon);
  for (uint32_t lane = 0; lane < kLanes + 2; ++lane) {
    (void)space_->RecoverLane(kDaemon, lane);
    (void)space_->RecoverLane(kDaemon, lane);
  }
  (void)space_->Sweep(kDaemon, &next, geometry_.bucket_count, nobody);
  (void)space_->EndSession(kDaemon, 7);
  (void)space_->RecoverBlock(kDaemon, 1);
  (void)space_->TakeRemotes();
  (void)space_->ScanRequests(kDaemon);
}

// After the daemon's sweeps it is as good as new, whatever it was.
void Scene::ExpectUsable() {
  uint32_t next = 0;
  for (int i = 0; i < 16; ++i) {
    (void)space_->Sweep(kDaemon, &next, geometry_.bucket_count, [](uint32_t) { return false; });
  }
  if (!space_->live()) return;
  for (const Lane& lane : {kFirst, kSecond}) (void)space_->RecoverBlock(kDaemon, lane.id / 8);
  Require(space_->PrepareLanes(0, kLanes).ok(), "no lanes");
  LockPlace place = 0;
  LockLook look;
  bool held = false;
  const Status asked = space_->Acquire(kFirst, "usable", {}, &place, &look);
  Require(asked.ok() || asked.reason() == Reason::kLimitExceeded, "a lock cannot be had");
  if (!asked.ok()) return;
  Require(look.phase == LockPhase::kHolding, "a new lock is not held");
  Require(space_->Release(kFirst, place, &held).ok(), "a lock cannot be given back");
}

void Scene::Use(uint64_t turn) {
  Look();
  Work(turn);
  Mend();
  Work(turn + 1);
  Look();
  ExpectUsable();
}

}  // namespace

void LiveWithDamagedLocks(ImageSource& source) {
  static Scene& scene = *new Scene;
  bool more = false;
  const uint64_t turn = source.Next(&more) % 4096;
  scene.Restore();
  scene.Damage(source);
  scene.Use(turn);
}

}  // namespace statehouse
