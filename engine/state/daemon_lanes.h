// DaemonLanes: when each of the daemon's own lanes is inside an operation, in private memory; and
// from it, which words of shared memory name a daemon lane that does not hold them.
//
// A word that names a daemon lane is either held by the daemon's thread of that lane, or was stored
// by a worker that ignores the protocol; nothing in shared memory tells the two apart. So a thread
// says in private memory when it begins and ends (Use), and Scrub takes a word for foreign only
// when
//   - it was the same in kForeignWordLooks looks, a second or so apart, and
//   - it is there while its lane is not inside any operation (IdleWhile).
// The second condition is the proof: a lane outside an operation holds nothing. A lane that enters
// one afterwards cannot take the word before somebody frees it.
//
// Who owns it: Engine. Threads: a Use belongs to the one thread that uses the lane, ForeignWords to
// the one that scrubs; IdleWhile may run on any. Always true: `left <= entered`. Failure: none; a
// lane that is busy when looked at is looked at again next time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <utility>

#include "engine/base/limits.h"

namespace statehouse {

inline constexpr uint32_t kForeignWordLooks = 5;
// Words that are remembered from one look to the next. Further ones wait until these are mended.
inline constexpr size_t kForeignWordsMax = 65'536;

class DaemonLanes final {
 private:
  struct alignas(kCacheLineBytes) Counts {
    std::atomic<uint64_t> entered{0};
    std::atomic<uint64_t> left{0};
  };

 public:
  // Its lane is inside an operation for as long as it lives. Operations of one lane may nest.
  class Use final {
   public:
    Use() = default;
    explicit Use(Counts* counts) : counts_(counts) {
      // SYNC: lane.use — before the operation's first lock (a seq_cst exchange), whose word
      // IdleWhile reads.
      counts_->entered.store(counts_->entered.load(std::memory_order_relaxed) + 1,
                             std::memory_order_release);
    }
    Use(Use&& other) noexcept : counts_(std::exchange(other.counts_, nullptr)) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (counts_ == nullptr) return;
      // SYNC: lane.use — after the operation's last unlock.
      counts_->left.store(counts_->left.load(std::memory_order_relaxed) + 1,
                          std::memory_order_release);
    }

   private:
    Counts* counts_ = nullptr;
  };

  // REQUIRES: 0 < lane < kLanesPerBlock, used by this thread only.
  Use Enter(uint32_t lane) { return Use(&counts_[lane]); }

  // Runs `look`, and tells whether the lane was outside every operation all the while, so that no
  // word that `look` read (with acquire) was held by it.
  template <typename Look>
  bool IdleWhile(uint32_t lane, Look look) const {
    const Counts& counts = counts_[lane];
    const uint64_t left = counts.left.load(std::memory_order_acquire);        // SYNC: lane.use
    const uint64_t entered = counts.entered.load(std::memory_order_acquire);  // SYNC: lane.use
    if (left != entered) return false;
    look();
    return counts.entered.load(std::memory_order_acquire) == entered;
  }

 private:
  std::array<Counts, kLanesPerBlock> counts_;
};

// What Scrub saw and remembers until its next look.
class ForeignWords final {
 public:
  struct Place {
    uint64_t area_id = 0;
    uint32_t stripe = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
  };

  // A look at all areas begins: what is not seen in it again is forgotten.
  void BeginLook();
  // Notes the word. True when this is look kForeignWordLooks, or a later one, that finds it the
  // same.
  bool Saw(Place place, uint64_t word);

 private:
  struct Word {
    uint64_t word = 0;
    uint32_t looks = 0;
  };
  std::map<Place, Word> before_;
  std::map<Place, Word> now_;
};

}  // namespace statehouse
