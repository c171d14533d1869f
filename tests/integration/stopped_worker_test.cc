// A worker that is stopped (SIGSTOP) while it holds bytes in the middle of a range write, against
// the real service: others are told within their operation timeout by whom they are held up, the
// rest goes on, and everything proceeds when the worker goes on or is killed.
//
// This process starts gRPC only after the worker was forked.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/shm/layout.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kRangeBytes = 64 << 10;  // One atomic piece.
constexpr uint64_t kAreaBytes = 2 * kRangeBytes;
constexpr uint64_t kClientTimeoutMs = 60'000;  // STALLED must come from the operation timeout.

// A child process that attaches, tells its lane and writes whole ranges of one byte value until it
// is killed.
[[noreturn]] void WriteRangesForEver(const Daemon& daemon, int told) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  AttachClient client;
  const bool attached =
      client.Connect(daemon.attach_socket()).ok() && client.Hello(daemon.token(), true).ok();
  if (!attached) _exit(1);
  auto area = client.OpenArea("held");
  if (!area.ok()) _exit(2);
  const uint32_t lane = client.lane().id;
  if (write(told, &lane, sizeof(lane)) != sizeof(lane)) _exit(3);
  std::vector<std::byte> bytes(kRangeBytes);
  for (uint8_t value = 1;; ++value) {
    std::memset(bytes.data(), value, bytes.size());
    if (!(*area)->Write(client.lane(), 0, bytes).ok()) _exit(4);
  }
}

// A client of the C library with "held" and "free" open.
struct Peer {
  sh_client* client = nullptr;
  sh_area* held = nullptr;
  sh_area* free = nullptr;

  ~Peer() {
    sh_area_close(held);
    sh_area_close(free);
    sh_close(client);
  }
  void Connect(const Daemon& daemon, sh_transport transport) {
    const std::string url = "statehouse+unix://" + daemon.runtime_dir();
    sh_options options = {};
    options.token = daemon.token().c_str();
    options.timeout_ms = kClientTimeoutMs;
    options.transport = transport;
    ASSERT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    ASSERT_EQ(sh_area_open(client, "held", kAreaBytes, &held, nullptr), SH_OK);
    ASSERT_EQ(sh_area_open(client, "free", 4096, &free, nullptr), SH_OK);
  }
  sh_reason WriteHeld(std::string* message) {
    sh_error* error = nullptr;
    const char bytes[] = "written by a peer";
    const sh_reason reason = sh_write(held, kRangeBytes - 8, bytes, sizeof(bytes), &error);
    if (message != nullptr) *message = sh_error_message(error);
    sh_error_free(error);
    return reason;
  }
};

class StoppedWorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    DaemonOptions options;
    options.environment = {"STATEHOUSED_AREAS__OPERATION_TIMEOUT_MS=200"};
    auto daemon = Daemon::Start(std::move(options));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    {
      Peer maker;
      ASSERT_NO_FATAL_FAILURE(maker.Connect(*daemon_, SH_TRANSPORT_LOCAL));
    }
    ASSERT_NO_FATAL_FAILURE(StartWorker());
    ASSERT_NO_FATAL_FAILURE(local_.Connect(*daemon_, SH_TRANSPORT_LOCAL));
    ASSERT_NO_FATAL_FAILURE(network_.Connect(*daemon_, SH_TRANSPORT_NETWORK));
    ASSERT_TRUE(looker_.Connect(daemon_->attach_socket()).ok());
    ASSERT_TRUE(looker_.Hello(daemon_->token(), true).ok());
    auto area = looker_.OpenArea("held");
    ASSERT_TRUE(area.ok()) << area.status().ToString();
    area_ = *std::move(area);
  }
  void TearDown() override {
    if (worker_ > 0) KillWorker();
  }

  void StartWorker() {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    worker_ = fork();
    if (worker_ == 0) WriteRangesForEver(*daemon_, ends[1]);
    close(ends[1]);
    const ssize_t bytes = read(ends[0], &lane_, sizeof(lane_));
    close(ends[0]);
    ASSERT_EQ(bytes, static_cast<ssize_t>(sizeof(lane_)))
        << "the worker ended with " << WaitForExit(worker_);
  }
  void KillWorker() {
    EXPECT_EQ(kill(worker_, SIGKILL), 0);
    EXPECT_EQ(WaitForExit(worker_), 128 + SIGKILL);
    worker_ = 0;
  }

  // Whether the worker's lane owns the last stripe of its range, as the control word says.
  bool WorkerHolds() const {
    const AreaGeometry& geometry = area_->geometry();
    const std::byte* const segment = area_->data() - geometry.data_offset;
    const auto* const stripes = reinterpret_cast<const StripeLine*>(segment + kStripeLinesOffset);
    return OwnerOf(stripes[(kRangeBytes - 1) >> geometry.stripe_shift].control.load()) == lane_;
  }
  // Stops the worker again and again until it stands still with that stripe in its hands.
  bool StopWhileItHolds() {
    return Eventually([this] {
      if (!StopProcess(worker_)) return false;
      if (WorkerHolds()) return true;
      kill(worker_, SIGCONT);
      return false;
    });
  }
  void ExpectStalledAndNamed(Peer* peer) {
    std::string message;
    EXPECT_EQ(peer->WriteHeld(&message), SH_STALLED) << message;
    EXPECT_THAT(message, HasSubstr("lane " + std::to_string(lane_) + ","));
    EXPECT_THAT(message, HasSubstr("\"held\""));
  }
  // Other bytes of the same area, another area, and the service.
  void ExpectTheRestGoesOn(Peer* peer) {
    EXPECT_EQ(sh_add(peer->held, SH_U64, kAreaBytes - 8, 1, nullptr, nullptr), SH_OK);
    EXPECT_EQ(sh_add(peer->free, SH_U64, 0, 1, nullptr, nullptr), SH_OK);
    EXPECT_EQ(sh_write(peer->free, 100, "range", 5, nullptr), SH_OK);
    sh_status status;
    ASSERT_EQ(sh_get_status(peer->client, &status, nullptr), SH_OK);
    EXPECT_EQ(status.generation, 1u);
    EXPECT_EQ(status.draining, 0);
  }
  bool EventuallyWrites(Peer* peer) {
    return Eventually([peer] { return peer->WriteHeld(nullptr) == SH_OK; });
  }

  std::unique_ptr<Daemon> daemon_;
  pid_t worker_ = 0;
  uint32_t lane_ = 0;
  Peer local_;
  Peer network_;
  AttachClient looker_;
  std::unique_ptr<Area> area_;
};

TEST_F(StoppedWorkerTest, HoldsUpItsBytesOnlyAndIsNamedThroughBothDoors) {
  ASSERT_TRUE(StopWhileItHolds());

  for (Peer* const peer : {&local_, &network_}) {
    ExpectStalledAndNamed(peer);
    ExpectTheRestGoesOn(peer);
  }
}

TEST_F(StoppedWorkerTest, LetsEverybodyProceedWhenItGoesOn) {
  ASSERT_TRUE(StopWhileItHolds());
  ExpectStalledAndNamed(&local_);

  ASSERT_EQ(kill(worker_, SIGCONT), 0);

  EXPECT_TRUE(EventuallyWrites(&local_));
  EXPECT_TRUE(EventuallyWrites(&network_));
  // The worker itself, too: it goes on writing.
  uint64_t before = 0;
  ASSERT_EQ(sh_updates(local_.held, &before, nullptr), SH_OK);
  int changed = 0;
  EXPECT_EQ(sh_wait(local_.held, before, kClientTimeoutMs, &changed, nullptr, nullptr), SH_OK);
  EXPECT_EQ(changed, 1);
}

TEST_F(StoppedWorkerTest, LeavesAWholeRangeWhenItIsKilledInstead) {
  ASSERT_TRUE(StopWhileItHolds());
  ExpectStalledAndNamed(&network_);

  KillWorker();

  std::vector<unsigned char> bytes(kRangeBytes);
  ASSERT_TRUE(Eventually(
      [&] { return sh_read(local_.held, 0, bytes.data(), bytes.size(), nullptr) == SH_OK; }));
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), bytes[0]), static_cast<ptrdiff_t>(bytes.size()));
  EXPECT_TRUE(EventuallyWrites(&local_));
  EXPECT_TRUE(EventuallyWrites(&network_));
  sh_status status;
  ASSERT_EQ(sh_get_status(network_.client, &status, nullptr), SH_OK);
  EXPECT_EQ(status.generation, 1u);
}

}  // namespace
}  // namespace statehouse::testing
