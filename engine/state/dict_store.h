// DictStore: the daemon's side of dicts. It makes, finds, lists and deletes them, moves them to
// larger segments, recovers what dead workers left, and removes what expired. Part of Engine.
//
// Threads: every method from any thread at once.
// Always true: whatever Create acknowledged is in the vault ("dict.<id>.<generation>") and in the
// catalogue ("dicts"), so the next daemon finds it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/descriptor_vault.h"
#include "engine/state/dict.h"
#include "engine/state/dict_catalogue.h"
#include "engine/state/memory_budget.h"

namespace statehouse {

struct DictSpec {
  std::string name;
  // What is not given has its default in a new dict, and may be anything in one that exists.
  std::optional<uint64_t> max_entries;     // kDictEntriesDefault
  std::optional<uint64_t> max_bytes;       // kDictBytesDefault, or the store's limit
  std::optional<uint64_t> default_ttl_ms;  // 0: none
  std::optional<bool> evict;               // false
  bool exclusive = false;
};

// A dict in one of its segments. Holders keep the segment mapped; once the dict moved on or was
// deleted, operations fail with DICT_MOVED or DICT_NOT_FOUND.
class ServedDict final {
 public:
  ServedDict(DictRecord record, std::unique_ptr<Dict> dict, UniqueFd segment)
      : record_(std::move(record)),
        dict_(std::move(dict)),
        segment_(std::move(segment)),
        since_ms_(dict_->NowMs()) {}
  const DictRecord& record() const { return record_; }
  Dict& dict() { return *dict_; }
  // Sums over all segments that the dict ever had.
  DictStats Stats() const;
  // Whether it is time to leave what is damaged behind: not more often than once in a second, or a
  // writer that damages it all the time would keep the service busy.
  bool MayBeSalvaged() const;
  // Bytes of memory that the segment holds.
  StatusOr<uint64_t> MemoryBytes() const;

 private:
  friend class DictStore;
  DictRecord record_;  // Constant once it is served.
  const std::unique_ptr<Dict> dict_;
  const UniqueFd segment_;
  const uint64_t since_ms_;  // When this segment began to be served.
  std::mutex backing_mutex_;
  // What Dict::SetSlabsBacked was told last; guarded by backing_mutex_. Workers can write the word.
  uint64_t backed_ = 0;
  // Whether slabs that may not be used may have memory: of a daemon that was killed before it said
  // so, or of an allocation that failed half-way. Guarded by backing_mutex_.
  bool may_hold_spare_ = false;
  // Where maintenance goes on; its thread only.
  uint32_t scrub_at_ = 0;
  uint32_t expire_at_ = 0;
};

struct DictTotals {
  uint32_t dicts = 0;
  uint64_t entries = 0;
  uint64_t entry_bytes = 0;
  uint64_t bound_entries = 0;
  uint64_t changes = 0;
  uint64_t contended = 0;  // Of the segments that are in use now.
  uint64_t evictions = 0;
  uint64_t expirations = 0;
  uint64_t moves = 0;    // Since this daemon started.
  uint64_t repairs = 0;  // Damaged entries and words, since this daemon started.
};

struct DictStoreOptions {
  uint32_t dicts_max = kDictsMax;
  uint64_t dict_bytes_max = kDictBytesMax;
  MemoryBudget* memory = nullptr;  // It outlives the store; none: no limit.
};

class DictStore final {
 public:
  // Takes over what an earlier daemon left in `inherited`. `vault` outlives the store. What cannot
  // be served any more is dropped and told in *warnings.
  static StatusOr<std::unique_ptr<DictStore>> Start(const DictStoreOptions& options,
                                                    std::map<std::string, UniqueFd>* inherited,
                                                    DescriptorVault* vault,
                                                    std::vector<std::string>* warnings);

  struct Created {
    std::shared_ptr<ServedDict> dict;
    bool created = false;
  };
  // Errors: NAME_INVALID, SIZE_INVALID, DICT_EXISTS, LIMIT_EXCEEDED, MEMORY_EXHAUSTED.
  StatusOr<Created> Create(const DictSpec& spec);
  // By name or "#<index>". DICT_NOT_FOUND.
  StatusOr<std::shared_ptr<ServedDict>> Find(std::string_view name) const;
  // Dicts with index >= `from_index` whose name begins with `prefix`, in order, at most `limit`.
  std::vector<std::shared_ptr<ServedDict>> List(std::string_view prefix, uint32_t from_index,
                                                size_t limit) const;
  Status Delete(std::string_view name);

  // Whether a segment for more entries can be made for it.
  static bool CanGrow(const ServedDict& served) {
    return served.record().geometry.entries_max < served.record().max_entries;
  }
  enum class Move : uint8_t {
    kGrow,     // For more entries.
    kClear,    // Without its entries.
    kSalvage,  // Without what is damaged.
  };
  // Moves a dict to a new segment, if `served` is still the current one. Writers wait meanwhile,
  // for about 0.2 microseconds an entry. Errors: STALLED (a writer is stuck inside; the dict
  // stays), MEMORY_EXHAUSTED (both segments are there for a moment, and both count; kClear is
  // never refused for that, since it ends with less; a dict that evicts is told to make room in the
  // segment that it has).
  Status MoveDict(const Lane& lane, const std::shared_ptr<ServedDict>& served, Move how);

  // As MoveDict with kClear, and tells how many entries went. *cleared false: `served` is no longer
  // the current segment, and nothing happened.
  Status ClearDict(const Lane& lane, const std::shared_ptr<ServedDict>& served, uint64_t* entries,
                   bool* cleared);

  // Gives some more slabs their memory, if the dict has such that have none (Dict::AwaitsBacking).
  // OK: it has, or a dict that evicts was told to make room. MEMORY_EXHAUSTED.
  Status BackMore(ServedDict& served);
  // Bytes that the segments of all dicts hold.
  uint64_t MemoryBytes() const;

  // A descriptor of the segment for the worker of `block` (0: a worker without lanes).
  StatusOr<UniqueFd> OpenForWorker(const ServedDict& served, uint32_t block, Access access);
  uint32_t AttachedProcesses(uint64_t id) const;

  // The process that had these lanes is dead. Returns how many redo records were finished.
  uint32_t RecoverLanes(uint32_t first_lane, uint32_t lane_count);
  // A part of the upkeep: mends words of lanes that nobody has, removes expired entries. Call every
  // second or so, always from one thread, with a lane of its own. Returns how many words were
  // mended.
  uint32_t Maintain(const Lane& lane, const std::function<bool(uint32_t lane)>& is_leased);

  DictTotals Totals() const;

 private:
  DictStore(const DictStoreOptions& options, DescriptorVault* vault)
      : options_(options), vault_(vault) {}
  Status Restore(std::map<std::string, UniqueFd>* inherited, std::vector<std::string>* warnings);
  Status RestoreOne(const DictRecord& record, UniqueFd segment);
  // REQUIRES: make_mutex_ is held and `served` is current.
  Status MoveLocked(const Lane& lane, const std::shared_ptr<ServedDict>& served, Move how,
                    uint64_t* entries);
  StatusOr<std::shared_ptr<ServedDict>> CopyToNewSegment(const Lane& lane, ServedDict& served,
                                                         Move how);
  Status Publish(const std::shared_ptr<ServedDict>& served, ServedDict* before);
  StatusOr<std::shared_ptr<ServedDict>> MakeSegment(DictRecord record, uint64_t first_version);
  bool IsLimited() const { return options_.memory != nullptr && options_.memory->limit() != 0; }
  StatusOr<MemoryBudget::Reservation> ReserveForMove(ServedDict& served, Move how);
  void RestoreBacking(ServedDict& served) const;
  void BackWhatIsUsed(ServedDict& served, uint64_t slabs_min = 1) const;
  bool MakesDo(ServedDict& served) const;
  void TendBacking(const Lane& lane, ServedDict& served) const;
  void GiveBackSpare(const Lane& lane, ServedDict& served) const;
  std::shared_ptr<ServedDict> FindLocked(std::string_view name) const;
  void Serve(std::shared_ptr<ServedDict> served);
  std::vector<std::shared_ptr<ServedDict>> All() const;
  static std::string VaultName(const DictRecord& record);

  const DictStoreOptions options_;
  DescriptorVault* const vault_;
  // Lock order: make_mutex_, mutex_, recovery_mutex_.
  std::mutex make_mutex_;  // One creation, move or deletion at a time.
  mutable std::shared_mutex mutex_;
  std::mutex recovery_mutex_;
  std::unique_ptr<DictCatalogue> catalogue_;
  std::map<std::string, std::shared_ptr<ServedDict>, std::less<>> by_name_;
  std::map<uint32_t, std::shared_ptr<ServedDict>> by_index_;
  std::map<uint32_t, std::set<uint64_t>> attachments_;  // Block -> dict ids.
  std::atomic<uint64_t> moves_{0};
  DictTotals gone_;  // What dicts counted that were deleted; guarded by mutex_.
  std::atomic<uint64_t> repairs_{0};
};

}  // namespace statehouse
