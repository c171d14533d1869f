// The network door under floods: nothing crashes, its memory stays bounded, a client that behaves
// is served meanwhile, and the service is well afterwards. How well it is served is a benchmark's
// (flood_bench); here only a stall fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <statehouse/client.hpp>

#include "engine/os/futex.h"
#include "tests/support/daemon.h"
#include "tests/support/floods.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

constexpr int kCalls = 200;  // Of the client that behaves, in a round.
constexpr uint64_t kStallNs = 2'000'000'000;
constexpr double kGrowthMibMax = 512;
// Calls that come to nothing pile up until gRPC's quota says no, and what is ours beside it.
constexpr double kGrowthOfWasteMibMax = 2048;

// The process's own memory: what it shares with workers is bounded by limits of its own.
double OwnMib(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "RssAnon:" && status >> kib) return kib / 1024;
  }
  return -1;
}

size_t Descriptors(pid_t pid) {
  std::error_code error;
  const auto folder =
      std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", error);
  return static_cast<size_t>(std::distance(begin(folder), end(folder)));
}

bool IsWasteful(FloodKind kind) {
  return kind == FloodKind::kBadTokens || kind == FloodKind::kRapidResets;
}

class FloodTest : public ::testing::TestWithParam<NamedFlood> {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    client::Options options;
    options.token = daemon_->token();
    options.transport = SH_TRANSPORT_NETWORK;
    auto client = client::Client::Connect("statehouse://" + daemon_->tcp_address(), options);
    ASSERT_TRUE(client.ok());
    ASSERT_TRUE(client->Open("flooded", 4096).ok());
    ASSERT_TRUE(client->OpenDict("flooded").ok());
    target_ = {daemon_->tcp_address(), daemon_->token(), "flooded", "flooded",
               std::random_device()()};
  }

  std::unique_ptr<Daemon> daemon_;
  FloodTarget target_;
};

TEST_P(FloodTest, AClientThatBehavesIsServedAndTheServiceIsWellAfterwards) {
  const pid_t daemon = daemon_->daemon_pid();
  const std::vector<uint64_t> calm = MeasureCalls(target_, kCalls);
  ASSERT_EQ(calm.size(), static_cast<size_t>(kCalls));
  const double before = OwnMib(daemon);
  const size_t descriptors = Descriptors(daemon);
  double most = before;
  std::vector<uint64_t> times;
  {
    const Flood flood(GetParam().kind, target_);
    const uint64_t until = MonotonicNs() + static_cast<uint64_t>(Rounds(1, 30)) * 1'000'000'000;
    do {
      const std::vector<uint64_t> round = MeasureCalls(target_, kCalls);
      ASSERT_EQ(round.size(), static_cast<size_t>(kCalls)) << "seed " << target_.seed;
      times.insert(times.end(), round.begin(), round.end());
      most = std::max(most, OwnMib(daemon));
    } while (MonotonicNs() < until);
    EXPECT_GT(flood.sent(), 0u);
    std::printf("%s: %llu sent, %llu connections again; ", GetParam().name,
                static_cast<unsigned long long>(flood.sent()),
                static_cast<unsigned long long>(flood.reconnects()));
  }
  std::sort(times.begin(), times.end());
  const uint64_t p99 = times[times.size() * 99 / 100];
  std::printf("p99 %.2f ms, undisturbed %.2f ms; memory %.0f MiB, before %.0f MiB; seed %u\n",
              static_cast<double>(p99) / 1e6,
              static_cast<double>(calm[calm.size() * 99 / 100]) / 1e6, most, before, target_.seed);

  EXPECT_LT(p99, kStallNs);
  EXPECT_LT(most - before, kGrowthMibMax);
  EXPECT_EQ(daemon_->daemon_pid(), daemon) << "it was restarted: " << daemon_->errors();
  // What the flood left behind goes.
  EXPECT_TRUE(Eventually([&] { return Descriptors(daemon) <= descriptors + 2; }))
      << Descriptors(daemon) << " descriptors, " << descriptors << " before";
  EXPECT_EQ(MeasureCalls(target_, kCalls).size(), static_cast<size_t>(kCalls));
  EXPECT_THAT(daemon_->HttpGet("/readyz"), ::testing::HasSubstr("200 OK"));
}

std::string NameOf(const ::testing::TestParamInfo<NamedFlood>& info) {
  std::string name;
  for (const char letter : std::string(info.param.name)) {
    if (std::isalnum(static_cast<unsigned char>(letter)) != 0) name.push_back(letter);
  }
  return name;
}

// Those beside which nobody else waits for long.
std::vector<NamedFlood> HarmlessFloods() {
  std::vector<NamedFlood> kinds = AllFloods();
  std::erase_if(kinds, [](const NamedFlood& flood) { return IsWasteful(flood.kind); });
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Kinds, FloodTest, ::testing::ValuesIn(HarmlessFloods()), NameOf);

using WastefulFloodTest = FloodTest;

// Of calls that come to nothing others are held up while they last (docs/THREAT_MODEL.md).
TEST_P(WastefulFloodTest, TheServiceIsWellAfterwards) {
  const pid_t daemon = daemon_->daemon_pid();
  const double before = OwnMib(daemon);
  double most = before;
  {
    const Flood flood(GetParam().kind, target_);
    const uint64_t until = MonotonicNs() + static_cast<uint64_t>(Rounds(1, 30)) * 1'000'000'000;
    while (MonotonicNs() < until) {
      SleepNs(20'000'000);
      most = std::max(most, OwnMib(daemon));
    }
  }
  std::printf("%s: memory %.0f MiB, before %.0f MiB; seed %u\n", GetParam().name, most, before,
              target_.seed);
  EXPECT_LT(most - before, kGrowthOfWasteMibMax);
  EXPECT_TRUE(Eventually([&] { return MeasureCalls(target_, 1).size() == 1; }));
  EXPECT_EQ(MeasureCalls(target_, kCalls).size(), static_cast<size_t>(kCalls));
  EXPECT_EQ(daemon_->daemon_pid(), daemon) << "it was restarted: " << daemon_->errors();
  EXPECT_THAT(daemon_->HttpGet("/readyz"), ::testing::HasSubstr("200 OK"));
  EXPECT_EQ(daemon_->HttpGet("/metrics").find("statehouse_connections_ended_total 0\n"),
            std::string::npos);
}

std::vector<NamedFlood> WastefulFloods() {
  std::vector<NamedFlood> kinds = AllFloods();
  std::erase_if(kinds, [](const NamedFlood& flood) { return !IsWasteful(flood.kind); });
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Kinds, WastefulFloodTest, ::testing::ValuesIn(WastefulFloods()), NameOf);

}  // namespace
}  // namespace statehouse::testing
