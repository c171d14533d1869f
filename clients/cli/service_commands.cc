// statehouse status, drain and session: the service itself, and who is connected to it.
#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "clients/cli/commands.h"
#include "clients/cli/quantity.h"
#include "clients/cli/service_call.h"
#include "clients/cli/terminal_text.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse::cli {
namespace {

constexpr uint32_t kSessionsOfAPage = 1000;

void Status(const Globals& globals) {
  const Client client = Connect(globals);
  const auto status = CallService<v1::GetStatusResponse>(
      client.get(), "/statehouse.v1.Admin/GetStatus", v1::GetStatusRequest(), true);
  const bool draining = status.state() == v1::SERVING_STATE_DRAINING;
  const int64_t start_ns =
      status.start_time().seconds() * 1'000'000'000 + status.start_time().nanos();
  const nlohmann::json object = {{"version", status.version()},
                                 {"state", draining ? "draining" : "serving"},
                                 {"door", DoorName(client.get())},
                                 {"daemon_pid", status.daemon_pid()},
                                 {"keeper_pid", status.keeper_pid()},
                                 {"generation", status.generation()},
                                 {"areas", status.areas()},
                                 {"dicts", status.dicts()},
                                 {"dict_entries", status.dict_entries()},
                                 {"attached_processes", status.attached_processes()},
                                 {"memory_bytes", status.memory_bytes()},
                                 {"memory_limit_bytes", status.memory_limit_bytes()},
                                 {"recoveries", status.recoveries()},
                                 {"locks_held", status.locks_held()},
                                 {"lock_waiters", status.lock_waiters()},
                                 {"sessions", status.sessions()},
                                 {"start_time_unix_ns", start_ns}};
  if (globals.json) {
    std::cout << object.dump(2) << "\n";
    return;
  }
  for (const auto& [key, value] : object.items()) {
    std::printf("%-20s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
}

struct DrainArguments {
  std::string grace;
  bool yes = false;
};

void Drain(const Globals& globals, const DrainArguments& arguments) {
  v1::DrainRequest request;
  if (!arguments.grace.empty()) {
    const std::optional<uint64_t> ms =
        arguments.grace == "0" ? uint64_t{0} : ParseMilliseconds(arguments.grace);
    if (!ms.has_value()) {
      throw Failed{kExitUsage, "--grace: '" + arguments.grace +
                                   "' is no time; use 0, 250ms, 30s, 5m, 2h or 7d"};
    }
    request.mutable_grace()->set_seconds(static_cast<int64_t>(*ms / 1000));
    request.mutable_grace()->set_nanos(static_cast<int32_t>(*ms % 1000) * 1'000'000);
  }
  if (!arguments.yes) {
    throw Failed{kExitUsage,
                 "this ends the service, and with it the state that is in no file; say --yes"};
  }
  const Client client = Connect(globals);
  // Where the connection broke the answer may be lost and a successor be there: it goes on.
  const auto answer = CallService<v1::DrainResponse>(client.get(), "/statehouse.v1.Admin/Drain",
                                                     request, /*idempotent=*/false);
  if (globals.json) {
    std::cout << nlohmann::json{{"calls_in_flight", answer.calls_in_flight()}}.dump(2) << "\n";
    return;
  }
  std::printf("draining; other calls in flight: %" PRIu32 "\n", answer.calls_in_flight());
}

uint64_t Milliseconds(const google::protobuf::Duration& duration) {
  return static_cast<uint64_t>(duration.seconds()) * 1000 +
         static_cast<uint64_t>(duration.nanos()) / 1'000'000;
}

std::string Seconds(const google::protobuf::Duration& duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1fs", static_cast<double>(Milliseconds(duration)) / 1000);
  return text;
}

// Page by page, so that it shows what it has before the next one comes.
template <typename Show>
void ForEachSession(sh_client* client, const Show& show) {
  v1::ListSessionsRequest request;
  request.set_page_size(kSessionsOfAPage);
  do {
    const auto page = CallService<v1::ListSessionsResponse>(
        client, "/statehouse.v1.Sessions/ListSessions", request, true);
    for (const v1::Session& session : page.sessions()) show(session);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
}

void ListSessions(const Globals& globals) {
  const Client client = ConnectForEntries(globals);
  if (globals.json) {
    nlohmann::json all = nlohmann::json::array();
    ForEachSession(client.get(), [&all](const v1::Session& session) {
      all.push_back({{"session_id", session.session_id()},
                     {"client_name", session.client_name()},
                     {"token_id", session.token_id()},
                     {"ttl_ms", Milliseconds(session.ttl())},
                     {"expires_ms", Milliseconds(session.expires_in())},
                     {"held", session.held()},
                     {"lock_count", session.lock_count()}});
    });
    std::cout << all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    return;
  }
  bool has_head = false;  // No table stands above a refusal.
  const auto head = [&has_head] {
    if (std::exchange(has_head, true)) return;
    std::printf("%20s  %-10s %-5s %8s %9s %9s  %s\n", "SESSION", "TOKEN", "HELD", "LOCKS", "TTL",
                "EXPIRES", "CLIENT");
  };
  ForEachSession(client.get(), [&head](const v1::Session& session) {
    head();
    std::printf("%20" PRIu64 "  %-10s %-5s %8" PRIu32 " %9s %9s  %s\n", session.session_id(),
                session.token_id().c_str(), session.held() ? "yes" : "no", session.lock_count(),
                Seconds(session.ttl()).c_str(), Seconds(session.expires_in()).c_str(),
                Visible(session.client_name()).c_str());
  });
  head();
}

}  // namespace

void AddStatusCommand(CLI::App* app, const Globals* globals) {
  CLI::App* command =
      app->add_subcommand("status", "Tells version, uptime and totals of the service");
  command->callback([globals] { Status(*globals); });
}

void AddDrainCommand(CLI::App* app, const Globals* globals) {
  CLI::App* command = app->add_subcommand("drain", "Stops the service, as SIGTERM does");
  command->footer(
      "It comes back at once; the drain goes on. New locks, sessions and watches are refused, and "
      "/readyz\n"
      "is 503, while the service goes on serving other calls for its drain_linger_ms; then it "
      "ends.\n"
      "It needs a token with admin of kind \"service\".\n"
      "\n"
      "Examples:\n"
      "  statehouse drain --yes\n"
      "  statehouse drain --grace 0 --yes      at once; calls in flight are cut off");
  const auto arguments = std::make_shared<DrainArguments>();
  command->add_option(
      "--grace", arguments->grace,
      "How long calls in flight may take (1h at most; default: the service's drain_grace_ms)");
  command->add_flag("-y,--yes", arguments->yes, "Yes, end it");
  command->callback([globals, arguments] { Drain(*globals, *arguments); });
}

void AddSessionCommands(CLI::App* app, const Globals* globals) {
  CLI::App* group = app->add_subcommand("session", "Clients of the network door that are there");
  group->require_subcommand(1);
  CLI::App* command = group->add_subcommand(
      "ls", "Lists sessions with the token and the locks of each; needs admin of the service");
  command->callback([globals] { ListSessions(*globals); });
}

}  // namespace statehouse::cli
