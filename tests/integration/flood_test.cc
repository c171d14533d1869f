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
constexpr double kGrowthOfWasteMibMax = 3072;

// Calls that come to nothing pile up until their connection is ended, and whoever waits behind them
// waits for their end: docs/THREAT_MODEL.md promises that the service is well afterwards.
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
std::optional<double> ConnectionsEnded(const Daemon& daemon) {
  constexpr std::string_view kName = "\nstatehouse_connections_ended_total ";
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

// Sends calls that come to nothing, and does not leave by itself, as the flood does when it is kept
// waiting. False: the service has not ended its connection.
bool WastesUntilItIsEnded(FloodKind kind, const FloodTarget& target) {
  constexpr uint32_t kCallsAtOnce = 100;
  constexpr uint32_t kCallsMax = 500'000;
  constexpr uint32_t kCancel = 8;
  constexpr char kMethod[] = "/statehouse.v1.Areas/AddWord";
  const bool is_reset = kind == FloodKind::kRapidResets;
  Http2Connection connection(target.address);
  if (!connection.Send(Preface())) return true;
  for (uint32_t stream = 1; stream < 2 * kCallsMax;) {
    std::string calls;
    for (uint32_t i = 0; i < kCallsAtOnce; ++i, stream += 2) {
      calls += UnaryCall(stream, kMethod, is_reset ? target.token : "", "");
      if (is_reset) calls += EncodeFrame(FrameType::kResetStream, 0, stream, BigEndian32(kCancel));
    }
    if (!connection.Send(calls, std::chrono::milliseconds(60'000))) return true;
  }
  return false;
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
      const auto patience = std::chrono::milliseconds(is_waste ? 1000 : 10'000);
      const std::vector<uint64_t> round = MeasureCalls(target_, kCalls, patience);
      if (!is_waste) {
        ASSERT_EQ(round.size(), kCalls) << "seed " << target_.seed;
      }
      EXPECT_TRUE(bystander.Ping()) << "seed " << target_.seed;
      times.insert(times.end(), round.begin(), round.end());
      most = std::max(most, OwnMib(daemon));
    } while (MonotonicNs() < until);
    EXPECT_GT(flood.sent(), 0u);
    std::printf("%s: %llu sent, %llu connections again; ", GetParam().name,
                static_cast<unsigned long long>(flood.sent()),
                static_cast<unsigned long long>(flood.reconnects()));
  }
  // The flood's own connections may have left before they were ended.
  EXPECT_TRUE(!is_waste || Eventually([&] {
    return WastesUntilItIsEnded(GetParam().kind, target_) &&
           ConnectionsEnded(*daemon_).value_or(0) > 0;
  }));
  const std::optional<double> ended = ConnectionsEnded(*daemon_);
  ASSERT_TRUE(ended.has_value());
  std::sort(times.begin(), times.end());
  const uint64_t p99 = times.empty() ? 0 : times[times.size() * 99 / 100];
  std::printf(
      "%.0f ended; %zu calls answered, p99 %.2f ms, undisturbed %.2f ms; memory %.0f MiB, before "
      "%.0f MiB; "
      "seed %u\n",
      ended.value_or(-1), times.size(), static_cast<double>(p99) / 1e6,
      static_cast<double>(calm[calm.size() * 99 / 100]) / 1e6, most, before, target_.seed);

  EXPECT_LT(most - before, is_waste ? kGrowthOfWasteMibMax : kGrowthMibMax);
  if (!is_waste) {
    EXPECT_LT(p99, kStallNs);
  } else {
    EXPECT_GT(*ended, 0);
  }
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
