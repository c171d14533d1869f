#include "tests/bench/dict_scan_race.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>

#include "tests/bench/bench_dict.h"
#include "tests/bench/dict_peers.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kSetsAlone = 500'000;
constexpr double kPauseUsMax = 1000;  // The bar.

// The longest set of many. The writer's own processor time does not count what the machine's other
// work takes from it; that a lock which somebody holds might make it yield does not show there, so
// `waited` counts how often it met one.
struct Pauses {
  uint64_t cpu_ns_max = 0;
  uint64_t wall_ns_max = 0;
  uint64_t sets = 0;
  uint64_t waited = 0;
  uint64_t scan_ns = 0;
};

uint64_t ThreadCpuNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

template <typename Continues>
Pauses WriteWhile(Dict& dict, Continues continues) {
  const std::vector<Key>& drawn = Drawn(kManyKeys);
  const std::string value(kValueBytes, 'p');
  const uint64_t contended = dict.Stats().counters.contended;
  DictResult result;
  Pauses pauses;
  while (continues(pauses.sets)) {
    const std::string_view key = drawn[pauses.sets % kDraws].view();
    const uint64_t cpu = ThreadCpuNs();
    const uint64_t wall = NowNs();
    Require(dict.Set(LaneOf(0), key, DictValue::Bytes(value), {}, &result));
    pauses.wall_ns_max = std::max(pauses.wall_ns_max, NowNs() - wall);
    pauses.cpu_ns_max = std::max(pauses.cpu_ns_max, ThreadCpuNs() - cpu);
    ++pauses.sets;
  }
  pauses.waited = dict.Stats().counters.contended - contended;
  return pauses;
}

Pauses WriteBesideScan(Dict& dict) {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) Die("mmap");
  auto* const took = new (page) std::atomic<uint64_t>(0);
  std::fflush(stdout);
  const pid_t scanner = fork();
  if (scanner < 0) Die("fork");
  if (scanner == 0) {
    const uint64_t begin = NowNs();
    uint64_t entries = 0;
    uint32_t bucket = 0;
    Require(dict.Scan(&bucket, SIZE_MAX, "", [&](DictEntry&) { ++entries; }));
    took->store(NowNs() - begin);
    _exit(entries >= kManyKeys ? 0 : 1);
  }
  // Looks whether the scanner is gone, too, so that one that failed ends this.
  int status = -1;
  bool ended = false;
  Pauses pauses = WriteWhile(dict, [&](uint64_t sets) {
    if (sets % 256 == 0) ended = waitpid(scanner, &status, WNOHANG) == scanner;
    return !ended;
  });
  if (status != 0) Die("the scan");
  pauses.scan_ns = took->load();
  munmap(page, 4096);
  return pauses;
}

}  // namespace

Race ScanRace(Dict& dict) {
  Race race;
  race.title = "the longest set of a writer alone, and beside a scan of " +
               std::to_string(kManyKeys) + " entries";
  race.unit = "us";
  race.worst = true;
  // Measured by the first contender of each pair and told by the others.
  const auto alone = std::make_shared<Pauses>();
  const auto beside = std::make_shared<Pauses>();
  const auto us = [](uint64_t ns) { return static_cast<double>(ns) / 1e3; };
  race.contenders = {
      {"alone: processor time",
       [&dict, alone, us](uint64_t) {
         *alone = WriteWhile(dict, [](uint64_t sets) { return sets < kSetsAlone; });
         return us(alone->cpu_ns_max);
       }},
      {"alone: time that passed", [alone, us](uint64_t) { return us(alone->wall_ns_max); }},
      {"beside: processor time",
       [&dict, beside, us](uint64_t) {
         *beside = WriteBesideScan(dict);
         return us(beside->cpu_ns_max);
       }},
      {"beside: time that passed", [beside, us](uint64_t) { return us(beside->wall_ns_max); }},
      {"beside: locks met that somebody held (a count)",
       [beside](uint64_t) { return static_cast<double>(beside->waited); }},
      {"the scan itself", [beside, us](uint64_t) { return us(beside->scan_ns); }},
  };
  race.bars = {{"beside: processor time", "", 0, kPauseUsMax},
               {"beside: locks met that somebody held (a count)", "", 0, 0}};
  return race;
}

}  // namespace statehouse::bench
