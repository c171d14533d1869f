// Locks of the local door, in C++: an uncontended pair, and four processes on one lock.
//   build/bin/lock_bench [--rounds N] [--json FILE]
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/state/lock_space.h"
#include "tests/bench/harness.h"

namespace statehouse::bench {
namespace {

constexpr int kProcesses = 4;
constexpr uint32_t kHandovers = 20'000;  // Of each process.
constexpr uint64_t kForEver = uint64_t{60} * 1'000'000'000;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "lock_bench: %s failed\n", what.c_str());
  std::exit(2);
}

void Require(const Status& status) {
  if (!status.ok()) [[unlikely]]
    Die(status.ToString());
}

std::unique_ptr<LockSpace> MakeSpace() {
  LockGeometry geometry = LockGeometry::For(1024, 64);
  geometry.seed = {0x9e3779b97f4a7c15, 0xd1b54a32d192ed03};
  auto segment = CreateSealedMemory("lock-bench", geometry.segment_bytes());
  if (!segment.ok()) Die("making a segment");
  const uint64_t uuid[2] = {1, 1};
  Require(LockSpace::Format(geometry, uuid, 1, segment->get()));
  auto space = LockSpace::Map(geometry, segment->get());
  if (!space.ok()) Die(space.status().ToString());
  Require((*space)->PrepareLanes(1, 63));
  return *std::move(space);
}

void Pair(LockSpace& space, const Lane& lane, const char* name) {
  LockPlace place = 0;
  LockLook look;
  Require(space.Acquire(lane, name, LockRequest(), &place, &look));
  if (look.phase == LockPhase::kWaiting) {
    const auto waited = space.Wait(lane, place, kForEver);
    if (!waited.ok() || waited->phase != LockPhase::kHolding) Die("waiting");
  }
  bool held = false;
  Require(space.Release(lane, place, &held));
  if (!held) Die("holding");
}

// What a robust mutex costs: no lease, no token, no queue, and broken between PID namespaces.
class RobustMutex {
 public:
  RobustMutex() {
    void* const page =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) Die("mmap");
    mutex_ = static_cast<pthread_mutex_t*>(page);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex_, &attributes);
  }
  void Pair() {
    pthread_mutex_lock(mutex_);
    pthread_mutex_unlock(mutex_);
  }

 private:
  pthread_mutex_t* mutex_ = nullptr;
};

// Four processes that take one lock again and again, each holding it for a moment. Prints how long
// they waited for it and how often it changed hands in a second.
int ReportContention(LockSpace& space) {
  const size_t bytes = sizeof(uint64_t) * kProcesses * kHandovers;
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Die("mmap");
  auto* waits = static_cast<uint64_t*>(memory);
  const uint64_t begin = NowNs();
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = fork();
    if (child < 0) Die("fork");
    if (child == 0) {
      const Lane lane{static_cast<uint32_t>(8 * (process + 1)), kOperationTimeoutNsDefault};
      for (uint32_t i = 0; i < kHandovers; ++i) {
        const uint64_t asked = NowNs();
        LockPlace place = 0;
        LockLook look;
        Require(space.Acquire(lane, "contended", LockRequest(), &place, &look));
        if (look.phase == LockPhase::kWaiting) {
          const auto waited = space.Wait(lane, place, kForEver);
          if (!waited.ok()) Die("waiting");
        }
        waits[static_cast<uint32_t>(process) * kHandovers + i] = NowNs() - asked;
        bool held = false;
        Require(space.Release(lane, place, &held));
        for (int pause = 0; pause < 200; ++pause) CpuRelax();
      }
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) Die("a process");
  }
  const double seconds = static_cast<double>(NowNs() - begin) / 1e9;
  std::vector<uint64_t> sorted(waits, waits + kProcesses * kHandovers);
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double part) {
    return static_cast<double>(
               sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))]) /
           1e3;
  };
  const bool met = at(0.99) <= 200;
  std::printf("\nfour processes on one lock, %.0f grants/s\n", kProcesses * kHandovers / seconds);
  std::printf("  waited %.1f us p50, %.1f us p90, %s %.1f us p99 (bar 200 us), %.1f us at most\n",
              at(0.5), at(0.9), met ? "met" : "MISSED", at(0.99), at(1));
  munmap(memory, bytes);
  return met ? 0 : 1;
}

int Run(int rounds, const std::string& json) {
  const std::unique_ptr<LockSpace> space = MakeSpace();
  RobustMutex mutex;
  const Lane lane{8, kOperationTimeoutNsDefault};
  Pair(*space, lane, "free");
  std::vector<Race> races;
  races.push_back({"lock and unlock, uncontended, with lease and fencing token",
                   {{"robust mutex", TimedLoop([&](uint64_t n) {
                       for (uint64_t i = 0; i < n; ++i) mutex.Pair();
                     }),
                     2'000'000},
                    {"lock", TimedLoop([&](uint64_t n) {
                       for (uint64_t i = 0; i < n; ++i) Pair(*space, lane, "free");
                     }),
                     1'000'000}},
                   {{"lock", "", 0, 200}}});
  return RunRaces(races, rounds, json) + ReportContention(*space);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  int rounds = 5;
  std::string json;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return statehouse::bench::Run(rounds < 1 ? 1 : rounds, json) == 0 ? 0 : 1;
}
