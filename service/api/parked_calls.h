// The calls that may be parked: waits for areas and entries, acquires of locks, holds of sessions.
#pragma once

#include <memory>
#include <string_view>

#include "service/api/dispatcher_core.h"

namespace statehouse {

// Each answers or parks the call; what it returns, if anything, cancels it.
std::shared_ptr<PendingCall> RunWait(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call);
std::shared_ptr<PendingCall> RunWaitEntry(DispatcherCore& core, const Lane& lane,
                                          std::string_view bytes, Call call);
std::shared_ptr<PendingCall> RunAcquire(DispatcherCore& core, const Lane& lane,
                                        std::string_view bytes, Call call);
std::shared_ptr<PendingCall> RunHold(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call);

}  // namespace statehouse
