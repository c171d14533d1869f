// The whole service and etcd, as benchmarks start and reach them.
#pragma once

#include <grpcpp/grpcpp.h>
#include <statehouse/statehouse.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {

// Ends the benchmark with a message.
[[noreturn]] void Die(const std::string& what);
void Require(sh_reason reason, const char* doing);

// A port that nobody listens on now.
uint16_t FreePort();

// Where the service is, and with what token.
struct Service {
  std::string url;
  std::string token;
  std::string tcp_address;

  sh_client* Connect(sh_transport transport) const;
};
// Waits for a service that was started with --dev.
Service ReadDevFile(const std::string& path);

// etcd alone, its data in `folder`.
class EtcdProcess final {
 public:
  explicit EtcdProcess(const std::string& folder);
  static bool IsInstalled();
  std::shared_ptr<grpc::Channel> Channel() const {
    return grpc::CreateChannel(client_, grpc::InsecureChannelCredentials());
  }

 private:
  const std::string client_;
  const std::string peer_;
  BenchProcess process_;
};

// A folder on a disk, where etcd's users have its data.
class DiskFolder final {
 public:
  DiskFolder();
  ~DiskFolder();
  DiskFolder(const DiskFolder&) = delete;
  DiskFolder& operator=(const DiskFolder&) = delete;
  std::string path() const { return path_; }

 private:
  char path_[64] = "/var/tmp/statehouse-bench-XXXXXX";
};

// The median of single ones, in microseconds.
template <typename Body>
Work MedianOf(Body body) {
  return [body](uint64_t iterations) {
    std::vector<double> times;
    for (uint64_t i = 0; i < iterations; ++i) {
      const uint64_t begin = NowNs();
      body();
      times.push_back(static_cast<double>(NowNs() - begin) / 1e3);
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  };
}

}  // namespace statehouse::bench
