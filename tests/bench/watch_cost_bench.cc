// What a writer pays for watches that nobody has: a set and an increment of a hot key by this
// program, whose engine looks whether somebody sleeps, and by one that is built the same without
// the look. Both run again and again, each in a process of its own, one after the other.
//   watch_cost_bench [--rounds N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/base/mutant.h"
#include "engine/os/memory.h"
#include "engine/state/dict.h"
#include "tests/bench/harness.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kIterations = 2'000'000;
constexpr double kBarNs = 2;
constexpr Lane kLane{1};
static_assert(SH_MUTANT == 0 || SH_MUTANT == static_cast<int>(Mutant::kDictWatchNotTold));

void Require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "watch_cost_bench: %s\n", status.ToString().c_str());
  std::exit(2);
}

// Nanoseconds of one.
struct Cost {
  double set = 0;
  double increment = 0;
};

Cost Measure() {
  DictGeometry geometry = DictGeometry::For(1'000, 1 << 20, kLanesPerBlock);
  geometry.seed = {1, 2};
  auto segment = CreateSealedMemory("watch-cost-bench", geometry.segment_bytes());
  Require(segment.status());
  const uint64_t uuid[2] = {1, 1};
  Require(Dict::Format(geometry, uuid, segment->get()));
  auto dict = Dict::Map("bench", geometry, segment->get(), Access::kReadWrite);
  Require(dict.status());
  Require((*dict)->PrepareLanes(1, kLanesPerBlock - 1));
  DictResult result;
  const auto time = [](const auto& body) {
    const uint64_t begin = NowNs();
    for (uint64_t i = 0; i < kIterations; ++i) body(i);
    return static_cast<double>(NowNs() - begin) / kIterations;
  };
  Cost cost;
  cost.set = time([&](uint64_t i) {
    Require((*dict)->Set(kLane, "set", DictValue::Int64(static_cast<int64_t>(i)), {}, &result));
  });
  DictIncrement one;
  one.delta = DictValue::Int64(1);
  one.initial = DictValue::Int64(0);
  cost.increment =
      time([&](uint64_t) { Require((*dict)->Increment(kLane, "increment", one, &result)); });
  return cost;
}

Cost MeasureBy(const std::string& program) {
  FILE* const output = ::popen((program + " --once").c_str(), "r");
  Cost cost;
  const bool read =
      output != nullptr && std::fscanf(output, "%lf %lf", &cost.set, &cost.increment) == 2;
  if (!read || ::pclose(output) != 0) {
    std::fprintf(stderr, "watch_cost_bench: running %s failed\n", program.c_str());
    std::exit(2);
  }
  return cost;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Compare(const std::string& with, int rounds) {
  std::vector<double> set[2];
  std::vector<double> increment[2];
  for (int round = 0; round < rounds; ++round) {
    for (int without = 0; without < 2; ++without) {
      const Cost cost = MeasureBy(without == 1 ? with + "_without" : with);
      set[without].push_back(cost.set);
      increment[without].push_back(cost.increment);
    }
  }
  int missed = 0;
  const auto show = [&](const char* what, const std::vector<double>(&times)[2]) {
    std::vector<double> differences;
    for (size_t i = 0; i < times[0].size(); ++i) differences.push_back(times[0][i] - times[1][i]);
    const double more = Median(differences);
    const bool met = more <= kBarNs;
    missed += met ? 0 : 1;
    std::printf(
        "%-10s %6.2f ns, without the look %6.2f ns; %s %+.2f ns (%.2f to %.2f), bar %.0f ns\n",
        what, Median(times[0]), Median(times[1]), met ? "met   " : "MISSED", more,
        *std::min_element(differences.begin(), differences.end()),
        *std::max_element(differences.begin(), differences.end()), kBarNs);
  };
  std::printf("nobody watches; medians of %d rounds, and of their differences\n", rounds);
  show("set", set);
  show("increment", increment);
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc == 2 && std::strcmp(argv[1], "--once") == 0) {
    const Cost cost = Measure();
    std::printf("%.4f %.4f\n", cost.set, cost.increment);
    return 0;
  }
  const bool has_rounds = argc == 3 && std::strcmp(argv[1], "--rounds") == 0;
  const int rounds = has_rounds ? std::max(1, std::atoi(argv[2])) : 15;
  return Compare(argv[0], rounds) == 0 ? 0 : 1;
}
