// The checks of doors and of what the service tells of itself.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <random>

#include "clients/cli/connection.h"
#include "clients/cli/doctor.h"
#include "clients/cli/quantity.h"
#include "clients/cli/sockets.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse::cli {
namespace {

constexpr double kMemoryShareHigh = 0.9;
// A dict takes its memory in parts of this size at least: with less left, its inserts are refused.
constexpr uint64_t kMemoryPartBytes = 64 << 10;
constexpr int64_t kClockDifferenceNs = 1'000'000'000;

constexpr const char* kWhyAttach =
    "workers of this host attach here once and then share memory; without it they fall back to "
    "calls, or fail";
constexpr const char* kWhyGrpc =
    "watches of this host's workers, and clients that want the network door, come in here";
constexpr const char* kWhyTcp = "clients of other hosts and of other languages come in here";

// A call beyond a limit of the token itself, which is valid then: the message names the setting.
// Only the message tells it from RATE_LIMITED for wrong tokens.
bool IsOwnLimit(const std::string& message) {
  return message.find("(calls_per_second)") != std::string::npos ||
         message.find("(calls_at_once)") != std::string::npos;
}

std::string Took(double milliseconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", milliseconds);
  return text;
}

// What a door's answer means; for SH_OK and refusals of the token the door is good.
void Judge(const std::string& door, const DoorAnswer& answer, Finding* finding) {
  if (answer.reason == SH_OK) {
    finding->found = door + " answers in " + Took(answer.milliseconds);
    return;
  }
  if (IsReached(answer.reason)) {
    finding->found = door + " answers: " + sh_reason_name(answer.reason);
    return;
  }
  finding->verdict = Verdict::kProblem;
  finding->found =
      door + " gives no answer: " + sh_reason_name(answer.reason) + ": " + answer.message;
  switch (answer.reason) {
    case SH_LANES_EXHAUSTED:
    case SH_LIMIT_EXCEEDED:
      finding->fix = "end clients that are not needed, or share one client between threads";
      break;
    case SH_VERSION_MISMATCH: finding->fix = "use a client and a service of one release"; break;
    default: finding->fix = "look into the log of statehoused"; break;
  }
}

Finding CheckUnixDoor(const Settings& settings, Finding finding, const char* socket_name, int type,
                      sh_transport transport, DoorAnswer* answer) {
  const std::string path = settings.runtime_dir + "/" + socket_name;
  const StatusOr<UniqueFd> connected = ConnectUnix(path, type, settings.timeout_ms);
  if (!connected.ok()) {
    finding.verdict = Verdict::kProblem;
    finding.found = connected.status().message();
    finding.fix = connected.status().reason() == Reason::kPermissionDenied
                      ? "run as the service's user, or use the network door"
                  : std::filesystem::exists(path)
                      ? "nobody listens any more: start statehoused again on this runtime dir"
                      : "start statehoused with this runtime dir, or name the one that it has "
                        "(--url statehouse+unix://<runtime dir>)";
    return finding;
  }
  *answer =
      AskDoor({UnixUrl(settings.runtime_dir), transport, settings.token, settings.timeout_ms});
  Judge(path, *answer, &finding);
  return finding;
}

}  // namespace

std::string UnixUrl(const std::string& dir) {
  std::string url = "statehouse+unix://";
  for (const char c : dir) {
    if (c == '%' || c == '?') {
      char code[4];
      std::snprintf(code, sizeof code, "%%%02X", static_cast<unsigned char>(c));
      url += code;
    } else {
      url += c;
    }
  }
  return url;
}

bool IsReached(sh_reason reason) {
  switch (reason) {
    case SH_OK:
    case SH_UNAUTHENTICATED:
    case SH_TOKEN_EXPIRED:
    case SH_PERMISSION_DENIED:
    case SH_RATE_LIMITED:
    case SH_DRAINING: return true;
    default: return false;
  }
}

DoorAnswer AskDoor(const DoorQuestion& question) {
  DoorAnswer answer;
  answer.asked = true;
  const auto begin = std::chrono::steady_clock::now();
  sh_options options = {};
  options.token = question.token.c_str();
  options.client_name = "statehouse-doctor";
  options.timeout_ms = question.timeout_ms;
  options.transport = question.transport;
  sh_client* connected = nullptr;
  sh_error* error = nullptr;
  void* response = nullptr;
  size_t bytes = 0;
  answer.reason = sh_connect(question.url.c_str(), &options, &connected, &error);
  const Client client(connected);
  if (answer.reason == SH_OK) {
    answer.reason = sh_call(client.get(), "/statehouse.v1.Admin/GetStatus", "", 0, 1, &response,
                            &bytes, &error);
  }
  if (error != nullptr) answer.message = sh_error_message(error);
  sh_error_free(error);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  answer.milliseconds = took.count();
  if (answer.reason == SH_OK && !answer.status.ParseFromArray(response, static_cast<int>(bytes))) {
    answer.reason = SH_VERSION_MISMATCH;
    answer.message = "the answer is no message of this release";
  }
  sh_call_free(response);
  return answer;
}

Finding CheckAttachDoor(const Settings& settings, DoorAnswer* answer) {
  return CheckUnixDoor(settings, {.check = "attach-door", .why = kWhyAttach}, "attach.sock",
                       SOCK_SEQPACKET, SH_TRANSPORT_LOCAL, answer);
}

Finding CheckGrpcDoor(const Settings& settings, DoorAnswer* answer) {
  return CheckUnixDoor(settings, {.check = "grpc-door", .why = kWhyGrpc}, "grpc.sock", SOCK_STREAM,
                       SH_TRANSPORT_NETWORK, answer);
}

Finding CheckTcpDoor(const std::string& url, const std::string& address, const Settings& settings,
                     DoorAnswer* answer) {
  Finding finding{.check = "tcp-door", .why = kWhyTcp};
  const StatusOr<UniqueFd> connected = ConnectTcp(address, settings.timeout_ms);
  if (!connected.ok()) {
    finding.verdict = Verdict::kProblem;
    finding.found = connected.status().message();
    finding.fix =
        "check host and port, that statehoused has it in --listen (statehouse status "
        "on its host), and the firewalls between";
    return finding;
  }
  *answer = AskDoor({url, SH_TRANSPORT_NETWORK, settings.token, settings.timeout_ms});
  Judge(address, *answer, &finding);
  if (finding.verdict != Verdict::kProblem) return finding;
  // It listens, and does not answer: perhaps it speaks the other kind.
  const bool with_tls = url.rfind("statehouse+tls://", 0) == 0;
  const CertificateFacts shown = CertificateOfServer(address, settings.timeout_ms);
  if (!with_tls && shown.expires_unix_s.has_value()) {
    finding.fix = "it speaks TLS: --url statehouse+tls://" + address + "?ca_file=FILE";
    if (!settings.runtime_dir.empty()) {
      finding.verdict = Verdict::kUnknown;
      finding.found =
          address + " speaks TLS, and was not called through the unix socket's settings";
    }
  } else if (with_tls && shown.expires_unix_s.has_value()) {
    finding.fix =
        "trust the authority that signed its certificate (ca_file=FILE in the URL, "
        "STATEHOUSE_TLS_CA_FILE), name the host as the certificate does, and give a "
        "client's certificate where the service asks for one";
  } else if (with_tls) {
    finding.fix = "it does not speak TLS: --url statehouse://" + address;
  }
  return finding;
}

Finding CheckHttpDoor(const std::string& address, uint64_t timeout_ms) {
  Finding finding{.check = "http-door",
                  .why = "Prometheus and health checks of an orchestrator ask here"};
  if (address.empty()) {
    finding.found = "off";
    return finding;
  }
  const StatusOr<HttpAnswer> answer = HttpGet(address, "/readyz", timeout_ms);
  if (!answer.ok()) {
    finding.verdict = Verdict::kWarning;
    finding.found = answer.status().message();
    finding.fix = "it listens on loopback of the service's host only; there, look into the log";
    return finding;
  }
  finding.found = "http://" + address + "/readyz says " + std::to_string(answer->code);
  if (answer->code != 200) {
    finding.verdict = Verdict::kProblem;
    finding.fix = "the service drains, or is not ready: see drain-state";
  }
  return finding;
}

Finding CheckToken(const DoorAnswer& answer, bool has_token) {
  Finding finding{.check = "token", .why = "every call needs an access token that is valid"};
  finding.verdict = Verdict::kProblem;
  switch (answer.reason) {
    case SH_OK:
    case SH_DRAINING:
      finding.verdict = Verdict::kGood;
      finding.found = "the access token is accepted";
      break;
    case SH_TOKEN_EXPIRED:
      finding.found = "the time of the access token is over";
      finding.fix = "statehouse token create, then kill -HUP the service";
      break;
    case SH_RATE_LIMITED:
      finding.found = answer.message;
      if (IsOwnLimit(answer.message)) {
        finding.verdict = Verdict::kWarning;
        finding.fix =
            "make fewer calls with this token, give each program one of its own, or raise the "
            "limit in the tokens file (or its default in auth) and send the service kill -HUP";
      } else {
        finding.fix =
            "correct the access token; find who else on this host tries with a wrong one, and "
            "wait a minute";
      }
      break;
    default:
      finding.found = has_token ? "the access token is refused: " + answer.message
                                : std::string("no access token is given");
      finding.fix =
          "set STATEHOUSE_TOKEN or --token-file; after `statehouse token create` the "
          "service needs kill -HUP";
      break;
  }
  return finding;
}

Finding CheckVersion(const std::string& client, const std::string& service) {
  Finding finding{.check = "version",
                  .found = "this program is " + client + ", the service " + service,
                  .why = "an older side does not know what the newer one added"};
  if (client == service) return finding;
  const bool other_major =
      client.substr(0, client.find('.')) != service.substr(0, service.find('.'));
  finding.verdict = other_major ? Verdict::kProblem : Verdict::kWarning;
  finding.fix = "install one release for both";
  return finding;
}

Finding CheckServing(const DoorAnswer& answer) {
  const v1::GetStatusResponse& status = answer.status;
  Finding finding{
      .check = "drain-state",
      .why = "a service that drains takes no new locks, sessions and watches, and ends"};
  if (answer.reason == SH_DRAINING || status.state() == v1::SERVING_STATE_DRAINING) {
    finding.verdict = Verdict::kProblem;
    finding.found = "the service is draining";
    finding.fix = "it was asked to stop: start its successor, or wait for it";
    return finding;
  }
  finding.found = "serving, daemon " + std::to_string(status.generation()) + " of its state";
  if (status.generation() > 1) {
    finding.found += ": it was restarted " + std::to_string(status.generation() - 1) + " times";
  }
  return finding;
}

Finding CheckMemory(const v1::GetStatusResponse& status) {
  Finding finding{.check = "memory",
                  .why = "at the limit nothing can be created or grow: MEMORY_EXHAUSTED"};
  const uint64_t limit = status.memory_limit_bytes();
  finding.found = FormatByteCount(status.memory_bytes()) + " in use, limit " +
                  (limit == 0 ? "none" : FormatByteCount(limit));
  if (limit == 0) return finding;
  const double share = static_cast<double>(status.memory_bytes()) / static_cast<double>(limit);
  if (share < kMemoryShareHigh) return finding;
  const bool full = status.memory_bytes() + kMemoryPartBytes > limit;
  finding.verdict = full ? Verdict::kProblem : Verdict::kWarning;
  finding.fix =
      "delete areas or dicts, or clear dicts (statehouse big shows the largest), or raise "
      "areas.memory_max";
  return finding;
}

Finding CheckClock(const ClockFacts& facts) {
  Finding finding{.check = "clock",
                  .why = "times of entries, tokens and certificates are by the service's clock"};
  const char* const fix = "keep both hosts' clocks by NTP";
  if (facts.service_minus_own_ns.has_value()) {
    char text[128];
    std::snprintf(text, sizeof text,
                  "the service's clock is %+.3f s from this one, measured to %.3f s",
                  static_cast<double>(*facts.service_minus_own_ns) / 1e9,
                  static_cast<double>(facts.error_ns) / 1e9);
    finding.found = text;
    const int64_t off = std::abs(*facts.service_minus_own_ns) - facts.error_ns;
    if (off > kClockDifferenceNs) {
      finding.verdict = Verdict::kWarning;
      finding.fix = fix;
    }
  } else if (facts.start_time_ns - facts.now_ns > kClockDifferenceNs) {
    finding.verdict = Verdict::kWarning;
    finding.found = "by this clock the service starts in the future: the clocks differ";
    finding.fix = fix;
  } else if (facts.same_host) {
    finding.found = "the service runs on this host, by the same clock";
  } else {
    finding.verdict = Verdict::kUnknown;
    finding.found = "not measured: the service tells its time only where something is made";
    finding.fix = "doctor --probe measures it with a dict of its own";
  }
  return finding;
}

bool MeasureClock(const DoorQuestion& question, ClockFacts* facts, std::string* refusal) {
  sh_options options = {};
  options.token = question.token.c_str();
  options.client_name = "statehouse-doctor";
  options.timeout_ms = question.timeout_ms;
  options.transport = question.transport;
  sh_client* connected = nullptr;
  sh_error* error = nullptr;
  const auto refuse = [&] {
    *refusal = sh_error_message(error);
    sh_error_free(error);
    return false;
  };
  if (sh_connect(question.url.c_str(), &options, &connected, &error) != SH_OK) return refuse();
  const Client client(connected);
  std::random_device random;
  const std::string name =
      "statehouse-doctor/" + std::to_string(getpid()) + "-" + std::to_string(random());
  sh_status status{};
  // The first call connects: its time is not measured.
  if (sh_get_status(client.get(), &status, &error) != SH_OK) return refuse();
  sh_dict_spec spec{};
  spec.exclusive = 1;
  sh_dict_info info{};
  const auto now = [] {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  const int64_t before = now();
  if (sh_dict_create(client.get(), name.c_str(), &spec, &info, nullptr, &error) != SH_OK) {
    return refuse();
  }
  const int64_t after = now();
  facts->error_ns = (after - before + 1) / 2;
  facts->service_minus_own_ns = info.create_time_ns - (before + facts->error_ns);
  if (sh_dict_delete(client.get(), name.c_str(), &error) != SH_OK) {
    *refusal = "dict \"" + name + "\" could not be deleted: " + sh_error_message(error);
    sh_error_free(error);
  }
  return true;
}

}  // namespace statehouse::cli
