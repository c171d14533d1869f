// LocalDict: a dict of the local door. Its operations run the engine on memory that this process
// maps; the daemon has a part in them only when the dict has to move to another segment.
//
// Values are what the engine takes: numbers, or the wire bytes of a Value (engine/value/value.h).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "clients/c/src/in_use.h"
#include "clients/c/src/lane_pool.h"
#include "clients/c/src/local_session.h"
#include "engine/attach/protocol.h"
#include "engine/base/status.h"
#include "engine/state/dict.h"
#include "engine/state/dict_edit.h"
#include "engine/state/entry_wait.h"

namespace statehouse {

// What the daemon said of a dict when it was opened first. It never changes.
struct LocalDictFacts {
  uint64_t id = 0;
  std::string name;
  uint32_t index = 0;
  uint64_t max_entries = 0;
  uint64_t max_bytes = 0;
  uint64_t default_ttl_ms = 0;  // 0: none.
};

// An entry's value, or a part of it, as wire bytes. Reuse one for many calls. Not to be copied:
// `wire` may point into `entry` or `storage`.
struct LocalValue {
  LocalValue() = default;
  LocalValue(const LocalValue&) = delete;
  LocalValue& operator=(const LocalValue&) = delete;

  bool found = false;
  std::string_view wire;
  DictEntry entry;
  std::string storage;
};

// Where a scan goes on. A new one begins.
struct LocalDictCursor {
  bool done = false;
  uint64_t at = 0;  // How much of the space of hashes is behind it, as a fraction of 2^32 …
  HashSeed seed;    // … under this seed; another one begins again.
};

// Who owns it: shared by handles and running operations.
// Threads: all methods from any thread at once.
// Always true: an operation happens wholly or not at all, and once. The handle follows the dict to
// its newest segment; one thread does that and the others wait for it.
// Failure: those of engine/state/dict.h, and for a full segment below the dict's limits or a
// damaged one what the daemon answers when it is asked to help; KEY_INVALID; CLIENT_CLOSED after
// the session closed; DICT_NOT_FOUND when the dict was deleted or the service is another one;
// UNAVAILABLE where the daemon is needed and away, or where a forked child cannot attach. A refused
// operation changed nothing.
class LocalDict final {
 public:
  const std::string& name() const { return facts_.name; }
  const LocalDictFacts& facts() const { return facts_; }
  bool writable() const { return writable_.load(std::memory_order_relaxed); }
  const std::shared_ptr<LocalSession>& session() const { return session_; }

  // Reads. They need no lane and no right to write.
  //
  // The entry as the engine keeps it: a number as its bits, all else as wire bytes.
  Status Get(std::string_view key, DictEntry* entry, bool* found);
  // The same of the segment that is mapped, which may be history: waits for nobody and asks nobody.
  Status Peek(std::string_view key, DictEntry* entry, bool* found) const;
  // The value, or with a path the part of it, as wire bytes. Errors: also PATH_NOT_FOUND,
  // TYPE_MISMATCH.
  Status GetWire(std::string_view key, std::span<const PathStep> path, LocalValue* value);
  // Each key's entry by itself, or with `consistent` (which needs the right to write) all as of one
  // moment. results[i].result.existed says whether keys[i] is there.
  Status GetMany(std::span<const std::string_view> keys, bool consistent,
                 std::vector<DictOperationResult>* results);
  // The next `limit` entries or seldom a few more, in no order; their keys are set. An entry that
  // is there all the time comes exactly once, or twice where the dict moved meanwhile.
  Status Scan(LocalDictCursor* cursor, size_t limit, std::string_view prefix,
              std::vector<DictEntry>* entries);
  // Sleeps until the entry is as asked, *met, or `deadline`, which is no error. Woken by who
  // changes it, without the daemon; without the right to write the daemon waits in the caller's
  // stead. *value is the entry as it was seen last. Errors: also CANCELLED, and those of
  // CheckEntryWait.
  Status Wait(std::string_view key, const EntryWait& wait, Deadline deadline, bool* met,
              LocalValue* value);
  // Entries, those that expired and were not removed yet included.
  StatusOr<uint64_t> Length();
  // Of the segment that the dict is in now; counters begin again when it moves.
  StatusOr<DictStats> Stats();
  // That segment, which stays mapped as long as somebody has it.
  StatusOr<std::shared_ptr<Dict>> Newest();
  // How long an entry that was read will live; empty: for ever.
  std::optional<uint64_t> TtlMs(const DictEntry& entry) const;

  // Mutations. READ_ONLY without the right to write.
  Status Set(std::string_view key, const DictValue& value, const DictSetOptions& options,
             DictResult* result);
  Status Delete(std::string_view key, const DictDeleteOptions& options, DictResult* result);
  Status Increment(std::string_view key, const DictIncrement& increment, DictResult* result);
  // `create_parents` of EditEntry is edit.create, edit.edit.create_parents and
  // edit.edit.create_missing together.
  Status Edit(std::string_view key, const EntryEdit& edit, EntryEditResult* result);
  // Changes only how long an entry lives. result->applied: there was one.
  Status Touch(std::string_view key, const DictTtl& ttl, DictResult* result);
  Status Transact(std::span<const DictCompare> compares, std::span<const DictOperation> then,
                  std::span<const DictOperation> otherwise, DictTransactionResult* result);
  // Deletes what begins with `prefix`, each by itself; *deleted also counts where it fails half
  // way. INVALID_ARGUMENT for an empty prefix.
  Status DeletePrefix(std::string_view prefix, uint64_t* deleted);
  // Deletes every entry at once: a call to the daemon.
  Status Clear(uint64_t* deleted);

 private:
  friend class LocalSession;

  // One segment.
  struct Mapping {
    std::shared_ptr<Dict> dict;  // Whoever follows its rings keeps it.
    uint32_t generation = 0;
    dev_t device = 0;  // Of the segment: tells one from another.
    ino_t inode = 0;
    // The last attachment whose lanes were made ready here, and all of them. The list is guarded by
    // the session's turn.
    std::atomic<uint64_t> prepared_id{0};
    std::vector<uint64_t> prepared_ids;
  };

 public:
  // For LocalSession only.
  LocalDict(std::shared_ptr<LocalSession> session, LocalDictFacts facts,
            std::unique_ptr<Mapping> mapping);
  ~LocalDict();
  LocalDict(const LocalDict&) = delete;
  LocalDict& operator=(const LocalDict&) = delete;

 private:
  static constexpr uint8_t kUsable = 0;
  static constexpr uint8_t kSessionClosed = 1;
  static constexpr uint8_t kReplaced = 2;

  // What became of one try of an operation.
  struct Attempt {
    uint32_t generation = 0;  // Of the segment that it ran on.
    bool unprepared = false;  // It did not run: the thread's lanes are not ready in this segment.
  };

  // local_dict.cc: around operations.
  //
  // `key` is what the daemon looks at when a reader without the right to write meets damage; empty:
  // none.
  template <typename Operation>
  Status Read(std::string_view key, const Operation& operation);
  template <typename Operation>
  Status Write(const Operation& operation);
  template <typename Operation>
  Status WriteOnce(const Operation& operation, Attempt* attempt);
  bool usable() const { return usable_.load(std::memory_order_relaxed) == kUsable; }
  Status Unusable() const;
  Status RefuseReadOnly() const;
  Status RefuseKey(std::string_view key) const;
  Status CheckKey(std::string_view key) const;

  // local_dict_wait.cc
  Status WaitThroughDaemon(std::string_view key, const EntryWait& wait, Deadline deadline);

  // local_dict_moves.cc: following the dict.
  //
  // OK when the failed operation may be tried again until *deadline, which the first call sets;
  // else what to answer.
  Status Follow(uint32_t generation, std::string_view key, const Status& failure,
                std::optional<Deadline>* deadline);
  Status FollowUntil(uint32_t generation, std::string_view key, const Status& failure,
                     Deadline deadline);
  // What the failure says that the segment needs; empty where the daemon cannot help.
  std::optional<AttachDictNeed> NeedAfter(const Status& failure) const;
  void WaitWhileMoving(uint32_t generation, Deadline deadline) const;
  std::optional<uint64_t> BackedOf(uint32_t generation) const;
  void LetDaemonLook(std::string_view key, Deadline deadline) const;
  // Makes the lanes of the thread's attachment ready in the current segment.
  Status PrepareLanes();
  Status PrepareLanesOf(Mapping* mapping, const std::shared_ptr<Attachment>& attachment);
  // Takes over what the daemon answered to an OpenDict of this dict: the same segment, or a newer
  // one. DICT_NOT_FOUND when it is another dict. REQUIRES: the caller has the session's turn.
  Status Adopt(const AttachDictOpened& opened, const std::vector<UniqueFd>& descriptors);
  static StatusOr<std::unique_ptr<Mapping>> Map(const AttachDictOpened& opened,
                                                const std::vector<UniqueFd>& descriptors);
  // Unmaps segments that nobody works on any more.
  void Reap();

  const std::shared_ptr<LocalSession> session_;
  const LocalDictFacts facts_;
  std::atomic<Mapping*> current_;  // Owned; replaced by who has the session's turn.
  std::atomic<uint8_t> usable_{kUsable};
  std::atomic<bool> writable_;
  std::atomic<bool> has_retired_{false};
  std::vector<std::unique_ptr<Mapping>> retired_;  // Guarded by the session's mutex_.
};

}  // namespace statehouse
