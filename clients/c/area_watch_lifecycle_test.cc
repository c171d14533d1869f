// The C library's watches of areas over what happens to them: daemons that are killed, connections
// that break, programs that do not read, threads, forks, and handles that are closed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clients/c/testing/area_watch_client.h"
#include "tests/support/fault_proxy.h"

namespace statehouse {
namespace {

using Events = std::vector<std::string>;
using testing::Eventually;

constexpr uint64_t kWords = 512;
constexpr uint64_t kAreaBytes = kWords * 8;

class AreaWatchLifecycleTest : public DictClientTest {
 protected:
  // Stores growing numbers in the words of the area, by a client of its own, until told to stop.
  class Writer final {
   public:
    Writer(ClientPtr client, AreaPtr area)
        : client_(std::move(client)), area_(std::move(area)), thread_([this] { Run(); }) {}
    ~Writer() { Stop(); }
    void Stop() {
      stop_ = true;
      if (thread_.joinable()) thread_.join();
    }

   private:
    void Run() {
      for (uint64_t i = 1; !stop_; ++i) {
        // Nobody but the caller sends a store again.
        sh_reason reason = SH_UNAVAILABLE;
        while (reason == SH_UNAVAILABLE && !stop_) {
          reason = sh_store(area_.get(), SH_U64, i * 37 % kWords * 8, i, nullptr);
        }
        EXPECT_TRUE(reason == SH_OK || reason == SH_UNAVAILABLE) << sh_reason_name(reason);
        poll(nullptr, 0, 1);  // A pace that leaves the others room.
      }
    }

    const ClientPtr client_;
    const AreaPtr area_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
  };

  AreaPtr OpenA(uint64_t size = kAreaBytes) { return OpenArea(client_.get(), "a", size); }
  std::unique_ptr<Writer> StartWriter() {
    ClientPtr client = Connect(daemon_->token());
    AreaPtr area = OpenArea(client.get(), "a", 0);
    return std::make_unique<Writer>(std::move(client), std::move(area));
  }
  static void ApplyNext(sh_watch* watch, AreaReplayer* replayer) {
    sh_area_watch_event event{};
    ASSERT_EQ(sh_area_watch_next(watch, kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_NE(event.kind, SH_AREA_WATCH_NONE);
    ASSERT_NO_FATAL_FAILURE(replayer->Apply(event));
  }
  // Applies events until the replayer has seen so many more changes.
  static void Follow(sh_watch* watch, int changes, AreaReplayer* replayer) {
    const int until = replayer->changes() + changes;
    while (replayer->changes() < until) ASSERT_NO_FATAL_FAILURE(ApplyNext(watch, replayer));
  }
  // REQUIRES: nobody writes any more.
  static void FollowToTheEnd(sh_watch* watch, sh_area* area, AreaReplayer* replayer) {
    while (!replayer->is_synced() || !replayer->Equals(area)) {
      ASSERT_NO_FATAL_FAILURE(ApplyNext(watch, replayer));
    }
  }
};

TEST_P(AreaWatchLifecycleTest, GoesOnOverKilledDaemonsWithoutAGap) {
  const AreaPtr area = OpenA();
  const WatchPtr whole = WatchArea(area.get());
  sh_area_watch_options slow{};
  slow.window_us = 5'000;
  const WatchPtr part = WatchArea(area.get(), 64, 1'024, slow);
  AreaReplayer of_whole(0, kAreaBytes);
  AreaReplayer of_part(64, 1'024);
  const std::unique_ptr<Writer> writer = StartWriter();
  for (int kill = 0; kill < 3; ++kill) {
    ASSERT_NO_FATAL_FAILURE(Follow(whole.get(), 40, &of_whole));
    ASSERT_NO_FATAL_FAILURE(Follow(part.get(), 1, &of_part));
    ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  }
  ASSERT_NO_FATAL_FAILURE(Follow(whole.get(), 40, &of_whole));
  writer->Stop();
  ASSERT_NO_FATAL_FAILURE(FollowToTheEnd(whole.get(), area.get(), &of_whole));
  ASSERT_NO_FATAL_FAILURE(FollowToTheEnd(part.get(), area.get(), &of_part));
  EXPECT_EQ(of_whole.resyncs(), 0);
  EXPECT_EQ(of_part.resyncs(), 0);
}

// A later stream goes on behind what was read ahead, and does not tell it again.
TEST_P(AreaWatchLifecycleTest, WhatWasReadAheadIsToldAfterTheDaemonWasKilled) {
  const AreaPtr area = OpenA();
  const WatchPtr watch = WatchArea(area.get(), 0, 4);
  ASSERT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+4 ....", "synced"}));
  ASSERT_EQ(NextOfArea(watch.get(), 0), "nothing");
  ASSERT_EQ(Write(area.get(), 0, "a"), SH_OK);
  ASSERT_TRUE(Eventually([&] { return IsReadable(sh_watch_fd(watch.get())); }));
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_EQ(NextOfArea(watch.get()), "change 0+1 a");
  EXPECT_EQ(NextOfArea(watch.get()), "synced");
  // Nobody but the caller sends a write again.
  ASSERT_TRUE(Eventually([&] { return Write(area.get(), 2, "b") == SH_OK; }));
  EXPECT_EQ(NextOfArea(watch.get()), "change 2+1 b");
}

TEST_P(AreaWatchLifecycleTest, GoesOnOverBrokenConnections) {
  testing::FaultProxy::Options cut;
  cut.target = daemon_->tcp_address();
  cut.life_ms_max = 60;
  cut.seed = 7;
  auto proxy = testing::FaultProxy::Start(std::move(cut));
  ASSERT_TRUE(proxy.ok()) << proxy.status().message();
  const AreaPtr area = OpenA();
  const std::unique_ptr<Writer> writer = StartWriter();
  sh_options options{};
  options.token = daemon_->token().c_str();
  options.timeout_ms = kPatienceMs;
  sh_client* connected = nullptr;
  const std::string url = "statehouse://" + (*proxy)->address();
  ASSERT_EQ(sh_connect(url.c_str(), &options, &connected, nullptr), SH_OK);
  const ClientPtr client(connected);
  const AreaPtr watched = OpenArea(client.get(), "a", 0);
  const WatchPtr watch = WatchArea(watched.get());
  AreaReplayer replayer(0, kAreaBytes);
  while ((*proxy)->cuts() < 10) {
    ASSERT_NO_FATAL_FAILURE(Follow(watch.get(), 5, &replayer));
  }
  writer->Stop();
  (*proxy)->StopCutting();
  ASSERT_NO_FATAL_FAILURE(FollowToTheEnd(watch.get(), area.get(), &replayer));
  EXPECT_EQ(replayer.resyncs(), 0);
}

TEST_P(AreaWatchLifecycleTest, PointOfABrokenOffWatchLosesNothing) {
  const AreaPtr area = OpenA();
  AreaReplayer replayer(0, kAreaBytes);
  const std::unique_ptr<Writer> writer = StartWriter();
  sh_area_watch_options options{};
  for (int round = 0; round < 5; ++round) {
    const WatchPtr watch = WatchArea(area.get(), 0, kAreaBytes, options);
    do {
      ASSERT_NO_FATAL_FAILURE(Follow(watch.get(), 10, &replayer));
    } while (!replayer.is_synced());
    options.from = sh_area_watch_point(watch.get());
    ASSERT_EQ(options.from.is_set, 1);
  }
  writer->Stop();
  const WatchPtr last = WatchArea(area.get(), 0, kAreaBytes, options);
  ASSERT_NO_FATAL_FAILURE(FollowToTheEnd(last.get(), area.get(), &replayer));
  EXPECT_EQ(replayer.resyncs(), 0);
}

TEST_P(AreaWatchLifecycleTest, OneThreadReadsForWatchesOfDictsAndAreas) {
  ASSERT_EQ(ReaderThreads(), 0);
  const AreaPtr area = OpenA();
  const DictPtr dict = Open("d");
  WatchPtr of_area = WatchArea(area.get(), 0, 1);
  WatchPtr of_dict = Watch(dict.get());
  EXPECT_EQ(TakeOfArea(of_area.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  EXPECT_EQ(Next(of_dict.get()), "synced");
  EXPECT_EQ(ReaderThreads(), 1);
  of_dict.reset();
  EXPECT_EQ(ReaderThreads(), 1);
  of_area.reset();
  EXPECT_EQ(ReaderThreads(), 0);
}

TEST_P(AreaWatchLifecycleTest, DescriptorIsReadableWhileThereIsSomethingToGive) {
  const AreaPtr area = OpenA();
  const WatchPtr watch = WatchArea(area.get(), 0, 8);
  const int fd = sh_watch_fd(watch.get());
  EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+8 ........", "synced"}));
  EXPECT_EQ(NextOfArea(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
  ASSERT_EQ(Write(area.get(), 1, "a"), SH_OK);
  EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
  EXPECT_EQ(NextOfArea(watch.get(), 0), "change 1+1 a");
  EXPECT_EQ(NextOfArea(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
  sh_watch_cancel(watch.get());
  EXPECT_TRUE(IsReadable(fd));
  EXPECT_EQ(NextOfArea(watch.get(), 0), "CANCELLED");
  EXPECT_TRUE(IsReadable(fd));  // The error comes again and again.
}

// Nobody keeps the bytes that nobody reads; the newest come once somebody does.
TEST_P(AreaWatchLifecycleTest, WatchesThatNobodyReadKeepLittleMemoryAndGetTheNewestBytes) {
  constexpr uint64_t kBytes = 512 * 1024;
  const AreaPtr area = OpenA(kBytes);
  std::vector<WatchPtr> unread;
  for (int i = 0; i < 4; ++i) unread.push_back(WatchArea(area.get()));
  for (const WatchPtr& watch : unread) {
    ASSERT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+524288", "synced"}));
  }
  const WatchPtr live = WatchArea(area.get());
  ASSERT_EQ(TakeOfArea(live.get(), 2), (Events{"snapshot 0+524288", "synced"}));
  const uint64_t before = PrivateKiB();
  constexpr int kRounds = 100;  // 50 MB, that four watches would have 200 MB of.
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_EQ(Write(area.get(), 0, std::string(kBytes, static_cast<char>('a' + round % 25))),
              SH_OK);
    ASSERT_NE(NextOfArea(live.get()), "nothing");
  }
  EXPECT_LT(PrivateKiB(), before + 64 * 1024);
  ASSERT_EQ(sh_fill(area.get(), 0, kBytes, 'z', nullptr), SH_OK);
  for (const WatchPtr& watch : unread) {
    EXPECT_TRUE(IsReadable(sh_watch_fd(watch.get())));
    std::string bytes(kBytes, '\0');
    int events = 0;
    for (; bytes != std::string(kBytes, 'z'); ++events) {
      sh_area_watch_event event{};
      ASSERT_EQ(sh_area_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
      ASSERT_EQ(event.kind, SH_AREA_WATCH_CHANGE);
      bytes.replace(event.pos, event.len, Text(event.bytes));
    }
    EXPECT_LT(events, kRounds);
  }
}

TEST_P(AreaWatchLifecycleTest, ClosingAndCancellingWakeWhoWaits) {
  const AreaPtr area = OpenA();
  for (const bool cancels : {false, true}) {
    sh_watch* const watch = WatchArea(area.get(), 0, 1).release();
    ASSERT_EQ(TakeOfArea(watch, 2), (Events{"snapshot 0+1 .", "synced"}));
    std::atomic<bool> waits{false};
    std::string told;
    std::thread waiter([&] {
      do {  // Refused where the other thread looks at that moment.
        waits = true;
        told = NextOfArea(watch, SH_FOREVER);
      } while (told == "INVALID_ARGUMENT");
    });
    ASSERT_TRUE(Eventually([&] {
      // Refused while the waiter is inside, and with nothing to give it stays there.
      return waits && NextOfArea(watch, 0) == "INVALID_ARGUMENT";
    }));
    if (cancels) {
      sh_watch_cancel(watch);
      waiter.join();
      EXPECT_EQ(told, "CANCELLED");
      EXPECT_EQ(NextOfArea(watch), "CANCELLED");
      sh_watch_close(watch);
    } else {
      sh_watch_close(watch);
      waiter.join();
      EXPECT_EQ(told, "CLIENT_CLOSED");
    }
  }
}

TEST_P(AreaWatchLifecycleTest, WatchOutlivesItsAreaHandleAndEndsWithItsClient) {
  AreaPtr area = OpenA();
  const WatchPtr watch = WatchArea(area.get(), 0, 1);
  const WatchPtr unread = WatchArea(area.get(), 0, 1);
  ASSERT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  ASSERT_EQ(Write(area.get(), 0, "a"), SH_OK);
  const AreaPtr left_open = OpenA();
  area.reset();
  EXPECT_EQ(NextOfArea(watch.get()), "change 0+1 a");
  client_.reset();
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"CLIENT_CLOSED", "CLIENT_CLOSED"}));
  EXPECT_EQ(NextOfArea(unread.get()), "CLIENT_CLOSED");
  sh_watch* none = nullptr;
  EXPECT_EQ(sh_area_watch(left_open.get(), 0, 1, nullptr, &none, nullptr), SH_CLIENT_CLOSED);
}

TEST_P(AreaWatchLifecycleTest, ForkedChildHasNoWatchAndTheParentsGoesOn) {
  const AreaPtr area = OpenA();
  WatchPtr watch = WatchArea(area.get(), 0, 1);
  ASSERT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  ASSERT_EQ(NextOfArea(watch.get(), 0), "nothing");
  ASSERT_EQ(Write(area.get(), 0, "a"), SH_OK);
  ASSERT_TRUE(Eventually([&] { return IsReadable(sh_watch_fd(watch.get())); }));
  EXPECT_EQ(InChild([&] {
              sh_watch* opened = nullptr;
              const int fd = sh_watch_fd(watch.get());
              bool good = NextOfArea(watch.get()) == "CLIENT_FORKED";
              good = good && sh_area_watch_point(watch.get()).is_set == 0;
              good = good &&
                     sh_area_watch(area.get(), 0, 1, nullptr, &opened, nullptr) == SH_CLIENT_FORKED;
              sh_watch_cancel(watch.get());
              watch.reset();
              return good && fcntl(fd, F_GETFD) == -1;
            }),
            0);
  EXPECT_TRUE(IsReadable(sh_watch_fd(watch.get())));
  EXPECT_EQ(NextOfArea(watch.get()), "change 0+1 a");
  ASSERT_EQ(Write(area.get(), 0, "b"), SH_OK);
  EXPECT_EQ(NextOfArea(watch.get()), "change 0+1 b");
}

INSTANTIATE_TEST_SUITE_P(Doors, AreaWatchLifecycleTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse
