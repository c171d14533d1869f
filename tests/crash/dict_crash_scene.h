// What the dict's crash test steps: small dicts with a past, copies of them, and their entries as a
// reader sees them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/os/unique_fd.h"
#include "engine/shm/dict_layout.h"
#include "engine/state/dict.h"

namespace statehouse {

inline constexpr uint32_t kSurvivorLane = 1;
inline constexpr uint32_t kVictimLane = 2;
inline constexpr uint32_t kOtherLane = 3;
inline constexpr uint32_t kSceneLanes = 4;  // In use: 0 (never) to 3.

// The victim is patient, because nobody else is there while it is stepped. The survivor gives up at
// once: what it needs is free, or a dead lane has it.
inline const Lane kVictim{kVictimLane, kOperationTimeoutNsDefault};
inline const Lane kSurvivor{kSurvivorLane, 1};
inline const Lane kOther{kOtherLane, kOperationTimeoutNsDefault};  // Who made the scene.

// Ends the program where a test cannot go on.
void Must(bool holds, const char* what);

// An entry as a reader sees it.
struct SeenEntry {
  DictKind kind = DictKind::kBytes;
  uint64_t bits = 0;
  std::string bytes;
  uint64_t fence = 0;
  uint64_t expires_ms = 0;
  uint64_t ordinal = 0;  // In what is expected: 0 means newer than all before.
  uint64_t version = 0;  // In what is expected: 0 means higher than all before.
  uint64_t bound_session = 0;
};
using SeenDict = std::map<std::string, SeenEntry>;

struct DictSegment {
  explicit DictSegment(const DictGeometry& geometry);
  SeenDict Read() const;  // REQUIRES: no bucket is marked.

  DictGeometry geometry;
  UniqueFd fd;
  std::unique_ptr<Dict> dict;
};

struct SceneShape {
  uint64_t entries_max = 100;
  uint64_t data_bytes = 24 << 16;
  bool evict = false;
};

// The live dict that is stepped, and copies on which recovery and others go on.
class DictScene final {
 public:
  DictScene(const SceneShape& shape, const std::function<void(DictScene&)>& prepare);

  // For `prepare`; a refusal ends the test.
  void Put(std::string_view key, const DictValue& value, const DictSetOptions& options = {});
  void PutBy(const Lane& lane, std::string_view key, const DictValue& value,
             const DictSetOptions& options = {});
  void DeleteBy(const Lane& lane, std::string_view key);
  // An entry whose time is over, not yet removed.
  void PutExpired(std::string_view key, const DictValue& value);
  // The n-th key that begins with `prefix` and falls into `bucket`.
  std::string KeyIn(uint32_t bucket, int n, const std::string& prefix = "k") const;

  // Copies everything that lanes below kSceneLanes can have changed, remembered operations only of
  // sessions that had some before.
  void Copy(const DictSegment& from, const DictSegment& to) const;
  // Whether `live` differs from what it was when this said so last. `bulk` false: the blocks'
  // contents are not looked at.
  bool Changed(bool bulk);

  Dict& dict() { return *live.dict; }
  DictLaneRecord& VictimRecord(Dict& dict) const;
  // No entry that this key had before the operation has a higher version.
  uint64_t VersionBefore(std::string_view key) const;

  DictSegment live;
  DictSegment clone;              // Recovered and used.
  DictSegment between;            // Used by others first, then recovered.
  DictSegment last;               // What Changed compares with.
  std::vector<std::string> keys;  // What `prepare` found out for the operation.
  SeenDict before;
  uint64_t ring_head_before = 0;
  DictStats stats_before;
  std::vector<uint64_t> sequences_before;  // Of the buckets.

 private:
  void FinishPast();
  template <typename Visit>
  void ForEachControlRange(uint32_t first_lane, uint32_t end_lane, Visit visit) const;

  std::vector<uint64_t> rows_;  // Where sessions have remembered operations.
};

// A record of the victim's ring.
struct SeenChange {
  ChangeOperation operation = ChangeOperation::kPut;
  DictKind kind = DictKind::kBytes;
  std::string key;
  std::string bytes;
  bool is_inline = true;
  uint64_t version = 0;
  uint64_t bits = 0;
};
// The records in [from, to) of a lane's ring; empty and *sound false when they are none.
std::vector<SeenChange> ReadRing(const Dict& dict, uint32_t lane, uint64_t from, uint64_t to,
                                 bool* sound);

// Returns once the coarse clock by which entries expire has moved past `ms`.
void WaitUntilPast(const Dict& dict, uint64_t ms);

}  // namespace statehouse
