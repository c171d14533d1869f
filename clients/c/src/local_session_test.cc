#include "clients/c/src/local_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <thread>
#include <vector>

#include "clients/c/src/wait_message.h"
#include "clients/c/testing/fake_daemon.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);  // For what must happen.

class LocalSessionTest : public testing::Test {
 protected:
  std::shared_ptr<LocalSession> Attach(const std::string& token = "") {
    LocalSessionOptions options;
    options.runtime_dir = daemon_.runtime_dir();
    options.token = token;
    options.client_name = "test";
    options.timeout = kPatience;
    StatusOr<std::shared_ptr<LocalSession>> session = LocalSession::Attach(options);
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    return session.ok() ? *session : nullptr;
  }

  static uint64_t MustAdd(LocalArea& area, uint64_t pos, uint64_t delta) {
    uint64_t value = 0;
    const Status status = area.Add(WordType::kU64, pos, delta, &value);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return value;
  }

  static Deadline Soon() { return steady_clock::now() + kPatience; }

  FakeDaemon daemon_;
};

// Runs `check` in a forked child and says whether it returned true there.
template <typename Check>
bool TrueInChild(const Check& check) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(check() ? 0 : 1);
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

TEST_F(LocalSessionTest, OpensAnAreaAndOperatesWithoutTheDaemon) {
  daemon_.CreateArea("counters", 4096);
  const auto session = Attach();
  const auto area = session->Open("counters");
  ASSERT_TRUE(area.ok()) << area.status().ToString();
  daemon_.StopServing();

  EXPECT_EQ(MustAdd(**area, 8, 5), 5u);
  EXPECT_EQ(MustAdd(**area, 8, 2), 7u);
  std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
  EXPECT_TRUE((*area)->Write(100, bytes).ok());
  std::array<std::byte, 3> found{};
  EXPECT_TRUE((*area)->Read(100, found).ok());
  EXPECT_EQ(found, bytes);
  EXPECT_EQ(*(*area)->Updates(), 3u);
}

TEST_F(LocalSessionTest, OpeningAgainSharesTheMapping) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto first = session->Open("a");
  const auto second = session->Open("#0");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*first, *second);
}

TEST_F(LocalSessionTest, AnUnknownAreaIsReportedByTheDaemonsReason) {
  const auto session = Attach();
  EXPECT_EQ(session->Open("nothing").status().reason(), Reason::kAreaNotFound);
}

TEST_F(LocalSessionTest, AWrongTokenIsRefusedAtOnce) {
  daemon_.RequireToken("right");
  LocalSessionOptions options;
  options.runtime_dir = daemon_.runtime_dir();
  options.token = "wrong";
  EXPECT_EQ(LocalSession::Attach(options).status().reason(), Reason::kUnauthenticated);
  EXPECT_NE(Attach("right"), nullptr);
}

TEST_F(LocalSessionTest, AttachingWaitsForADaemonThatStartsLater) {
  daemon_.StopServing();
  std::shared_ptr<LocalSession> session;
  std::thread attaching([&] { session = Attach(); });
  daemon_.Serve();
  attaching.join();
  EXPECT_NE(session, nullptr);
}

TEST_F(LocalSessionTest, AttachingToNobodyIsUnavailableAfterTheTimeout) {
  daemon_.StopServing();
  LocalSessionOptions options;
  options.runtime_dir = daemon_.runtime_dir();
  options.timeout = milliseconds(20);
  const auto started = steady_clock::now();
  EXPECT_EQ(LocalSession::Attach(options).status().reason(), Reason::kUnavailable);
  EXPECT_GE(steady_clock::now() - started, milliseconds(20));
}

TEST_F(LocalSessionTest, ManyThreadsCountExactly) {
  daemon_.CreateArea("counters", 4096);
  const auto session = Attach();
  const auto area = session->Open("counters");
  ASSERT_TRUE(area.ok());
  constexpr int kThreads = 20;  // More than a block has lanes.
  constexpr int kAdds = 2000;

  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kAdds; ++n) MustAdd(**area, 0, 1);
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(MustAdd(**area, 0, 0), uint64_t{kThreads} * kAdds);
}

TEST_F(LocalSessionTest, AThreadGivesItsLaneBackWhenItEnds) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  std::set<uint32_t> lanes;
  for (uint32_t i = 0; i < 3 * kLanesPerBlock; ++i) {
    std::thread([&] {
      MustAdd(**area, 0, 1);
      lanes.insert(thread_lane.lane.id);
      EXPECT_EQ(thread_lane.shared, nullptr);
    }).join();
  }
  EXPECT_EQ(lanes.size(), 1u);
}

TEST_F(LocalSessionTest, OneThreadUsesTwoSessionsInTurn) {
  daemon_.CreateArea("a", 4096);
  const auto first_session = Attach();
  const auto second_session = Attach();
  const auto first = first_session->Open("a");
  const auto second = second_session->Open("a");
  ASSERT_TRUE(first.ok() && second.ok());
  for (uint64_t i = 1; i <= 10; i += 2) {
    EXPECT_EQ(MustAdd(**first, 0, 1), i);
    EXPECT_EQ(MustAdd(**second, 0, 1), i + 1);
  }
}

TEST_F(LocalSessionTest, AClosedSessionRefusesEverything) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  session->Close();

  uint64_t bits = 0;
  std::array<std::byte, 1> byte{};
  EXPECT_EQ((*area)->Load(WordType::kU8, 0, &bits).reason(), Reason::kClientClosed);
  EXPECT_EQ((*area)->Store(WordType::kU8, 0, 1).reason(), Reason::kClientClosed);
  EXPECT_EQ((*area)->Read(0, byte).reason(), Reason::kClientClosed);
  EXPECT_EQ((*area)->Updates().status().reason(), Reason::kClientClosed);
  EXPECT_EQ((*area)->Wait(0, Soon()).status().reason(), Reason::kClientClosed);
  EXPECT_EQ(session->Open("a").status().reason(), Reason::kClientClosed);
  EXPECT_EQ(session->Call("/x", "", CallOptions{Soon()}).status().reason(), Reason::kClientClosed);
}

TEST_F(LocalSessionTest, ClosingGivesTheLanesBackToTheDaemon) {
  for (int i = 0; i < 5; ++i) {
    const auto session = Attach();
    session->Close();
  }
  const auto last = Attach();
  const Deadline deadline = Soon();
  while (daemon_.engine().Totals().attached_processes != 1 && steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(daemon_.engine().Totals().attached_processes, 1u);
}

TEST_F(LocalSessionTest, CallsAreAnsweredAndErrorsKeepTheirReason) {
  daemon_.HandleCalls([](const std::string& method, const std::string& request) {
    if (method == "/echo") return StatusOr<std::string>(request + "!");
    return StatusOr<std::string>(Status(Reason::kDraining, "going"));
  });
  const auto session = Attach();
  const auto response = session->Call("/echo", "hello", CallOptions{Soon()});
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(*response, "hello!");
  EXPECT_EQ(session->Call("/other", "", CallOptions{Soon()}).status().reason(), Reason::kDraining);
}

TEST_F(LocalSessionTest, ACallWhoseTimeIsOverIsNotSent) {
  daemon_.HandleCalls([](const std::string&, const std::string&) {
    return StatusOr<std::string>(std::string("done"));
  });
  const auto session = Attach();
  ASSERT_TRUE(session->Call("/x", "", CallOptions{Soon()}).ok());
  const auto expect_not_sent = [&](const CallOptions& options) {
    StatusOr<std::string> response(std::string{});
    ASSERT_TRUE(session->CallIfFree("/x", "", options, Soon(), &response));
    for (const Status& status : {response.status(), session->Call("/x", "", options).status()}) {
      EXPECT_EQ(status.reason(), Reason::kTimeout);
      EXPECT_THAT(status.message(), testing::HasSubstr("was not sent"));
    }
  };

  CallOptions over{steady_clock::now()};
  expect_not_sent(over);
  over.idempotent = true;
  expect_not_sent(over);
  over.long_running = true;
  expect_not_sent(over);
  daemon_.StopServing();  // Nor is anybody waited for.
  expect_not_sent(over);
  daemon_.Serve();

  EXPECT_EQ(daemon_.calls(), 1);
  EXPECT_EQ(daemon_.hellos_without_lanes(), 0);  // The first call took the attachment's.
  EXPECT_TRUE(session->Call("/x", "", CallOptions{Soon()}).ok());
}

TEST_F(LocalSessionTest, AnAnswerThatCannotBeReadMayBelongToACallThatWasCarriedOut) {
  daemon_.HandleCalls([](const std::string& method, const std::string&) {
    if (method == "/x") return StatusOr<std::string>(std::string("done"));
    return StatusOr<std::string>(Status(Reason::kInvalidArgument, "no such thing"));
  });
  const auto session = Attach();
  CallOptions options{Soon()};
  options.idempotent = true;
  daemon_.GarbleNextAnswer();
  const Status garbled = session->Call("/x", "", options).status();
  EXPECT_EQ(garbled.reason(), Reason::kInvalidArgument);
  EXPECT_THAT(garbled.message(), testing::HasSubstr("may have been carried out"));
  EXPECT_EQ(daemon_.calls(), 1);
  EXPECT_TRUE(session->Call("/x", "", options).ok());
  const Status refused = session->Call("/other", "", options).status();  // By the daemon.
  EXPECT_EQ(refused.reason(), Reason::kInvalidArgument);
  EXPECT_EQ(refused.message(), "no such thing");
}

TEST_F(LocalSessionTest, CallsReconnectAfterTheDaemonRestartedAndAreasGoOn) {
  daemon_.CreateArea("a", 4096);
  daemon_.HandleCalls([](const std::string&, const std::string&) {
    return StatusOr<std::string>(std::string("done"));
  });
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  MustAdd(**area, 0, 1);
  daemon_.StopServing();
  EXPECT_EQ(MustAdd(**area, 0, 1), 2u);
  daemon_.Serve();

  EXPECT_TRUE(session->Call("/x", "", CallOptions{Soon()}).ok());
  EXPECT_EQ(daemon_.hellos_without_lanes(), 1);
  EXPECT_EQ(MustAdd(**area, 0, 1), 3u);
}

TEST_F(LocalSessionTest, AreasOpenAfterTheDaemonRestarted) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto before = session->Open("a");
  ASSERT_TRUE(before.ok());
  MustAdd(**before, 0, 1);
  daemon_.StopServing();
  daemon_.CreateArea("b", 4096);
  daemon_.Serve();

  const auto after = session->Open("b");
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_EQ(MustAdd(**after, 0, 1), 1u);
  EXPECT_EQ(MustAdd(**before, 0, 1), 2u);
  EXPECT_EQ(daemon_.hellos_with_lanes(), 2);
}

TEST_F(LocalSessionTest, OnlyIdempotentCallsAreSentAgain) {
  daemon_.HandleCalls([](const std::string&, const std::string&) {
    return StatusOr<std::string>(std::string("done"));
  });
  const auto session = Attach();
  CallOptions options{Soon()};
  options.idempotent = true;
  daemon_.LoseNextAnswer();
  EXPECT_TRUE(session->Call("/x", "", options).ok());
  EXPECT_EQ(daemon_.calls(), 2);

  options.idempotent = false;
  daemon_.LoseNextAnswer();
  const auto lost = session->Call("/x", "", options);
  EXPECT_EQ(lost.status().reason(), Reason::kUnavailable);
  EXPECT_THAT(lost.status().message(), testing::HasSubstr("unknown"));
  EXPECT_EQ(daemon_.calls(), 3);
}

TEST_F(LocalSessionTest, ADeletedAreaIsReportedAndItsNameOpensTheNewOne) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto old_area = session->Open("a");
  ASSERT_TRUE(old_area.ok());
  MustAdd(**old_area, 0, 41);
  ASSERT_TRUE(daemon_.engine().DeleteArea("a").ok());

  uint64_t bits = 0;
  EXPECT_EQ((*old_area)->Load(WordType::kU64, 0, &bits).reason(), Reason::kAreaNotFound);
  EXPECT_EQ((*old_area)->Add(WordType::kU64, 0, 1, &bits).reason(), Reason::kAreaNotFound);
  EXPECT_EQ((*old_area)->Updates().status().reason(), Reason::kAreaNotFound);
  EXPECT_EQ((*old_area)->Wait((*old_area)->Updates().ok(), Soon()).status().reason(),
            Reason::kAreaNotFound);
  daemon_.CreateArea("a", 8192);
  const auto new_area = session->Open("a");
  ASSERT_TRUE(new_area.ok());
  EXPECT_EQ((*new_area)->size(), 8192u);
  EXPECT_EQ(MustAdd(**new_area, 0, 1), 1u);
}

TEST_F(LocalSessionTest, WaitingEndsWithAnUpdate) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  const uint64_t since = *(*area)->Updates();
  std::thread writer([&] { MustAdd(**area, 0, 1); });
  const auto result = (*area)->Wait(since, Soon());
  writer.join();
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result.value().changed);
  EXPECT_FALSE((*area)->Wait(result.value().updates, steady_clock::now()).value().changed);
}

TEST_F(LocalSessionTest, AReadOnlyAreaReadsAndWaitsThroughTheDaemon) {
  daemon_.CreateArea("a", 4096);
  daemon_.OpenAreasReadOnly();
  std::string asked;
  daemon_.HandleCalls([&](const std::string& method, const std::string& request) {
    asked = method + " " + std::to_string(request.size());
    return StatusOr<std::string>(std::string("\x08\x01\x10\x2a", 4));  // changed, updates 42
  });
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());

  uint64_t bits = 1;
  std::array<std::byte, 4> bytes{};
  EXPECT_TRUE((*area)->Load(WordType::kU64, 0, &bits).ok());
  EXPECT_EQ(bits, 0u);
  EXPECT_TRUE((*area)->Read(0, bytes).ok());
  EXPECT_EQ((*area)->Add(WordType::kU64, 0, 1, &bits).reason(), Reason::kReadOnly);
  EXPECT_EQ((*area)->Write(0, bytes).reason(), Reason::kReadOnly);
  const auto waited = (*area)->Wait(7, Soon());
  ASSERT_TRUE(waited.ok()) << waited.status().ToString();
  EXPECT_EQ(waited.value().updates, 42u);
  EXPECT_THAT(asked, testing::StartsWith("/statehouse.v1.Areas/WaitArea "));
}

TEST_F(LocalSessionTest, AForkedChildAttachesAnewAndBothCount) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  MustAdd(**area, 0, 1);

  EXPECT_TRUE(TrueInChild([&] {
    const uint32_t parents_lane = thread_lane.lane.id;
    return MustAdd(**area, 0, 10) == 11 && thread_lane.lane.id != parents_lane &&
           session->Open("a").ok() && *session->Open("a") == *area;
  }));
  EXPECT_EQ(MustAdd(**area, 0, 1), 12u);
  EXPECT_EQ(daemon_.hellos_with_lanes(), 2);
}

TEST_F(LocalSessionTest, AForkedChildDoesNotKeepItsParentsLease) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  // The fake daemon shares this process: once it answers again, it has closed its copy of the
  // lease.
  ASSERT_TRUE(session->Open("a").ok());
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::close(pipe[1]);
    ::_exit(::read(pipe[0], &byte, 1) == 0 ? 0 : 1);  // Lives until the parent is done.
  }
  ASSERT_GT(child, 0);
  ::close(pipe[0]);
  session->Close();
  const Deadline deadline = Soon();
  while (daemon_.engine().Totals().attached_processes != 0 && steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(daemon_.engine().Totals().attached_processes, 0u);
  ::close(pipe[1]);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
}

TEST_F(LocalSessionTest, ForkingWhileThreadsWorkLeavesAUsableChild) {
  daemon_.CreateArea("a", 4096);
  const auto session = Attach();
  const auto area = session->Open("a");
  ASSERT_TRUE(area.ok());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        MustAdd(**area, 0, 1);
        std::thread([&] { MustAdd(**area, 0, 1); }).join();
      }
    });
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(TrueInChild([&] {
      uint64_t value = 0;
      return area.value()->Add(WordType::kU64, 8, 1, &value).ok();
    }));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(MustAdd(**area, 8, 0), 20u);
}

TEST(WaitMessageTest, ARequestIsWhatProtobufWouldWrite) {
  EXPECT_EQ(EncodeWaitAreaRequest("ab", 300, 1'000'000'005),
            std::string("\x0a\x02"
                        "ab\x10\xac\x02\x1a\x04\x08\x01\x10\x05",
                        13));
}

TEST(WaitMessageTest, TruncatedAndUnknownFieldsAreHandled) {
  const std::string good("\x1a\x02xy\x08\x01\x10\x96\x01", 9);
  ASSERT_TRUE(DecodeWaitAreaResponse(good).ok());
  EXPECT_EQ(DecodeWaitAreaResponse(good).value().updates, 150u);
  for (const size_t cut : {size_t{1}, size_t{2}, size_t{3}, size_t{5}, size_t{8}}) {
    EXPECT_EQ(DecodeWaitAreaResponse(good.substr(0, cut)).status().reason(), Reason::kInternal)
        << cut;
  }
}

}  // namespace
}  // namespace statehouse
