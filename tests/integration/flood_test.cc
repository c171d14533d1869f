// The network door under floods: nothing crashes, its memory stays bounded, a client that behaves
// is served meanwhile, one that is idle keeps its connection, and the service is well afterwards.
// How well it is served is a benchmark's (flood_bench); here only a stall fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <statehouse/client.hpp>
#include <string>
#include <string_view>

#include "engine/os/futex.h"
#include "tests/support/daemon.h"
#include "tests/support/floods.h"
#include "tests/support/http2.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr size_t kCalls = 100;  // Of the client that behaves, in a round.

constexpr uint64_t kStallNs = 2'000'000'000;
constexpr double kGrowthMibMax = 256;

// Calls that come to nothing, more than a host may have.
bool IsWaste(FloodKind kind) {
  return kind == FloodKind::kBadTokens || kind == FloodKind::kRapidResets;
}

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

// Of /metrics; none where it does not say.
std::optional<double> ConnectionsThrottled(const Daemon& daemon) {
  constexpr std::string_view kName = "\nstatehouse_connections_throttled_total ";
  const std::string metrics = daemon.HttpGet("/metrics");
  const size_t at = metrics.find(kName);
  if (at == std::string::npos) return std::nullopt;
  return std::strtod(metrics.c_str() + at + kName.size(), nullptr);
}

// A connection without a call that asks now and then whether the service lives.
class Bystander final {
 public:
  explicit Bystander(const std::string& address) : connection_(address) {
    EXPECT_TRUE(connection_.Send(Preface()));
  }
  // False: it was ended.
  bool Ping() { return connection_.Send(EncodeFrame(FrameType::kPing, 0, 0, "are you?")); }
  // Whether an answer comes, after those to the pings so far.
  bool IsAnswered() {
    constexpr std::string_view kLast = "the last";
    if (!connection_.Send(EncodeFrame(FrameType::kPing, 0, 0, kLast))) return false;
    for (;;) {
      const std::optional<Frame> frame = connection_.Receive(std::chrono::milliseconds(60'000));
      if (!frame.has_value()) return false;
      if (frame->type == FrameType::kPing && frame->payload == kLast) return true;
    }
  }

 private:
  Http2Connection connection_;
};

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
  const bool is_waste = IsWaste(GetParam().kind);
  const pid_t daemon = daemon_->daemon_pid();
  const std::vector<uint64_t> calm = MeasureCalls(target_, kCalls);
  ASSERT_EQ(calm.size(), kCalls);
  const double before = OwnMib(daemon);
  Bystander bystander(target_.address);
  ASSERT_TRUE(bystander.IsAnswered());
  const size_t descriptors = Descriptors(daemon);
  double most = before;
  std::vector<uint64_t> times;
  {
    const Flood flood(GetParam().kind, target_);
    const uint64_t until = MonotonicNs() + static_cast<uint64_t>(Rounds(1, 30)) * 1'000'000'000;
    do {
      const std::vector<uint64_t> round = MeasureCalls(target_, kCalls);
      ASSERT_EQ(round.size(), kCalls) << "seed " << target_.seed;
      EXPECT_TRUE(bystander.Ping()) << "seed " << target_.seed;
      times.insert(times.end(), round.begin(), round.end());
      most = std::max(most, OwnMib(daemon));
    } while (MonotonicNs() < until);
    EXPECT_GT(flood.sent(), 0u);
    std::printf("%s: %llu sent, %llu connections again; ", GetParam().name,
                static_cast<unsigned long long>(flood.sent()),
                static_cast<unsigned long long>(flood.reconnects()));
  }
  const std::optional<double> throttled = ConnectionsThrottled(*daemon_);
  ASSERT_TRUE(throttled.has_value());
  std::sort(times.begin(), times.end());
  const uint64_t p99 = times[times.size() * 99 / 100];
  std::printf(
      "%.0f throttled; p99 %.2f ms, undisturbed %.2f ms; memory %.0f MiB, before %.0f MiB; "
      "seed %u\n",
      *throttled, static_cast<double>(p99) / 1e6,
      static_cast<double>(calm[calm.size() * 99 / 100]) / 1e6, most, before, target_.seed);

  EXPECT_LT(most - before, kGrowthMibMax);
  EXPECT_LT(p99, kStallNs);
  EXPECT_TRUE(!is_waste || *throttled > 0);
  EXPECT_TRUE(bystander.IsAnswered()) << "seed " << target_.seed;
  EXPECT_EQ(daemon_->daemon_pid(), daemon) << "it was restarted: " << daemon_->errors();
  // What the flood left behind goes.
  EXPECT_TRUE(Eventually([&] { return Descriptors(daemon) <= descriptors + 2; }))
      << Descriptors(daemon) << " descriptors, " << descriptors << " before";
  EXPECT_TRUE(Eventually([&] { return MeasureCalls(target_, 1).size() == 1; }));
  EXPECT_EQ(MeasureCalls(target_, kCalls).size(), kCalls);
  EXPECT_THAT(daemon_->HttpGet("/readyz"), HasSubstr("200 OK"));
}

std::string NameOf(const ::testing::TestParamInfo<NamedFlood>& info) {
  std::string name;
  for (const char letter : std::string(info.param.name)) {
    if (std::isalnum(static_cast<unsigned char>(letter)) != 0) name.push_back(letter);
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Kinds, FloodTest, ::testing::ValuesIn(AllFloods()), NameOf);

}  // namespace
}  // namespace statehouse::testing
