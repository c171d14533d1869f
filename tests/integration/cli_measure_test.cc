// What measures and searches: big, hot, latency, bench.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/command_line.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class CliMeasureTest : public CommandLineTest {
 protected:
  json Json(const std::string& arguments) const {
    const std::string out = Out("-o json " + arguments);
    json parsed = json::parse(out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << out;
    return parsed;
  }
  // Nothing of a measuring command is left.
  void ExpectNothingLeft(const std::string& command) const {
    EXPECT_EQ(Json("dict ls statehouse-" + command), json::array());
    EXPECT_EQ(Json("area ls statehouse-" + command), json::array());
    EXPECT_EQ(Json("lock ls statehouse-" + command), json::array());
  }
};

TEST_F(CliMeasureTest, BigFindsTheLargestEntriesAndDicts) {
  for (const char* const dict : {"small", "large"}) Out(std::string("dict create ") + dict);
  Out("dict set small a '\"" + std::string(100, 'x') + "\"'");
  Shell("printf '\"%0300000d\"' 7 | {} dict set large huge -");
  Shell("printf '\"%05000d\"' 7 | {} dict set large middle -");
  Shell("{} dict set large \"$(printf 'tiny\\n\\033[2J')\" 1");

  const CommandLine::Ran ran = Shell("{} big --top 3");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.errors, HasSubstr("scanned 4 entries of 2 dicts"));
  EXPECT_LT(ran.out.find("\nlarge "), ran.out.find("\nsmall ")) << ran.out;
  EXPECT_LT(ran.out.find(" huge\n"), ran.out.find(" middle\n")) << ran.out;
  EXPECT_LT(ran.out.find(" middle\n"), ran.out.find(" a\n")) << ran.out;
  EXPECT_THAT(ran.out, Not(HasSubstr("tiny"))) << "it is the fourth";
  EXPECT_THAT(Out("big large"), HasSubstr(" tiny\\u000a\\u001b[2J\n"));

  const json one = Json("big small");
  EXPECT_EQ(one["dicts"].size(), 1u);
  EXPECT_EQ(one["entries"].size(), 1u);
  EXPECT_EQ(one["entries"][0]["key"], "a");
  EXPECT_GE(one["entries"][0]["bytes"], 101);
  EXPECT_LE(one["entries"][0]["bytes"], 120);
  EXPECT_EQ(Shell("{} big none").code, 3);
  EXPECT_EQ(Shell("{} big --top 0").code, 2);
  EXPECT_EQ(Shell("{} big --top 1000").code, 0);
  EXPECT_EQ(Shell("{} big --top 1001").code, 2);
}

TEST_F(CliMeasureTest, HotCountsTheChangesOfEachKey) {
  for (const char* const dict : {"a", "b"}) Out(std::string("dict create ") + dict);
  // Changes come until the watch has ended, twice as many of one key.
  const std::string busy =
      " & hot=$!; while kill -0 $hot 2> /dev/null; do {} dict incr a often >&2; {} dict incr a "
      "often >&2; {} dict set b \"$(printf 'sel\\033dom')\" 1 >&2; done; wait $hot";
  const CommandLine::Ran all = Shell("{} -o json hot --for 4s" + busy);
  const json hottest = json::parse(all.out, nullptr, false);
  ASSERT_FALSE(hottest.is_discarded()) << all.out << all.errors;
  ASSERT_EQ(hottest["hottest"].size(), 2u) << all.out;
  EXPECT_EQ(hottest["hottest"][0]["key"], "often");
  EXPECT_EQ(hottest["hottest"][1]["dict"], "b");
  EXPECT_GT(hottest["hottest"][0]["changes"], hottest["hottest"][1]["changes"]);
  EXPECT_EQ(hottest["resyncs"], 0);

  const CommandLine::Ran one = Shell("{} hot b --for 4s" + busy);
  EXPECT_THAT(one.out, HasSubstr(" sel\\u001bdom\n")) << one.errors;
  EXPECT_THAT(one.out, Not(HasSubstr("often")));
  EXPECT_EQ(Shell("{} hot none --for 1s").code, 3);
  EXPECT_EQ(Shell("{} hot --for soon").code, 2);
}

TEST_F(CliMeasureTest, HotDividesByTheTimeThatPassed) {
  Out("dict create d");
  // It is over when the dict is: long before --for.
  const CommandLine::Ran ran =
      Shell("{} -o json hot d --for 1h 2> '" + daemon_->folder() +
            "/told' & hot=$!; until grep -q changes '" + daemon_->folder() +
            "/told'; do {} dict incr d n > /dev/null; done; {} dict rm d --yes >&2; wait $hot");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  const json hot = json::parse(ran.out, nullptr, false);
  ASSERT_FALSE(hot.is_discarded()) << ran.out << ran.errors;
  EXPECT_GE(hot["changes"], 1);
  EXPECT_GT(hot["seconds"], 0);
  EXPECT_LT(hot["seconds"], 3600) << "no more than its program ran";
}

TEST_F(CliMeasureTest, LatencyMeasuresEachDoor) {
  const json local = json::parse(Out("-o json latency --count 1 --interval 100ms"));
  EXPECT_EQ(local["door"], "local");
  for (const char* const operation : {"call", "mapped_load", "mapped_add"}) {
    EXPECT_GE(local[operation]["count"], 1) << operation;
    EXPECT_GT(local[operation]["min"], 0) << operation;
    EXPECT_LE(local[operation]["min"], local[operation]["max"]) << operation;
  }
  EXPECT_LT(local["mapped_load"]["min"], local["call"]["min"]);
  const json network = json::parse(Out("-o json latency --door network --count 1 --interval 1s"));
  EXPECT_EQ(network["door"], "network");
  EXPECT_FALSE(network.contains("mapped_load"));
  EXPECT_FALSE(network["call"]["p50"].is_null());
  const json socket = json::parse(Out("-o json latency --door socket --count 1 --interval 100ms"));
  EXPECT_EQ(socket["door"], "socket");
  EXPECT_FALSE(socket.contains("mapped_load"));
  EXPECT_EQ(json::parse(Out("--transport socket -o json status"))["door"], "socket");

  const std::string table = Out("latency --count 2 --interval 50ms");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 10) << table;
  EXPECT_THAT(table, HasSubstr("  all  mapped add"));
  EXPECT_EQ(table.find("\x1b"), std::string::npos);
  ExpectNothingLeft("latency");
}

TEST_F(CliMeasureTest, WhatIsInterruptedTellsWhatItHasAndClearsUp) {
  const std::string file = daemon_->folder() + "/rounds";
  const auto interrupt = [&](const std::string& command, const std::string& begun) {
    return Shell("{} " + command + " > '" + file + "' 2>&1 & pid=$!; until grep -q '" + begun +
                 "' '" + file + "'; do :; done; {} area ls statehouse-; {} dict ls statehouse-; " +
                 "kill -TERM $pid; wait $pid; echo code $?; cat '" + file + "'");
  };
  const CommandLine::Ran latency = interrupt("-o ndjson latency --interval 50ms", "mapped_add");
  EXPECT_THAT(latency.out, HasSubstr("statehouse-latency/"));
  EXPECT_THAT(latency.out, HasSubstr("code 0\n"));
  EXPECT_THAT(latency.out, HasSubstr("{\"round\":\"all\""));
  ExpectNothingLeft("latency");
  const CommandLine::Ran bench = interrupt("bench --op set --for 1h", "closed loop");
  EXPECT_THAT(bench.out, HasSubstr("statehouse-bench/"));
  EXPECT_THAT(bench.out, HasSubstr("code 0\n"));
  EXPECT_THAT(bench.out, HasSubstr("\nset "));
  ExpectNothingLeft("bench");
}

TEST_F(CliMeasureTest, BenchThatIsInterruptedWhileNothingIsDueClearsUp) {
  // Both connections have tried once and one operation was due. The next is in a quarter of an
  // hour.
  const CommandLine::Ran ran = Shell(
      "{} bench --op set --rate 0.001 --connections 2 --for 2h & bench=$!; until {} -o json dict "
      "ls statehouse-bench | grep -q '\"revision\": 3'; do :; done; kill -TERM $bench; wait "
      "$bench");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("\nset                  1 "));
  ExpectNothingLeft("bench");
}

TEST_F(CliMeasureTest, BenchThatIsInterruptedWhileItSetsEntriesClearsUp) {
  // A dict that keeps few of them: setting a terabyte would take hours.
  Out("dict create mine --max-bytes 16M --evict");
  const CommandLine::Ran ran = Shell(
      "{} -o json bench --dict mine --op get --keys 1000000 --value-bytes 1000000 & bench=$!; "
      "until {} dict describe mine | grep -q 'revision  *[1-9]'; do :; done; kill -TERM $bench; "
      "wait $bench");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_EQ(ran.out, "[]\n");
  EXPECT_THAT(ran.errors, HasSubstr("interrupted while the entries for get were set"));
  EXPECT_EQ(Out("dict scan mine --keys"), "");
  // One of its own goes with it.
  const std::string told = daemon_->folder() + "/told";
  const CommandLine::Ran own = Shell(
      "{} bench --op get --keys 1000000 --value-bytes 0 2> '" + told +
      "' & bench=$!; until {} "
      "dict ls statehouse-bench | grep -q statehouse-bench; do :; done; kill -TERM $bench; wait "
      "$bench; echo code $?; cat '" +
      told + "'");
  EXPECT_THAT(own.out, HasSubstr("code 0\n"));
  EXPECT_THAT(own.out, HasSubstr("interrupted while the entries for get were set"));
  ExpectNothingLeft("bench");
}

TEST_F(CliMeasureTest, LatencyWithoutTheRightToCreateMeasuresCalls) {
  daemon_.reset();
  DaemonOptions options;
  options.grants = {"dict:*:read"};
  Start(std::move(options));
  const CommandLine::Ran ran = Shell("{} -o json latency --count 1 --interval 50ms");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.errors, HasSubstr("mapped memory is not measured"));
  EXPECT_FALSE(json::parse(ran.out).contains("mapped_load"));
}

TEST_F(CliMeasureTest, BenchRunsEachOperationInADictOfItsOwn) {
  Out("dict create mine");
  for (const char* const door : {"local", "socket", "network"}) {
    const CommandLine::Ran ran =
        Shell(std::string("{} -o json bench --for 200ms --connections 2 --keys 50 --door ") + door);
    EXPECT_EQ(ran.code, 0) << ran.errors;
    EXPECT_THAT(ran.errors, HasSubstr("works in dict \"statehouse-bench/"));
    const json results = json::parse(ran.out, nullptr, false);
    ASSERT_EQ(results.size(), 4u) << ran.out << ran.errors;
    for (const json& result : results) {
      EXPECT_EQ(result["door"], door);
      EXPECT_GT(result["completed"], 0) << result;
      EXPECT_TRUE(result["errors"].empty()) << result;
      EXPECT_EQ(result["latency"]["count"], result["completed"]);
      EXPECT_TRUE(result["rate"].is_null());
    }
  }
  ExpectNothingLeft("bench");
  EXPECT_EQ(Json("dict describe mine")["revision"], 0) << "nobody else's dict was touched";
}

TEST_F(CliMeasureTest, BenchKeepsToARateAndCountsFromWhenEachWasDue) {
  const json result = Json("bench --op incr --rate 200 --for 1s --connections 4 --keys 10")[0];
  EXPECT_EQ(result["operation"], "incr");
  EXPECT_EQ(result["rate"], 200.0);
  EXPECT_EQ(result["latency"]["count"].get<int>(),
            result["completed"].get<int>() + result["unsent"].get<int>());
  EXPECT_EQ(result["latency"]["count"], 200) << "each one that was due counts, late or not";
}

TEST_F(CliMeasureTest, BenchSeesAStallThatAClosedLoopWouldMiss) {
  Out("dict create mine");
  // The daemon stands still for a second of four. Each call that was due then has waited for the
  // rest of it, not only the one that was under way.
  const std::string daemon = std::to_string(daemon_->daemon_pid());
  const CommandLine::Ran ran = Shell(
      "{} -o json bench --door network --dict mine --op set --rate 100 --for 4s --keys 10 & "
      "bench=$!; until {} dict describe mine | grep -q 'revision  *[1-9][0-9]'; do :; done; kill "
      "-STOP " +
      daemon + "; sleep 1; kill -CONT " + daemon + "; wait $bench");
  const json results = json::parse(ran.out, nullptr, false);
  ASSERT_EQ(results.size(), 1u) << ran.out << ran.errors;
  const json& latency = results[0]["latency"];
  EXPECT_EQ(latency["count"], 400);
  EXPECT_GT(latency["p90"], 50e6) << "a fifth of them waited: " << latency;
}

TEST_F(CliMeasureTest, BenchInAGivenDictTakesOnlyItsOwnKeysAway) {
  Out("dict create mine");
  Out("dict set mine precious 1");
  const CommandLine::Ran ran = Shell("{} bench --dict mine --op set --for 100ms --keys 10");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("set "));
  EXPECT_EQ(Out("dict scan mine --keys"), "precious\n");
  EXPECT_EQ(Shell("{} bench --dict none --for 100ms").code, 3);
}

TEST_F(CliMeasureTest, BenchRefusesWhatItCannotDo) {
  for (const char* const words :
       {"--op fly", "--rate 0", "--rate 10000001", "--connections 0", "--connections 1025",
        "--for soon", "--keys 0", "--keys 1000001", "--value-bytes 1000001", "--door back"}) {
    const CommandLine::Ran ran = Shell(std::string("{} bench ") + words);
    EXPECT_EQ(ran.code, 2) << words << ": " << ran.errors;
  }
  const CommandLine::Ran many = Shell("{} bench --door local --connections 17 --for 100ms");
  EXPECT_EQ(many.code, 1) << many.errors;
  EXPECT_THAT(many.errors, HasSubstr("LANES_EXHAUSTED"));
  EXPECT_EQ(Shell("{} bench --door local --connections 15 --op get --for 50ms").code, 0);
  ExpectNothingLeft("bench");
  daemon_.reset();
  DaemonOptions options;
  options.grants = {"dict:statehouse-bench/*:read,create"};
  Start(std::move(options));
  const CommandLine::Ran refused = Shell("{} bench --op set --for 100ms");
  EXPECT_NE(refused.code, 0);
  EXPECT_THAT(refused.errors, HasSubstr("every operation failed"));
}

}  // namespace
}  // namespace statehouse::testing
