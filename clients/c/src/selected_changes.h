// SelectedChanges: those changes of a dict's follow log that a watch asked for, and when it cannot
// go on there. The C library and the Python extension read by it; no gRPC and no protobuf.
//
// Who owns it: one watch. Threads: one at a time. Always true: what was passed by is behind
// revision(), too. Failure: after kFallBack and kBroken it stays where it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "clients/c/src/local_dict.h"
#include "engine/base/status.h"
#include "engine/state/follow_log.h"

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
    kNothing,   // Yet: sleep on the log's event.
    kMore,      // There is more to read.
    kFallBack,  // A stream has to go on, for a while …
    kBroken,    // … or for good.
  };

  // As FollowLogReader.
  SelectedChanges(std::shared_ptr<const FollowLog> log, uint64_t position, uint64_t revision,
                  ChangeSelection selection)
      : reader_(std::move(log), position, revision), selection_(std::move(selection)) {}

  // The next change. Each one that is read, others' included, takes 1 of *reads_left; kMore when
  // there is none left.
  Found Next(int* reads_left, DictChange* change);
  // Gives the last change again. REQUIRES: Next gave it.
  void StepBack() { reader_.StepBack(); }
  // What is committed later is not given.
  void EndHere() { reader_.EndHere(); }
  uint64_t revision() const { return reader_.revision(); }
  const std::shared_ptr<const FollowLog>& log() const { return reader_.log(); }

 private:
  bool Wants(const DictChange& change) const;

  FollowLogReader reader_;
  const ChangeSelection selection_;
};

// A put's value that the log could not hold is taken from the entry, if that is still the one.
void FillValue(const LocalDict& dict, DictChange* change);

// The dict's follow log with this id. Watches of one dict share a mapping, so that they sleep on
// one word; whoever was handed over to a log may read its dict. Waits for the daemon, about a
// second at most: TIMEOUT where it does not answer. Threads: any.
StatusOr<std::shared_ptr<const FollowLog>> MapFollowLog(const LocalDict& dict, uint64_t log_id);

}  // namespace statehouse
