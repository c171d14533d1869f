// DescriptorCloser: closes descriptors that came from outside, on a thread that may wait.
//
// Closing a descriptor can block for as long as its sender likes: a socket that lingers, a file of
// a file system that is a program of the sender's. So does closing a unix socket with such
// descriptors in packets that nobody has read. The attach door's thread closes neither; it gives
// them to this object.
//
// Who owns it: AttachLoop. Threads: Close and full from any; one thread of its own closes.
// Always true: what was given is closed in this order, each once. Failure: a close that blocks
// holds up the ones behind it; at kDescriptorsToCloseMax full() says so, and the door takes no
// connection until there is room. Destroying the object waits for kStopPatience and then leaves a
// thread that is still blocked behind.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "engine/os/unique_fd.h"

namespace statehouse {

// Then full(). Each connection that exists may add what one packet and its own socket hold.
inline constexpr size_t kDescriptorsToCloseMax = 1024;

class DescriptorCloser final {
 public:
  explicit DescriptorCloser(size_t descriptors_max = kDescriptorsToCloseMax);
  ~DescriptorCloser();
  DescriptorCloser(const DescriptorCloser&) = delete;
  DescriptorCloser& operator=(const DescriptorCloser&) = delete;

  void Close(UniqueFd descriptor);  // Nothing for an invalid one.
  // A unix socket that no peer can send to any more: what waits in it unread is taken out first.
  void CloseConnection(UniqueFd socket);
  bool full() const;

 private:
  static constexpr std::chrono::seconds kStopPatience{1};

  struct Waiting {
    UniqueFd descriptor;
    bool is_connection = false;
  };
  // Shared with the thread, which may be blocked when the object goes.
  struct State {
    mutable std::mutex mutex;
    std::condition_variable changed;
    // Guarded by mutex:
    std::deque<Waiting> waiting;
    bool stopping = false;
    bool ended = false;
  };
  void Push(Waiting waiting);
  static void Run(const std::shared_ptr<State>& state);

  const size_t descriptors_max_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace statehouse
