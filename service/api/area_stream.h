// The stream of WatchArea, for every door.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "service/api/verbs.h"
#include "service/watch/area_hub.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

// What a request asks for, authorised and checked. Errors: as ResolveArea, OUT_OF_BOUNDS,
// INVALID_ARGUMENT.
StatusOr<AreaWatchAsk> PlanWatchArea(const VerbContext& context,
                                     const v1::WatchAreaRequest& request);

// Begins it. `ended` is told once, when the stream is over, and why.
StatusOr<std::unique_ptr<ServedStream>> OpenAreaStream(AreaHub& watches, AreaWatchAsk ask,
                                                       std::function<void()> notify,
                                                       std::function<void(Reason)> ended);

}  // namespace statehouse
