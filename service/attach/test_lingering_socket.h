// For tests: a socket whose last close() blocks.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "engine/os/unique_fd.h"

namespace statehouse {

// A connected TCP socket that lingers for an hour, with more unsent bytes than its peer takes.
inline void MakeLingering(UniqueFd* lingering, UniqueFd* peer) {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(listener.get(), generic, length), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  ASSERT_EQ(getsockname(listener.get(), generic, &length), 0);
  lingering->Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ASSERT_TRUE(connect(lingering->get(), generic, length) == 0 || errno == EINPROGRESS);
  peer->Reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(peer->valid());
  const std::vector<char> bytes(1 << 20);
  while (write(lingering->get(), bytes.data(), bytes.size()) > 0) continue;
  ASSERT_EQ(errno, EAGAIN);
  const linger for_an_hour{1, 3600};
  ASSERT_EQ(setsockopt(lingering->get(), SOL_SOCKET, SO_LINGER, &for_an_hour, sizeof(for_an_hour)),
            0);
  const int flags = fcntl(lingering->get(), F_GETFL);
  ASSERT_EQ(fcntl(lingering->get(), F_SETFL, flags & ~O_NONBLOCK), 0);
}

}  // namespace statehouse
