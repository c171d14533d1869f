// What a watch needs to follow a dict by itself (engine/state/selected_changes.h). For the C
// library and the Python extension; no gRPC and no protobuf. Threads: any.
#pragma once

#include <cstdint>
#include <memory>

#include "clients/c/src/local_dict.h"
#include "engine/base/status.h"
#include "engine/state/follow_log.h"
#include "engine/state/ring_follower.h"

namespace statehouse {

// Whether a watch of the dict may follow its rings: the client may write it, and the kernel can.
bool MayFollowRings(const LocalDict& dict);
// Follows the rings of the dict's newest segment. May wait for the daemon. Errors: READ_ONLY, and
// those of LocalDict.
StatusOr<std::unique_ptr<RingFollower>> FollowRings(LocalDict& dict,
                                                    std::shared_ptr<const FollowLog> log);

// A put's value that the log could not hold is taken from the entry, if that is still the one.
void FillValue(const LocalDict& dict, DictChange* change);

// The dict's follow log with this id. Watches of one dict share a mapping, so that they sleep on
// one word; whoever was handed over to a log may read its dict. Waits for the daemon, about a
// second at most: TIMEOUT where it does not answer. Threads: any.
StatusOr<std::shared_ptr<const FollowLog>> MapFollowLog(const LocalDict& dict, uint64_t log_id);

}  // namespace statehouse
