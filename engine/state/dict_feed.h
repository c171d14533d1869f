// DictFeed: the changes of one dict in one order. It merges the rings of the lanes, gives each
// change its revision, and keeps a bounded history that the next daemon goes on with.
//
// Drawing (engine/shm/feed_layout.h):
//   lanes' rings --Drain--> log ... tail_revision ... head_revision
//
// Order: changes of one key stand in the order of their versions, changes of one lane in the order
//   in which it made them, so the steps of a transaction too. Nothing is in it twice. What is
//   missing is missing before a gap.
// Who owns it: the service's watches. Threads: one at a time.
// Crash rule: what Drain returned is in the log and will never be given another revision; a daemon
//   that is killed before it returned leaves the changes in the rings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/shm/feed_layout.h"
#include "engine/state/dict_change.h"
#include "engine/state/dict_store.h"

namespace statehouse {

struct DictFeedOptions {
  uint64_t log_bytes =
      kFeedLogBytesDefault;       // Of history. REQUIRES: between kFeedLogBytesMin and …Max.
  uint64_t history_ms = 600'000;  // Older changes go at the next Drain.
};

class DictFeed final {
 public:
  // Begins now: the first change has revision `first_revision`, at least 1. Errors:
  // MEMORY_EXHAUSTED.
  static StatusOr<std::unique_ptr<DictFeed>> Create(const DictFeedOptions& options,
                                                    std::shared_ptr<ServedDict> served,
                                                    uint64_t first_revision);
  // Goes on with what an earlier daemon left; *history gets its changes. Errors: DATA_LOSS where it
  // makes no sense, or belongs to another dict.
  static StatusOr<std::unique_ptr<DictFeed>> Adopt(const DictFeedOptions& options, UniqueFd fd,
                                                   std::shared_ptr<ServedDict> served,
                                                   std::vector<DictChange>* history);
  ~DictFeed();
  DictFeed(const DictFeed&) = delete;
  DictFeed& operator=(const DictFeed&) = delete;

  // Whether a ring has something that was not read.
  bool HasNews() const;
  // Reads what the rings have, adds it to the log, and appends it to *fresh. Nobody can claim the
  // next revision (change_claim.h) until OpenClaims.
  void Drain(std::vector<DictChange>* fresh);
  // Whether the first change that the last Drain gave had been claimed; not after Follow.
  bool has_claimed() const { return has_claimed_; }
  // Those who have read everything up to head_revision() may claim the next one. REQUIRES: they see
  // cursors() as of that revision.
  void OpenClaims();
  // By lane: how far its ring was read.
  std::span<const uint64_t> cursors() const { return cursors_; }
  // Goes on in the dict's next segment. REQUIRES: nobody writes in the one before, and it was
  // drained.
  void Follow(std::shared_ptr<ServedDict> next, std::vector<DictChange>* fresh);

  const std::shared_ptr<ServedDict>& served() const { return served_; }
  int fd() const { return fd_.get(); }
  uint64_t head_revision() const { return head_revision_; }
  // Of the oldest change; head_revision() + 1 when there is none.
  uint64_t tail_revision() const { return tail_revision_; }
  uint64_t gaps() const { return gaps_; }
  // More than three quarters of the log are in use.
  bool is_nearly_full() const { return head_position_ - tail_position_ > log_bytes_ / 4 * 3; }

 private:
  struct Read;
  class Merge;

  DictFeed(const DictFeedOptions& options, UniqueFd fd, std::shared_ptr<ServedDict> served)
      : options_(options), fd_(std::move(fd)), served_(std::move(served)) {}
  Status MapAll();
  Status LoadMarks(std::vector<DictChange>* history);
  bool LoadRecord(uint64_t position, DictChange* change, uint64_t* record_bytes) const;
  // Reads lane's ring up to `end` into *reads; those below `sure` have all their predecessors among
  // what is read now.
  bool ReadLane(uint32_t lane, uint64_t sure, uint64_t end, std::vector<Read>* reads,
                FeedGap* why) const;
  // Where a lane's ring ends now.
  uint64_t HeadOf(uint32_t lane) const;
  // Where all rings end.
  void Look(std::vector<uint64_t>* heads) const;
  // From now on nobody claims the next revision. The lane for which somebody did.
  std::optional<uint32_t> CloseClaims();
  void LoadCursors();
  void MoveCursor(uint32_t lane, uint64_t position);
  void ForgetCursors();
  void Append(std::vector<DictChange>* changes, std::vector<DictChange>* fresh);
  void FillLargeValue(DictChange* change) const;
  void MakeRoom(uint64_t bytes, uint64_t now_ms);
  void PutLog(uint64_t position, const void* from, size_t bytes);
  void GetLog(uint64_t position, void* to, size_t bytes) const;
  void SaveCursors();
  void SaveMarks();
  DictChange Gap(FeedGap why);
  // Takes a revision, and says that nothing is missing.
  static DictChange Nothing();
  FeedHead& head() const { return *reinterpret_cast<FeedHead*>(base_); }
  FeedCursor& CursorAt(uint32_t lane) const {
    return reinterpret_cast<FeedCursor*>(base_ + kFeedCursorsOffset)[lane];
  }

  const DictFeedOptions options_;
  const UniqueFd fd_;
  std::shared_ptr<ServedDict> served_;
  uint64_t log_bytes_ = 0;
  std::byte* base_ = nullptr;
  uint64_t head_position_ = 0;
  uint64_t head_revision_ = 0;
  uint64_t tail_position_ = 0;
  uint64_t tail_revision_ = 1;
  uint64_t gaps_ = 0;
  bool has_claimed_ = false;
  // Of the segment that the cursors in the feed lead into: not yet that of `served_` while it gives
  // up its oldest changes for the first ones of the next segment.
  uint64_t saved_generation_ = 0;
  std::vector<uint64_t> cursors_;      // By lane, into the rings of `served_`.
  std::vector<uint32_t> moved_lanes_;  // Whose cursors are not saved yet …
  std::vector<bool> has_moved_;        // … and by lane whether it is one of them.
};

}  // namespace statehouse
