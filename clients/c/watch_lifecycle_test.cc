// The C library's watches over what happens to them: daemons that are killed, connections that
// break, event loops, threads, forks, and handles that are closed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "clients/c/testing/watch_client.h"
#include "engine/os/unique_fd.h"
#include "tests/support/fault_proxy.h"

namespace statehouse {
namespace {

using Events = std::vector<std::string>;
using testing::Eventually;

class WatchLifecycleTest : public DictClientTest {
 protected:
  // Changes of a few keys, by a client of its own, until told to stop.
  class Writer final {
   public:
    Writer(ClientPtr client, DictPtr dict)
        : client_(std::move(client)), dict_(std::move(dict)), thread_([this] { Run(); }) {}
    ~Writer() { Stop(); }
    void Stop() {
      stop_ = true;
      if (thread_.joinable()) thread_.join();
    }
    int changes() const { return changes_; }
    const KeyLogs& logs() const { return logs_; }

   private:
    void Run() {
      for (int i = 0; !stop_; ++i) {
        const std::string key = "k" + std::to_string(i % 7);
        std::vector<std::string>& log = logs_[key];
        const bool deletes = i % 5 == 4 && !log.empty() && log.back() != "deleted";
        const sh_reason reason = deletes ? sh_dict_delete_entry(dict_.get(), Bytes(key), nullptr,
                                                                nullptr, nullptr, nullptr)
                                         : Set(dict_.get(), key, std::to_string(i));
        EXPECT_EQ(reason, SH_OK);
        log.push_back(deletes ? "deleted" : std::to_string(i));
        ++changes_;
        poll(nullptr, 0, 1);  // A pace at which the service's history lasts.
      }
    }

    const ClientPtr client_;
    const DictPtr dict_;
    std::atomic<bool> stop_{false};
    std::atomic<int> changes_{0};
    KeyLogs logs_;
    std::thread thread_;
  };

  std::unique_ptr<Writer> StartWriter(const char* name) {
    ClientPtr client = Connect(daemon_->token());
    DictPtr dict = Open(client.get(), name, nullptr);
    return std::make_unique<Writer>(std::move(client), std::move(dict));
  }
  // Applies events until the replayer has seen `changes`.
  static void Follow(sh_watch* watch, int changes, Replayer* replayer) {
    sh_watch_event event{};
    while (replayer->changes() < changes) {
      ASSERT_EQ(sh_watch_next(watch, kPatienceMs, &event, nullptr), SH_OK);
      ASSERT_NE(event.kind, SH_WATCH_NONE) << replayer->changes() << " of " << changes;
      replayer->Apply(event);
    }
  }
};

TEST_P(WatchLifecycleTest, GoesOnOverKilledDaemonsWithoutAGapOrARepeat) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  Replayer replayer;
  const std::unique_ptr<Writer> writer = StartWriter("d");
  for (int kill = 0; kill < 3; ++kill) {
    Follow(watch.get(), replayer.changes() + 40, &replayer);
    ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  }
  Follow(watch.get(), replayer.changes() + 40, &replayer);
  writer->Stop();
  Follow(watch.get(), writer->changes(), &replayer);
  EXPECT_EQ(replayer.logs(), writer->logs());
  EXPECT_EQ(replayer.resyncs(), 0);
  ASSERT_EQ(Set(dict.get(), "last", "1"), SH_OK);  // Nothing comes before it again.
  Follow(watch.get(), writer->changes() + 1, &replayer);
  EXPECT_EQ(replayer.entries().count("last"), 1u);
}

TEST_P(WatchLifecycleTest, GoesOnOverBrokenConnections) {
  testing::FaultProxy::Options cut;
  cut.target = daemon_->tcp_address();
  cut.life_ms_max = 60;
  cut.seed = 7;
  auto proxy = testing::FaultProxy::Start(std::move(cut));
  ASSERT_TRUE(proxy.ok()) << proxy.status().message();
  const DictPtr dict = Open("d");
  const std::unique_ptr<Writer> writer = StartWriter("d");
  sh_options options{};
  options.token = daemon_->token().c_str();
  options.timeout_ms = kPatienceMs;
  sh_client* connected = nullptr;
  const std::string url = "statehouse://" + (*proxy)->address();
  ASSERT_EQ(sh_connect(url.c_str(), &options, &connected, nullptr), SH_OK);
  const ClientPtr client(connected);
  const DictPtr watched = Open(client.get(), "d", nullptr);
  sh_watch_options later{};
  const WatchPtr first = Watch(dict.get());
  UntilSynced(first.get());
  later.from_revision = sh_watch_revision(first.get());
  const WatchPtr watch = Watch(watched.get(), later);
  Replayer cut_off;
  Replayer whole;
  for (uint64_t cuts = 0; cuts < 10; cuts = (*proxy)->cuts()) {
    Follow(watch.get(), cut_off.changes() + 5, &cut_off);
  }
  writer->Stop();
  (*proxy)->StopCutting();
  ASSERT_EQ(Set(dict.get(), "last", "1"), SH_OK);
  while (cut_off.entries().count("last") == 0) {
    Follow(watch.get(), cut_off.changes() + 1, &cut_off);
  }
  Follow(first.get(), cut_off.changes(), &whole);
  EXPECT_EQ(cut_off.resyncs(), 0);
  EXPECT_EQ(cut_off.logs(), whole.logs());
}

TEST_P(WatchLifecycleTest, OneThreadReadsForAHundredWatchesInAnEpollLoop) {
  constexpr int kWatches = 100;
  const DictPtr dict = Open("d");
  ASSERT_EQ(ReaderThreads(), 0);
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  std::vector<WatchPtr> watches;
  for (int i = 0; i < kWatches; ++i) {
    const std::string prefix = "k" + std::to_string(i) + "/";
    sh_watch_options options{};
    options.prefix = Bytes(prefix);
    watches.push_back(Watch(dict.get(), options));
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u32 = static_cast<uint32_t>(i);
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, sh_watch_fd(watches.back().get()), &wanted), 0);
  }
  // A new thread has the name of the one that made it, for a moment.
  EXPECT_TRUE(Eventually([] { return ReaderThreads() == 1; }));
  int synced = 0;
  int puts = 0;
  const auto serve = [&] {
    epoll_event events[16];
    const int count = epoll_wait(epoll.get(), events, 16, static_cast<int>(kPatienceMs));
    ASSERT_GT(count, 0);
    for (int i = 0; i < count; ++i) {
      sh_watch* const watch = watches[events[i].data.u32].get();
      std::string told = Next(watch, 0);
      for (; told != "nothing"; told = Next(watch, 0)) {
        synced += told == "synced" ? 1 : 0;
        puts += told == "put k" + std::to_string(events[i].data.u32) + "/a=1" ? 1 : 0;
      }
    }
  };
  while (synced < kWatches) ASSERT_NO_FATAL_FAILURE(serve());
  for (int i = 0; i < kWatches; ++i) {
    ASSERT_EQ(Set(dict.get(), "k" + std::to_string(i) + "/a", "1"), SH_OK);
  }
  while (puts < kWatches) ASSERT_NO_FATAL_FAILURE(serve());
  EXPECT_EQ(puts, kWatches);
  EXPECT_EQ(ReaderThreads(), 1);
  watches.clear();
  EXPECT_EQ(ReaderThreads(), 0);
}

TEST_P(WatchLifecycleTest, DescriptorIsReadableWhileThereIsSomethingToGive) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  const int fd = sh_watch_fd(watch.get());
  EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
  EXPECT_EQ(Next(watch.get(), 0), "synced");
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  ASSERT_EQ(Set(dict.get(), "b", "1"), SH_OK);
  EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
  EXPECT_EQ(Next(watch.get()), "put a=1");
  EXPECT_EQ(Next(watch.get()), "put b=1");
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
  sh_watch_cancel(watch.get());
  EXPECT_TRUE(IsReadable(fd));
  EXPECT_EQ(Next(watch.get(), 0), "CANCELLED");
  EXPECT_TRUE(IsReadable(fd));  // The error comes again and again.
}

TEST_P(WatchLifecycleTest, WatchesThatNobodyReadsKeepLittleMemory) {
  const DictPtr dict = Open("d");
  std::vector<WatchPtr> watches;
  for (int i = 0; i < 4; ++i) watches.push_back(Watch(dict.get()));
  for (const WatchPtr& watch : watches) ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  const WatchPtr live = Watch(dict.get());
  ASSERT_EQ(UntilSynced(live.get()), (Events{"synced"}));
  const std::string json = '"' + std::string(100'000, 'x') + '"';
  const uint64_t before = PrivateKiB();
  for (int i = 0; i < 400; ++i) {  // 40 MB, that four watches would have 160 MB of.
    ASSERT_EQ(Set(dict.get(), "k", json), SH_OK);
    ASSERT_NE(Next(live.get()), "nothing");
  }
  EXPECT_LT(PrivateKiB(), before + 64 * 1024);
  for (const WatchPtr& watch : watches) {
    EXPECT_TRUE(IsReadable(sh_watch_fd(watch.get())));
  }
}

TEST_P(WatchLifecycleTest, ClosingAndCancellingWakeWhoWaits) {
  const DictPtr dict = Open("d");
  for (const bool cancels : {false, true}) {
    sh_watch* const watch = Watch(dict.get()).release();
    ASSERT_EQ(UntilSynced(watch), (Events{"synced"}));
    std::atomic<bool> waits{false};
    std::string told;
    std::thread waiter([&] {
      do {  // Refused where the other thread looks at that moment.
        waits = true;
        told = Next(watch, SH_FOREVER);
      } while (told == "INVALID_ARGUMENT");
    });
    ASSERT_TRUE(Eventually([&] {
      // Refused while the waiter is inside, and with nothing to give it stays there.
      sh_watch_event event{};
      return waits && sh_watch_next(watch, 0, &event, nullptr) == SH_INVALID_ARGUMENT;
    }));
    if (cancels) {
      sh_watch_cancel(watch);
      waiter.join();
      EXPECT_EQ(told, "CANCELLED");
      EXPECT_EQ(Next(watch), "CANCELLED");
      sh_watch_close(watch);
    } else {
      sh_watch_close(watch);
      waiter.join();
      EXPECT_EQ(told, "CLIENT_CLOSED");
    }
  }
}

TEST_P(WatchLifecycleTest, WatchOutlivesItsDictAndEndsWithItsClient) {
  DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  const WatchPtr unread = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  const DictPtr left_open = Open("d");
  dict.reset();
  EXPECT_EQ(Next(watch.get()), "put a=1");
  client_.reset();
  EXPECT_EQ(Take(watch.get(), 2), (Events{"CLIENT_CLOSED", "CLIENT_CLOSED"}));
  EXPECT_EQ(Next(unread.get()), "CLIENT_CLOSED");
  sh_watch* none = nullptr;
  EXPECT_EQ(sh_dict_watch(left_open.get(), nullptr, &none, nullptr), SH_CLIENT_CLOSED);
}

TEST_P(WatchLifecycleTest, ClosingAWatchOfAServiceThatIsGoneDoesNotWait) {
  const DictPtr dict = Open("d");
  WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  EXPECT_EQ(daemon_->Stop(), 0);
  EXPECT_EQ(Next(watch.get(), 20), "nothing");
  WatchPtr second = Watch(dict.get());
  EXPECT_EQ(Next(second.get(), 20), "nothing");
  watch.reset();
  second.reset();
  EXPECT_EQ(ReaderThreads(), 0);
}

TEST_P(WatchLifecycleTest, ForkedChildHasNoWatchAndTheParentsGoesOn) {
  const DictPtr dict = Open("d");
  WatchPtr watch = Watch(dict.get());
  ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  ASSERT_TRUE(Eventually([&] { return IsReadable(sh_watch_fd(watch.get())); }));
  EXPECT_EQ(InChild([&] {
              sh_watch* opened = nullptr;
              const int fd = sh_watch_fd(watch.get());
              bool good = Next(watch.get()) == "CLIENT_FORKED";
              good =
                  good && sh_dict_watch(dict.get(), nullptr, &opened, nullptr) == SH_CLIENT_FORKED;
              sh_watch_cancel(watch.get());
              watch.reset();
              return good && fcntl(fd, F_GETFD) == -1;
            }),
            0);
  EXPECT_TRUE(IsReadable(sh_watch_fd(watch.get())));
  EXPECT_EQ(Next(watch.get()), "put a=1");
  ASSERT_EQ(Set(dict.get(), "a", "2"), SH_OK);
  EXPECT_EQ(Next(watch.get()), "put a=2");
}

INSTANTIATE_TEST_SUITE_P(Doors, WatchLifecycleTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse
