// The follow log of a dict: FollowLogWriter in the daemon, FollowLog and FollowLogReader in clients
// of its host.
//
// Drawing (engine/shm/follow_log_layout.h):
//   WatchedDict --Append, Commit--> tail ... head --Next--> FollowLogReader (many, each its place)
//
// Always true: only the process that made it can write it (engine/os/memory.h, PublishedMemory). A
//   reader never gets bytes that were written over: it is told that it was overrun.
// Failure: a reader believes nothing of what it maps. What makes no sense is kDamaged, and nothing
//   outside the mapping is read.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/shm/follow_log_layout.h"
#include "engine/state/dict_change.h"

namespace statehouse {

struct FollowLogFacts {
  uint64_t dict_id = 0;
  uint64_t log_id = 0;  // Not 0.
};

// Who owns it: the dict that is watched. Threads: Append and Commit one at a time; the others any.
class FollowLogWriter final {
 public:
  // Empty, with an id that no other log has. REQUIRES: log_bytes is a multiple of the page size.
  // Errors: MEMORY_EXHAUSTED, UNIMPLEMENTED where the kernel cannot seal it against writing.
  static StatusOr<std::unique_ptr<FollowLogWriter>> Create(uint64_t dict_id, uint64_t log_bytes);
  ~FollowLogWriter();
  FollowLogWriter(const FollowLogWriter&) = delete;
  FollowLogWriter& operator=(const FollowLogWriter&) = delete;

  // Puts a change behind the others; a value that no log of this size holds is left out as gone.
  // Readers see it after Commit.
  void Append(const DictChange& change);
  void Commit();
  // How far each lane's ring is in the log, whose next change has the revision `next`: of lanes
  // from `lanes` on nothing was read. For RingFollower; after Commit.
  void ShowCursors(std::span<const uint64_t> cursors, uint32_t lanes, uint64_t next);
  // Which revision comes after them; 0: none were shown.
  uint64_t cursors_next() const { return head().cursors_next.load(std::memory_order_relaxed); }
  // Wakes those who sleep. After Commit; a system call.
  void Wake();

  // Bytes that a change takes.
  uint64_t RecordBytesOf(const DictChange& change) const;
  const FollowLogFacts& facts() const { return facts_; }
  int fd() const { return fd_.get(); }
  // Of who appends: behind the last change.
  uint64_t head_position() const { return position_; }
  uint64_t tail_position() const { return head().tail_position.load(std::memory_order_relaxed); }

 private:
  FollowLogWriter(const FollowLogFacts& facts, uint64_t log_bytes)
      : facts_(facts), log_bytes_(log_bytes) {}
  void MakeRoom(uint64_t bytes);
  void Put(uint64_t position, const void* from, size_t bytes);
  FollowLogHead& head() const { return *reinterpret_cast<FollowLogHead*>(base_); }
  std::atomic<uint64_t>* cursors() const {
    return reinterpret_cast<std::atomic<uint64_t>*>(base_ + kFollowCursorsOffset);
  }

  const FollowLogFacts facts_;
  const uint64_t log_bytes_;
  UniqueFd fd_;
  std::byte* base_ = nullptr;
  uint64_t position_ = 0;
  uint64_t tail_ = 0;
  uint32_t shown_lanes_ = 0;
};

// A log that a client has mapped. Threads: any.
class FollowLog final {
 public:
  // Errors: DATA_LOSS where it is none, another one than `facts`, or somebody could still write it.
  static StatusOr<std::shared_ptr<const FollowLog>> Map(const FollowLogFacts& facts, int fd);
  ~FollowLog();
  FollowLog(const FollowLog&) = delete;
  FollowLog& operator=(const FollowLog&) = delete;

  const FollowLogFacts& facts() const { return facts_; }
  // To sleep on: read it before the log.
  const std::atomic<uint32_t>& event() const { return head().event; }
  // Which revision comes after the cursors: the same before and after they are read; 0: they say
  // nothing. SYNC: follow.cursors
  uint64_t cursors_next() const {
    std::atomic_thread_fence(std::memory_order_acquire);
    return head().cursors_next.load(std::memory_order_acquire);
  }
  // How far a lane's ring is in the log.
  uint64_t CursorOf(uint32_t lane) const {
    return reinterpret_cast<const std::atomic<uint64_t>*>(base_ + kFollowCursorsOffset)[lane].load(
        std::memory_order_relaxed);
  }

 private:
  friend class FollowLogReader;
  explicit FollowLog(const FollowLogFacts& facts) : facts_(facts) {}
  void Get(uint64_t position, void* to, size_t bytes) const;
  const FollowLogHead& head() const { return *reinterpret_cast<const FollowLogHead*>(base_); }

  const FollowLogFacts facts_;
  std::byte* base_ = nullptr;
  uint64_t log_bytes_ = 0;
};

// One place in it. Threads: one at a time.
class FollowLogReader final {
 public:
  enum class Found : uint8_t {
    kChange,
    kNothing,  // Not yet: sleep on the log's event.
    kOverrun,  // What comes next was written over.
    kDamaged,  // What comes next makes no sense.
  };

  // `position` is where the change after `revision` stands.
  FollowLogReader(std::shared_ptr<const FollowLog> log, uint64_t position, uint64_t revision)
      : log_(std::move(log)), position_(position), revision_(revision) {}

  // The next change. After kOverrun and kDamaged it stays where it is.
  Found Next(DictChange* change);
  // What is committed later is not given.
  void EndHere();
  // Of the last change that was given.
  uint64_t revision() const { return revision_; }
  // Gives the last change again. REQUIRES: Next gave it.
  void StepBack() {
    position_ = before_;
    --revision_;
  }
  const std::shared_ptr<const FollowLog>& log() const { return log_; }

 private:
  bool IsOverrun() const;

  std::shared_ptr<const FollowLog> log_;
  uint64_t position_;
  uint64_t revision_;
  uint64_t before_ = 0;
  std::optional<uint64_t> end_;  // Where it ends, if it does.
};

}  // namespace statehouse
