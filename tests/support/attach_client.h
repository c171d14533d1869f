// AttachClient: a worker at the attach door, packet by packet, for tests. It keeps what the daemon
// gives until it is destroyed.
//
// Who owns it: the test. Threads: one. Failure: a refusal is the Status that the daemon sent; a
// closed connection or no answer within kPatience is UNAVAILABLE.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/attach/protocol.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/area.h"

namespace statehouse::testing {

class AttachClient final {
 public:
  Status Connect(const std::string& attach_socket);
  // With lanes: sends this process's pidfd, or `pidfd` when one is given, and keeps the liveness
  // descriptor.
  StatusOr<AttachWelcome> Hello(const std::string& token, bool want_lanes, int pidfd = -1);
  // Opens and maps.
  StatusOr<std::unique_ptr<Area>> OpenArea(const std::string& name);
  StatusOr<std::string> Call(const std::string& method, const std::string& request,
                             uint64_t deadline_ns = 0);

  Status Send(const AttachPacket& packet, const std::vector<int>& descriptors = {});
  Status SendBytes(const std::string& bytes);
  struct Received {
    AttachPacket packet;
    std::vector<UniqueFd> descriptors;
  };
  StatusOr<Received> Receive();
  // Whether the daemon closes the connection.
  bool EventuallyClosed();

  Lane lane() const { return Lane{first_lane_}; }
  void CloseSocket() { socket_.Reset(); }
  void CloseLiveness() { liveness_.Reset(); }

 private:
  StatusOr<Received> Ask(const AttachPacket& packet, const std::vector<int>& descriptors = {});

  UniqueFd socket_;
  UniqueFd liveness_;
  uint32_t first_lane_ = 0;
  uint64_t next_request_ = 1;
};

}  // namespace statehouse::testing
