// statehouse bench: what a service does under load, in a dict of its own.
#include <cinttypes>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clients/cli/bench_load.h"
#include "clients/cli/commands.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/percentiles.h"
#include "clients/cli/quantity.h"
#include "clients/cli/scratch.h"

namespace statehouse::cli {
namespace {

constexpr double kMicrosecond = 1000;
constexpr size_t kFillEntries = 1000;     // Of one call.
constexpr uint64_t kFillBytes = 4 << 20;  // The same.
constexpr const char* kKeyPrefix = "statehouse-bench/";

struct Arguments {
  std::vector<std::string> operations;
  std::string door;
  std::string dict;
  std::string duration = "10s";
  double rate = 0;
  uint32_t connections = 1;
  uint64_t keys = 1000;
  uint64_t value_bytes = 64;
};

// The dict that is worked in. One of its own goes with the object; of another one the keys go that
// the bench has set.
class Workplace final {
 public:
  Workplace(sh_client* client, const std::string& given)
      : client_(client), own_(given.empty()), name_(own_ ? ScratchName("bench") : given) {
    if (!own_) {
      v1::DescribeDictRequest request;
      request.set_name(name_);
      CallDicts<v1::DescribeDictResponse>(client_, "DescribeDict", request);
      return;
    }
    v1::CreateDictRequest request;
    request.set_name(name_);
    request.set_exclusive(true);
    CallDicts<v1::CreateDictResponse>(client_, "CreateDict", request, false);
    std::fprintf(stderr, "works in dict \"%s\", which is deleted at the end\n", name_.c_str());
  }
  ~Workplace() {
    try {
      if (own_) {
        v1::DeleteDictRequest request;
        request.set_name(name_);
        CallDicts<v1::DeleteDictResponse>(client_, "DeleteDict", request, false);
      } else {
        v1::DeletePrefixRequest request;
        request.set_name(name_);
        request.set_prefix(kKeyPrefix);
        CallDicts<v1::DeletePrefixResponse>(client_, "DeletePrefix", request, false);
      }
    } catch (const Failed& failed) {
      std::fprintf(stderr, "statehouse: %s \"%s\" %s left behind: %s\n",
                   own_ ? "dict" : "the bench's entries of dict", name_.c_str(),
                   own_ ? "is" : "are", failed.message.c_str());
    }
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  const std::string& name() const { return name_; }
  // What locks are called: nobody else's.
  std::string lock_prefix() const { return (own_ ? name_ : ScratchName("bench")) + "/"; }

 private:
  sh_client* const client_;
  const bool own_;
  const std::string name_;
};

// Sets what is to be read. False when a signal came before all of it was there.
bool Fill(sh_client* client, const BenchPlan& plan, StopSignal* stop) {
  v1::Value value;
  value.set_bytes_value(std::string(plan.value_bytes, 'x'));
  const uint64_t at_once =
      std::clamp<uint64_t>(kFillBytes / (plan.value_bytes + 64), 1, kFillEntries);
  for (uint64_t begin = 0; begin < plan.keys; begin += at_once) {
    if (stop->WaitUntil(std::chrono::steady_clock::now())) return false;
    v1::SetEntriesRequest request;
    request.set_name(plan.dict);
    for (uint64_t i = begin; i < std::min(plan.keys, begin + at_once); ++i) {
      auto* const entry = request.add_entries();
      entry->set_key(BenchKey(plan, i));
      *entry->mutable_value() = value;
    }
    CallDicts<v1::SetEntriesResponse>(client, "SetEntries", request);
  }
  return true;
}

nlohmann::ordered_json ToJson(const BenchPlan& plan, const BenchResult& result,
                              uint32_t connections, const char* door) {
  nlohmann::ordered_json json = {
      {"operation", kBenchOperationNames[static_cast<size_t>(plan.operation)]},
      {"door", door},
      {"connections", connections},
      {"rate",
       plan.rate == 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(plan.rate)},
      {"seconds", result.seconds},
      {"completed", result.completed},
      {"achieved_per_s", static_cast<double>(result.completed) / result.seconds},
      {"unsent", result.unsent},
      {"errors", result.errors}};
  json["latency"] = PercentilesJson(result.latencies, 1);
  return json;
}

void PrintRow(const BenchPlan& plan, const BenchResult& result, bool titled) {
  if (!titled) {
    std::printf("%-9s %12s %12s %10s%s  UNIT\n", "OPERATION", "COMPLETED", "ACHIEVED/S", "ERRORS",
                PercentilesTitle().c_str());
  }
  uint64_t errors = 0;
  for (const auto& [reason, count] : result.errors) errors += count;
  std::printf("%-9s %12" PRIu64 " %12.1f %10" PRIu64 "%s  us\n",
              kBenchOperationNames[static_cast<size_t>(plan.operation)], result.completed,
              static_cast<double>(result.completed) / result.seconds, errors,
              PercentilesRow(result.latencies, 1, kMicrosecond).c_str());
  std::fflush(stdout);
  if (result.unsent != 0) {
    std::fprintf(stderr,
                 "%" PRIu64
                 " operations were due and not sent: the service, or this program, does "
                 "not keep up with the rate\n",
                 result.unsent);
  }
}

BenchPlan PlanOf(const Arguments& arguments, const std::string& operation, uint64_t duration_ms,
                 const Workplace& workplace) {
  BenchPlan plan;
  for (size_t i = 0; i < std::size(kBenchOperationNames); ++i) {
    if (operation == kBenchOperationNames[i]) plan.operation = static_cast<BenchOperation>(i);
  }
  plan.duration = std::chrono::milliseconds(duration_ms);
  plan.rate = arguments.rate;
  plan.keys = arguments.keys;
  plan.value_bytes = arguments.value_bytes;
  plan.dict = workplace.name();
  plan.prefix = plan.operation == BenchOperation::kLock ? workplace.lock_prefix() : kKeyPrefix;
  return plan;
}

void Bench(const Globals& globals, const Arguments& arguments) {
  const std::optional<uint64_t> duration_ms = ParseMilliseconds(arguments.duration);
  if (!duration_ms.has_value()) {
    throw Failed{kExitUsage, "--for: '" + arguments.duration + "' is no time; use 10s or 1m"};
  }
  StopSignal stop;  // Before there are threads.
  Globals chosen = globals;
  if (!arguments.door.empty()) chosen.transport = arguments.door;
  // Long messages and a long clearing up go over the network door, with a time of their own.
  const Client steward = ConnectForEntries(globals);
  std::vector<Client> clients;
  for (uint32_t i = 0; i < arguments.connections; ++i) clients.push_back(Connect(chosen));
  const char* const door = DoorName(clients[0].get());
  const Workplace workplace(steward.get(), arguments.dict);
  std::fprintf(
      stderr, "%u %s through the %s door, %s\n", arguments.connections,
      arguments.connections == 1 ? "connection" : "connections", door,
      arguments.rate == 0 ? "each as fast as it can (closed loop)" : "at a rate (open loop)");
  const std::vector<std::string> operations =
      arguments.operations.empty() ? std::vector<std::string>(std::begin(kBenchOperationNames),
                                                              std::end(kBenchOperationNames))
                                   : arguments.operations;
  auto all = nlohmann::ordered_json::array();
  uint64_t completed = 0;
  std::map<std::string, uint64_t> errors;
  for (const std::string& operation : operations) {
    const BenchPlan plan = PlanOf(arguments, operation, *duration_ms, workplace);
    if (plan.operation == BenchOperation::kGet && !Fill(steward.get(), plan, &stop)) {
      std::fprintf(stderr, "interrupted while the entries for get were set\n");
      break;
    }
    const BenchResult result = RunBench(plan, clients, &stop);
    if (globals.json) {
      all.push_back(ToJson(plan, result, arguments.connections, door));
    } else {
      PrintRow(plan, result, &operation != &operations.front());
    }
    completed += result.completed;
    for (const auto& [reason, count] : result.errors) errors[reason] += count;
    if (stop.WaitUntil(std::chrono::steady_clock::now())) break;
  }
  if (globals.json) std::cout << all.dump(2) << "\n";
  if (completed == 0 && !errors.empty()) {
    throw Failed{kExitError, "every operation failed: " + errors.begin()->first};
  }
}

constexpr const char* kFooter =
    "With --rate operations are due at even times, whatever became of those before, and each one's "
    "time\n"
    "counts from when it was due: what waits behind a slow one is slow, too. Those that were due "
    "and "
    "not\n"
    "sent by the end count with what they had waited. Without --rate each connection sends the "
    "next "
    "when\n"
    "it has its answer, so a service that stops for a while is asked less and looks better than it "
    "is.\n"
    "The time of this program's own waking is part of it: watch its processors, and use another "
    "host "
    "for\n"
    "the network door. One process has 16 connections through the local door at most.\n"
    "lock: acquire and release of one of --keys locks. get, set and incr: of one of --keys "
    "entries, "
    "by\n"
    "chance. -: too few samples for that percentile.\n"
    "\n"
    "Examples:\n"
    "  statehouse bench --for 5s\n"
    "  statehouse bench --op incr --rate 20000 --for 1m --connections 8\n"
    "  statehouse --url statehouse://db1:7700 -o json bench --op get --op set --value-bytes 4096";

}  // namespace

void AddBenchCommand(CLI::App* app, const Globals* globals) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* const command = app->add_subcommand(
      "bench", "Measures the service under load, in a dict of its own that it deletes");
  command->footer(kFooter);
  command->add_option("--op", a->operations, "get, set, incr or lock, repeatable (each in turn)")
      ->check(CLI::IsMember({"get", "set", "incr", "lock"}));
  command
      ->add_option("--rate", a->rate,
                   "Operations a second, of all connections together: an open loop (closed loop)")
      ->check(CLI::Range(0.001, kBenchRateMax));
  command->add_option("--for", a->duration, "How long, for each operation (10s)");
  command->add_option("--connections", a->connections, "Clients, each with a thread (1)")
      ->check(CLI::Range(1u, kBenchConnectionsMax));
  command->add_option("--door", a->door, "local, socket or network (the one that --url gives)")
      ->check(CLI::IsMember({"local", "socket", "network"}));
  command->add_option("--keys", a->keys, "Entries, or locks, that are used (1000)")
      ->check(CLI::Range(uint64_t{1}, kBenchKeysMax));
  command->add_option("--value-bytes", a->value_bytes, "Bytes of each value (64)")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1'000'000}));
  command->add_option("--dict", a->dict,
                      "Work in this dict, on keys that begin with statehouse-bench/, which are "
                      "deleted at the end");
  command->callback([globals, a] { Bench(*globals, *a); });
}

}  // namespace statehouse::cli
