// A client of a unix socket for tests of the door.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "engine/os/unique_fd.h"
#include "service/http2/batch_client_test_support.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {

inline constexpr std::chrono::milliseconds kUnixPatience{15'000};

inline UniqueFd ConnectUnix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

inline bool Say(const UniqueFd& fd, std::string_view bytes) {
  return send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

// Whether the other side closes it, in time.
inline bool IsClosed(const UniqueFd& fd) {
  pollfd closed{fd.get(), POLLRDHUP, 0};
  return poll(&closed, 1, static_cast<int>(kUnixPatience.count())) == 1;
}

// A client that says first that it carries only batches. Threads: one.
class Local final {
 public:
  explicit Local(const std::string& path) : fd_(ConnectUnix(path)) {}

  // Sends what there is and takes what comes until `is_done`. False: not in time.
  bool Until(const std::function<bool()>& is_done) {
    const auto until = std::chrono::steady_clock::now() + kUnixPatience;
    while (!is_done()) {
      const std::string output = client.TakeOutput();
      if (std::chrono::steady_clock::now() > until) return false;
      // One that is closed may have answered before.
      (void)Say(fd_, output);
      char bytes[4096];
      pollfd readable{fd_.get(), POLLIN, 0};
      if (poll(&readable, 1, 10) != 1) continue;
      const ssize_t got = recv(fd_.get(), bytes, sizeof(bytes), 0);
      if (got <= 0) {
        is_closed_ = true;
        return is_done();
      }
      client.Receive({bytes, static_cast<size_t>(got)});
    }
    return true;
  }
  // How often the last operation of a batch of increments has been done; -1: no answer.
  int64_t Increment(int32_t id, int count) {
    v1::RunBatchesRequest request;
    request.mutable_batch()->add_names("d");
    for (int i = 0; i < count; ++i) {
      request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
    }
    client.SendMessage(id, request.SerializeAsString());
    std::string message;
    v1::RunBatchesResponse response;
    if (!Until([&] { return client.At(id).Next(&message); }) ||
        !response.ParseFromString(message) || response.result().results().empty()) {
      return -1;
    }
    return response.result().results().rbegin()->increment().number();
  }

  bool AwaitClose() {
    return Until([this] { return is_closed_; });
  }

  BatchClient client;

 private:
  const UniqueFd fd_;
  bool is_closed_ = false;
};

}  // namespace statehouse
