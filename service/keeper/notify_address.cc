#include "service/keeper/notify_address.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "engine/os/errno_status.h"

namespace statehouse {

StatusOr<UniqueFd> ConnectNotifyAddress(const std::string& address) {
  sockaddr_un target{};
  target.sun_family = AF_UNIX;
  const bool known_form = !address.empty() && (address[0] == '/' || address[0] == '@');
  if (!known_form || address.size() >= sizeof(target.sun_path)) {
    return Status(Reason::kConfigInvalid,
                  "NOTIFY_SOCKET is \"" + address +
                      "\": it must be an absolute path or @name, shorter than 108 bytes");
  }
  std::memcpy(target.sun_path, address.data(), address.size());
  if (address[0] == '@') target.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.valid()) return ErrnoStatus("making a socket to the service manager");
  if (connect(socket_fd.get(), reinterpret_cast<const sockaddr*>(&target), length) != 0) {
    return ErrnoStatus("connecting to NOTIFY_SOCKET " + address, Reason::kUnavailable);
  }
  return socket_fd;
}

}  // namespace statehouse
