// What every model program does: run a model over many schedules and say whether it holds, as it
// should.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <relacy/relacy.hpp>
#include <string>

namespace statehouse::model {

constexpr auto kRelaxed = rl::mo_relaxed;
constexpr auto kAcquire = rl::mo_acquire;
constexpr auto kRelease = rl::mo_release;
constexpr auto kSeqCst = rl::mo_seq_cst;

inline int failures = 0;
inline unsigned iterations = 200'000;

inline void TakeIterations(int argc, char** argv) {
  if (argc > 1) iterations = static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10));
}

// A stream that keeps nothing and allocates nothing.
struct Discard : std::streambuf {
  int overflow(int character) override { return character; }
};

template <typename Model>
bool Holds() {
  rl::test_params params;
  params.iteration_count = iterations;
  params.search_type = rl::random_scheduler_type;
  params.execution_depth_limit = 4000;
  // Relacy prints the whole history of a failure; mutants fail on purpose, so it is thrown away.
  Discard discard;
  std::ostream history(&discard);
  params.output_stream = &history;
  params.progress_stream = &history;
  const bool holds = rl::simulate<Model>(params);
  if (!holds)
    std::printf("    %s after %llu schedules\n", rl::test_result_str(params.test_result),
                static_cast<unsigned long long>(params.stop_iteration));
  return holds;
}

template <typename Model>
void Expect(const char* name, bool expected) {
  const bool holds = Holds<Model>();
  const bool right = holds == expected;
  std::printf("%s %s: %s\n", right ? "ok    " : "FAILED", name, holds ? "holds" : "is violated");
  std::fflush(stdout);
  if (!right) ++failures;
}

inline int Summary() {
  std::printf("%s\n", failures == 0 ? "all models as expected" : "some models are not as expected");
  return failures == 0 ? 0 : 1;
}

}  // namespace statehouse::model
