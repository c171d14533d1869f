// CuttingProxy: stands between a client and the network door, passes bytes on, and cuts each
// connection at a random moment of its life.
//
// Who owns it: the test. Threads: any may call it; one of its own does the work. Always true: a
// connection is cut within `life_ms_max` of its beginning, between two bytes of either direction,
// half of them by a reset and half by an orderly end; what was read before may be lost. The moments
// come from `seed`. When the object is gone, no connection and no thread of it is left. Failure: a
// target that does not answer ends the connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse::testing {

class CuttingProxy final {
 public:
  struct Options {
    std::string target;  // "127.0.0.1:41234", or the path of a unix socket.
    uint32_t life_ms_max = 1000;
    uint32_t seed = 0;
  };
  static StatusOr<std::unique_ptr<CuttingProxy>> Start(Options options);
  ~CuttingProxy();
  CuttingProxy(const CuttingProxy&) = delete;
  CuttingProxy& operator=(const CuttingProxy&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // From now on no connection is cut.
  void StopCutting() { cuts_on_ = false; }
  uint64_t cuts() const { return cuts_; }

 private:
  // One direction: what was read and is not written yet.
  struct Flow {
    std::string bytes;
    bool ended = false;
  };
  struct Connection {
    UniqueFd client;
    UniqueFd server;
    Flow up;
    Flow down;
    uint64_t cut_ns = 0;
  };

  explicit CuttingProxy(Options options) : options_(std::move(options)), random_(options_.seed) {}
  Status Listen();
  void Run();
  void Accept();
  // False: the connection is over.
  bool Pass(Connection& connection);
  void Cut(Connection& connection);

  const Options options_;
  UniqueFd listener_;
  UniqueFd stop_;
  uint16_t port_ = 0;
  std::atomic<bool> cuts_on_{true};
  std::atomic<uint64_t> cuts_{0};
  std::mt19937 random_;  // Of the thread, as what follows.
  std::vector<Connection> connections_;
  std::thread thread_;
};

}  // namespace statehouse::testing
