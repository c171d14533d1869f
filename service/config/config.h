// Config: everything an operator can set, from flags > environment > TOML file > defaults.
//
// Environment: STATEHOUSED_<SECTION>__<KEY>, for example STATEHOUSED_NETWORK__LISTEN. File:
// --config PATH. An unknown key, flag or STATEHOUSED_ variable is refused with the line and the
// nearest known name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/base/watch_limits.h"

namespace statehouse {

// [[area]]: an area that exists as soon as the service runs.
struct AreaConfig {
  std::string name;
  uint64_t size = 0;   // Bytes; or
  uint64_t pages = 0;  // pages of 4,096 bytes.
  std::string file;    // Backed by this file …
  int fd = -1;         // … or by this inherited descriptor.
  uint64_t offset = 0;

  friend bool operator==(const AreaConfig&, const AreaConfig&) = default;
};

struct Config {
  // Empty until resolved: /run/statehouse for root, else $XDG_RUNTIME_DIR/statehouse, else
  // /tmp/statehouse-<uid>.
  std::string runtime_dir;  // --runtime-dir: folder (0700) of attach.sock and grpc.sock.
  bool dev = false;         // --dev: own runtime dir, ports 0, a fresh admin token, hints printed.
  bool keeper = true;       // --no-keeper: the service manager holds the memory, or nobody.

  struct Network {
    std::vector<std::string> listen = {
        "127.0.0.1:7700"};         // --listen, repeatable; empty list: no TCP.
    bool allow_plaintext = false;  // --allow-plaintext: beyond loopback without TLS.
    uint64_t message_bytes_max = kMessageBytesMax;
    uint32_t keepalive_min_ping_s = 5;  // Clients may ping an idle connection this often.
    uint32_t keepalive_s = 120;         // A silent client is asked whether it is there; 0: never.
    uint32_t keepalive_timeout_s = 20;  // It has so long to say so.
    uint32_t idle_s = 3600;             // A connection without a call ends; 0: never.
    uint32_t connections_max = 20'000;
    uint32_t streams_per_connection_max = 65'536;  // Calls that have not ended.
    uint32_t wasted_calls_per_second_max = 200;    // Of a host; 0: no limit.
    bool raise_priority = true;                    // Of the door's two threads, where allowed.

    friend bool operator==(const Network&, const Network&) = default;
  } network;

  // Of every TCP listener of the network door; unix sockets go without.
  struct Tls {
    std::string certificate_file;  // --tls-certificate: PEM, the chain from the own one upwards.
    std::string key_file;          // --tls-key: PEM.
    std::string client_ca_file;    // --tls-client-ca: mutual; PEM of those who sign clients.

    bool enabled() const { return !certificate_file.empty(); }
    friend bool operator==(const Tls&, const Tls&) = default;
  } tls;

  struct Attach {
    uint32_t leases_per_process_max = 16;  // Lane blocks that one worker process may hold.

    friend bool operator==(const Attach&, const Attach&) = default;
  } attach;

  struct Http {
    std::string listen = "127.0.0.1:7701";  // --http-listen; empty: off.
    bool allow_remote = false;              // Beyond loopback, where anybody may read it.

    friend bool operator==(const Http&, const Http&) = default;
  } http;

  struct Auth {
    std::string tokens_file;                // --tokens-file; default <runtime_dir>/tokens.toml.
    uint32_t failures_per_minute_max = 60;  // For one peer; then RATE_LIMITED.
    // Of one token whose entry in the file says nothing else; then RATE_LIMITED. 0: no limit.
    uint32_t calls_per_second_max = 0;
    uint32_t calls_at_once_max = 0;
    // JSON Web Tokens of another service, beside those of the file; no key file: none are taken.
    std::string jwt_key_file;
    std::string jwt_algorithm;
    std::string jwt_issuer;    // Empty: any.
    std::string jwt_audience;  // Set with jwt_key_file.
    uint32_t jwt_lifetime_s_max = 86'400;

    friend bool operator==(const Auth&, const Auth&) = default;
  } auth;

  struct Areas {
    uint32_t count_max = kAreasMax;
    uint64_t size_max = kAreaBytesMax;
    uint64_t memory_max = 0;  // All areas and dicts together; 0: no limit.
    uint64_t atomic_range_bytes = kAtomicRangeBytesDefault;
    std::string
        file_root;  // File-backed areas must lie below it; empty: none are allowed over RPC.
    uint64_t operation_timeout_ms = 1000;

    friend bool operator==(const Areas&, const Areas&) = default;
  } areas;

  struct Dicts {
    uint32_t count_max = kDictsMax;
    uint64_t size_max = kDictBytesMax;  // The largest max_bytes of one dict.

    friend bool operator==(const Dicts&, const Dicts&) = default;
  } dicts;

  struct Watches {
    uint32_t count_max = kWatchesMax;
    uint64_t history_bytes = kFeedLogBytesDefault;  // Of each dict that is watched.
    uint64_t history_s = 600;                       // Older changes are given up.
    uint64_t keep_s = 60;  // After its last watch a dict is followed for so long.
    uint64_t copy_bytes = kAreaCopyBytesDefault;      // Of watched ranges of areas, all together.
    uint64_t previous_bytes = kPreviousBytesDefault;  // Of all watches that ask for them.
    uint64_t poll_us = 0;  // Behind a change the next one is looked for so long without sleeping.

    friend bool operator==(const Watches&, const Watches&) = default;
  } watches;

  struct Sessions {
    uint32_t count_max = kSessionsMax;

    friend bool operator==(const Sessions&, const Sessions&) = default;
  } sessions;

  uint64_t drain_grace_ms = 10'000;
  // Of the grace; 0 with `dev`, unless told: nobody balances load over it.
  uint64_t drain_linger_ms = 500;
  std::string log_format = "auto";         // auto | text | json
  std::string log_level = "info";          // trace | debug | info | warn | error
  uint32_t slow_call_ms = 1000;            // A call that takes longer is logged; 0: none is.
  bool audit = true;                       // Calls that make or remove objects are logged.
  std::vector<AreaConfig> declared_areas;  // [[area]]

  // Where each value came from: "network.listen" -> "flag --listen", "file x.toml:12", "environment
  // STATEHOUSED_…", "default".
  std::map<std::string, std::string> origins;

  friend bool operator==(const Config&, const Config&) = default;
};

// Parses and validates. On failure CONFIG_INVALID with file:line, flag or variable in the message.
// `argv` excludes the program's name. `environment` holds the process environment. With `dev`,
// listen addresses that nobody set become port 0.
StatusOr<Config> LoadConfig(const std::vector<std::string>& argv,
                            const std::map<std::string, std::string>& environment);

// The TOML text alone, for tests and fuzzing: applies on top of `base`.
StatusOr<Config> ParseConfigToml(std::string_view text, std::string_view file_name, Config base);

// One difference between two configurations.
struct ConfigChange {
  std::string key;     // "log.level", or "[[area]]".
  std::string before;  // As TOML; empty for [[area]].
  std::string after;
  bool is_reloadable = false;  // It counts after a reload; all else takes a restart.
};
std::vector<ConfigChange> CompareConfigs(const Config& before, const Config& after);

// The flags and variables, with examples, for --help.
std::string ConfigHelp();

// The default configuration as commented TOML (`statehoused config default`), and the effective one
// with origins.
std::string DefaultConfigToml();
std::string DescribeConfig(const Config& config);

}  // namespace statehouse
