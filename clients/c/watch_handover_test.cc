// Watches that are handed over while the daemon dies: what was handed over is no more when it is
// opened, and the next daemon hands over again.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "clients/c/testing/watch_client.h"

namespace statehouse {
namespace {

using testing::Eventually;

// Holds the threads of this name up in the handler of a signal of its own.
template <int kSignal>
class HeldThread final {
 public:
  explicit HeldThread(const std::string& name) {
    goes_on_ = false;
    struct sigaction action = {};
    action.sa_handler = [](int) {
      ++held_;
      while (!goes_on_) ::poll(nullptr, 0, 1);
      --held_;
    };
    EXPECT_EQ(::sigaction(kSignal, &action, &before_), 0);
    const std::vector<pid_t> threads = ThreadsNamed(name);
    EXPECT_EQ(threads.size(), 1u);
    for (const pid_t thread : threads) EXPECT_EQ(::tgkill(::getpid(), thread, kSignal), 0);
    EXPECT_TRUE(Eventually([&] { return held_ == static_cast<int>(threads.size()); }));
  }
  ~HeldThread() {
    goes_on_ = true;
    EXPECT_TRUE(Eventually([] { return held_ == 0; }));
    EXPECT_EQ(::sigaction(kSignal, &before_, nullptr), 0);
  }
  HeldThread(const HeldThread&) = delete;
  HeldThread& operator=(const HeldThread&) = delete;

 private:
  static inline std::atomic<int> held_{0};
  static inline std::atomic<bool> goes_on_{true};
  struct sigaction before_ = {};
};

class WatchHandoverTest : public DictClientTest {
 protected:
  // Of this daemon; -1 while none answers.
  int64_t Metric(const std::string& name) {
    const std::string all = daemon_->HttpGet("/metrics");
    const size_t at = all.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stoll(all.substr(at + name.size() + 2));
  }
  int64_t HandedOver() { return Metric("statehouse_watch_handed_over_total"); }
};

TEST_P(WatchHandoverTest, AWatchWhoseLogIsNoMoreFollowsTheNextOne) {
  const DictPtr other = Open("other");
  const WatchPtr first = Watch(other.get());  // Both threads stay with it.
  ASSERT_EQ(UntilSynced(first.get()).back(), "synced");
  ASSERT_TRUE(Eventually([] { return MappedLogs() == 1; }));
  const DictPtr dict = Open("d");
  // A stream whose end is seen first goes on as after every other end, which is not meant here.
  int returns = 0;
  for (int kill = 0; kill < 50 && returns < 3; ++kill) {
    WatchPtr watch;
    {
      std::optional<HeldThread<SIGUSR1>> follows("statehouse-flw");
      const int64_t handed_over = HandedOver();
      watch = Watch(dict.get());
      ASSERT_EQ(UntilSynced(watch.get()).back(), "synced");
      ASSERT_TRUE(Eventually([&] { return HandedOver() > handed_over; }));
      ::poll(nullptr, 0, 20);  // Most likely it was read.
      const HeldThread<SIGUSR2> reads("statehouse-read");
      ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
      // Opens what was handed over, before the end of its stream is seen.
      follows.reset();
      ::poll(nullptr, 0, 20);
    }
    const std::string value = std::to_string(kill);
    ASSERT_EQ(Set(dict.get(), "k", value), SH_OK);
    std::string told = Next(watch.get());
    if (told == "synced") told = Next(watch.get());  // Of the next daemon.
    EXPECT_EQ(told, "put k=" + value);
    EXPECT_TRUE(Eventually([] { return MappedLogs() == 2; }));
    returns += Metric("statehouse_watch_follow_fallbacks_total") > 0 ? 1 : 0;
  }
  EXPECT_GT(returns, 0);
}

INSTANTIATE_TEST_SUITE_P(Local, WatchHandoverTest, ::testing::Values(SH_TRANSPORT_LOCAL), DoorName);

}  // namespace
}  // namespace statehouse
