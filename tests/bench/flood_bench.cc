// What a client that behaves notices of floods: the p99 of its calls beside each, against its calls
// before. The client and the flood have the machine's processors in common with the service.
//   flood_bench STATEHOUSED [--rounds N] [--json FILE]
#include <statehouse/statehouse.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"
#include "tests/support/floods.h"

namespace statehouse::bench {
namespace {

using testing::Flood;
using testing::FloodTarget;

constexpr double kBar = 2;
constexpr size_t kCalls = 500;
// A call that had no answer counts as long as it was waited for.
constexpr std::chrono::milliseconds kPatience(2000);

// Milliseconds.
double P99(const FloodTarget& target, size_t calls) {
  const std::vector<uint64_t> times = testing::MeasureCalls(target, calls, kPatience);
  if (times.size() < calls) return static_cast<double>(kPatience.count());
  return static_cast<double>(times[times.size() * 99 / 100]) / 1e6;
}

// What the flood before has left is dealt with, and connections are taken again.
void AwaitCalm(const FloodTarget& target) {
  for (int look = 0; look < 100; ++look) {
    if (!testing::MeasureCalls(target, 50, kPatience).empty() && P99(target, 50) < 10) return;
  }
  Die("the service does not come to rest");
}

// A service of its own, so that none bears what another flood left.
struct Flooded {
  explicit Flooded(const std::string& statehoused)
      : process({statehoused, "--dev", "--runtime-dir", folder.path() + "/run", "--log-level",
                 "error"}) {
    const Service service = ReadDevFile(folder.path() + "/run/dev.json");
    sh_client* const client = service.Connect(SH_TRANSPORT_NETWORK);
    sh_area* area = nullptr;
    Require(sh_area_open(client, "flooded", 4096, &area, nullptr), "opening an area");
    sh_dict_spec spec{};
    sh_dict* dict = nullptr;
    Require(sh_dict_open(client, "flooded", &spec, &dict, nullptr), "opening a dict");
    sh_dict_close(dict);
    sh_area_close(area);
    sh_close(client);
    target = {service.tcp_address, service.token, "flooded", "flooded", 1};
  }
  BenchFolder folder;
  BenchProcess process;
  FloodTarget target;
};

int Run(const std::string& statehoused, int rounds, const std::string& json) {
  std::vector<Race> races;
  for (const testing::NamedFlood& named : testing::AllFloods()) {
    const auto service = std::make_shared<Flooded>(statehoused);
    const testing::FloodKind kind = named.kind;
    races.push_back({std::string("calls beside ") + named.name + ", p99",
                     {{"undisturbed",
                       [service](uint64_t calls) {
                         AwaitCalm(service->target);
                         return P99(service->target, calls);
                       },
                       kCalls},
                      {"beside the flood",
                       [service, kind](uint64_t calls) {
                         const Flood flood(kind, service->target);
                         return P99(service->target, calls);
                       },
                       kCalls}},
                     {{"beside the flood", "undisturbed", kBar, 0}},
                     "ms"});
  }
  return RunRaces(races, rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) Die("usage: flood_bench STATEHOUSED [--rounds N] [--json FILE]");
  int rounds = 3;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], rounds, json) == 0 ? 0 : 1;
}
