#include "tests/bench/processes.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

namespace statehouse::bench {
namespace {

constexpr size_t kGateBytes = 4096;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "bench: %s failed\n", what);
  std::exit(2);
}

double RunTogether(int processes, const std::function<Loop(int)>& make_loop, uint64_t n) {
  void* const page =
      mmap(nullptr, kGateBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) Die("mmap");
  auto* const gate = new (page) std::atomic<int>(0);
  std::fflush(stdout);  // Else a child that fails prints it once more.
  std::vector<pid_t> children;
  int process = 0;
  for (int i = 1; i < processes && process == 0; ++i) {
    const pid_t child = fork();
    if (child < 0) Die("fork");
    if (child == 0) process = i;
    children.push_back(child);
  }
  Loop loop = make_loop(process);
  loop(n / 8 + 1);
  gate->fetch_add(1);
  while (gate->load() < processes) sched_yield();
  const uint64_t begin = NowNs();
  loop(n);
  if (process != 0) {
    loop = nullptr;  // Closes what it opened.
    _exit(0);
  }
  for (const pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) Die("another process");
  }
  const uint64_t end = NowNs();
  munmap(page, kGateBytes);
  return static_cast<double>(end - begin) / static_cast<double>(n);
}

}  // namespace

Work InProcesses(int processes, std::function<Loop(int process)> make_loop) {
  return [processes, make_loop = std::move(make_loop)](uint64_t n) {
    return RunTogether(processes, make_loop, n);
  };
}

}  // namespace statehouse::bench
