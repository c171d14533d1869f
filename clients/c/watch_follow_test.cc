// Watches that a client of the service's host follows by itself: that it does, that nothing of a
// stream is missing, and when it goes back to one.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "clients/c/testing/watch_client.h"
#include "engine/base/limits.h"

namespace statehouse {
namespace {

using Events = std::vector<std::string>;
using testing::Eventually;

int OpenDescriptors() {
  int count = 0;
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += fd.exists() ? 1 : 0;
  }
  return count;
}

// More than a tick of the kernel's coarse clock, of 1 to 10 ms.
constexpr int64_t kClockStepNs = 20'000'000;
int64_t UnixNs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

class WatchFollowTest : public DictClientTest {
 public:
  // A watch that is synced, and follows unless a log is mapped already.
  static WatchPtr Following(sh_dict* dict, const sh_watch_options& options = {}) {
    WatchPtr watch = Watch(dict, options);
    EXPECT_EQ(UntilSynced(watch.get()).back(), "synced");
    EXPECT_TRUE(Eventually([] { return MappedLogs() == 1; }));
    return watch;
  }

 protected:
  // Whether a watch with these options would follow; gives it some time to.
  bool Follows(sh_dict* dict, const sh_watch_options& options) {
    const WatchPtr watch = Watch(dict, options);
    EXPECT_EQ(UntilSynced(watch.get()).back(), "synced");
    for (int i = 0; i < 50 && MappedLogs() == 0; ++i) poll(nullptr, 0, 2);
    return MappedLogs() > 0;
  }
  void ForgetTokens(const std::string& kept) {
    std::ofstream(daemon_->tokens_file()) << kept;
    ASSERT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);
  }
  std::string Tokens() {
    std::stringstream text;
    text << std::ifstream(daemon_->tokens_file()).rdbuf();
    return text.str();
  }
};

TEST_P(WatchFollowTest, TellsWhatAStreamTells) {
  const DictPtr dict = Open("d");
  sh_watch_options streamed{};
  streamed.slow = SH_SLOW_LATEST;

  const WatchPtr stream = Watch(dict.get(), streamed);
  ASSERT_EQ(UntilSynced(stream.get()), (Events{"synced"}));
  const WatchPtr watch = Following(dict.get());

  const int64_t begun_ns = UnixNs();
  ASSERT_EQ(Set(dict.get(), "a", "[1]"), SH_OK);
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), -5, nullptr, nullptr), SH_OK);
  ASSERT_EQ(Set(dict.get(), "f", "1.5"), SH_OK);
  ASSERT_EQ(Set(dict.get(), "s", "\"text\""), SH_OK);
  ASSERT_EQ(sh_dict_delete_entry(dict.get(), sh_text("a"), nullptr, nullptr, nullptr, nullptr),
            SH_OK);
  for (int i = 0; i < 5; ++i) {
    sh_watch_event over_stream{};
    sh_watch_event followed{};
    const std::string told = Next(stream.get(), kPatienceMs, &over_stream);
    EXPECT_EQ(Next(watch.get(), kPatienceMs, &followed), told);
    EXPECT_EQ(followed.revision, over_stream.revision) << told;
    EXPECT_EQ(followed.version, over_stream.version) << told;
    // Each by its own look at the ring (watch.h), with a clock that is some milliseconds coarse.
    for (const int64_t time_ns : {followed.time_ns, over_stream.time_ns}) {
      EXPECT_GE(time_ns, begun_ns - kClockStepNs) << told;
      EXPECT_LE(time_ns, UnixNs()) << told;
    }
    EXPECT_EQ(followed.value_gone, over_stream.value_gone) << told;
    EXPECT_EQ(sh_watch_revision(watch.get()), sh_watch_revision(stream.get())) << told;
  }
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
}

TEST_P(WatchFollowTest, OptionsThatNeedTheServiceStayWithTheStream) {
  const DictPtr dict = Open("d");
  sh_watch_options previous{};
  previous.previous = 1;
  sh_watch_options window{};
  window.window_us = 1;
  sh_watch_options latest{};
  latest.slow = SH_SLOW_LATEST;
  for (const sh_watch_options& options : {previous, window, latest}) {
    EXPECT_FALSE(Follows(dict.get(), options));
  }
  sh_watch_options rest{};
  rest.keys_only = 1;
  rest.skip_snapshot = 1;
  rest.slow = SH_SLOW_CANCEL;
  rest.progress_ms = 1'000;
  rest.prefix = sh_text("a");
  EXPECT_TRUE(Follows(dict.get(), rest));
}

TEST_P(WatchFollowTest, KeyPrefixKindsAndKeysOnlyChooseWhatIsTold) {
  const DictPtr dict = Open("d");
  sh_watch_options one{};
  one.key = sh_text("web/b");
  one.keys_only = 1;
  sh_watch_options prefix{};
  prefix.prefix = sh_text("web/");
  sh_watch_options ends{};
  ends.kinds = SH_WATCH_MASK(SH_WATCH_DELETE);
  const WatchPtr of_one = Following(dict.get(), one);
  const WatchPtr of_prefix = Following(dict.get(), prefix);
  const WatchPtr of_ends = Following(dict.get(), ends);

  for (const char* key : {"db", "web/a", "web/b"}) ASSERT_EQ(Set(dict.get(), key, "1"), SH_OK);
  ASSERT_EQ(sh_dict_delete_entry(dict.get(), sh_text("db"), nullptr, nullptr, nullptr, nullptr),
            SH_OK);

  EXPECT_EQ(Next(of_one.get()), "put web/b");
  EXPECT_EQ(Take(of_prefix.get(), 2), (Events{"put web/a=1", "put web/b=1"}));
  EXPECT_EQ(Next(of_ends.get()), "delete db");
  for (const WatchPtr* watch : {&of_one, &of_prefix, &of_ends}) {
    EXPECT_EQ(Next(watch->get(), 0), "nothing");
  }
}

TEST_P(WatchFollowTest, ProgressIsToldWhereNothingConcernsIt) {
  const DictPtr dict = Open("d");
  sh_watch_options options{};
  options.progress_ms = 100;
  options.key = sh_text("other");
  const WatchPtr watch = Following(dict.get(), options);
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  sh_watch_event first{};
  sh_watch_event second{};

  EXPECT_EQ(Next(watch.get(), kPatienceMs, &first), "progress");
  ASSERT_EQ(Set(dict.get(), "a", "2"), SH_OK);
  // The one after the next is of a time after the change.
  EXPECT_EQ(Next(watch.get()), "progress");
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &second), "progress");

  EXPECT_GT(second.revision, first.revision);
  EXPECT_EQ(sh_watch_revision(watch.get()), second.revision);
}

TEST_P(WatchFollowTest, GoesOnWhileTheDictGrows) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Following(dict.get());
  constexpr int kKeys = 40'000;  // The first segment has room for far fewer.

  std::thread writer([&] {
    for (int i = 0; i < kKeys; ++i) {
      ASSERT_EQ(Set(dict.get(), "k" + std::to_string(i), std::to_string(i)), SH_OK);
    }
  });
  Replayer replayer;
  sh_watch_event event{};
  while (replayer.entries().size() < kKeys) {
    ASSERT_EQ(sh_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_NE(event.kind, SH_WATCH_NONE);
    // A ring may be overrun by so fast a writer, which is told.
    replayer.Apply(event);
  }
  writer.join();
  for (int i = 0; i < kKeys; i += 997) {
    EXPECT_EQ(replayer.entries().at("k" + std::to_string(i)), std::to_string(i));
  }
}

TEST_P(WatchFollowTest, AClearedDictIsToldByTheStreamAndThenFollowedAgain) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  const WatchPtr watch = Following(dict.get());

  ASSERT_EQ(sh_dict_clear(dict.get(), nullptr, nullptr), SH_OK);
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"resync replaced", "synced"}));
  EXPECT_TRUE(Eventually([] { return MappedLogs() == 1; }));
  ASSERT_EQ(Set(dict.get(), "a", "2"), SH_OK);

  EXPECT_EQ(Next(watch.get()), "put a=2");
}

TEST_P(WatchFollowTest, ARevokedTokenEndsIt) {
  const DictPtr dict = Open("d");
  const std::string before = Tokens();
  const ClientPtr reader = Connect(AddToken("dict:d:read"));
  const DictPtr read = Open(reader.get(), "d", nullptr);
  const WatchPtr watch = Following(read.get());
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  EXPECT_EQ(Next(watch.get()), "put a=1");

  ForgetTokens(before);

  EXPECT_EQ(Next(watch.get()), "UNAUTHENTICATED");
  EXPECT_EQ(MappedLogs(), 0);
}

TEST_P(WatchFollowTest, ADeletedDictEndsIt) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Following(dict.get());
  const WatchPtr sleeps = Following(dict.get());
  const WatchPtr polls = Following(dict.get());
  const int fd = sh_watch_fd(polls.get());
  std::string told;
  std::thread sleeper([&] { told = Next(sleeps.get()); });
  poll(nullptr, 0, 20);  // It sleeps.
  EXPECT_EQ(Next(polls.get(), 0), "nothing");

  ASSERT_EQ(sh_dict_delete(client_.get(), "d", nullptr), SH_OK);

  sleeper.join();
  EXPECT_EQ(told, "DICT_NOT_FOUND");
  EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
  EXPECT_EQ(Next(polls.get(), 0), "DICT_NOT_FOUND");
  EXPECT_EQ(Next(watch.get()), "DICT_NOT_FOUND");
}

// What was committed before the end is told before it, as over a stream.
class EndAfterChanges {
 public:
  static constexpr int kChanges = 5 * SH_WATCH_READ_AHEAD;  // Not all of them are read ahead.

  // Changes that one who streams was told of, so that the log has them. In messages of their own.
  static void Make(sh_dict* dict, sh_watch* stream) {
    for (int i = 0; i < kChanges; ++i) {
      ASSERT_EQ(Set(dict, "k", std::to_string(i)), SH_OK);
      ASSERT_EQ(Next(stream), "put k=" + std::to_string(i));
    }
  }
  static Events Told(const std::string& end) {
    Events events;
    for (int i = 0; i < kChanges; ++i) events.push_back("put k=" + std::to_string(i));
    events.push_back(end);
    events.push_back(end);
    return events;
  }
  // As many events as Told has, of one whose descriptor is `fd`; -1: of one that waits.
  static Events TakeAll(sh_watch* watch, int fd) {
    Events events;
    while (events.size() < kChanges + 2u) {
      EXPECT_TRUE(fd < 0 || Eventually([fd] { return IsReadable(fd); }));
      const std::string told = Next(watch, fd >= 0 ? 0 : kPatienceMs);
      if (told != "nothing") events.push_back(told);
    }
    return events;
  }
  // `end` ends the watches of `read` for `reason`.
  static void Check(sh_dict* dict, sh_dict* read, const std::string& reason,
                    const std::function<void()>& end) {
    sh_watch_options streamed{};
    streamed.slow = SH_SLOW_LATEST;
    const WatchPtr stream = Watch(read, streamed);
    ASSERT_EQ(UntilSynced(stream.get()), (Events{"synced"}));
    const WatchPtr waits = WatchFollowTest::Following(read);
    const WatchPtr polls = WatchFollowTest::Following(read);
    const int fd = sh_watch_fd(polls.get());
    Make(dict, stream.get());

    end();
    ASSERT_EQ(Next(stream.get()), reason);
    poll(nullptr, 0, 100);  // The others' streams end as well.

    EXPECT_EQ(TakeAll(waits.get(), -1), Told(reason));
    EXPECT_EQ(TakeAll(polls.get(), fd), Told(reason));
    EXPECT_EQ(MappedLogs(), 0);
  }
};

TEST_P(WatchFollowTest, WhatCameBeforeADictWasDeletedIsToldBeforeTheEnd) {
  const DictPtr dict = Open("d");
  EndAfterChanges::Check(dict.get(), dict.get(), "DICT_NOT_FOUND",
                         [&] { ASSERT_EQ(sh_dict_delete(client_.get(), "d", nullptr), SH_OK); });
}

TEST_P(WatchFollowTest, WhatCameBeforeATokenWasRevokedIsToldBeforeTheEnd) {
  const DictPtr dict = Open("d");
  const std::string before = Tokens();
  const ClientPtr reader = Connect(AddToken("dict:d:read"));
  const DictPtr read = Open(reader.get(), "d", nullptr);
  EndAfterChanges::Check(dict.get(), read.get(), "UNAUTHENTICATED", [&] { ForgetTokens(before); });
}

// The service may count the stream that was followed still when the next one begins.
TEST_P(WatchFollowTest, AFollowerThatGoesBackAtTheLimitOfWatchesKeepsItsPlace) {
  testing::DaemonOptions options;
  const testing::TemporaryFolder folder;
  const std::string config = folder.path() + "/statehouse.toml";
  std::ofstream(config) << "[watches]\ncount_max = 1\n";
  options.arguments = {"--config", config};
  client_.reset();
  daemon_.reset();
  auto started = testing::Daemon::Start(options);
  ASSERT_TRUE(started.ok()) << started.status().message();
  daemon_ = *std::move(started);
  client_ = Connect(daemon_->token());
  const DictPtr dict = Open("d");
  const WatchPtr watch = Following(dict.get());

  // A rival takes the only place when the follower lets go of it, gives it back, and does not try
  // again before the follower has it.
  std::atomic<int> won{0};
  std::atomic<int> returns{0};
  std::atomic<bool> stop{false};
  std::thread rival([&] {
    while (!stop) {
      const int returned = returns;
      {
        const WatchPtr rivals = Watch(dict.get());
        sh_watch_event event{};
        if (sh_watch_next(rivals.get(), kPatienceMs, &event, nullptr) != SH_OK) continue;
        ++won;
        poll(nullptr, 0, 20);
      }
      while (!stop && returns == returned) poll(nullptr, 0, 1);
    }
  });
  Events told{"synced"};
  for (int i = 0; i < 5'000 && won < 3 && told.back() == "synced"; ++i) {
    EXPECT_EQ(sh_dict_clear(dict.get(), nullptr, nullptr), SH_OK);
    told = UntilSynced(watch.get());
    EXPECT_EQ(told, (Events{"resync replaced", "synced"})) << i;
    EXPECT_TRUE(Eventually([] { return MappedLogs() == 1; }));
    ++returns;
  }
  stop = true;
  rival.join();
  EXPECT_GE(won, 3);

  // Any other watch is refused, and told when to try again.
  const WatchPtr other = Watch(dict.get());
  sh_watch_event event{};
  sh_error* error = nullptr;
  EXPECT_EQ(sh_watch_next(other.get(), kPatienceMs, &event, &error), SH_LIMIT_EXCEEDED);
  EXPECT_GT(sh_error_retry_after_ms(error), 0u);
  sh_error_free(error);
}

// One who wants a key waits and polls while the log has far more of others than is read at once.
TEST_P(WatchFollowTest, AnEventBehindManyThatConcernOthersIsTold) {
  const DictPtr dict = Open("d");
  sh_watch_options options{};
  options.key = sh_text("wanted");
  const WatchPtr waits = Following(dict.get(), options);
  const WatchPtr polls = Following(dict.get(), options);
  const int fd = sh_watch_fd(polls.get());
  const WatchPtr stream = Watch(dict.get());  // Follows as well, and shows what the log has.
  ASSERT_EQ(UntilSynced(stream.get()), (Events{"synced"}));

  for (int i = 0; i < 80; ++i) {
    for (int k = 0; k < 500; ++k) ASSERT_EQ(Set(dict.get(), "other", "1"), SH_OK);
    // No ring is written over before the service has read it.
    for (int k = 0; k < 500; ++k) ASSERT_EQ(Next(stream.get()), "put other=1");
  }
  ASSERT_EQ(Set(dict.get(), "wanted", "1"), SH_OK);
  EXPECT_EQ(Next(stream.get()), "put wanted=1");

  EXPECT_EQ(Next(waits.get()), "put wanted=1");
  std::string told = "nothing";
  while (told == "nothing") {
    ASSERT_TRUE(Eventually([fd] { return IsReadable(fd); }));
    told = Next(polls.get(), 0);
  }
  EXPECT_EQ(told, "put wanted=1");
}

TEST_P(WatchFollowTest, ClosingLeavesNeitherThreadNorMappingNorDescriptor) {
  const DictPtr dict = Open("d");
  { const WatchPtr first = Following(dict.get()); }  // gRPC keeps what it opens once.
  const int descriptors = OpenDescriptors();
  {
    std::vector<WatchPtr> watches;
    for (int i = 0; i < 20; ++i) watches.push_back(Watch(dict.get()));
    for (const WatchPtr& watch : watches) ASSERT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
    ASSERT_TRUE(Eventually([] { return MappedLogs() == 1; }));
    // A new thread has the name of the one that made it, for a moment.
    EXPECT_TRUE(Eventually([] { return FollowThreads() == 1 && ReaderThreads() == 1; }));
    // Each has its eventfd; the log's own descriptor is closed once it is mapped.
    EXPECT_LE(OpenDescriptors(), descriptors + 20);
  }
  EXPECT_EQ(FollowThreads(), 0);
  EXPECT_EQ(ReaderThreads(), 0);
  EXPECT_EQ(MappedLogs(), 0);
  EXPECT_LE(OpenDescriptors(), descriptors);
}

TEST_P(WatchFollowTest, DescriptorIsReadableOnceItWasAskedFor) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Following(dict.get());
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  const int fd = sh_watch_fd(watch.get());

  // What is next, by polling; nothing, where the descriptor was readable for the one before.
  const auto poll_next = [&] {
    std::string told = "nothing";
    while (told == "nothing") {
      EXPECT_TRUE(Eventually([fd] { return IsReadable(fd); }));
      told = Next(watch.get(), 0);
    }
    return told;
  };
  EXPECT_EQ(poll_next(), "put a=1");  // It came before.
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
  for (int i = 0; i < 200; ++i) {  // More than is read ahead.
    ASSERT_EQ(Set(dict.get(), "b", std::to_string(i)), SH_OK);
    poll(nullptr, 0, i % 4 == 0 ? 1 : 0);
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(poll_next(), "put b=" + std::to_string(i));
  }
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
  EXPECT_FALSE(IsReadable(fd));
}

// Changes of some keys by clients of their own, and what each did.
class Writers final {
 public:
  Writers(int count, const std::function<ClientPtr()>& connect) : logs_(count) {
    for (int w = 0; w < count; ++w)
      threads_.emplace_back([this, w, connect] { Run(w, connect()); });
  }
  ~Writers() { Stop(); }
  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  // REQUIRES: they have stopped.
  KeyLogs logs() const {
    KeyLogs all;
    for (const KeyLogs& log : logs_) all.insert(log.begin(), log.end());
    return all;
  }

 private:
  void Run(int w, ClientPtr client) {
    sh_dict* opened = nullptr;
    ASSERT_EQ(sh_dict_open(client.get(), "d", nullptr, &opened, nullptr), SH_OK);
    const DictPtr dict(opened);
    for (int i = 0; !stop_; ++i) {
      const std::string key = "w" + std::to_string(w) + "/" + std::to_string(i % 5);
      EXPECT_EQ(Set(dict.get(), key, std::to_string(i)), SH_OK);
      logs_[static_cast<size_t>(w)][key].push_back(std::to_string(i));
      poll(nullptr, 0, 1);  // A pace at which a ring lasts until the next daemon reads it.
    }
  }

  std::atomic<bool> stop_{false};
  std::vector<KeyLogs> logs_;
  std::vector<std::thread> threads_;
};

// Reads a watch in a thread of its own until it was told as many changes as were made, which may
// become known late.
class Reader final {
 public:
  Reader(sh_watch* watch, bool polls)
      : watch_(watch),
        fd_(polls ? sh_watch_fd(watch) : -1),
        thread_([this] { fd_ >= 0 ? Poll() : Block(); }) {}
  ~Reader() { Finish(0); }
  void Finish(int changes) {
    wanted_ = changes;
    if (thread_.joinable()) thread_.join();
  }
  // REQUIRES: Finish.
  const Replayer& told() const { return told_; }

 private:
  static constexpr int kSilentMax = 60;

  // False at the end.
  bool Next(uint64_t timeout_ms, sh_watch_event* event) {
    const sh_reason reason = sh_watch_next(watch_, timeout_ms, event, nullptr);
    EXPECT_EQ(reason, SH_OK);
    told_.Apply(*event);
    return reason == SH_OK;
  }
  void Block() {
    sh_watch_event event{};
    for (int silent = 0; told_.changes() < wanted_ && silent < kSilentMax;) {
      if (!Next(1'000, &event)) return;
      silent = event.kind == SH_WATCH_NONE ? silent + 1 : 0;
    }
  }
  void Poll() {
    sh_watch_event event{};
    for (int silent = 0; told_.changes() < wanted_ && silent < kSilentMax;) {
      pollfd waits{fd_, POLLIN, 0};
      silent = poll(&waits, 1, 1'000) == 0 ? silent + 1 : 0;
      do {
        if (!Next(0, &event)) return;
      } while (event.kind != SH_WATCH_NONE);
    }
  }

  sh_watch* const watch_;
  const int fd_;
  std::atomic<int> wanted_{std::numeric_limits<int>::max()};
  Replayer told_;
  std::thread thread_;
};

// Beside writers, over daemons that are killed at random moments, one that waits and one that polls
// are told exactly what was done.
TEST_P(WatchFollowTest, GoesOnOverKilledDaemonsWithoutAGapOrARepeat) {
  const DictPtr dict = Open("d");
  const WatchPtr waited = Following(dict.get());
  const WatchPtr polled = Following(dict.get());
  Writers writers(2, [this] { return Connect(daemon_->token()); });
  Reader waits(waited.get(), false);
  Reader polls(polled.get(), true);
  std::mt19937 random(7);

  for (int kill = 0; kill < 6; ++kill) {
    poll(nullptr, 0, static_cast<int>(30 + random() % 100));
    EXPECT_TRUE(daemon_->KillDaemonAndWait().ok());
  }
  writers.Stop();
  const KeyLogs done = writers.logs();
  int changes = 0;
  for (const auto& [key, values] : done) changes += static_cast<int>(values.size());
  for (Reader* const reader : {&waits, &polls}) {
    reader->Finish(changes);
    EXPECT_EQ(reader->told().resyncs(), 0);
    EXPECT_EQ(reader->told().logs(), done);
  }
  ASSERT_EQ(Set(dict.get(), "last", "1"), SH_OK);
  std::string last = Next(waited.get());
  if (last == "synced") last = Next(waited.get());            // Of the last daemon.
  EXPECT_EQ(last, "put last=1");                              // Nothing comes before it again.
  EXPECT_TRUE(Eventually([] { return MappedLogs() == 1; }));  // And they follow again.
}

TEST_P(WatchFollowTest, ASlowFollowerBeginsAnewAndIsToldWhy) {
  const DictPtr dict = Open("d");
  sh_watch_options cancels{};
  cancels.slow = SH_SLOW_CANCEL;
  const WatchPtr watch = Following(dict.get());
  const WatchPtr ends = Following(dict.get(), cancels);
  // By calls, so that the service tells of each at once.
  constexpr int kKeys = 32;
  const std::string wire = Wire('"' + std::string(1'000, 'x') + '"');
  std::vector<std::string> names;
  for (int i = 0; i < kKeys; ++i) names.push_back("k" + std::to_string(i));
  std::vector<sh_bytes> keys;
  for (const std::string& name : names) keys.push_back(Bytes(name));
  const std::vector<sh_bytes> values(kKeys, Bytes(wire));
  sh_options options{};
  options.token = daemon_->token().c_str();
  options.timeout_ms = kPatienceMs;
  options.transport = SH_TRANSPORT_NETWORK;
  sh_client* connected = nullptr;
  const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
  ASSERT_EQ(sh_connect(url.c_str(), &options, &connected, nullptr), SH_OK);
  const ClientPtr client(connected);
  const DictPtr called = Open(client.get(), "d", nullptr);
  for (uint64_t bytes = 0; bytes < 2 * kFeedLogBytesDefault; bytes += kKeys * wire.size()) {
    ASSERT_EQ(sh_dict_set_many(called.get(), keys.data(), values.data(), kKeys, nullptr, nullptr,
                               nullptr),
              SH_OK);
  }

  EXPECT_EQ(Next(watch.get()), "resync slow watcher");
  EXPECT_EQ(UntilSynced(watch.get()).size(), kKeys + 1u);
  ASSERT_EQ(Set(dict.get(), "k", "2"), SH_OK);
  EXPECT_EQ(Next(watch.get()), "put k=2");
  EXPECT_EQ(Next(ends.get()), "LIMIT_EXCEEDED");
}

INSTANTIATE_TEST_SUITE_P(Local, WatchFollowTest, ::testing::Values(SH_TRANSPORT_LOCAL), DoorName);

}  // namespace
}  // namespace statehouse
