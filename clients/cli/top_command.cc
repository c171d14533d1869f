// statehouse top: what the service holds and does, again and again.
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "clients/cli/commands.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/doctor.h"
#include "clients/cli/quantity.h"
#include "clients/cli/sockets.h"
#include "clients/cli/top_model.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Home, and clear to the end of the screen after the text: without a blank screen in between.
constexpr const char* kHome = "\x1b[H";
constexpr const char* kClearLine = "\x1b[K";
constexpr const char* kClearRest = "\x1b[J";
constexpr uint64_t kMetricsTimeoutMs = 1000;

struct Arguments {
  std::string interval = "2s";
  uint64_t count = 0;
};

v1::GetStatusResponse StatusOf(sh_client* client) {
  return CallService<v1::GetStatusResponse>(client, "/statehouse.v1.Admin/GetStatus",
                                            v1::GetStatusRequest(), true);
}

std::vector<sh_area_info> AreasOf(sh_client* client) {
  sh_area_info* infos = nullptr;
  size_t count = 0;
  sh_error* error = nullptr;
  Check(sh_area_list(client, nullptr, &infos, &count, &error), error);
  std::vector<sh_area_info> areas(infos, infos + count);
  sh_area_list_free(infos);
  return areas;
}

std::vector<LockUse> LocksOf(sh_client* client) {
  sh_lock_info* infos = nullptr;
  size_t count = 0;
  sh_error* error = nullptr;
  Check(sh_lock_list(client, nullptr, &infos, &count, &error), error);
  std::vector<LockUse> locks;
  for (size_t i = 0; i < count; ++i) {
    const sh_lock_info& info = infos[i];
    const bool held = info.party_count > 0 && info.parties[0].token != 0;
    locks.push_back({info.name, info.limit, info.holder_count, info.waiter_count,
                     held ? info.parties[0].owner : ""});
  }
  sh_lock_infos_free(infos, count);
  return locks;
}

std::vector<v1::Dict> DictsOf(sh_client* client) {
  std::vector<v1::Dict> dicts;
  v1::ListDictsRequest request;
  do {
    const auto page = CallDicts<v1::ListDictsResponse>(client, "ListDicts", request);
    dicts.insert(dicts.end(), page.dicts().begin(), page.dicts().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return dicts;
}

TopLook Look(sh_client* client, bool by_address) {
  TopLook look;
  look.status = StatusOf(client);
  look.time = Clock::now();
  look.dicts = DictsOf(client);
  look.areas = AreasOf(client);
  look.locks = LocksOf(client);
  // It listens on loopback of the service's host. On another host that address is somebody else's:
  // nothing is asked there, and the view says that it is not known.
  if (look.status.http_address().empty() || !IsOfThisHost(by_address, look.status)) return look;
  const StatusOr<HttpAnswer> metrics =
      HttpGet(look.status.http_address(), "/metrics", kMetricsTimeoutMs);
  if (metrics.ok() && metrics->code == 200) look.metrics = ParseMetrics(metrics->body);
  return look;
}

void Repaint(const TopView& view) {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) size = {};
  std::string screen = kHome;
  // The last line stays empty: a line's end there would scroll.
  for (const std::string& line :
       ToLines(view, size.ws_row > 1 ? size.ws_row - 1u : 0, size.ws_col)) {
    screen += line + kClearLine + "\n";
  }
  std::cout << screen << kClearRest;
  std::cout.flush();
}

void PrintOnce(const TopView& view) {
  for (const std::string& line : ToLines(view, 0, 0)) std::cout << line << "\n";
  std::cout.flush();
}

void Top(const Globals& globals, const Arguments& arguments) {
  const std::optional<uint64_t> interval = ParseMilliseconds(arguments.interval);
  if (!interval.has_value()) {
    throw Failed{kExitUsage,
                 "--interval: '" + arguments.interval + "' is no time; use 500ms or 2s"};
  }
  const bool on_terminal = isatty(STDOUT_FILENO) != 0;
  // A table for a file or a pipe is one table.
  uint64_t left = arguments.count;
  if (left == 0 && !globals.json && !on_terminal) left = 1;
  const bool for_ever = left == 0;
  const Client client = ConnectForEntries(globals);
  const StatusOr<Endpoint> endpoint = EndpointOf(globals);
  if (!endpoint.ok()) throw Failed{kExitUsage, endpoint.status().message()};
  const bool by_address = IsByAddress(*endpoint);
  TopLook before = Look(client.get(), by_address);
  auto next = before.time;
  for (bool first = true; for_ever || left > 0; --left) {
    next = std::max(next + std::chrono::milliseconds(*interval), Clock::now());
    std::this_thread::sleep_until(next);
    TopLook now = Look(client.get(), by_address);
    const TopView view = Compare(before, now);
    if (globals.json) {
      std::cout << ToJson(view).dump() << "\n";
      std::cout.flush();
    } else if (on_terminal) {
      if (std::exchange(first, false)) std::cout << kHome << kClearRest;
      Repaint(view);
    } else {
      if (!std::exchange(first, false)) std::cout << "\n";
      PrintOnce(view);
    }
    if (!std::cout) throw Failed{kExitError, "cannot write to standard output"};
    before = std::move(now);
  }
}

constexpr const char* kFooter =
    "Rates are of the last interval. On a terminal the screen is painted anew; into a file or a "
    "pipe one\n"
    "table is written after one interval, or as many as --count says. -o ndjson: an object a line. "
    "Calls\n"
    "and errors are read from /metrics, which is on loopback of the service's host: from another "
    "one "
    "they\n"
    "are not known. Work on mapped dicts and areas is no call and shows in their own rates.\n"
    "\n"
    "Examples:\n"
    "  statehouse top\n"
    "  statehouse top --interval 10s > now.txt\n"
    "  statehouse -o ndjson top --count 60 --interval 1s | jq '.dicts[0]'";

}  // namespace

void AddTopCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* const command = app->add_subcommand(
      "top", "Shows dicts, areas, locks and calls with their rates, again and again");
  command->footer(kFooter);
  command->add_option("--interval", arguments->interval, "How long to look between (2s)");
  command->add_option("--count", arguments->count, "End after so many looks")
      ->check(CLI::PositiveNumber);
  command->callback([globals, arguments] { Top(*globals, *arguments); });
}

}  // namespace statehouse::cli
