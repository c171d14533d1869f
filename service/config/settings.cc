#include "service/config/settings.h"

#include <algorithm>
#include <charconv>
#include <type_traits>
#include <utility>

#include "service/config/jwt_settings.h"
#include "service/config/toml_text.h"

namespace statehouse {
namespace {

// The type that a field has in a SettingValue.
template <typename Field>
using Carried =
    std::conditional_t<std::is_integral_v<Field> && !std::is_same_v<Field, bool>, uint64_t, Field>;

std::string OutOfRange(uint64_t number, uint64_t low, uint64_t high) {
  if (number >= low && number <= high) return "";
  return std::to_string(number) + " is not within " + std::to_string(low) + " … " +
         std::to_string(high);
}

std::string RefuseChoice(const std::string& text, const std::vector<std::string>& choices) {
  std::string listed;
  for (const std::string& choice : choices) {
    if (text == choice) return "";
    listed.append(listed.empty() ? "" : ", ").append(choice);
  }
  return "\"" + text + "\" is none of " + listed;
}

std::string RefusePath(const std::string& path) {
  if (path.find('\0') != std::string::npos) return "the path holds a zero byte";
  return path.size() > 4000 ? "the path is longer than 4000 bytes" : "";
}

std::string Accept(const Config& config) { return ""; }

// One row. `field` is a lambda from Config& to the field.
#define SH_SETTING(key, flag, kind, field, help, refuse)                           \
  Setting {                                                                        \
    key, flag, SettingKind::kind, help,                                            \
        [](const Config& c) -> SettingValue {                                      \
          return static_cast<Carried<std::decay_t<decltype(c.field)>>>(c.field);   \
        },                                                                         \
        [](Config* c, SettingValue value) {                                        \
          using Type = std::decay_t<decltype(c->field)>;                           \
          c->field = static_cast<Type>(std::get<Carried<Type>>(std::move(value))); \
        },                                                                         \
        refuse                                                                     \
  }

std::vector<Setting> MakeSettings() {
  return {
      SH_SETTING(
          "runtime_dir", "--runtime-dir", kText, runtime_dir,
          "Folder (0700) of attach.sock and grpc.sock; empty: /run/statehouse for root, else "
          "$XDG_RUNTIME_DIR/statehouse or /tmp/statehouse-<uid>.",
          [](const Config& c) {
            // A unix socket's path has 107 bytes, of which "/attach.sock" takes 12.
            return c.runtime_dir.size() > 90 ? std::string(
                                                   "the path is longer than 90 bytes, "
                                                   "too long for a unix socket in it")
                                             : RefusePath(c.runtime_dir);
          }),
      SH_SETTING(
          "dev", "--dev", kBool, dev,
          "Development: a runtime folder of its own, free ports, a fresh admin token, hints.",
          Accept),
      SH_SETTING("keeper", "", kBool, keeper,
                 "Run a keeper process that holds the memory and restarts the daemon.", Accept),
      SH_SETTING("drain_grace_ms", "--drain-grace", kNumber, drain_grace_ms,
                 "Milliseconds that calls in flight may take when the service stops.",
                 [](const Config& c) { return OutOfRange(c.drain_grace_ms, 0, 3'600'000); }),
      SH_SETTING(
          "drain_linger_ms", "--drain-linger", kNumber, drain_linger_ms,
          "Milliseconds of drain_grace_ms, at most all of it, that a service that stops goes "
          "on serving plain calls, so that load balancers notice: /readyz is 503, health "
          "NOT_SERVING, new leases, sessions and watches are refused. With --dev 0 unless "
          "set.",
          [](const Config& c) { return OutOfRange(c.drain_linger_ms, 0, 3'600'000); }),
      SH_SETTING(
          "network.listen", "--listen", kTexts, network.listen,
          "Addresses of the network door; \"none\" as a flag, [] here: no TCP. Beyond loopback it "
          "needs TLS.",
          [](const Config& c) {
            if (c.network.listen.size() > 16) return std::string("more than 16 addresses");
            std::string why;
            for (const std::string& address : c.network.listen) {
              if (why.empty()) why = RefuseTcpAddress(address);
            }
            return why;
          }),
      SH_SETTING("network.allow_plaintext", "--allow-plaintext", kBool, network.allow_plaintext,
                 "Serve addresses beyond loopback without TLS: tokens and values are readable on "
                 "the way.",
                 Accept),
      SH_SETTING("network.message_bytes_max", "", kBytes, network.message_bytes_max,
                 "Largest request or response.",
                 [](const Config& c) {
                   return OutOfRange(c.network.message_bytes_max, 64 << 10, 1 << 30);
                 }),
      SH_SETTING(
          "network.keepalive_min_ping_s", "", kNumber, network.keepalive_min_ping_s,
          "Clients may ping an idle connection this often, in seconds.",
          [](const Config& c) { return OutOfRange(c.network.keepalive_min_ping_s, 1, 3600); }),
      SH_SETTING(
          "network.keepalive_s", "", kNumber, network.keepalive_s,
          "A connection from which nothing has come for so many seconds is pinged; 0: never. "
          "Waits and watches of a host that is gone end that way.",
          [](const Config& c) { return OutOfRange(c.network.keepalive_s, 0, 86'400); }),
      SH_SETTING(
          "network.keepalive_timeout_s", "", kNumber, network.keepalive_timeout_s,
          "Without an answer to that ping after so many seconds the connection is closed.",
          [](const Config& c) { return OutOfRange(c.network.keepalive_timeout_s, 1, 3600); }),
      SH_SETTING("network.idle_s", "", kNumber, network.idle_s,
                 "A connection without a call for so many seconds is closed; its client connects "
                 "again when it needs to. 0: never.",
                 [](const Config& c) { return OutOfRange(c.network.idle_s, 0, 604'800); }),
      SH_SETTING(
          "network.connections_max", "", kNumber, network.connections_max,
          "Open connections; a further one is closed at once.",
          [](const Config& c) { return OutOfRange(c.network.connections_max, 1, 1'000'000); }),
      SH_SETTING(
          "network.streams_per_connection_max", "", kNumber, network.streams_per_connection_max,
          "Calls of one connection that have not ended, waits and watches included; a client "
          "keeps further ones back.",
          [](const Config& c) {
            return OutOfRange(c.network.streams_per_connection_max, 100, 1'000'000);
          }),
      SH_SETTING("network.wasted_calls_per_second_max", "", kNumber,
                 network.wasted_calls_per_second_max,
                 "Calls of one host that are refused for their access token, taken back before "
                 "they are answered, or without a request; beyond it the connection that they "
                 "come by is read later. 0: no limit, also for new connections.",
                 [](const Config& c) {
                   return OutOfRange(c.network.wasted_calls_per_second_max, 0, 1'000'000);
                 }),
      SH_SETTING("network.raise_priority", "", kBool, network.raise_priority,
                 "The door's two threads ask for a larger share of busy processors (nice -10), so "
                 "that they serve beside processes that always run; where the kernel allows it, "
                 "and not where the service was started with a niceness of its own.",
                 Accept),
      SH_SETTING("tls.certificate_file", "--tls-certificate", kText, tls.certificate_file,
                 "PEM file of the service's certificate and those above it; set: TLS on every TCP "
                 "address. Read again when it changes.",
                 [](const Config& c) { return RefusePath(c.tls.certificate_file); }),
      SH_SETTING("tls.key_file", "--tls-key", kText, tls.key_file,
                 "PEM file of the certificate's private key.",
                 [](const Config& c) { return RefusePath(c.tls.key_file); }),
      SH_SETTING("tls.client_ca_file", "--tls-client-ca", kText, tls.client_ca_file,
                 "PEM file of the authorities whose client certificates are accepted; set: mutual "
                 "TLS, a client without one is refused.",
                 [](const Config& c) { return RefusePath(c.tls.client_ca_file); }),
      SH_SETTING("attach.leases_per_process_max", "", kNumber, attach.leases_per_process_max,
                 "Leases of lanes (one for each attached client) that one process may hold.",
                 [](const Config& c) {
                   return OutOfRange(c.attach.leases_per_process_max, 1, kLaneBlocksMax - 1);
                 }),
      SH_SETTING(
          "http.listen", "--http-listen", kText, http.listen,
          "Address of /metrics, /healthz and /readyz; empty (flag: none): off. Beyond loopback it "
          "needs http.allow_remote.",
          [](const Config& c) {
            if (c.http.listen.empty()) return std::string();
            return c.http.allow_remote ? RefuseTcpAddress(c.http.listen)
                                       : RefuseListenAddress(c.http.listen);
          }),
      SH_SETTING(
          "http.allow_remote", "", kBool, http.allow_remote,
          "Serve http.listen beyond loopback, for a Prometheus or a prober of another host: "
          "whoever reaches it reads rates and sizes, without a token and without TLS; no "
          "names of objects, no keys, no values; it can also keep others from being answered.",
          Accept),
      SH_SETTING("auth.tokens_file", "--tokens-file", kText, auth.tokens_file,
                 "Access tokens; empty: tokens.toml in the runtime folder.",
                 [](const Config& c) { return RefusePath(c.auth.tokens_file); }),
      SH_SETTING(
          "auth.failures_per_minute_max", "", kNumber, auth.failures_per_minute_max,
          "Failed authentications of one peer in a minute, then RATE_LIMITED; 0: no limit.",
          [](const Config& c) { return OutOfRange(c.auth.failures_per_minute_max, 0, 1'000'000); }),
      SH_SETTING("auth.calls_per_second_max", "", kNumber, auth.calls_per_second_max,
                 "Calls, and operations of batches, that a token may make in a second, then "
                 "RATE_LIMITED, unless its entry says otherwise; 0: no limit.",
                 [](const Config& c) {
                   return OutOfRange(c.auth.calls_per_second_max, 0, kCallsPerSecondMax);
                 }),
      SH_SETTING(
          "auth.calls_at_once_max", "", kNumber, auth.calls_at_once_max,
          "Calls of a token that may run or wait at once, then RATE_LIMITED, unless its "
          "entry says otherwise; 0: no limit.",
          [](const Config& c) { return OutOfRange(c.auth.calls_at_once_max, 0, kCallsAtOnceMax); }),
      SH_SETTING("auth.jwt_key_file", "", kText, auth.jwt_key_file,
                 "Keys that sign JSON Web Tokens: PEM public keys, or one secret; set: such tokens "
                 "are taken, too. Read again by SIGHUP.",
                 [](const Config& c) { return RefusePath(c.auth.jwt_key_file); }),
      SH_SETTING("auth.jwt_algorithm", "", kText, auth.jwt_algorithm,
                 "How they are signed, and no other way: HS, RS or ES with 256, 384 or 512.",
                 [](const Config& c) {
                   const std::string& name = c.auth.jwt_algorithm;
                   return name.empty() || IsJwtAlgorithm(name)
                              ? std::string()
                              : "\"" + name + "\" is none of HS256, RS256, ES256 and so on";
                 }),
      SH_SETTING("auth.jwt_issuer", "", kText, auth.jwt_issuer,
                 "What their claim iss must be; empty: anything.", Accept),
      SH_SETTING("auth.jwt_audience", "", kText, auth.jwt_audience,
                 "What their claim aud must be, or hold.", Accept),
      SH_SETTING("auth.jwt_lifetime_s_max", "", kNumber, auth.jwt_lifetime_s_max,
                 "One that ends in more seconds than this is refused: nobody can take it back.",
                 [](const Config& c) {
                   return OutOfRange(c.auth.jwt_lifetime_s_max, 1, kJwtLifetimeSMax);
                 }),
      SH_SETTING("areas.count_max", "", kNumber, areas.count_max, "Areas that may exist at once.",
                 [](const Config& c) { return OutOfRange(c.areas.count_max, 1, kAreasMax); }),
      SH_SETTING("areas.size_max", "", kBytes, areas.size_max, "Largest area.",
                 [](const Config& c) { return OutOfRange(c.areas.size_max, 1, kAreaBytesMax); }),
      SH_SETTING("areas.memory_max", "--memory-max", kBytes, areas.memory_max,
                 "Memory of all areas and dicts together; 0: no limit.", Accept),
      SH_SETTING("areas.atomic_range_bytes", "", kBytes, areas.atomic_range_bytes,
                 "Largest range that is written atomically: a power of two.",
                 [](const Config& c) {
                   const uint64_t bytes = c.areas.atomic_range_bytes;
                   std::string why = OutOfRange(bytes, kPageBytes, kAtomicRangeBytesMax);
                   if (why.empty() && (bytes & (bytes - 1)) != 0) {
                     why = std::to_string(bytes) + " is no power of two";
                   }
                   return why;
                 }),
      SH_SETTING(
          "areas.file_root", "--areas-file-root", kText, areas.file_root,
          "File-backed areas must lie below this folder; empty: none may be created by a call.",
          [](const Config& c) { return RefusePath(c.areas.file_root); }),
      SH_SETTING(
          "areas.operation_timeout_ms", "", kNumber, areas.operation_timeout_ms,
          "How long an operation tries bytes that another worker holds, then STALLED.",
          [](const Config& c) { return OutOfRange(c.areas.operation_timeout_ms, 1, 600'000); }),
      SH_SETTING("dicts.count_max", "", kNumber, dicts.count_max, "Dicts that may exist at once.",
                 [](const Config& c) { return OutOfRange(c.dicts.count_max, 1, kDictsMax); }),
      SH_SETTING(
          "dicts.size_max", "", kBytes, dicts.size_max, "Largest max_bytes that a dict may have.",
          [](const Config& c) { return OutOfRange(c.dicts.size_max, 65'536, kDictBytesMax); }),
      SH_SETTING("watches.count_max", "", kNumber, watches.count_max,
                 "Watches of dicts that may be open at once, and as many of areas.",
                 [](const Config& c) { return OutOfRange(c.watches.count_max, 1, kWatchesMax); }),
      SH_SETTING("watches.history_bytes", "", kBytes, watches.history_bytes,
                 "History of each dict that is watched: how far a watcher may fall behind.",
                 [](const Config& c) {
                   return OutOfRange(c.watches.history_bytes, kFeedLogBytesMin, kFeedLogBytesMax);
                 }),
      SH_SETTING("watches.history_s", "", kNumber, watches.history_s,
                 "Changes that are older are given up, in seconds.",
                 [](const Config& c) { return OutOfRange(c.watches.history_s, 1, 604'800); }),
      SH_SETTING("watches.keep_s", "", kNumber, watches.keep_s,
                 "After its last watch a dict's changes are kept for so many seconds.",
                 [](const Config& c) { return OutOfRange(c.watches.keep_s, 0, 604'800); }),
      SH_SETTING(
          "watches.copy_bytes", "", kBytes, watches.copy_bytes,
          "Copies of watched ranges of areas; what does not fit is told by whole stripes.",
          [](const Config& c) { return OutOfRange(c.watches.copy_bytes, 0, kAreaCopyBytesMax); }),
      SH_SETTING("watches.previous_bytes", "", kBytes, watches.previous_bytes,
                 "Previous values for watches that ask for them; others are told as gone.",
                 [](const Config& c) {
                   return OutOfRange(c.watches.previous_bytes, 0, kPreviousBytesMax);
                 }),
      SH_SETTING("watches.poll_us", "", kNumber, watches.poll_us,
                 "Microseconds to look for the next change after one; 0: sleep at once.",
                 [](const Config& c) { return OutOfRange(c.watches.poll_us, 0, kWatchPollUsMax); }),
      SH_SETTING("sessions.count_max", "", kNumber, sessions.count_max,
                 "Sessions of clients of the network door that may be open at once.",
                 [](const Config& c) { return OutOfRange(c.sessions.count_max, 1, kSessionsMax); }),
      SH_SETTING("log.format", "--log-format", kText, log_format,
                 "auto (text on a terminal, else json), text or json.",
                 [](const Config& c) {
                   return RefuseChoice(c.log_format, {"auto", "text", "json"});
                 }),
      SH_SETTING("log.level", "--log-level", kText, log_level, "trace, debug, info, warn or error.",
                 [](const Config& c) {
                   return RefuseChoice(c.log_level, {"trace", "debug", "info", "warn", "error"});
                 }),
      SH_SETTING("log.slow_call_ms", "", kNumber, slow_call_ms,
                 "A call that takes so many milliseconds is logged, unless it waits by its nature; "
                 "0: none is.",
                 [](const Config& c) { return OutOfRange(c.slow_call_ms, 0, 3'600'000); }),
      SH_SETTING("log.audit", "", kBool, audit,
                 "Calls that make, empty or remove objects, take locks from others or drain are "
                 "logged, with their token's id.",
                 Accept),
  };
}

#undef SH_SETTING

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

bool IsPort(std::string_view text) {
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port <= 65'535;
}

// "127.x.y.z" with numbers of 0 … 255.
bool IsLoopbackV4(std::string_view host) {
  int parts = 0;
  uint32_t first = 0;
  for (;;) {
    const size_t dot = host.find('.');
    const std::string_view text = host.substr(0, dot);
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number > 255) return false;
    if (parts++ == 0) first = number;
    if (dot == std::string_view::npos) return parts == 4 && first == 127;
    host.remove_prefix(dot + 1);
  }
}

}  // namespace

const std::vector<Setting>& Settings() {
  static const std::vector<Setting>* const kSettings = new std::vector<Setting>(MakeSettings());
  return *kSettings;
}

const Setting* FindSetting(std::string_view key) {
  for (const Setting& setting : Settings()) {
    if (setting.key == key) return &setting;
  }
  return nullptr;
}

StatusOr<uint64_t> ParseBytes(std::string_view text) {
  const Status refused(Reason::kConfigInvalid,
                       "\"" + std::string(text.substr(0, 64)) +
                           "\" is no number of bytes; write 1048576, 64K, 64M, 1G or 1GiB");
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return refused;
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  static constexpr std::string_view kUnits = "KMGT";
  if (unit.empty() || unit == "B") return number;
  const size_t power = kUnits.find(unit.front());
  const std::string_view rest = unit.substr(1);
  if (power == std::string_view::npos || (!rest.empty() && rest != "B" && rest != "iB")) {
    return refused;
  }
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (number > UINT64_MAX >> shift) return refused;
  return number << shift;
}

StatusOr<SettingValue> ParseSettingText(const Setting& setting, std::string_view text) {
  const auto refuse = [text](std::string_view expected) {
    return Status(Reason::kConfigInvalid,
                  "\"" + std::string(text.substr(0, 64)) + "\" is no " + std::string(expected));
  };
  switch (setting.kind) {
    case SettingKind::kText:
      if (setting.key == "http.listen" && text == "none") return SettingValue(std::string());
      return SettingValue(std::string(text));
    case SettingKind::kBool:
      if (text == "true" || text == "1") return SettingValue(true);
      if (text == "false" || text == "0") return SettingValue(false);
      return refuse("true or false");
    case SettingKind::kNumber: {
      uint64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size()) return refuse("whole number");
      return SettingValue(number);
    }
    case SettingKind::kBytes: {
      SH_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(text));
      return SettingValue(bytes);
    }
    case SettingKind::kTexts: {
      std::vector<std::string> texts;
      while (!text.empty() && text != "none") {
        const size_t comma = text.find(',');
        texts.emplace_back(text.substr(0, comma));
        if (comma == std::string_view::npos) break;
        text.remove_prefix(comma + 1);
      }
      return SettingValue(std::move(texts));
    }
  }
  return refuse("known kind of value");
}

Status ApplySetting(const Setting& setting, SettingValue value, const std::string& where,
                    Config* config) {
  // Checked before it is narrowed: 2^32 + 1 must not pass for 1.
  if (const uint64_t* number = std::get_if<uint64_t>(&value);
      number != nullptr && setting.kind == SettingKind::kNumber && *number > UINT32_MAX) {
    return Status(Reason::kConfigInvalid, where + ": " + std::string(setting.key) + ": " +
                                              std::to_string(*number) + " is beyond every limit");
  }
  setting.put(config, std::move(value));
  const std::string why = setting.refuse(*config);
  if (why.empty()) return Status();
  return Status(Reason::kConfigInvalid, where + ": " + std::string(setting.key) + ": " + why);
}

std::string FormatSetting(const SettingValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return QuoteToml(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<uint64_t>(&value)) return std::to_string(*number);
  std::string list = "[";
  for (const std::string& text : std::get<std::vector<std::string>>(value)) {
    list.append(list.size() > 1 ? ", " : "").append(QuoteToml(text));
  }
  return list.append("]");
}

std::string VariableName(std::string_view key) {
  std::string name = "STATEHOUSED_";
  for (const char c : key) {
    if (c == '.') {
      name.append("__");
    } else {
      name.append(1, c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
    }
  }
  return name;
}

std::string DidYouMean(std::string_view given, const std::vector<std::string>& known) {
  given = given.substr(0, 100);
  const std::string* nearest = nullptr;
  size_t distance = std::max<size_t>(2, given.size() / 3) + 1;  // Farther is no help.
  for (const std::string& name : known) {
    const size_t to = EditDistance(given, name);
    if (to >= distance) continue;
    distance = to;
    nearest = &name;
  }
  return nearest == nullptr ? "" : "; did you mean \"" + *nearest + "\"?";
}

std::string RefuseTcpAddress(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string_view::npos && colon > 0 && IsPort(address.substr(colon + 1))) return "";
  return "\"" + std::string(address.substr(0, 100)) +
         "\" is no address; write \"127.0.0.1:7700\", \"0.0.0.0:7700\" or \"[::1]:7700\"";
}

bool IsLoopbackAddress(std::string_view address) {
  const std::string_view host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host == "[::1]" || IsLoopbackV4(host);
}

std::string RefuseListenAddress(std::string_view address) {
  std::string why = RefuseTcpAddress(address);
  if (!why.empty() || IsLoopbackAddress(address)) return why;
  return "\"" + std::string(address.substr(0, 100)) +
         "\" is no loopback address: it is served on 127.0.0.0/8, [::1] and localhost only, unless "
         "http.allow_remote is set";
}

}  // namespace statehouse
