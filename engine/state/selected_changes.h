// SelectedChanges: those changes of a dict's follow log that a watch asked for, and when it cannot
// go on there. The C library and the Python extension read by it.
//
// Where it follows the rings as well, it gives a change that the log does not have yet, and passes
// it by in the log.
// Who owns it: one watch. Threads: one at a time. Always true: what was passed by is behind
// revision(), too. Failure: after kFallBack and kBroken it stays where it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/state/follow_events.h"
#include "engine/state/follow_log.h"
#include "engine/state/ring_follower.h"

namespace statehouse {

struct ChangeSelection {
  std::optional<std::string> key;  // That one alone …
  std::string prefix;              // … or those that begin so.
  uint32_t kinds = ~0u;            // Bit n: the FeedOperation n.
};

class SelectedChanges final {
 public:
  enum class Found : uint8_t {
    kChange,
    kNothing,   // Yet: sleep on events().
    kMore,      // There is more to read, or was a moment ago.
    kFallBack,  // A stream has to go on, for a while …
    kBroken,    // … or for good.
  };

  // As FollowLogReader. `rings`: null where the log alone is followed.
  SelectedChanges(std::shared_ptr<const FollowLog> log, uint64_t position, uint64_t revision,
                  ChangeSelection selection, std::unique_ptr<RingFollower> rings = nullptr)
      : reader_(std::move(log), position, revision),
        selection_(std::move(selection)),
        rings_(std::move(rings)) {}

  // The next change. Each one that is read, others' included, takes 1 of *reads_left, and one that
  // came before the log had it all of them; kMore when there is none left.
  Found Next(int* reads_left, DictChange* change);
  // Next gives `change` once more. REQUIRES: it gave it just now.
  void GiveAgain(DictChange change) { again_ = std::move(change); }
  // What comes later is not given.
  void EndHere() {
    reader_.EndHere();
    rings_.reset();
  }
  uint64_t revision() const {
    if (again_.has_value()) return again_->revision - 1;
    return early_.has_value() ? early_->revision : reader_.revision();
  }
  // What to sleep on after kNothing, read before Next, and until when at most.
  FollowEvents events() const;
  uint64_t due_ns() const { return rings_ == nullptr ? UINT64_MAX : rings_->due_ns(); }
  // It leaves the rings alone until then: nobody wakes whoever sleeps longer.
  bool is_pausing() const { return due_ns() != UINT64_MAX; }

 private:
  // A change that was given before the log had it.
  struct Early {
    uint64_t revision = 0;
    uint64_t version = 0;
    FeedOperation operation = FeedOperation::kPut;
    std::string key;
  };

  bool Wants(const DictChange& change) const;
  bool ReadEarly(DictChange* change);
  // What the log says of the change that was given early.
  Found Compare(const DictChange& change);

  FollowLogReader reader_;
  const ChangeSelection selection_;
  std::unique_ptr<RingFollower> rings_;
  std::optional<Early> early_;
  std::optional<DictChange> again_;
};

}  // namespace statehouse
