// statehouse latency: how long a small call takes now, and work on mapped memory.
#include <iostream>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/percentiles.h"
#include "clients/cli/quantity.h"
#include "clients/cli/scratch.h"
#include "clients/cli/stop_signal.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPace = std::chrono::milliseconds(10);
constexpr uint64_t kBlock = 100;  // Operations on mapped memory between two looks at the clock.
constexpr double kMicrosecond = 1000;

struct Arguments {
  std::string door;
  std::string interval = "1s";
  uint64_t count = 0;
};

struct Round {
  Histogram call;
  Histogram load;  // Of blocks.
  Histogram add;

  void Add(const Round& other) {
    call.Add(other.call);
    load.Add(other.load);
    add.Add(other.add);
  }
};

template <typename Work>
void Time(Histogram* histogram, const Work& work) {
  const auto begin = Clock::now();
  work();
  histogram->Record(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count()));
}

// Until the time. False when a signal came before.
bool Measure(sh_client* client, sh_area* area, Clock::time_point until, StopSignal* stop,
             Round* round) {
  for (auto next = Clock::now(); next < until; next += kPace) {
    if (stop->WaitUntil(next)) return false;
    sh_error* error = nullptr;
    Time(&round->call, [&] {
      sh_status status{};
      Check(sh_get_status(client, &status, &error), error);
    });
    if (area == nullptr) continue;
    Time(&round->load, [&] {
      uint64_t value = 0;
      for (uint64_t i = 0; i < kBlock; ++i) Check(sh_load(area, SH_U64, 0, &value, &error), error);
    });
    Time(&round->add, [&] {
      for (uint64_t i = 0; i < kBlock; ++i) {
        Check(sh_add(area, SH_U64, 0, 1, nullptr, &error), error);
      }
    });
  }
  return true;
}

class Printer final {
 public:
  Printer(bool json, const char* door) : json_(json), door_(door) {}

  void Print(const std::string& name, const Round& round) {
    if (json_) {
      nlohmann::ordered_json line = {{"round", name}, {"door", door_}};
      line["call"] = PercentilesJson(round.call, 1);
      if (round.load.count() != 0) {
        line["mapped_load"] = PercentilesJson(round.load, kBlock);
        line["mapped_add"] = PercentilesJson(round.add, kBlock);
      }
      std::cout << line.dump() << "\n";
    } else {
      Row(name, "call", round.call, 1, kMicrosecond, "us");
      if (round.load.count() != 0) {
        Row(name, "mapped load", round.load, kBlock, 1, "ns");
        Row(name, "mapped add", round.add, kBlock, 1, "ns");
      }
    }
    std::cout.flush();
    if (!std::cout) throw Failed{kExitError, "cannot write to standard output"};
  }

 private:
  void Row(const std::string& name, const char* operation, const Histogram& histogram,
           uint64_t divisor, double unit_ns, const char* unit) {
    char text[64];
    if (!std::exchange(titled_, true)) {
      std::snprintf(text, sizeof text, "%5s  %-12s %8s", "ROUND", "OPERATION", "SAMPLES");
      std::cout << text << PercentilesTitle() << "  UNIT\n";
    }
    std::snprintf(text, sizeof text, "%5s  %-12s %8llu", name.c_str(), operation,
                  static_cast<unsigned long long>(histogram.count()));
    std::cout << text << PercentilesRow(histogram, divisor, unit_ns) << "  " << unit << "\n";
  }

  const bool json_;
  const char* const door_;
  bool titled_ = false;
};

void Latency(const Globals& globals, const Arguments& arguments) {
  const std::optional<uint64_t> interval = ParseMilliseconds(arguments.interval);
  if (!interval.has_value()) {
    throw Failed{kExitUsage,
                 "--interval: '" + arguments.interval + "' is no time; use 500ms or 2s"};
  }
  Globals chosen = globals;
  if (!arguments.door.empty()) chosen.transport = arguments.door;
  StopSignal stop;
  const Client client = Connect(chosen);
  std::unique_ptr<ScratchArea> scratch;
  if (sh_transport_of(client.get()) == SH_TRANSPORT_LOCAL) {
    try {
      scratch = std::make_unique<ScratchArea>(client.get(), ScratchName("latency"));
    } catch (const Failed& failed) {
      if (failed.exit_code != kExitAuth) throw;
      std::fprintf(stderr,
                   "statehouse: mapped memory is not measured, an area of its own needs the "
                   "verb create: %s\n",
                   failed.message.c_str());
    }
  }
  sh_area* const area = scratch == nullptr ? nullptr : scratch->get();
  Round warm;
  Measure(client.get(), area, Clock::now() + kPace, &stop, &warm);  // Connects and maps.
  Printer printer(globals.json, DoorName(client.get()));
  Round all;
  uint64_t rounds = 0;
  for (bool goes_on = true; goes_on && (arguments.count == 0 || rounds < arguments.count);) {
    Round round;
    goes_on = Measure(client.get(), area, Clock::now() + std::chrono::milliseconds(*interval),
                      &stop, &round);
    printer.Print(std::to_string(++rounds), round);
    all.Add(round);
  }
  if (rounds > 1) printer.Print("all", all);
}

constexpr const char* kFooter =
    "Every 10 ms one call (GetStatus), from sending to its answer, so processors and caches are as "
    "cold\n"
    "as those of a program that calls now and then; `statehouse bench` measures under load. "
    "Through "
    "the\n"
    "local door also 100 loads and 100 additions in a row on an area of its own, which is deleted "
    "at "
    "the\n"
    "end: a sample is the mean of such a row, since one alone is too short for the clock. -: too "
    "few\n"
    "samples for that percentile. Without --count it goes on until it is interrupted.\n"
    "\n"
    "Examples:\n"
    "  statehouse latency\n"
    "  statehouse -o json latency --door network --interval 10s --count 6";

}  // namespace

void AddLatencyCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      app->add_subcommand("latency", "Measures round trips of a small call, and mapped memory");
  command->footer(kFooter);
  command
      ->add_option("--door", arguments->door, "local, socket or network (the one that --url gives)")
      ->check(CLI::IsMember({"local", "socket", "network"}));
  command->add_option("--interval", arguments->interval, "How long a round lasts (1s)");
  command->add_option("--count", arguments->count, "End after so many rounds")
      ->check(CLI::PositiveNumber);
  command->callback([globals, arguments] { Latency(*globals, *arguments); });
}

}  // namespace statehouse::cli
