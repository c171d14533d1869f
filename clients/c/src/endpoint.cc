#include "clients/c/src/endpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

#include "engine/base/limits.h"

namespace statehouse {
namespace {

constexpr std::string_view kUnixScheme = "statehouse+unix://";
constexpr std::string_view kTcpScheme = "statehouse://";
constexpr std::string_view kTlsScheme = "statehouse+tls://";
constexpr std::string_view kDefaultPort = "7700";
constexpr std::string_view kDefaultTcp = "127.0.0.1:7700";
constexpr std::chrono::hours kTimeoutMax{24};
constexpr size_t kPemBytesMax = 1 << 20;

struct ParsedUrl {
  bool is_unix = false;
  bool is_tls = false;
  std::string location;  // Folder, or host:port.
  std::optional<TransportChoice> transport;
  std::optional<std::chrono::nanoseconds> timeout;
  std::optional<std::string> ca_file;
  std::optional<std::string> certificate_file;
  std::optional<std::string> key_file;
};

Status Invalid(std::string message) { return Status(Reason::kInvalidArgument, std::move(message)); }

// A URL as errors show it: without what stands before an '@', which may be somebody's password.
std::string Shown(std::string_view url) {
  const size_t at = url.rfind('@');
  if (at == std::string_view::npos) return std::string(url);
  std::string shown;
  for (const std::string_view scheme : {kUnixScheme, kTcpScheme, kTlsScheme}) {
    if (url.starts_with(scheme)) shown = scheme;
  }
  return shown.append("***").append(url.substr(at));
}

StatusOr<std::string> PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded.push_back(text[i]);
      continue;
    }
    uint8_t byte = 0;
    const char* const begin = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(begin, begin + 2, byte, 16).ptr != begin + 2 ||
        byte == 0) {
      return Invalid("URL part \"" + std::string(text) +
                     "\" has a '%' that two hexadecimal digits (not 00) do not follow");
    }
    decoded.push_back(static_cast<char>(byte));
    i += 2;
  }
  return decoded;
}

StatusOr<TransportChoice> ParseTransport(std::string_view text) {
  if (text == "auto") return TransportChoice::kAuto;
  if (text == "local") return TransportChoice::kLocal;
  if (text == "socket") return TransportChoice::kSocket;
  if (text == "network") return TransportChoice::kNetwork;
  return Invalid("transport \"" + std::string(text) +
                 "\" is none of auto, local, socket and network");
}

Status ParseQuery(std::string_view query, ParsedUrl* parsed) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const size_t equals = pair.find('=');
    const std::string_view key = pair.substr(0, equals);
    const std::string value(equals == std::string_view::npos ? "" : pair.substr(equals + 1));
    if (key == "transport") {
      SH_ASSIGN_OR_RETURN(parsed->transport, ParseTransport(value));
    } else if (key == "timeout") {
      SH_ASSIGN_OR_RETURN(parsed->timeout, ParseDuration(value));
    } else if (key == "ca_file") {
      SH_ASSIGN_OR_RETURN(parsed->ca_file, PercentDecode(value));
    } else if (key == "certificate_file") {
      SH_ASSIGN_OR_RETURN(parsed->certificate_file, PercentDecode(value));
    } else if (key == "key_file") {
      SH_ASSIGN_OR_RETURN(parsed->key_file, PercentDecode(value));
    } else {
      return Invalid("URL query key \"" + std::string(key) +
                     "\" is unknown; known are transport, timeout, and for TLS ca_file, "
                     "certificate_file and key_file");
    }
  }
  return Status();
}

// "host", "host:port", "[::1]" or "[::1]:port", with the default port filled in.
StatusOr<std::string> ParseHostAndPort(std::string_view text) {
  const auto bad = [&] {
    return Invalid("\"" + std::string(text) +
                   "\" is no host[:port]; write for example statehouse://127.0.0.1:7700 or "
                   "statehouse://[::1]:7700");
  };
  size_t host_end = text.find(':');
  if (text.starts_with('[')) {
    const size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) return bad();
    host_end = bracket + 1 < text.size() ? bracket + 1 : std::string_view::npos;
  }
  const std::string host(text.substr(0, host_end));
  if (host.empty() || host.find_first_of("/@ ") != std::string::npos) return bad();
  if (host_end == std::string_view::npos) return host + ":" + std::string(kDefaultPort);
  const std::string_view port = text.substr(host_end + 1);
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (text[host_end] != ':' || error != std::errc() || end != port.data() + port.size() ||
      number == 0) {
    return bad();
  }
  return std::string(text);
}

StatusOr<ParsedUrl> ParseParts(const std::string& url) {
  ParsedUrl parsed;
  std::string_view rest = url;
  if (rest.starts_with(kUnixScheme)) {
    parsed.is_unix = true;
    rest.remove_prefix(kUnixScheme.size());
  } else if (rest.starts_with(kTlsScheme)) {
    parsed.is_tls = true;
    rest.remove_prefix(kTlsScheme.size());
  } else if (rest.starts_with(kTcpScheme)) {
    rest.remove_prefix(kTcpScheme.size());
  } else {
    return Invalid("URL \"" + url +
                   "\" begins with none of statehouse+unix:// (runtime dir), statehouse:// "
                   "(host:port) and statehouse+tls:// (host:port)");
  }
  const size_t question = rest.find('?');
  if (question != std::string_view::npos) {
    SH_RETURN_IF_ERROR(ParseQuery(rest.substr(question + 1), &parsed));
    rest = rest.substr(0, question);
  }
  if (parsed.is_unix) {
    SH_ASSIGN_OR_RETURN(parsed.location, PercentDecode(rest));
    if (!parsed.location.starts_with('/')) {
      return Invalid("URL \"" + url +
                     "\" needs the runtime dir as an absolute path: "
                     "statehouse+unix:///run/statehouse");
    }
  } else {
    if (rest.ends_with('/')) rest.remove_suffix(1);
    SH_ASSIGN_OR_RETURN(parsed.location, ParseHostAndPort(rest));
  }
  const bool has_files = parsed.ca_file || parsed.certificate_file || parsed.key_file;
  if (has_files && !parsed.is_tls) {
    return Invalid("URL \"" + url + "\" has files of TLS, so it begins with statehouse+tls://");
  }
  return parsed;
}

StatusOr<ParsedUrl> ParseUrl(const std::string& url) {
  StatusOr<ParsedUrl> parsed = ParseParts(url);
  if (parsed.ok() || url.find('@') == std::string::npos) return parsed;
  // Whatever is wrong with it, saying it would show a part.
  return Invalid(
      "URL \"" + Shown(url) +
      "\" is malformed (what stands before the '@' is not shown). A URL names no user and "
      "no password: give the access token by the option token, STATEHOUSE_TOKEN or "
      "STATEHOUSE_TOKEN_FILE");
}

// A PEM file by the URL or else the environment; empty where neither names one.
StatusOr<std::string> ReadPem(const std::optional<std::string>& path, const char* variable,
                              const Environment& environment) {
  const char* const set = environment(variable);
  if (!path && set == nullptr) return std::string();
  const std::string name = path ? *path : set;
  std::ifstream file(name, std::ios::binary);
  std::string text(kPemBytesMax + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file && !file.eof()) {
    return Invalid("the TLS file \"" + name + "\" cannot be read; check its path and permissions");
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kPemBytesMax || text.find("-----BEGIN ") == std::string::npos) {
    return Invalid("the TLS file \"" + name + "\" is not in PEM form, or larger than 1 MiB");
  }
  return text;
}

StatusOr<TlsIdentity> ReadTls(const ParsedUrl& parsed, const Environment& environment) {
  TlsIdentity tls;
  if (!parsed.is_tls) return tls;
  tls.enabled = true;
  SH_ASSIGN_OR_RETURN(tls.authorities,
                      ReadPem(parsed.ca_file, "STATEHOUSE_TLS_CA_FILE", environment));
  SH_ASSIGN_OR_RETURN(tls.certificate, ReadPem(parsed.certificate_file,
                                               "STATEHOUSE_TLS_CERTIFICATE_FILE", environment));
  SH_ASSIGN_OR_RETURN(tls.key, ReadPem(parsed.key_file, "STATEHOUSE_TLS_KEY_FILE", environment));
  if (tls.certificate.empty() != tls.key.empty()) {
    return Invalid("TLS: a client's certificate and its key are given together");
  }
  return tls;
}

StatusOr<std::string> ReadTokenFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string token(kTokenBytesMax + 2, '\0');
  if (file) file.read(token.data(), static_cast<std::streamsize>(token.size()));
  if (!file && !file.eof()) {
    return Invalid("the access token file \"" + path +
                   "\" cannot be read; check its path and permissions");
  }
  token.resize(static_cast<size_t>(file.gcount()));
  const size_t first = token.find_first_not_of(" \t\r\n");
  const size_t last = token.find_last_not_of(" \t\r\n");
  if (first == std::string::npos) return Invalid("the access token file \"" + path + "\" is empty");
  return token.substr(first, last - first + 1);
}

StatusOr<std::string> ResolveToken(const ConnectArguments& arguments,
                                   const Environment& environment) {
  if (arguments.token) return *arguments.token;
  if (arguments.token_file) return ReadTokenFile(*arguments.token_file);
  if (const char* token = environment("STATEHOUSE_TOKEN")) return std::string(token);
  if (const char* path = environment("STATEHOUSE_TOKEN_FILE")) return ReadTokenFile(path);
  return std::string();
}

bool Exists(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0;
}

// The folder that statehoused chooses by itself for this user.
StatusOr<std::string> DefaultRuntimeDir(const Environment& environment) {
  if (::geteuid() == 0) return std::string("/run/statehouse");
  const char* const xdg = environment("XDG_RUNTIME_DIR");
  if (xdg != nullptr && xdg[0] == '/') return std::string(xdg) + "/statehouse";
  const std::string dir = "/tmp/statehouse-" + std::to_string(::geteuid());
  struct stat facts {};
  // Anybody may make folders in /tmp: one that somebody else owns is not our service's.
  if (::lstat(dir.c_str(), &facts) == 0 && facts.st_uid != ::geteuid() && facts.st_uid != 0) {
    return Status(Reason::kPermissionDenied,
                  "the default runtime dir " + dir +
                      " belongs to another user; name the service by URL (STATEHOUSE_URL)");
  }
  return dir;
}

// Which door, once everything is known. `fallback_tcp` is the target when no socket of a service is
// there, or empty.
Status ChooseDoor(TransportChoice choice, const std::string& fallback_tcp, Endpoint* endpoint) {
  if (endpoint->runtime_dir.empty()) {
    const bool needs_host = choice == TransportChoice::kLocal || choice == TransportChoice::kSocket;
    if (!needs_host) return Status();
    return Invalid(std::string("transport=") +
                   (choice == TransportChoice::kLocal ? "local" : "socket") +
                   " needs a service of this host: statehouse+unix://<runtime dir>");
  }
  const bool attach = Exists(endpoint->runtime_dir + "/attach.sock");
  const std::string grpc_socket = endpoint->runtime_dir + "/grpc.sock";
  const bool grpc = Exists(grpc_socket);
  endpoint->grpc_target = "unix:" + grpc_socket;
  endpoint->chosen = choice != TransportChoice::kAuto;
  if (choice == TransportChoice::kLocal) {
    endpoint->local = true;
  } else if (choice == TransportChoice::kSocket) {
    endpoint->socket = true;
  } else if (!fallback_tcp.empty() && !grpc && (choice == TransportChoice::kNetwork || !attach)) {
    endpoint->grpc_target = fallback_tcp;
  } else if (choice == TransportChoice::kAuto) {
    endpoint->local = attach || !grpc;
  }
  return Status();
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const char* name) -> const char* { return std::getenv(name); };
}

StatusOr<std::chrono::nanoseconds> ParseDuration(const std::string& text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [unit_begin, error] = std::from_chars(text.data(), end, number);
  const std::string_view unit(unit_begin, static_cast<size_t>(end - unit_begin));
  double seconds = -1;
  if (unit.empty() || unit == "s") seconds = number;
  if (unit == "ms") seconds = number / 1e3;
  if (unit == "us") seconds = number / 1e6;
  if (unit == "m") seconds = number * 60;
  if (error != std::errc() || !std::isfinite(seconds) || seconds < 0 ||
      seconds > static_cast<double>(std::chrono::seconds(kTimeoutMax).count())) {
    return Invalid("\"" + text + "\" is no duration between 0 and 24 h; write 2s, 150ms or 0.5");
  }
  return std::chrono::nanoseconds(std::llround(seconds * 1e9));
}

StatusOr<Endpoint> ResolveEndpoint(const ConnectArguments& arguments,
                                   const Environment& environment) {
  Endpoint endpoint;
  std::optional<std::string> url = arguments.url;
  if (const char* value = environment("STATEHOUSE_URL"); !url && value != nullptr) url = value;
  ParsedUrl parsed;
  std::string fallback_tcp;
  if (url) {
    SH_ASSIGN_OR_RETURN(parsed, ParseUrl(*url));
    if (parsed.is_unix) {
      endpoint.runtime_dir = parsed.location;
    } else {
      endpoint.grpc_target = parsed.location;
    }
  } else {
    SH_ASSIGN_OR_RETURN(endpoint.runtime_dir, DefaultRuntimeDir(environment));
    fallback_tcp = kDefaultTcp;
  }
  TransportChoice choice = arguments.transport.value_or(TransportChoice::kAuto);
  if (choice == TransportChoice::kAuto) choice = parsed.transport.value_or(TransportChoice::kAuto);
  SH_RETURN_IF_ERROR(ChooseDoor(choice, fallback_tcp, &endpoint));
  if (parsed.timeout) endpoint.timeout = *parsed.timeout;
  if (arguments.timeout) endpoint.timeout = *arguments.timeout;
  if (endpoint.timeout < endpoint.timeout.zero() || endpoint.timeout > kTimeoutMax) {
    return Invalid("the timeout must lie between 0 and 24 h");
  }
  SH_ASSIGN_OR_RETURN(endpoint.token, ResolveToken(arguments, environment));
  SH_ASSIGN_OR_RETURN(endpoint.tls, ReadTls(parsed, environment));
  return endpoint;
}

}  // namespace statehouse
