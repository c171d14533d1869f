// Watches of a dict that take a change from its ring before the service has read it.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "clients/c/testing/watch_client.h"

namespace statehouse {
namespace {

using Events = std::vector<std::string>;

class WatchRingsTest : public DictClientTest {
 protected:
  // The service, and with it the daemon, does nothing meanwhile.
  class Standstill final {
   public:
    explicit Standstill(pid_t daemon) : daemon_(daemon) {
      EXPECT_EQ(kill(daemon_, SIGSTOP), 0);
      // Its threads stop one after the other, and some time after the call.
      EXPECT_TRUE(testing::Eventually([this] { return AllAreStopped(); }));
    }
    ~Standstill() {
      if (!is_over_) EXPECT_EQ(kill(daemon_, SIGCONT), 0);
    }
    // It was killed.
    void End() { is_over_ = true; }
    Standstill(const Standstill&) = delete;
    Standstill& operator=(const Standstill&) = delete;

   private:
    bool AllAreStopped() const {
      const std::string tasks = "/proc/" + std::to_string(daemon_) + "/task";
      for (const auto& task : std::filesystem::directory_iterator(tasks)) {
        std::ifstream file(task.path() / "stat");
        std::string stat;
        std::getline(file, stat);
        // The state comes behind the name, which may have any character.
        if (stat.find(") T ", stat.rfind(')')) == std::string::npos) return false;
      }
      return true;
    }

    const pid_t daemon_;
    bool is_over_ = false;
  };
  static constexpr uint64_t kShortMs = 300;
  static constexpr int kTries = 30;

  // Sets a key again and again while the service stands still. How often that was told then; what
  // was not must be told afterwards, and everything once.
  template <typename NextOf>
  int TellsAtStandstill(sh_dict* dict, NextOf next, int wanted) {
    int early = 0;
    for (int i = 0; i < kTries && early < wanted; ++i) {
      const std::string put = "put k=" + std::to_string(i);
      std::string told;
      {
        const Standstill standstill(daemon_->daemon_pid());
        EXPECT_EQ(Set(dict, "k", std::to_string(i)), SH_OK);
        told = next(kShortMs);
        early += told == put ? 1 : 0;
      }
      if (told == "nothing") told = next(kPatienceMs);
      EXPECT_EQ(told, put);
      EXPECT_EQ(next(20), "nothing");
    }
    return early;
  }
};

TEST_P(WatchRingsTest, AChangeIsToldWhileTheServiceStandsStill) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  const auto next = [&](uint64_t timeout_ms) { return Next(watch.get(), timeout_ms); };
  EXPECT_EQ(TellsAtStandstill(dict.get(), next, 5), 5);

  // The one after it has to wait.
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  EXPECT_EQ(Next(watch.get()), "put a=1");
  {
    const Standstill standstill(daemon_->daemon_pid());
    ASSERT_EQ(Set(dict.get(), "b", "1"), SH_OK);
    ASSERT_EQ(Set(dict.get(), "c", "1"), SH_OK);
    ASSERT_EQ(Set(dict.get(), "d", "1"), SH_OK);
    std::string told = Next(watch.get(), 50);
    EXPECT_TRUE(told == "put b=1" || told == "nothing") << told;
    EXPECT_EQ(Next(watch.get(), 50), "nothing");
  }
  std::string told = Next(watch.get());
  if (told == "put b=1") told = Next(watch.get());
  EXPECT_EQ(told, "put c=1");
  EXPECT_EQ(Next(watch.get()), "put d=1");
  EXPECT_EQ(Next(watch.get(), 20), "nothing");
}

// The daemon that is killed has not read what was told; the next one gives it the same revision.
TEST_P(WatchRingsTest, WhatWasToldEarlyOutlivesTheDaemon) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  const auto next = [&](uint64_t timeout_ms) { return Next(watch.get(), timeout_ms); };
  int early = 0;
  for (int round = 0; round < kTries && early < 3; ++round) {
    ASSERT_EQ(TellsAtStandstill(dict.get(), next, 1), 1);  // It follows again.
    sh_watch_event event{};
    const std::string put = "put b=" + std::to_string(round);
    {
      Standstill standstill(daemon_->daemon_pid());
      ASSERT_EQ(Set(dict.get(), "b", std::to_string(round)), SH_OK);
      ASSERT_EQ(Set(dict.get(), "c", std::to_string(round)), SH_OK);
      early += Next(watch.get(), kShortMs, &event) == put ? 1 : 0;
      ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
      standstill.End();
    }
    sh_watch_options later{};
    later.from_revision = sh_watch_revision(watch.get());
    const WatchPtr other = Watch(dict.get(), later);
    const bool was_told = event.kind == SH_WATCH_PUT;
    std::string told = Next(watch.get());
    if (told == "synced") told = Next(watch.get());
    if (!was_told) {
      EXPECT_EQ(told, put);
      told = Next(watch.get());
    }
    EXPECT_EQ(told, "put c=" + std::to_string(round));
    Events rest = UntilSynced(other.get());
    rest.pop_back();
    Events wanted{"put c=" + std::to_string(round)};
    if (!was_told) wanted.insert(wanted.begin(), put);
    EXPECT_EQ(rest, wanted);
    if (std::string last = Next(watch.get(), 50); last != "nothing") {
      EXPECT_EQ(last, "synced");
    }
  }
  EXPECT_EQ(early, 3);
}

TEST_P(WatchRingsTest, ADescriptorBecomesReadableWhileTheServiceStandsStill) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  const int fd = sh_watch_fd(watch.get());
  const auto next = [&](uint64_t timeout_ms) {
    for (uint64_t waited_ms = 0; waited_ms <= timeout_ms; waited_ms += 5) {
      if (const std::string told = Next(watch.get(), 0); told != "nothing") return told;
      pollfd waits{fd, POLLIN, 0};
      poll(&waits, 1, 5);
    }
    return std::string("nothing");
  };
  EXPECT_EQ(TellsAtStandstill(dict.get(), next, 3), 3);
}

// In the segment that the dict moved to, too.
TEST_P(WatchRingsTest, ItGoesOnEarlyAfterADictThatGrew) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  // The watcher's client does nothing else with the dict.
  const ClientPtr writer = Connect(daemon_->token());
  const DictPtr other = Open(writer.get(), "d", nullptr);
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(Set(other.get(), "many" + std::to_string(i), "1"), SH_OK);
    ASSERT_EQ(Next(watch.get()), "put many" + std::to_string(i) + "=1");
  }
  const auto next = [&](uint64_t timeout_ms) { return Next(watch.get(), timeout_ms); };
  EXPECT_EQ(TellsAtStandstill(dict.get(), next, 3), 3);
}

// Who may not write cannot arm, and is told in time all the same, while the one who could wake the
// service for him is busy.
TEST_P(WatchRingsTest, WhoMayNotWriteIsNoLater) {
  const DictPtr dict = Open("d");
  const ClientPtr reader = Connect(AddToken("dict:d:read"));
  const DictPtr read = Open(reader.get(), "d", nullptr);
  const WatchPtr busy = Watch(dict.get());
  const WatchPtr reads = Watch(read.get());
  ASSERT_EQ(UntilSynced(busy.get()), (Events{"synced"}));
  ASSERT_EQ(UntilSynced(reads.get()), (Events{"synced"}));
  const auto begin = std::chrono::steady_clock::now();
  constexpr int kSets = 100;
  for (int i = 0; i < kSets; ++i) {
    ASSERT_EQ(Set(dict.get(), "k", std::to_string(i)), SH_OK);
    ASSERT_EQ(Next(reads.get()), "put k=" + std::to_string(i));
  }
  // By the service's own looks it would take five seconds.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(25 * kSets));
  for (int i = 0; i < kSets; ++i) EXPECT_EQ(Next(busy.get()), "put k=" + std::to_string(i));
}

INSTANTIATE_TEST_SUITE_P(Local, WatchRingsTest, ::testing::Values(SH_TRANSPORT_LOCAL), DoorName);

}  // namespace
}  // namespace statehouse
