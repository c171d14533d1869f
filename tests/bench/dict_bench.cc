// Dicts through the local door, in C++, against LMDB, Redis, nginx's lua_shared_dict and APCu: each
// operation, size and number of processes is a race. Then memory, and writers beside a scan.
//   build/bin/dict_bench [--rounds N] [--json FILE] [--only TEXT] [--peers PREFIX]
// TEXT: only races that have it in their title. PREFIX: where the programs of the peers are
// installed; default /usr. One that is missing is told.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/bench_dict.h"
#include "tests/bench/dict_peers.h"
#include "tests/bench/dict_scan_race.h"
#include "tests/bench/harness.h"
#include "tests/bench/processes.h"

namespace statehouse::bench {
namespace {

constexpr const char* kOurs = "statehouse";
constexpr double kEntryBytesMax = 200;  // The bar: a million entries in 200 MB.

struct Contest {
  std::vector<uint32_t> sizes = {10'000, 100'000, kManyKeys};
  std::map<uint32_t, BenchDict> dicts;
  std::vector<std::unique_ptr<Peer>> peers;
};

Loop GetLoop(const Dict& dict, uint32_t keys, int process) {
  return [&dict, &drawn = Drawn(keys), first = FirstDraw(process)](uint64_t n) {
    DictEntry entry;
    bool found = true;
    for (uint64_t i = 0; i < n && found; ++i) {
      Require(dict.Get(drawn[(first + i) % kDraws].view(), &entry, &found));
      Keep(entry.bytes.data());
    }
    if (!found) Die("finding a key");
  };
}

Loop SetLoop(Dict& dict, uint32_t keys, int process) {
  return [&dict, &drawn = Drawn(keys), process, first = FirstDraw(process)](uint64_t n) {
    const std::string value(kValueBytes, 'w');
    DictResult result;
    for (uint64_t i = 0; i < n; ++i) {
      Require(dict.Set(LaneOf(process), drawn[(first + i) % kDraws].view(), DictValue::Bytes(value),
                       {}, &result));
    }
  };
}

Loop IncrementLoop(Dict& dict, int process) {
  return [&dict, process](uint64_t n) {
    DictIncrement increment;
    increment.delta = DictValue::Int64(1);
    increment.initial = DictValue::Int64(0);
    DictResult result;
    for (uint64_t i = 0; i < n; ++i) {
      Require(dict.Increment(LaneOf(process), "hits", increment, &result));
    }
    Keep(result.bits);
  };
}

Contender Ours(Contest& contest, Operation operation, uint32_t keys, int processes) {
  Dict& dict = *contest.dicts.at(keys).dict;
  const auto make_loop = [&dict, operation, keys](int process) {
    return operation == Operation::kGet   ? GetLoop(dict, keys, process)
           : operation == Operation::kSet ? SetLoop(dict, keys, process)
                                          : IncrementLoop(dict, process);
  };
  return {kOurs, InProcesses(processes, make_loop), 1'000'000};
}

// The absolute bars, for one process; 0 where there is none.
double NsMax(Operation operation, uint32_t keys) {
  if (operation == Operation::kIncrement) return 45;
  if (operation == Operation::kSet) return keys == 10'000 ? 110 : 0;
  return keys == 10'000 ? 80 : keys == kManyKeys ? 400 : 0;
}

Race OperationRace(Contest& contest, Operation operation, uint32_t keys, int processes) {
  Race race;
  race.title = operation == Operation::kGet   ? "get"
               : operation == Operation::kSet ? "set, with its change record"
                                              : "increment of one hot key, with its change record";
  if (operation != Operation::kIncrement) race.title += ", 64 B, " + std::to_string(keys) + " keys";
  race.title += ", processes: " + std::to_string(processes);
  race.contenders.push_back(Ours(contest, operation, keys, processes));
  for (const auto& peer : contest.peers) {
    race.contenders.push_back(peer->Enter(operation, keys, processes));
  }
  const double ns_max = NsMax(operation, keys);
  if (processes == 1 && ns_max > 0) race.bars.push_back({kOurs, "", 0, ns_max});
  if (processes == 2) race.bars.push_back({kOurs, kNginxName, 1, 0});
  return race;
}

Race MemoryRace(Contest& contest) {
  Race race;
  race.title = "memory of an entry of 64 B among " + std::to_string(kManyKeys);
  race.unit = "B";
  const double ours = contest.dicts.at(kManyKeys).AllocatedBytesNow() / kManyKeys;
  race.contenders.push_back({kOurs, [ours](uint64_t) { return ours; }, 1});
  for (const auto& peer : contest.peers) {
    const double bytes = peer->BytesPerEntry();
    race.contenders.push_back({peer->name(), [bytes](uint64_t) { return bytes; }, 1});
  }
  race.bars.push_back({kOurs, "", 0, kEntryBytesMax});
  return race;
}

int Run(int rounds, const std::string& json, const std::string& only, const std::string& prefix) {
  Contest contest;
  for (const uint32_t keys : contest.sizes) contest.dicts.emplace(keys, BenchDict::Filled(keys));
  const PeerOptions options{prefix, contest.sizes};
  for (const auto start : {StartLmdb, StartRedis, StartNginx, StartApcu}) {
    if (auto peer = start(options); peer != nullptr) contest.peers.push_back(std::move(peer));
  }
  std::vector<Race> races;
  races.push_back(MemoryRace(contest));
  for (const int processes : {1, 2, 4}) {
    for (const Operation operation : {Operation::kGet, Operation::kSet}) {
      for (const uint32_t keys : contest.sizes) {
        races.push_back(OperationRace(contest, operation, keys, processes));
      }
    }
    races.push_back(OperationRace(contest, Operation::kIncrement, contest.sizes[0], processes));
  }
  races.push_back(ScanRace(*contest.dicts.at(kManyKeys).dict));
  std::erase_if(races,
                [&](const Race& race) { return race.title.find(only) == std::string::npos; });
  return RunRaces(races, rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  int rounds = 5;
  std::string json;
  std::string only;
  std::string prefix = "/usr";
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
    if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
    if (std::strcmp(argv[i], "--peers") == 0) prefix = argv[i + 1];
  }
  return statehouse::bench::Run(rounds < 1 ? 1 : rounds, json, only, prefix) == 0 ? 0 : 1;
}
