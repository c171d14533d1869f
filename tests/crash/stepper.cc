#include "tests/crash/stepper.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

namespace statehouse {
namespace {

// What the child tells its parent, in memory that both see.
struct Progress {
  std::atomic<int> finished{0};
};

[[noreturn]] void RunChild(const std::function<void()>& work, Progress* progress) {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(3);
  work();
  progress->finished.store(1);
  for (;;) pause();
}

bool WaitForTrap(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) return false;
  return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

}  // namespace

void BeginSteps() {
#if defined(__x86_64__)
  asm volatile("int3");
#else
  raise(SIGTRAP);
#endif
}

int64_t StepThrough(const std::function<void()>& work,
                    const std::function<bool(bool finished)>& at_boundary) {
  const auto from_the_start = [&work] {
    BeginSteps();
    work();
  };
  return StepThroughFrom(from_the_start, at_boundary);
}

int64_t StepThroughFrom(const std::function<void()>& work,
                        const std::function<bool(bool finished)>& at_boundary) {
  auto* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return -1;
  auto* progress = new (page) Progress;
  const pid_t child = fork();
  if (child == 0) RunChild(work, progress);

  int64_t boundaries = -1;
  if (child > 0 && WaitForTrap(child)) {
    boundaries = 1;
    bool go_on = at_boundary(false);
    while (go_on && progress->finished.load() == 0) {
      if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0 || !WaitForTrap(child)) {
        boundaries = -1;
        break;
      }
      ++boundaries;
      go_on = at_boundary(progress->finished.load() != 0);
    }
  }
  if (child > 0) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  munmap(page, 4096);
  return boundaries;
}

}  // namespace statehouse
