// Batches of the C library when daemons die, connections break, clients close and processes fork.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "clients/c/testing/batch_client.h"
#include "tests/support/fault_proxy.h"

namespace statehouse {
namespace {

class BatchLifecycleTest : public BatchClientTest {
 protected:
  static sh_reason NoteAdd(sh_batch* batch, sh_dict* dict, const char* key = "n") {
    return sh_batch_dict_increment(batch, dict, sh_text(key), sh_int(1), nullptr, nullptr, nullptr);
  }
  static BatchPtr BeginOf(sh_client* client) {
    sh_batch* batch = nullptr;
    EXPECT_EQ(sh_batch_begin(client, nullptr, &batch, nullptr), SH_OK);
    return BatchPtr(batch);
  }
  // Additions of several kinds to one dict, which count once however often they are sent.
  static void NoteAll(sh_batch* batch, sh_dict* dict, size_t count) {
    sh_increment_options long_form{};
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(sh_batch_dict_increment(batch, dict, sh_text("n"), sh_int(1),
                                        i % 3 == 0 ? &long_form : nullptr, nullptr, nullptr),
                SH_OK);
    }
  }
};

// What only happens to batches that are sent.
class BatchNetworkTest : public BatchLifecycleTest {};

TEST_P(BatchNetworkTest, WhatIsSentAgainOverBrokenConnectionsCountsOnce) {
  const DictPtr own = Open("d");
  testing::FaultProxy::Options cut;
  cut.target = daemon_->tcp_address();
  cut.life_ms_max = 40;
  cut.seed = 11;
  auto proxy = testing::FaultProxy::Start(std::move(cut));
  ASSERT_TRUE(proxy.ok()) << proxy.status().message();
  sh_options options{};
  options.token = daemon_->token().c_str();
  options.timeout_ms = kPatienceMs;
  sh_client* connected = nullptr;
  const std::string url = "statehouse://" + (*proxy)->address();
  ASSERT_EQ(sh_connect(url.c_str(), &options, &connected, nullptr), SH_OK);
  const ClientPtr client(connected);
  const DictPtr dict = Open(client.get(), "d", nullptr);
  const BatchPtr batch = BeginOf(client.get());
  int64_t wanted = 0;
  for (int round = 0; (*proxy)->cuts() < 30; ++round) {
    const size_t count = static_cast<size_t>(round % 64) + 1;
    ASSERT_NO_FATAL_FAILURE(NoteAll(batch.get(), dict.get(), count));
    wanted += static_cast<int64_t>(count);
    ASSERT_EQ(RunAll(batch.get()), SH_OK);
    sh_number sum{};
    ASSERT_EQ(sh_batch_result_number(batch.get(), count - 1, &sum, nullptr, nullptr), SH_OK);
    ASSERT_EQ(sum.integer, wanted) << "round " << round;
  }
  EXPECT_EQ(Get(own.get(), "n"), std::to_string(wanted));
}

TEST_P(BatchLifecycleTest, KilledDaemonsCostNothingAndNothingCountsTwice) {
  const DictPtr dict = Open("d");
  const AreaPtr area = OpenArea("a", 64);
  const BatchPtr batch = Begin();
  std::atomic<bool> killed{false};
  std::thread killer([&] {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(daemon_->KillDaemonAndWait().ok());
    killed = true;
  });
  int64_t wanted = 0;
  bool failed = false;
  while (!killed && !failed) {
    NoteAll(batch.get(), dict.get(), 64);
    failed = RunAll(batch.get()) != SH_OK;
    wanted += 64;
  }
  killer.join();
  ASSERT_FALSE(failed);
  EXPECT_EQ(Get(dict.get(), "n"), std::to_string(wanted));
  // Areas of the next daemon hold what those before it were told.
  ASSERT_EQ(sh_batch_area_add(batch.get(), area.get(), SH_U64, 0, 1, 0, nullptr, nullptr), SH_OK);
  EXPECT_EQ(RunAll(batch.get()), SH_OK);
}

TEST_P(BatchLifecycleTest, ALockIsHadOnceOverAKilledDaemon) {
  const BatchPtr batch = Begin();
  size_t at = 0;
  ASSERT_EQ(sh_batch_lock_try(batch.get(), "l", nullptr, &at, nullptr), SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  sh_lock* lock = nullptr;
  ASSERT_EQ(sh_batch_result_lock(batch.get(), at, &lock, nullptr), SH_OK);
  ASSERT_NE(lock, nullptr);
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  ASSERT_EQ(sh_batch_lock_release(batch.get(), lock, &at, nullptr), SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  int held = 0;
  EXPECT_EQ(sh_batch_result_released(batch.get(), at, &held, nullptr), SH_OK);
  EXPECT_EQ(held, 1);
  EXPECT_TRUE(IsFree("l"));
}

TEST_P(BatchNetworkTest, ATimeOutSaysThatItMayHaveBeenCarriedOut) {
  const ClientPtr hasty = Connect(daemon_->token(), 300);
  const sh_dict_spec spec{};
  const DictPtr dict = Open(hasty.get(), "d", &spec);
  const BatchPtr batch = BeginOf(hasty.get());
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  for (size_t i = 0; i < 4097; ++i) ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  const pid_t daemon = daemon_->daemon_pid();
  ASSERT_TRUE(testing::StopProcess(daemon));
  size_t failed = 99;
  sh_error* error = nullptr;
  const sh_reason reason = sh_batch_run(batch.get(), &failed, &error);
  ASSERT_EQ(kill(daemon, SIGCONT), 0);
  EXPECT_EQ(reason, SH_TIMEOUT);
  EXPECT_EQ(failed, 0u);
  EXPECT_NE(std::string(sh_error_message(error)).find("may have been carried out"),
            std::string::npos);
  sh_error_free(error);
  EXPECT_EQ(sh_batch_result(batch.get(), 4095, nullptr), SH_TIMEOUT);
  EXPECT_EQ(sh_batch_result(batch.get(), 4096, nullptr), SH_CANCELLED);  // Never sent.
}

TEST_P(BatchNetworkTest, TriesForLocksWaitForAServiceThatIsAwayOnceAMessage) {
  constexpr uint64_t kTimeoutMs = 300;
  constexpr int kTries = 10;
  const pid_t daemon = daemon_->daemon_pid();
  for (const bool stops : {false, true}) {
    const ClientPtr hasty = Connect(daemon_->token(), kTimeoutMs);
    sh_batch_options options{};
    options.stop_at_failure = stops ? 1 : 0;
    sh_batch* begun = nullptr;
    ASSERT_EQ(sh_batch_begin(hasty.get(), &options, &begun, nullptr), SH_OK);
    const BatchPtr batch(begun);
    for (int i = 0; i < kTries; ++i) {
      const std::string name = "l" + std::to_string(i);
      ASSERT_EQ(sh_batch_lock_try(batch.get(), name.c_str(), nullptr, nullptr, nullptr), SH_OK);
    }
    ASSERT_TRUE(testing::StopProcess(daemon));
    const auto began = std::chrono::steady_clock::now();
    size_t failed = 99;
    const sh_reason reason = sh_batch_run(batch.get(), &failed, nullptr);
    const auto took = std::chrono::steady_clock::now() - began;
    ASSERT_EQ(kill(daemon, SIGCONT), 0);
    EXPECT_TRUE(reason == SH_TIMEOUT || reason == SH_UNAVAILABLE) << sh_reason_name(reason);
    EXPECT_EQ(failed, 0u);
    EXPECT_LT(took, std::chrono::milliseconds(kTimeoutMs) * (kTries / 2));
    for (size_t i = 1; i < kTries; ++i) {
      sh_lock* lock = nullptr;
      sh_error* error = nullptr;
      const sh_reason other = sh_batch_result_lock(batch.get(), i, &lock, &error);
      EXPECT_EQ(other, stops ? SH_CANCELLED : reason) << sh_error_message(error);
      EXPECT_EQ(sh_error_name(error), "l" + std::to_string(i));
      EXPECT_EQ(std::string(sh_error_message(error)).find("may have been"), std::string::npos);
      sh_error_free(error);
    }
  }
}

TEST_P(BatchLifecycleTest, ABatchOfAClosedClientIsRefusedAndMayBeEnded) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  ASSERT_EQ(sh_batch_lock_try(batch.get(), "l", nullptr, nullptr, nullptr), SH_OK);
  client_.reset();
  size_t failed = 99;
  EXPECT_EQ(sh_batch_run(batch.get(), &failed, nullptr), SH_CLIENT_CLOSED);
  EXPECT_EQ(failed, 0u);
  EXPECT_EQ(sh_batch_result(batch.get(), 1, nullptr), SH_CLIENT_CLOSED);
}

// Programs may not do that; what a wrong one meets is an error, at once.
TEST_P(BatchNetworkTest, ClosingTheClientTooEarlyEndsABatchThatIsUnderWay) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);  // The stream is there.
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  const pid_t daemon = daemon_->daemon_pid();
  ASSERT_TRUE(testing::StopProcess(daemon));
  std::atomic<bool> begins{false};
  sh_reason reason = SH_OK;
  std::thread runner([&] {
    begins = true;
    reason = sh_batch_run(batch.get(), nullptr, nullptr);
  });
  EXPECT_TRUE(testing::Eventually([&] { return begins.load(); }));
  client_.reset();
  runner.join();
  ASSERT_EQ(kill(daemon, SIGCONT), 0);
  EXPECT_TRUE(reason == SH_CANCELLED || reason == SH_CLIENT_CLOSED) << sh_reason_name(reason);
}

TEST_P(BatchLifecycleTest, AChildOfAForkGoesOnThroughTheLocalDoorAndIsToldToConnectOnTheOther) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  ASSERT_EQ(NoteAdd(batch.get(), dict.get()), SH_OK);
  const sh_reason wanted = survives_fork() ? SH_OK : SH_CLIENT_FORKED;
  const pid_t child = fork();
  if (child == 0) _exit(sh_batch_run(batch.get(), nullptr, nullptr) == wanted ? 0 : 1);
  ASSERT_GT(child, 0);
  EXPECT_EQ(testing::WaitForExit(child), 0);
  EXPECT_EQ(RunAll(batch.get()), SH_OK);
  EXPECT_EQ(Get(dict.get(), "n"), survives_fork() ? "3" : "2");
}

TEST_P(BatchLifecycleTest, ThreadsWithBatchesAndCallsOfTheirOwnLoseNothing) {
  const DictPtr dict = Open("d");
  constexpr int kThreads = 6;
  constexpr int kRounds = 60;
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const BatchPtr batch = BeginOf(client_.get());
      for (int round = 0; round < kRounds; ++round) {
        for (int i = 0; i < 10; ++i) NoteAdd(batch.get(), dict.get());
        if (sh_batch_run(batch.get(), nullptr, nullptr) != SH_OK) ++failures;
        if (t % 2 == 0 && sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) != SH_OK) {
          ++failures;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(Get(dict.get(), "n"), std::to_string(kThreads * kRounds * 10 + 3 * kRounds));
}

INSTANTIATE_TEST_SUITE_P(Doors, BatchNetworkTest, ::testing::Values(SH_TRANSPORT_NETWORK),
                         DoorName);
INSTANTIATE_TEST_SUITE_P(Doors, BatchLifecycleTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
