// The stream of WatchDict, for every door.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "service/api/verbs.h"
#include "service/watch/watch_hub.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

// What a request asks for, authorised and checked. Errors: as ResolveDict, KEY_INVALID,
// INVALID_ARGUMENT.
StatusOr<WatchAsk> PlanWatchDict(const VerbContext& context, const v1::WatchDictRequest& request);

// Begins it. `ended` is told once, when the stream is over, and why.
StatusOr<std::unique_ptr<ServedStream>> OpenDictStream(WatchHub& watches, WatchAsk ask,
                                                       std::function<void()> notify,
                                                       std::function<void(Reason)> ended);

// The number of a message.
v1::ResyncReason MessageOf(ResyncReason reason);

// A progress interval in milliseconds, or INVALID_ARGUMENT.
StatusOr<uint64_t> ToProgressMs(const google::protobuf::Duration& interval);

// A window in nanoseconds, or INVALID_ARGUMENT. An unset one is 0.
StatusOr<uint64_t> ToWindowNs(const google::protobuf::Duration& window);

// A serialized WatchDictResponse. DATA_LOSS where a value is none: a worker on the host stored it.
StatusOr<std::string> EncodeWatchEvent(const Dict& dict, const WatchEvent& event,
                                       const WatchAsk& ask);

}  // namespace statehouse
