#include "tests/bench/harness.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>

namespace statehouse::bench {
namespace {

using Samples = std::map<std::string, std::vector<double>>;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What counts of a contender's rounds.
double Figure(const Race& race, const std::vector<double>& values) {
  return race.worst ? *std::max_element(values.begin(), values.end()) : Median(values);
}

// What is compared is so round by round, and then the median taken: neighbours in time share the
// machine's mood.
double MedianAgainst(const Bar& bar, const std::vector<double>& ours,
                     const std::vector<double>& peers) {
  std::vector<double> seen;
  for (size_t i = 0; i < ours.size(); ++i) {
    seen.push_back(bar.times > 0 ? ours[i] / peers[i] : ours[i] - peers[i]);
  }
  return Median(std::move(seen));
}

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

// The records of all races as one JSON list, or nothing where no file was named.
class JsonFile {
 public:
  explicit JsonFile(const std::string& path)
      : file_(path.empty() ? nullptr : std::fopen(path.c_str(), "w")) {
    if (file_ != nullptr) std::fputs("[", file_);
  }
  ~JsonFile() {
    if (file_ == nullptr) return;
    std::fputs("\n]\n", file_);
    std::fclose(file_);
  }
  JsonFile(const JsonFile&) = delete;
  JsonFile& operator=(const JsonFile&) = delete;

  void Add(const Race& race, const Contender& contender, const std::vector<double>& values) {
    if (file_ == nullptr) return;
    std::fprintf(file_,
                 "%s\n  {\"race\": \"%s\", \"contender\": \"%s\", \"unit\": \"%s\", \"%s\": %.3f",
                 first_ ? "" : ",", race.title.c_str(), contender.name.c_str(), race.unit.c_str(),
                 race.worst ? "worst" : "median", Figure(race, values));
    std::fputs(", \"rounds\": [", file_);
    for (size_t i = 0; i < values.size(); ++i) {
      std::fprintf(file_, "%s%.3f", i == 0 ? "" : ", ", values[i]);
    }
    std::fputs("]}", file_);
    first_ = false;
  }

 private:
  FILE* file_;
  bool first_ = true;
};

// 1 where the bar is missed.
int ReportBar(const Race& race, const Bar& bar, const Samples& samples) {
  const bool has_peer = !bar.peer.empty();
  const bool is_ratio = has_peer && bar.times > 0;
  if (has_peer && samples.count(bar.peer) == 0) {
    std::printf("  not measured: %s against %s, which is missing\n", bar.contender.c_str(),
                bar.peer.c_str());
    return 0;
  }
  const std::vector<double>& ours = samples.at(bar.contender);
  const double seen =
      has_peer ? MedianAgainst(bar, ours, samples.at(bar.peer)) : Figure(race, ours);
  const double limit = is_ratio ? bar.times : bar.max;
  const bool met = seen <= limit;
  const std::string unit = is_ratio ? "x" : race.unit;
  const char* const above = has_peer && !is_ratio ? "above " : "";
  std::printf("  %s %s: %.2f %s, bar %.2f %s %s%s\n", met ? "met   " : "MISSED",
              bar.contender.c_str(), seen, unit.c_str(), limit, unit.c_str(), above,
              bar.peer.c_str());
  return met ? 0 : 1;
}

int Report(const Race& race, const Samples& samples, JsonFile* json) {
  std::printf("\n%s\n", race.title.c_str());
  for (const Contender& contender : race.contenders) {
    const std::vector<double>& values = samples.at(contender.name);
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    std::printf("  %-44s %10.2f %s  (%.2f to %.2f)\n", contender.name.c_str(), Figure(race, values),
                race.unit.c_str(), *least, *most);
    json->Add(race, contender, values);
  }
  int missed = 0;
  for (const Bar& bar : race.bars) missed += ReportBar(race, bar, samples);
  std::fflush(stdout);
  return missed;
}

}  // namespace

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int RunRaces(const std::vector<Race>& races, int rounds, const std::string& json_path) {
  JsonFile json(json_path);
  int missed = 0;
  for (const Race& race : races) missed += Report(race, Measure(race, rounds), &json);
  return missed;
}

}  // namespace statehouse::bench
