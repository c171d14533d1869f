// A race: contenders that do the same work, measured in turns (A B A B …) in one run, so that a
// drifting machine drifts for all of them. The result of each is its median of the rounds; what
// counts is the ratio to a peer, where there is one, and else the figure itself.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace statehouse::bench {

// Runs its work `iterations` times and returns what one took, in the unit of its race.
using Work = std::function<double(uint64_t iterations)>;

struct Contender {
  std::string name;
  Work work;
  uint64_t iterations = 1'000'000;
};

// A bar: `contender` takes at most `times` as much as `peer`; or, with `times` 0, at most `max`
// more than it; or, without a peer, at most `max`. Where the peer is missing from the race the bar
// is reported as not measured.
struct Bar {
  std::string contender;
  std::string peer;
  double times = 0;
  double max = 0;
};

struct Race {
  std::string title;
  std::vector<Contender> contenders;
  std::vector<Bar> bars;
  std::string unit = "ns";
  bool worst = false;  // What counts is the largest of the rounds instead of their median.
};

uint64_t NowNs();

// Times a loop: calls `body(iterations)` once and divides.
template <typename Body>
Work TimedLoop(Body body) {
  return [body](uint64_t iterations) {
    const uint64_t begin = NowNs();
    body(iterations);
    return static_cast<double>(NowNs() - begin) / static_cast<double>(iterations);
  };
}

// Runs the races, prints a table each and writes all results as JSON to `json_path` (nowhere when
// empty). Returns how many bars were missed. What is not measured is said, and is no miss.
int RunRaces(const std::vector<Race>& races, int rounds, const std::string& json_path);

}  // namespace statehouse::bench
