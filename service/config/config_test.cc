#include "service/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <span>

#include "service/config/settings.h"

namespace statehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Config Parsed(std::string_view text) {
  auto config = ParseConfigToml(text, "x.toml", Config());
  EXPECT_TRUE(config.ok()) << config.status().ToString();
  return config.ok() ? *config : Config();
}

TEST(ConfigTomlTest, DefaultFileIsTheDefaultConfig) {
  Config config = Parsed(DefaultConfigToml());
  config.origins.clear();

  EXPECT_EQ(config, Config());
}

TEST(ConfigTomlTest, DescriptionOfAConfigParsesBackToIt) {
  Config config = Parsed(
      "runtime_dir = \"/tmp/a \\\"b\\\"\"\nkeeper = false\n[network]\nlisten = [\"[::1]:1\"]\n"
      "[areas]\nmemory_max = \"1G\"\n[[area]]\nname = \"a\"\nsize = 8\n"
      "[[area]]\nname = \"b\"\npages = 2\nfile = \"/x\"\noffset = 4096\n");
  Config again = Parsed(DescribeConfig(config));
  config.origins.clear();
  again.origins.clear();

  EXPECT_EQ(again, config);
  EXPECT_EQ(config.areas.memory_max, uint64_t{1} << 30);
  EXPECT_EQ(config.declared_areas.size(), 2u);
}

TEST(ConfigTomlTest, EverySettingIsReadFromItsKey) {
  const Config config = Parsed(
      "drain_grace_ms = 7\ndev = true\n[http]\nlisten = \"\"\n[auth]\ntokens_file = \"/t\"\n"
      "failures_per_minute_max = 3\n[areas]\ncount_max = 5\nsize_max = \"1M\"\n"
      "atomic_range_bytes = 8192\nfile_root = \"/srv\"\noperation_timeout_ms = 9\n"
      "[network]\nmessage_bytes_max = \"1M\"\nkeepalive_min_ping_s = 2\nconnections_max = "
      "11\nallow_plaintext = true\nstreams_per_connection_max = 100\n"
      "wasted_calls_per_second_max = 0\nraise_priority = false\n"
      "[log]\nformat = \"json\"\nlevel = \"warn\"\n[attach]\nleases_per_process_max = 4\n"
      "[dicts]\ncount_max = 6\nsize_max = \"2M\"\n[sessions]\ncount_max = 7\n"
      "[watches]\ncount_max = 8\nhistory_bytes = \"1M\"\nhistory_s = 9\nkeep_s = 10\n"
      "copy_bytes = \"3M\"\nprevious_bytes = \"4M\"\npoll_us = 10000\n[tls]\ncertificate_file = "
      "\"/c\"\nkey_file = "
      "\"/k\"\nclient_ca_file = "
      "\"/a\"\n");

  EXPECT_EQ(config.drain_grace_ms, 7u);
  EXPECT_TRUE(config.dev);
  EXPECT_EQ(config.http.listen, "");
  EXPECT_TRUE(config.network.allow_plaintext);
  EXPECT_EQ(config.tls, (Config::Tls{"/c", "/k", "/a"}));
  EXPECT_EQ(config.attach.leases_per_process_max, 4u);
  EXPECT_EQ(config.auth.tokens_file, "/t");
  EXPECT_EQ(config.auth.failures_per_minute_max, 3u);
  EXPECT_EQ(config.areas.count_max, 5u);
  EXPECT_EQ(config.areas.size_max, 1u << 20);
  EXPECT_EQ(config.dicts.count_max, 6u);
  EXPECT_EQ(config.dicts.size_max, 2u << 20);
  EXPECT_EQ(config.sessions.count_max, 7u);
  EXPECT_EQ(config.watches.count_max, 8u);
  EXPECT_EQ(config.watches.history_bytes, 1u << 20);
  EXPECT_EQ(config.watches.history_s, 9u);
  EXPECT_EQ(config.watches.keep_s, 10u);
  EXPECT_EQ(config.watches.copy_bytes, 3u << 20);
  EXPECT_EQ(config.watches.previous_bytes, 4u << 20);
  EXPECT_EQ(config.watches.poll_us, kWatchPollUsMax);
  EXPECT_EQ(config.areas.atomic_range_bytes, 8192u);
  EXPECT_EQ(config.areas.file_root, "/srv");
  EXPECT_EQ(config.areas.operation_timeout_ms, 9u);
  EXPECT_EQ(config.network.message_bytes_max, 1u << 20);
  EXPECT_EQ(config.network.keepalive_min_ping_s, 2u);
  EXPECT_EQ(config.network.connections_max, 11u);
  EXPECT_EQ(config.network.streams_per_connection_max, 100u);
  EXPECT_EQ(config.network.wasted_calls_per_second_max, 0u);
  EXPECT_FALSE(config.network.raise_priority);
  EXPECT_EQ(config.log_format, "json");
  EXPECT_EQ(config.log_level, "warn");
}

struct BadToml {
  const char* text;
  const char* message;
};

void ExpectRefused(std::span<const BadToml> rows) {
  for (const BadToml& row : rows) {
    const auto config = ParseConfigToml(row.text, "x.toml", Config());
    ASSERT_FALSE(config.ok()) << row.text;
    EXPECT_EQ(config.status().reason(), Reason::kConfigInvalid);
    EXPECT_THAT(config.status().message(), HasSubstr(row.message)) << row.text;
    EXPECT_THAT(config.status().message(), HasSubstr("x.toml:")) << row.text;
  }
}

TEST(ConfigTomlTest, RefusesWithFileLineColumnAndTheNearestName) {
  const BadToml rows[] = {
      {"\n[network]\nlissten = []",
       "x.toml:3:1: unknown key \"network.lissten\"; did you mean "
       "\"network.listen\"?"},
      {"[netwrok]\nlisten = []", "did you mean \"network\"?"},
      {"runtime-dir = \"/x\"", "did you mean \"runtime_dir\"?"},
      {"qqqqqqqq = 1", "x.toml:1:1: unknown key \"qqqqqqqq\""},
      {"network = 3", "is a section"},
      {"dev = 1", "x.toml:1:7: dev must be true or false"},
      {"runtime_dir = 3", "must be a string"},
      {"drain_grace_ms = -1", "0 or more"},
      {"drain_grace_ms = 3600001", "is not within 0 … 3600000"},
      {"drain_grace_ms = 4294967297", "beyond every limit"},
      {"drain_linger_ms = 3600001", "is not within 0 … 3600000"},
      {"[network]\nlisten = \"127.0.0.1:1\"", "array of strings"},
      {"[network]\nlisten = [1]", "array of strings"},
      {"[network]\nlisten = [\":7700\"]", "is no address"},
      {"[network]\nlisten = [\"127.0.0.1\"]", "is no address"},
      {"[network]\nmessage_bytes_max = 1", "is not within"},
      {"[network]\nmessage_bytes_max = \"1X\"", "no number of bytes"},
      {"[network]\nkeepalive_min_ping_s = 0", "is not within"},
      {"[network]\nconnections_max = 0", "is not within"},
      {"[network]\nstreams_per_connection_max = 99", "is not within"},
      {"[network]\nstreams_per_connection_max = 1000001", "is not within"},
      {"[network]\nwasted_calls_per_second_max = 1000001", "is not within"},
      {"[attach]\nleases_per_process_max = 0", "is not within"},
      {"[attach]\nleases_per_process_max = 512", "is not within"},
      {"[areas]\natomic_range_bytes = 5000", "is no power of two"},
      {"[areas]\natomic_range_bytes = 2097152", "is not within"},
      {"[areas]\ncount_max = 4097", "is not within"},
      {"[dicts]\ncount_max = 1025", "is not within"},
      {"[dicts]\nsize_max = \"65G\"", "is not within"},
      {"[sessions]\ncount_max = 65537", "is not within"},
      {"[watches]\ncount_max = 65537", "is not within"},
      {"[watches]\nhistory_bytes = 65535", "is not within"},
      {"[watches]\nhistory_bytes = \"1025M\"", "is not within"},
      {"[watches]\nhistory_s = 0", "is not within"},
      {"[watches]\nkeep_s = 604801", "is not within"},
      {"[watches]\ncopy_bytes = \"65537M\"", "is not within"},
      {"[watches]\nprevious_bytes = \"65537M\"", "is not within"},
      {"[watches]\npoll_us = 10001", "is not within"},
      {"[areas]\nsize_max = \"17G\"", "is not within"},
      {"[areas]\noperation_timeout_ms = 0", "is not within"},
      {"[log]\nlevel = \"loud\"", "is none of trace, debug, info, warn, error"},
      {"[log]\nformat = \"xml\"", "is none of auto, text, json"},
      {"[area]\nname = \"a\"", "write [[area]]"},
      {"[[area]]\nsize = 1", "name must have"},
      {"[[area]]\nname = \"a\"", "set size"},
      {"[[area]]\nname = \"a b\"\nsize = 1", "may hold"},
      {"[[area]]\nname = \"a\"\nsize = 1\npages = 1", "contradicts"},
      {"[[area]]\nname = \"a\"\npages = 18446744073709551615", "x.toml:3"},
      {"[[area]]\nname = \"a\"\nsize = \"17G\"", "16 GiB"},
      {"[[area]]\nname = \"a\"\nsize = 1\nfile = \"/x\"\nfd = 3", "not both"},
      {"[[area]]\nname = \"a\"\nsize = 1\noffset = 4096", "offset needs"},
      {"[[area]]\nname = \"a\"\nsize = 1\nfd = 3\noffset = 1", "multiple of 4096"},
      {"[[area]]\nname = \"a\"\nsize = 1\n[[area]]\nname = \"a\"\nsize = 1", "declared twice"},
      {"[[area]]\nnam = \"a\"", "did you mean \"area.name\"?"},
      {"[network", "x.toml:1"},
  };
  ExpectRefused(rows);
}

TEST(ConfigTomlTest, RefusesAddressesOfHttpThatNobodyAllowed) {
  const BadToml rows[] = {
      {"[http]\nlisten = \"example.com:80\"", "is no loopback address"},
      {"[http]\nlisten = \"0.0.0.0:80\"", "http.allow_remote"},
      {"[http]\nallow_remote = true\nlisten = \":80\"", "is no address"},
  };
  ExpectRefused(rows);
}

TEST(ConfigLimitsTest, LimitsOfIdleConnectionsAtTheirEndsAndPast) {
  Config config = Parsed("[network]\nkeepalive_s = 0\nkeepalive_timeout_s = 1\nidle_s = 0\n");
  EXPECT_EQ(config.network.keepalive_s, 0u);
  EXPECT_EQ(config.network.keepalive_timeout_s, 1u);
  EXPECT_EQ(config.network.idle_s, 0u);
  config = Parsed("[network]\nkeepalive_s = 86400\nkeepalive_timeout_s = 3600\nidle_s = 604800\n");
  EXPECT_EQ(config.network.keepalive_s, 86'400u);
  EXPECT_EQ(config.network.keepalive_timeout_s, 3600u);
  EXPECT_EQ(config.network.idle_s, 604'800u);
  const BadToml rows[] = {
      {"[network]\nkeepalive_s = 86401", "is not within 0 … 86400"},
      {"[network]\nkeepalive_timeout_s = 0", "is not within 1 … 3600"},
      {"[network]\nkeepalive_timeout_s = 3601", "is not within 1 … 3600"},
      {"[network]\nidle_s = 604801", "is not within 0 … 604800"},
  };
  ExpectRefused(rows);
}

TEST(ConfigTomlTest, CharactersBeyondAsciiAreKeptInStringsAndRefusedElsewhere) {
  EXPECT_EQ(Parsed("# é\n[areas]\nfile_root = \"/é\"").areas.file_root, "/é");
  EXPECT_EQ(Parsed("\xef\xbb\xbf[log]\nlevel = \"warn\"").log_level, "warn");
  for (const char* bad : {"é = 1", "dev = é", "dev = 1s[\"é\"", "\xef\xbb\xbf\xef", "[\n", "[é]"}) {
    EXPECT_EQ(ParseConfigToml(bad, "x.toml", Config()).status().reason(), Reason::kConfigInvalid)
        << bad;
  }
}

TEST(ListenAddressTest, LoopbackOnly) {
  for (const char* good : {"127.0.0.1:7700", "127.255.255.255:0", "localhost:1", "[::1]:65535"}) {
    EXPECT_EQ(RefuseListenAddress(good), "") << good;
  }
  for (const char* bad :
       {"", ":", ":1", "7700", "0.0.0.0:1", "128.0.0.1:1", "127.0.0.1:65536", "127.0.0.1:-1",
        "127.0.0.1:", "127.0.0.1:1x", "127.0.0:1", "127.0.0.1.1:1", "127.0.0.256:1", "[::]:1",
        "::1:1", "localhost.example.com:1", "127.0.0.1@evil:1", "[::1%lo]:1"}) {
    EXPECT_NE(RefuseListenAddress(bad), "") << bad;
  }
}

TEST(ParseBytesTest, KnowsUnitsAndRefusesOverflow) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("64K"), 64u << 10);
  EXPECT_EQ(*ParseBytes("64M"), 64u << 20);
  EXPECT_EQ(*ParseBytes("1G"), uint64_t{1} << 30);
  EXPECT_EQ(*ParseBytes("2TiB"), uint64_t{2} << 40);
  EXPECT_EQ(*ParseBytes("3KB"), 3u << 10);
  for (const char* bad : {"", "K", "-1", "1.5G", "1Q", "1Ki", "1 G", "18446744073709551616",
                          "18014398509481984K", "99999999999T"}) {
    EXPECT_EQ(ParseBytes(bad).status().reason(), Reason::kConfigInvalid) << bad;
  }
}

class LoadConfigTest : public ::testing::Test {
 protected:
  LoadConfigTest() {
    char pattern[] = "/tmp/sh_config_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/statehoused.toml";
  }
  ~LoadConfigTest() override { std::filesystem::remove_all(folder_); }
  void SetFile(const std::string& text) const { std::ofstream(path_) << text; }

  std::string folder_;
  std::string path_;
};

TEST_F(LoadConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  SetFile("drain_grace_ms = 1\n[log]\nlevel = \"error\"\nformat = \"json\"\n");

  const auto config = LoadConfig(
      {"--config", path_, "--drain-grace", "3"},
      {{"STATEHOUSED_DRAIN_GRACE_MS", "2"}, {"STATEHOUSED_LOG__LEVEL", "debug"}, {"PATH", "/bin"}});

  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->drain_grace_ms, 3u);
  EXPECT_EQ(config->log_level, "debug");
  EXPECT_EQ(config->log_format, "json");
  EXPECT_EQ(config->origins.at("drain_grace_ms"), "flag --drain-grace");
  EXPECT_EQ(config->origins.at("log.level"), "environment STATEHOUSED_LOG__LEVEL");
  EXPECT_EQ(config->origins.at("log.format"), "file " + path_ + ":4");
  EXPECT_EQ(config->origins.at("areas.count_max"), "default");
  EXPECT_THAT(DescribeConfig(*config), HasSubstr("level = \"debug\"  # environment STATEHOUSED_"));
}

TEST_F(LoadConfigTest, ListenIsRepeatableAndNoneTurnsItOff) {
  auto config = LoadConfig({"--listen", "127.0.0.1:1", "--listen=[::1]:2"}, {});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_THAT(config->network.listen, ElementsAre("127.0.0.1:1", "[::1]:2"));

  config = LoadConfig({"--listen", "none", "--http-listen", "none"}, {});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_THAT(config->network.listen, IsEmpty());
  EXPECT_EQ(config->http.listen, "");

  config = LoadConfig({}, {{"STATEHOUSED_NETWORK__LISTEN", "127.0.0.1:1,127.0.0.1:2"}});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_THAT(config->network.listen, ElementsAre("127.0.0.1:1", "127.0.0.1:2"));

  EXPECT_FALSE(LoadConfig({"--listen", "none", "--listen", "127.0.0.1:1"}, {}).ok());
}

TEST_F(LoadConfigTest, MetricsGoBeyondLoopbackWhereThatIsAllowed) {
  const std::map<std::string, std::string> allowed = {{"STATEHOUSED_HTTP__ALLOW_REMOTE", "true"}};
  const auto config = LoadConfig({"--http-listen", "0.0.0.0:7701"}, allowed);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->http.listen, "0.0.0.0:7701");
  EXPECT_THAT(LoadConfig({"--http-listen", "0.0.0.0:7701"}, {}).status().message(),
              HasSubstr("unless http.allow_remote is set"));
}

TEST_F(LoadConfigTest, OneAddressIsNotListenedAtTwice) {
  const auto twice = LoadConfig({"--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"}, {});
  EXPECT_THAT(twice.status().message(), HasSubstr("\"127.0.0.1:1\" is there twice"));
  const auto both = LoadConfig({"--listen", "127.0.0.1:1", "--http-listen", "127.0.0.1:1"}, {});
  EXPECT_THAT(both.status().message(), HasSubstr("http.listen: \"127.0.0.1:1\" is there twice"));
  EXPECT_TRUE(LoadConfig({"--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--http-listen",
                          "127.0.0.1:0"},
                         {})
                  .ok());
}

TEST_F(LoadConfigTest, EveryFlagIsTaken) {
  const auto config = LoadConfig({"--runtime-dir",
                                  "/tmp/r",
                                  "--dev",
                                  "--listen",
                                  "localhost:0",
                                  "--http-listen",
                                  "[::1]:0",
                                  "--tokens-file",
                                  "/tmp/t",
                                  "--areas-file-root",
                                  "/srv",
                                  "--memory-max",
                                  "64M",
                                  "--log-level",
                                  "trace",
                                  "--log-format",
                                  "text",
                                  "--drain-grace",
                                  "0",
                                  "--drain-linger",
                                  "3600000",
                                  "--no-keeper",
                                  "--tls-certificate",
                                  "/c",
                                  "--tls-key",
                                  "/k",
                                  "--tls-client-ca",
                                  "/a",
                                  "--allow-plaintext"},
                                 {});

  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->runtime_dir, "/tmp/r");
  EXPECT_TRUE(config->dev);
  EXPECT_FALSE(config->keeper);
  EXPECT_THAT(config->network.listen, ElementsAre("localhost:0"));
  EXPECT_EQ(config->http.listen, "[::1]:0");
  EXPECT_EQ(config->auth.tokens_file, "/tmp/t");
  EXPECT_EQ(config->tls.certificate_file, "/c");
  EXPECT_EQ(config->tls.key_file, "/k");
  EXPECT_EQ(config->tls.client_ca_file, "/a");
  EXPECT_TRUE(config->network.allow_plaintext);
  EXPECT_EQ(config->areas.file_root, "/srv");
  EXPECT_EQ(config->areas.memory_max, 64u << 20);
  EXPECT_EQ(config->log_level, "trace");
  EXPECT_EQ(config->log_format, "text");
  EXPECT_EQ(config->drain_grace_ms, 0u);
  EXPECT_EQ(config->drain_linger_ms, 3'600'000u);
}

TEST_F(LoadConfigTest, DevTakesFreePortsUnlessTold) {
  auto config = LoadConfig({"--dev"}, {});
  EXPECT_THAT(config->network.listen, ElementsAre("127.0.0.1:0"));
  EXPECT_EQ(config->http.listen, "127.0.0.1:0");

  config = LoadConfig({"--dev", "--listen", "127.0.0.1:9"}, {});
  EXPECT_THAT(config->network.listen, ElementsAre("127.0.0.1:9"));
}

TEST_F(LoadConfigTest, DevStopsWithoutLingeringUnlessTold) {
  EXPECT_EQ(LoadConfig({}, {})->drain_linger_ms, 500u);
  EXPECT_EQ(LoadConfig({"--dev"}, {})->drain_linger_ms, 0u);
  EXPECT_EQ(LoadConfig({"--dev", "--drain-linger", "500"}, {})->drain_linger_ms, 500u);
}

TEST_F(LoadConfigTest, EmptyFoldersAreResolved) {
  const auto config = LoadConfig({}, {{"XDG_RUNTIME_DIR", "/run/user/7"}});

  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->runtime_dir, ::geteuid() == 0 ? "/run/statehouse" : "/run/user/7/statehouse");
  EXPECT_EQ(config->auth.tokens_file, config->runtime_dir + "/tokens.toml");
}

TEST_F(LoadConfigTest, WhatIsUnknownIsRefusedWithTheNearestName) {
  struct Row {
    std::vector<std::string> argv;
    std::map<std::string, std::string> environment;
    const char* message;
  };
  const Row rows[] = {
      {{"--lisen", "127.0.0.1:1"}, {}, "flag --lisen: unknown; did you mean \"--listen\"?"},
      {{"--log-levle=debug"}, {}, "did you mean \"--log-level\"?"},
      {{"surprise"}, {}, "command line"},
      {{"--listen"}, {}, "command line"},
      {{"--drain-grace", "soon"}, {}, "flag --drain-grace: \"soon\" is no whole number"},
      {{"--memory-max", "lots"}, {}, "flag --memory-max"},
      {{"--listen", "0.0.0.0:1"},
       {},
       "flag --listen: network.listen: \"0.0.0.0:1\" is reached by other hosts, so it needs TLS"},
      {{"--tls-certificate", "/c"},
       {},
       "flag --tls-certificate: tls.certificate_file: a certificate"},
      {{"--tls-key", "/k"}, {}, "flag --tls-key: tls.key_file: a certificate and its key"},
      {{"--tls-client-ca", "/a"}, {}, "flag --tls-client-ca: tls.client_ca_file: it needs"},
      {{},
       {{"STATEHOUSED_AUTH__JWT_KEY_FILE", "/k"}},
       "auth.jwt_key_file: auth.jwt_algorithm must say how"},
      {{},
       {{"STATEHOUSED_AUTH__JWT_KEY_FILE", "/k"}, {"STATEHOUSED_AUTH__JWT_ALGORITHM", "RS256"}},
       "auth.jwt_key_file: auth.jwt_audience must be set"},
      {{},
       {{"STATEHOUSED_AUTH__JWT_AUDIENCE", "a"}},
       "auth.jwt_audience: it needs auth.jwt_key_file"},
      {{}, {{"STATEHOUSED_AUTH__JWT_ISSUER", "a"}}, "auth.jwt_issuer: it needs auth.jwt_key_file"},
      {{}, {{"STATEHOUSED_AUTH__JWT_ALGORITHM", "none"}}, "\"none\" is none of HS256"},
      {{}, {{"STATEHOUSED_AUTH__JWT_LIFETIME_S_MAX", "0"}}, "auth.jwt_lifetime_s_max"},
      {{}, {{"STATEHOUSED_AUTH__JWT_LIFETIME_S_MAX", "2592001"}}, "auth.jwt_lifetime_s_max"},
      {{"--config", "/does/not/exist"}, {}, "/does/not/exist"},
      {{"--config", "/tmp"}, {}, "/tmp: the configuration"},
      {{}, {{"STATEHOUSED_NETWORK__LISTN", "x"}}, "did you mean \"STATEHOUSED_NETWORK__LISTEN\"?"},
      {{}, {{"STATEHOUSED_DEV", "maybe"}}, "STATEHOUSED_DEV: \"maybe\" is no true or false"},
      {{}, {{"STATEHOUSED_CONFIG", "/does/not/exist"}}, "/does/not/exist"},
  };
  for (const Row& row : rows) {
    const auto config = LoadConfig(row.argv, row.environment);
    ASSERT_FALSE(config.ok()) << row.message;
    EXPECT_EQ(config.status().reason(), Reason::kConfigInvalid);
    EXPECT_THAT(config.status().message(), HasSubstr(row.message));
  }
}

TEST_F(LoadConfigTest, OtherHostsAreServedWithTlsOrByAskingForIt) {
  const std::vector<std::string> listen = {"--listen", "0.0.0.0:7700", "--listen", "[::]:7700"};
  EXPECT_FALSE(LoadConfig(listen, {}).ok());
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), listen.begin(), listen.end());
    return LoadConfig(more, {}).ok();
  };
  EXPECT_TRUE(with({"--tls-certificate", "/c", "--tls-key", "/k"}));
  EXPECT_TRUE(with({"--allow-plaintext"}));
}

TEST(ConfigHelpTest, NamesEveryFlag) {
  const std::string help = ConfigHelp();

  for (const Setting& setting : Settings()) EXPECT_THAT(help, HasSubstr(std::string(setting.flag)));
  EXPECT_THAT(help, HasSubstr("--no-keeper"));
}

TEST(ConfigTomlTest, RandomMutationsAreParsedOrRefusedCleanly) {
  const std::string seed_text =
      DefaultConfigToml() +
      "[[area]]\nname = \"a\"\nsize = \"64K\"\nfile = \"/x\"\noffset = 4096\n";
  std::mt19937 random(20'260'701);
  int parsed = 0;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = seed_text;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 20); break;
        case 2: text.insert(at, text.substr(random() % text.size(), random() % 40)); break;
        default: text[at] = "\"[]=#.\n0-9"[random() % 10]; break;
      }
    }
    const auto config = ParseConfigToml(text, "m.toml", Config());
    if (config.ok()) {
      ++parsed;
      // What was accepted describes itself as something that is accepted.
      EXPECT_TRUE(ParseConfigToml(DescribeConfig(*config), "again.toml", Config()).ok()) << text;
    } else {
      ++refused;
      EXPECT_EQ(config.status().reason(), Reason::kConfigInvalid);
      EXPECT_THAT(config.status().message(), HasSubstr("m.toml:"));
    }
  }
  EXPECT_GT(parsed, 0);
  EXPECT_GT(refused, 0);
}

TEST(ConfigLimitsTest, LimitsOfCallsAndOfSlowCallsAtTheirEndsAndPast) {
  const Config config = Parsed(
      "[auth]\ncalls_per_second_max = 100000000\ncalls_at_once_max = 1000000\n"
      "[log]\nslow_call_ms = 3600000\n");
  EXPECT_EQ(config.auth.calls_per_second_max, kCallsPerSecondMax);
  EXPECT_EQ(config.auth.calls_at_once_max, kCallsAtOnceMax);
  EXPECT_EQ(config.slow_call_ms, 3'600'000u);
  for (const char* const text :
       {"[auth]\ncalls_per_second_max = 100000001\n", "[auth]\ncalls_at_once_max = 1000001\n",
        "[log]\nslow_call_ms = 3600001\n"}) {
    EXPECT_EQ(ParseConfigToml(text, "t", Config()).status().reason(), Reason::kConfigInvalid)
        << text;
  }
}

TEST(CompareConfigsTest, TellsWhatAReloadChangesAndWhatTakesARestart) {
  const Config before = Parsed("[log]\nlevel = \"info\"\n[network]\nlisten = []\n");
  Config after = Parsed(
      "[log]\nlevel = \"debug\"\nslow_call_ms = 50\naudit = false\n"
      "[auth]\ncalls_per_second_max = 7\ncalls_at_once_max = 8\n"
      "[network]\nlisten = [\"127.0.0.1:1\"]\n"
      "[[area]]\nname = \"x\"\nsize = 64\n");
  std::map<std::string, ConfigChange> changes;
  for (ConfigChange& change : CompareConfigs(before, after)) changes[change.key] = change;
  ASSERT_EQ(changes.size(), 7u);
  EXPECT_EQ(changes["log.level"].before, "\"info\"");
  EXPECT_EQ(changes["log.level"].after, "\"debug\"");
  for (const char* const key : {"log.level", "log.slow_call_ms", "log.audit",
                                "auth.calls_per_second_max", "auth.calls_at_once_max"}) {
    EXPECT_TRUE(changes[key].is_reloadable) << key;
  }
  EXPECT_FALSE(changes["network.listen"].is_reloadable);
  EXPECT_FALSE(changes["[[area]]"].is_reloadable);
  EXPECT_TRUE(CompareConfigs(after, after).empty());
}

}  // namespace
}  // namespace statehouse
