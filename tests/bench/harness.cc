#include "tests/bench/harness.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>

namespace statehouse::bench {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The ratio of a bar is taken round by round, then its median: neighbours in time share the
// machine's mood.
double MedianRatio(const std::vector<double>& ours, const std::vector<double>& peers) {
  std::vector<double> ratios;
  for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / peers[i]);
  return Median(std::move(ratios));
}

using Samples = std::map<std::string, std::vector<double>>;

Samples Measure(const Race& race, int rounds) {
  Samples samples;
  for (const Contender& contender : race.contenders)
    (void)contender.work(contender.iterations / 10 + 1);
  for (int round = 0; round < rounds; ++round) {
    for (const Contender& contender : race.contenders) {
      samples[contender.name].push_back(contender.work(contender.iterations));
    }
  }
  return samples;
}

int Report(const Race& race, const Samples& samples, FILE* json, bool* first) {
  std::printf("\n%s\n", race.title.c_str());
  for (const Contender& contender : race.contenders) {
    const std::vector<double>& values = samples.at(contender.name);
    std::printf("  %-44s %10.2f ns  (best %.2f)\n", contender.name.c_str(), Median(values),
                *std::min_element(values.begin(), values.end()));
    if (json != nullptr) {
      std::fprintf(json, "%s\n  {\"race\": \"%s\", \"contender\": \"%s\", \"median_ns\": %.3f}",
                   *first ? "" : ",", race.title.c_str(), contender.name.c_str(), Median(values));
      *first = false;
    }
  }
  int missed = 0;
  for (const Bar& bar : race.bars) {
    const std::vector<double>& ours = samples.at(bar.contender);
    const bool relative = !bar.peer.empty();
    const double seen = relative ? MedianRatio(ours, samples.at(bar.peer)) : Median(ours);
    const double limit = relative ? bar.times : bar.ns_max;
    const bool met = seen <= limit;
    missed += met ? 0 : 1;
    std::printf("  %s %s: %.2f%s, bar %.2f%s%s\n", met ? "met   " : "MISSED", bar.contender.c_str(),
                seen, relative ? " x" : " ns", limit, relative ? " x " : " ns", bar.peer.c_str());
  }
  return missed;
}

}  // namespace

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int RunRaces(const std::vector<Race>& races, int rounds, const std::string& json_path) {
  FILE* json = json_path.empty() ? nullptr : std::fopen(json_path.c_str(), "w");
  if (json != nullptr) std::fputs("[", json);
  bool first = true;
  int missed = 0;
  for (const Race& race : races) missed += Report(race, Measure(race, rounds), json, &first);
  if (json != nullptr) {
    std::fputs("\n]\n", json);
    std::fclose(json);
  }
  return missed;
}

}  // namespace statehouse::bench
