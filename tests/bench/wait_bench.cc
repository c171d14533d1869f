// From a set to a waiter of another process that sleeps: of an entry in mapped memory, and of a
// bare futex, which is as fast as the machine can.
//   wait_bench [--rounds N] [--json FILE]
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/state/entry_wait.h"
#include "tests/bench/harness.h"

namespace statehouse::bench {
namespace {

// So long after the waiter began to wait it sleeps.
constexpr uint64_t kPauseNs = 300'000;
constexpr uint64_t kIterations = 2'000;
constexpr double kOverheadMaxUs = 5;
constexpr uint32_t kLanes = 16;

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "wait_bench: %s\n", why.c_str());
  std::exit(1);
}

// What both processes see.
struct Board {
  std::atomic<uint32_t> futex{0};
  std::atomic<uint64_t> began_ns{0};  // When the setter set.
  std::atomic<uint64_t> took_ns{0};   // From there to the waiter, …
  std::atomic<uint64_t> arrivals{0};  // … for the so manieth time.
  std::atomic<uint64_t> seen{0};      // The futex before it is changed.
  std::atomic<uint64_t> asked{0};     // What the waiter waits for next: odd a futex, even an entry.
};

class Pair final {
 public:
  Pair() : geometry_(DictGeometry::For(1000, 1 << 20, kLanes)) {
    geometry_.seed = {1, 3};
    auto made = CreateSealedMemory("wait-bench", geometry_.segment_bytes());
    if (!made.ok()) Die(made.status().ToString());
    fd_ = *std::move(made);
    const uint64_t uuid[2] = {1, 2};
    if (const Status formatted = Dict::Format(geometry_, uuid, fd_.get()); !formatted.ok()) {
      Die(formatted.ToString());
    }
    dict_ = Map();
    if (!dict_->PrepareLanes(0, kLanes).ok()) Die("preparing lanes");
    void* const page =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) Die("mapping memory");
    board_ = new (page) Board;
    const pid_t parent = getpid();
    child_ = fork();
    if (child_ < 0) Die("forking");
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      Wait();
    }
  }
  ~Pair() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    munmap(board_, sizeof(Board));
  }

  // Microseconds from a set to the waiter.
  double FutexUs() {
    return Once(1, [this] {
      board_->futex.fetch_add(1, std::memory_order_seq_cst);
      FutexWakeAll(board_->futex);
    });
  }
  double EntryUs() {
    return Once(0, [this] {
      DictIncrement increment;
      increment.delta = DictValue::Int64(1);
      increment.initial = DictValue::Int64(0);
      DictResult result;
      if (!dict_->Increment({1, kOperationTimeoutNsDefault}, "key", increment, &result).ok()) {
        Die("incrementing");
      }
    });
  }

 private:
  std::unique_ptr<Dict> Map() const {
    auto mapped = Dict::Map("bench", geometry_, fd_.get(), Access::kReadWrite);
    if (!mapped.ok()) Die(mapped.status().ToString());
    return *std::move(mapped);
  }

  template <typename Set>
  double Once(uint64_t kind, const Set& set) {
    const uint64_t arrivals = board_->arrivals.load();
    board_->seen.store(board_->futex.load());
    board_->asked.store((arrivals + 1) * 2 + kind);
    SleepNs(kPauseNs);
    board_->began_ns.store(NowNs());
    set();
    while (board_->arrivals.load(std::memory_order_acquire) == arrivals) SleepNs(0);
    return static_cast<double>(board_->took_ns.load()) / 1e3;
  }

  [[noreturn]] void Wait() {
    const std::unique_ptr<Dict> dict = Map();
    uint64_t version = 0;
    for (uint64_t round = 1;; ++round) {
      while (board_->asked.load() / 2 < round) SleepNs(0);
      if (board_->asked.load() % 2 == 1) {
        const uint32_t seen = static_cast<uint32_t>(board_->seen.load());
        while (board_->futex.load() == seen) FutexWait(board_->futex, seen, UINT64_MAX);
      } else {
        EntryWait wait;
        wait.kind = EntryWait::Kind::kVersionAbove;
        wait.version = version;
        EntryLook look;
        if (!WaitForEntry(*dict, "key", wait, 60'000'000'000, &look).ok() || !look.met) _exit(1);
        version = look.entry.version;
      }
      board_->took_ns.store(NowNs() - board_->began_ns.load());
      board_->arrivals.store(round, std::memory_order_release);
    }
  }

  DictGeometry geometry_;
  UniqueFd fd_;
  std::unique_ptr<Dict> dict_;
  Board* board_ = nullptr;
  pid_t child_ = -1;
};

double Median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

Work Medians(const std::function<double()>& once) {
  return [once](uint64_t iterations) {
    std::vector<double> times;
    for (uint64_t i = 0; i < iterations; ++i) times.push_back(once());
    return Median(std::move(times));
  };
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  int rounds = 7;
  std::string json;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) Die("usage: wait_bench [--rounds N] [--json FILE]");
    if (std::strcmp(argv[i], "--rounds") == 0) {
      rounds = std::atoi(argv[i + 1]);
    } else if (std::strcmp(argv[i], "--json") == 0) {
      json = argv[i + 1];
    } else {
      Die(std::string("unknown option ") + argv[i]);
    }
  }
  if (rounds < 1) Die("--rounds: at least 1");
  if (!statehouse::JoinBarriers()) Die("this kernel has no membarrier");
  Pair pair;
  Race race;
  race.title = "From a set to a sleeper of another process";
  race.unit = "us";
  race.contenders = {{"bare futex", Medians([&] { return pair.FutexUs(); }), kIterations},
                     {"entry of a dict", Medians([&] { return pair.EntryUs(); }), kIterations},
                     // One after the other, so that both meet the same machine.
                     {"entry above futex", Medians([&] {
                        const double futex = pair.FutexUs();
                        return pair.EntryUs() - futex;
                      }),
                      kIterations}};
  race.bars = {{"entry above futex", "", 0, kOverheadMaxUs}};
  return RunRaces({race}, rounds, json) == 0 ? 0 : 1;
}
