// What idle connections cost the service: the memory of the daemon, before and while thousands of
// clients are connected that have made one authorised call each and are silent since.
//   connections_bench STATEHOUSED [--rounds N] [--connections N] [--json FILE]
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "statehouse/v1/area.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"
#include "tests/support/http2.h"

namespace statehouse::bench {
namespace {

using testing::Http2Connection;

constexpr double kMib = 1 << 20;
constexpr size_t kSpareDescriptors = 100;

// Both ends need a descriptor for each connection; the daemon raises its own limit.
void RaiseDescriptorLimit(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) Die("reading the limit of open files");
  if (limit.rlim_max < wanted) {
    limit.rlim_max = wanted;  // Works for root only.
  }
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    Die("the limit of open files cannot be raised to " + std::to_string(wanted) +
        "; take fewer --connections");
  }
}

pid_t DaemonPid(const std::string& runtime) {
  std::ifstream file(runtime + "/endpoints.json");
  return nlohmann::json::parse(file).at("daemon_pid");
}

// The daemon's resident memory in bytes, shared memory included.
double MemoryOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("VmRSS:")) return 1024.0 * std::atof(line.c_str() + 6);
  }
  Die("the daemon is gone");
}

std::unique_ptr<Http2Connection> Open(const std::string& address) {
  auto connection = std::make_unique<Http2Connection>(address);
  if (!connection->valid() || !connection->Send(testing::Preface())) Die("connecting failed");
  return connection;
}

std::optional<std::string> Call(Http2Connection* connection, const Service& service,
                                const char* path, const std::string& request) {
  if (!connection->Send(testing::UnaryCall(1, path, service.token, request))) return std::nullopt;
  return connection->Answer(1);
}

// Bytes of the daemon's memory that so many connections take, in a service of its own.
double Grown(const std::string& statehoused, size_t connections) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  const BenchProcess process(
      {statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = ReadDevFile(runtime + "/dev.json");
  v1::CreateAreaRequest create;
  create.set_name("bench");
  create.set_size(4096);
  const auto first = Open(service.tcp_address);
  if (!Call(first.get(), service, "/statehouse.v1.Areas/CreateArea", create.SerializeAsString())) {
    Die("no area was created");
  }
  v1::AddWordRequest add;
  add.set_name("bench");
  add.set_type(v1::WORD_TYPE_U64);
  const std::string request = add.SerializeAsString();

  const pid_t daemon = DaemonPid(runtime);
  const double before = MemoryOf(daemon);
  std::vector<std::unique_ptr<Http2Connection>> open;
  for (size_t i = 0; i < connections; ++i) {
    open.push_back(Open(service.tcp_address));
    const auto answer = Call(open.back().get(), service, "/statehouse.v1.Areas/AddWord", request);
    v1::AddWordResponse response;
    if (!answer.has_value() || !response.ParseFromString(*answer) ||
        response.value().unsigned_value() != i + 1) {
      Die("connection " + std::to_string(i) + " was not served");
    }
  }
  const double grown = MemoryOf(daemon) - before;
  // None of them was closed for the sake of a later one.
  const std::string again =
      testing::UnaryCall(3, "/statehouse.v1.Areas/AddWord", service.token, request);
  for (const auto& connection : open) {
    if (!connection->Send(again) || !connection->Answer(3).has_value()) {
      Die("an idle connection was closed");
    }
  }
  return grown;
}

int Run(const std::string& statehoused, int rounds, size_t connections, const std::string& json) {
  RaiseDescriptorLimit(connections + kSpareDescriptors);
  double bytes = 0;
  const std::string title = std::to_string(connections) + " idle connections, the daemon's memory";
  const auto measure = [&](uint64_t) {
    bytes = Grown(statehoused, connections);
    return bytes / kMib;
  };
  const auto of_one = [&](uint64_t) { return bytes / 1024 / static_cast<double>(connections); };
  return RunRaces({Race{title,
                        {{"all of them, MiB", measure, 1}, {"each, KiB", of_one, 1}},
                        {{"all of them, MiB", "", 0, 1024}},
                        ""}},
                  rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) {
    Die("usage: connections_bench STATEHOUSED [--rounds N] [--connections N] [--json FILE]");
  }
  int rounds = 3;
  size_t connections = 10'000;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--connections") == 0) {
      connections = static_cast<size_t>(std::max(1, std::atoi(argv[i + 1])));
    }
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], rounds, connections, json) == 0 ? 0 : 1;
}
