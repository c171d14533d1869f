// A race: contenders that do the same work, measured in turns (A B A B …) in one run, so that a
// drifting machine drifts for all of them. The result of each is its median of the rounds; what
// counts is the ratio to a peer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace statehouse::bench {

// Runs its work `iterations` times and returns the nanoseconds that one took.
using Work = std::function<double(uint64_t iterations)>;

struct Contender {
  std::string name;
  Work work;
  uint64_t iterations = 1'000'000;
};

// A bar: `contender` takes at most `times` as long as `peer`, or at most `ns_max`.
struct Bar {
  std::string contender;
  std::string peer;  // Empty: an absolute bar.
  double times = 0;
  double ns_max = 0;
};

struct Race {
  std::string title;
  std::vector<Contender> contenders;
  std::vector<Bar> bars;
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
// empty). Returns how many bars were missed.
int RunRaces(const std::vector<Race>& races, int rounds, const std::string& json_path);

}  // namespace statehouse::bench
