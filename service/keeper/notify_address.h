// $NOTIFY_SOCKET: a path, or "@name" for an abstract address.
#pragma once

#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

// A datagram socket connected to the address.
StatusOr<UniqueFd> ConnectNotifyAddress(const std::string& address);

}  // namespace statehouse
