// A load generator of streams of batches that costs little beside the service: HTTP/2 of libnghttp2
// on bare sockets, one thread, one epoll, messages that are made once (batch_messages.h). It is to
// the service what redis-benchmark is to Redis; a client of gRPC's costs as much as its server.
//
// Each answer is looked through; whatever is wrong ends the program.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/bench/batch_messages.h"

namespace statehouse::bench {

class BatchLoad final {
 public:
  struct Options {
    std::string address;        // Host and port, by numbers.
    std::string authorization;  // Of each stream.
    int clients = 50;
    bool share_connection = false;  // All streams on one; otherwise each has its own.
    // Says that the connections carry only batches (batch_session.h), as the Python client does.
    bool says_only_batches = true;
  };
  explicit BatchLoad(const Options& options);
  ~BatchLoad();
  BatchLoad(const BatchLoad&) = delete;
  BatchLoad& operator=(const BatchLoad&) = delete;

  // Each client sends one batch after another until so many operations are asked for and answered.
  // Returns how many the answers say were done.
  uint64_t Run(BatchKind kind, int depth, uint64_t operations);

 private:
  class Connection;
  struct Stream;
  // The next batch, or none when all are asked for.
  void SendNext(Stream* stream);
  void OnAnswer(Stream* stream);
  void RunOnce();

  int epoll_ = -1;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::minstd_rand random_{7};
  uint64_t depth_ = 0;
  uint64_t left_ = 0;  // To ask for.
  uint64_t under_way_ = 0;
  uint64_t done_ = 0;
};

}  // namespace statehouse::bench
