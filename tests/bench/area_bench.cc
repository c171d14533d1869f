// Areas through the local door, in C++, against the physical limits and the locks that people use
// instead.
//   build/bin/area_bench [--rounds N] [--json FILE]
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/state/area.h"
#include "tests/bench/harness.h"
#include "tests/bench/processes.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kSize = 1 << 20;
const Lane kLane{1, kOperationTimeoutNsDefault};
const Lane kOtherLane{2, kOperationTimeoutNsDefault};

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "area_bench: %s failed\n", what);
  std::exit(2);
}

void Require(const Status& status) {
  if (!status.ok()) Die(status.ToString().c_str());
}

std::unique_ptr<Area> MakeArea(uint64_t size) {
  const AreaGeometry geometry = AreaGeometry::For(size, kAtomicRangeBytesDefault, 64);
  auto fd = CreateSealedMemory(
      "bench", geometry.data_offset + (size + kPageBytes - 1) / kPageBytes * kPageBytes);
  if (!fd.ok()) Die("memfd");
  const uint64_t uuid[2] = {1, 1};
  Require(Area::Format(geometry, uuid, fd->get()));
  auto area = Area::Map("bench", geometry, fd->get(), -1, Access::kReadWrite);
  if (!area.ok()) Die("map");
  return std::move(*area);
}

std::byte* SharedPage(uint64_t bytes) {
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) Die("mmap");
  return static_cast<std::byte*>(base);
}

template <typename T>
void Keep(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// A private buffer, half a page away from page alignment, so that no contender suffers from stores
// that look like loads of the same offset in another page.
std::byte* Scratch() {
  alignas(kPageBytes) static std::byte buffer[(64 << 10) + kPageBytes];
  return buffer + kPageBytes / 2;
}

pthread_mutex_t* RobustMutex(std::byte* place) {
  auto* mutex = reinterpret_cast<pthread_mutex_t*>(place);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (pthread_mutex_init(mutex, &attributes) != 0) Die("pthread_mutex_init");
  return mutex;
}

// Two processes do `body(process, iterations)` at once.
template <typename Body>
Work InTwoProcesses(Body body) {
  return InProcesses(
      2, [body](int process) -> Loop { return [body, process](uint64_t n) { body(process, n); }; });
}

Race AddRace(Area& area, std::atomic<uint64_t>& word, pthread_mutex_t* mutex) {
  return Race{"add 64 bit, one process",
              {{"fetch_add", TimedLoop([&](uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) Keep(word.fetch_add(1));
                }),
                3'000'000},
               {"area add", TimedLoop([&](uint64_t n) {
                  uint64_t bits = 0;
                  for (uint64_t i = 0; i < n; ++i)
                    Require(area.AddAs<uint64_t>(kLane, 0, 1, &bits));
                  Keep(bits);
                }),
                3'000'000},
               {"area add with a fence", TimedLoop([&](uint64_t n) {
                  uint64_t bits = 0;
                  for (uint64_t i = 0; i < n; ++i)
                    Require(area.AddAs<uint64_t>(kLane, 0, 1, &bits, 1));
                  Keep(bits);
                }),
                3'000'000},
               {"fetch_add + one plain store", TimedLoop([&](uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) {
                    Keep(word.fetch_add(1));
                    (&word)[64].store(i, std::memory_order_release);
                  }
                }),
                3'000'000},
               {"robust mutex + add", TimedLoop([&](uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) {
                    pthread_mutex_lock(mutex);
                    word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
                    pthread_mutex_unlock(mutex);
                  }
                }),
                1'000'000}},
              {{"area add", "fetch_add", 1.6, 0}}};
}

Race AddTwoRace(Area& area, std::atomic<uint64_t>& word, pthread_mutex_t* mutex) {
  return Race{"add 64 bit, two processes on one word",
              {{"fetch_add", InTwoProcesses([&](int, uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) Keep(word.fetch_add(1));
                }),
                3'000'000},
               {"area add", InTwoProcesses([&](int process, uint64_t n) {
                  uint64_t bits = 0;
                  const Lane& lane = process == 0 ? kLane : kOtherLane;
                  for (uint64_t i = 0; i < n; ++i) Require(area.AddAs<uint64_t>(lane, 0, 1, &bits));
                  Keep(bits);
                }),
                3'000'000},
               {"robust mutex + add", InTwoProcesses([&](int, uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) {
                    pthread_mutex_lock(mutex);
                    word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
                    pthread_mutex_unlock(mutex);
                  }
                }),
                1'000'000}},
              {{"area add", "fetch_add", 3.0, 0}, {"area add", "robust mutex + add", 1.0 / 3, 0}}};
}

Race LoadRace(Area& area, std::atomic<uint64_t>& word) {
  return Race{"load 64 bit",
              {{"plain load", TimedLoop([&](uint64_t n) {
                  for (uint64_t i = 0; i < n; ++i) Keep(word.load(std::memory_order_acquire));
                }),
                20'000'000},
               {"area load", TimedLoop([&](uint64_t n) {
                  uint64_t bits = 0;
                  for (uint64_t i = 0; i < n; ++i) {
                    Require(area.LoadAs(64, &bits));
                    Keep(bits);
                  }
                }),
                10'000'000}},
              {{"area load", "", 0, 2.0}}};
}

Race ReadRace(Area& area, std::byte* plain, uint64_t len, uint64_t iterations, Bar bar) {
  return Race{"read " + std::to_string(len) + " B",
              {{"memcpy", TimedLoop([=](uint64_t n) {
                  std::byte* out = Scratch();
                  for (uint64_t i = 0; i < n; ++i) {
                    std::memcpy(out, plain, len);
                    Keep(out);
                  }
                }),
                iterations},
               {"area read", TimedLoop([&area, len](uint64_t n) {
                  std::byte* out = Scratch();
                  for (uint64_t i = 0; i < n; ++i) {
                    Require(area.Read(0, std::span(out, len)));
                    Keep(out);
                  }
                }),
                iterations}},
              {bar}};
}

Race WriteRace(Area& area, std::byte* plain, uint64_t len, uint64_t iterations) {
  return Race{"write " + std::to_string(len) + " B, crash-atomic",
              {{"memcpy", TimedLoop([=](uint64_t n) {
                  std::byte* in = Scratch();
                  for (uint64_t i = 0; i < n; ++i) {
                    std::memcpy(plain, in, len);
                    Keep(plain);
                  }
                }),
                iterations},
               {"area write", TimedLoop([&area, len](uint64_t n) {
                  std::byte* in = Scratch();
                  for (uint64_t i = 0; i < n; ++i)
                    Require(area.Write(kLane, 0, std::span(in, len)));
                }),
                iterations}},
              {}};
}

// One-way wake-ups: two processes take turns; half a round trip is write to run.
Race WakeRace(Area& area) {
  auto* page = SharedPage(4096);
  auto* words = new (page) std::atomic<uint32_t>[2] { 0, 0 };
  const auto futex_turns = [words](int process, uint64_t n) {
    std::atomic<uint32_t>& mine = words[process];
    std::atomic<uint32_t>& theirs = words[1 - process];
    const uint32_t begin = mine.load();
    for (uint32_t i = 1; i <= n; ++i) {
      if (process == 0) {
        mine.store(begin + i);
        FutexWakeAll(mine);
      }
      while (theirs.load() < begin + i) FutexWait(theirs, begin + i - 1, 1'000'000'000);
      if (process == 1) {
        mine.store(begin + i);
        FutexWakeAll(mine);
      }
    }
  };
  const auto area_turns = [&area](int process, uint64_t n) {
    const Lane& lane = process == 0 ? kLane : kOtherLane;
    const uint64_t mine = process == 0 ? 0 : 8;
    const uint64_t theirs = 8 - mine;
    uint64_t begin = 0;
    uint64_t bits = 0;
    Require(area.Load(WordType::kU64, mine, &begin));
    const auto signal = [&](uint64_t i) {
      Require(area.Store(lane, WordType::kU64, mine, begin + i));
    };
    for (uint64_t i = 1; i <= n; ++i) {
      if (process == 0) signal(i);
      for (;;) {
        const uint64_t since = area.Updates();
        Require(area.Load(WordType::kU64, theirs, &bits));
        if (bits >= begin + i) break;
        if (!area.Wait(since, 1'000'000'000).ok()) Die("wait");
      }
      if (process == 1) signal(i);
    }
  };
  return Race{"wake-up, round trip (two wake-ups)",
              {{"raw futex", InTwoProcesses(futex_turns), 3'000},
               {"area wait", InTwoProcesses(area_turns), 3'000}},
              {}};
}

int Run(int rounds, const std::string& json) {
  std::unique_ptr<Area> area = MakeArea(kSize);
  std::unique_ptr<Area> small = MakeArea(4096);
  std::byte* plain = SharedPage(kSize);
  auto* word = new (SharedPage(4096)) std::atomic<uint64_t>(0);
  pthread_mutex_t* mutex = RobustMutex(SharedPage(4096));
  std::vector<Race> races;
  races.push_back(AddRace(*area, *word, mutex));
  races.push_back(AddTwoRace(*area, *word, mutex));
  races.push_back(LoadRace(*area, *word));
  races.push_back(ReadRace(*area, plain, 64, 5'000'000, {"area read", "", 0, 10}));
  races.push_back(ReadRace(*area, plain, 4096, 1'000'000, {"area read", "memcpy", 1.5, 0}));
  races.push_back(ReadRace(*area, plain, 64 << 10, 50'000, {"area read", "memcpy", 1.5, 0}));
  races.push_back(WriteRace(*area, plain, 64, 3'000'000));
  races.push_back(WriteRace(*area, plain, 4096, 1'000'000));
  races.back().bars.push_back({"area write", "memcpy", 2.0, 0});
  races.push_back(WriteRace(*area, plain, 64 << 10, 50'000));
  races.push_back(WakeRace(*small));
  return RunRaces(races, rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  int rounds = 7;
  std::string json;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return statehouse::bench::Run(rounds < 1 ? 1 : rounds, json) == 0 ? 0 : 1;
}
