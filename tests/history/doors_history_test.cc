// Histories of processes that use both doors of a real service at once, through the C library,
// while the daemon is killed and comes back: what was answered must fit one order of operations on
// one object.
//
// The parent never touches gRPC, so that its children can.
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>

#include "engine/os/futex.h"
#include "gtest/gtest.h"
#include "tests/history/checker.h"
#include "tests/support/daemon.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kProcesses = 4;
constexpr int kOperationsEach = 8;
constexpr uint64_t kAreaBytes = 4 << 20;
constexpr sh_transport kDoors[kProcesses] = {SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK,
                                             SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK};

// What the processes share. Round r begins when `round` becomes r; a process answers with
// `finished`.
struct Board {
  std::atomic<int> round{-1};
  std::atomic<int> finished[kProcesses];
  std::atomic<int> begun[kProcesses];
  std::atomic<bool> stop{false};
  RecordedOperation operations[kProcesses][kOperationsEach];
};

// Every round has a pair of words of its own, each tenth across two stripes.
uint64_t PairPos(int round) {
  const auto number = static_cast<uint64_t>(round);
  return number % 10 == 9 ? 4096 * (1 + number / 10) - 5 : kAreaBytes / 2 + 24 * number;
}

bool Perform(sh_area* area, uint64_t pos, RecordedOperation* operation) {
  const uint64_t at = pos + operation->word * sizeof(uint64_t);
  uint64_t pair[2] = {operation->argument, operation->argument2};
  int exchanged = 0;
  sh_reason reason = SH_INTERNAL;
  switch (operation->action) {
    case Action::kLoad: reason = sh_load(area, SH_U64, at, &operation->result, nullptr); break;
    case Action::kStore: reason = sh_store(area, SH_U64, at, operation->argument, nullptr); break;
    case Action::kAdd:
      reason = sh_add(area, SH_U64, at, static_cast<int64_t>(operation->argument),
                      &operation->result, nullptr);
      break;
    case Action::kCompareExchange:
      reason = sh_compare_exchange(area, SH_U64, at, operation->argument2, operation->argument,
                                   &exchanged, &operation->result, nullptr);
      operation->result2 = static_cast<uint64_t>(exchanged);
      break;
    case Action::kReadPair:
      reason = sh_read(area, pos, pair, sizeof pair, nullptr);
      operation->result = pair[0];
      operation->result2 = pair[1];
      break;
    case Action::kWritePair: reason = sh_write(area, pos, pair, sizeof pair, nullptr); break;
  }
  return reason == SH_OK;
}

void PlayRound(sh_area* area, Board* board, int index, int round, std::mt19937* random) {
  for (int i = 0; i < kOperationsEach; ++i) {
    RecordedOperation operation;
    operation.action = static_cast<Action>((*random)() % 6);
    operation.word = static_cast<uint8_t>((*random)() % 2);
    operation.argument = 1 + (*random)() % 3;
    operation.argument2 = (*random)() % 4;
    operation.begin = MonotonicNs();
    operation.answered = Perform(area, PairPos(round), &operation);
    if (operation.answered) operation.end = MonotonicNs();
    board->operations[index][i] = operation;
    board->begun[index].store(i + 1);
    // Not answered: it may have happened or may still happen, and more of these would only blur the
    // history.
    if (!operation.answered) return;
  }
}

[[noreturn]] void RunProcess(const std::string& url, const std::string& token, Board* board,
                             int index, uint32_t seed) {
  std::mt19937 random(seed);
  sh_options options = {};
  options.token = token.c_str();
  options.transport = kDoors[index];
  options.timeout_ms = 30'000;
  sh_client* client = nullptr;
  sh_area* area = nullptr;
  if (sh_connect(url.c_str(), &options, &client, nullptr) != SH_OK) _exit(3);
  if (sh_area_open(client, "history", kAreaBytes, &area, nullptr) != SH_OK) _exit(4);
  board->finished[index].store(-1);
  for (int round = 0; !board->stop.load();) {
    if (board->round.load() < round) {
      SleepNs(0);
      continue;
    }
    PlayRound(area, board, index, round, &random);
    board->finished[index].store(round++);
  }
  sh_area_close(area);
  sh_close(client);
  _exit(0);
}

class DoorsHistoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = testing::Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = std::move(*daemon);
    void* memory =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    board_ = new (memory) Board{};
    seed_ = std::random_device{}();
    for (int p = 0; p < kProcesses; ++p) {
      board_->finished[p].store(-2);
      pids_[p] = fork();
      if (pids_[p] == 0) {
        RunProcess("statehouse+unix://" + daemon_->runtime_dir(), daemon_->token(), board_, p,
                   seed_ + static_cast<uint32_t>(p));
      }
    }
    ASSERT_TRUE(AllReached(-1)) << "a process did not connect";
  }
  void TearDown() override {
    if (board_ == nullptr) return;
    board_->stop.store(true);
    for (const pid_t pid : pids_) {
      int status = 0;
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << "a process ended with status " << status;
    }
    munmap(board_, sizeof(Board));
  }

  bool AllReached(int round) {
    return testing::Eventually([&] {
      for (int p = 0; p < kProcesses; ++p) {
        if (board_->finished[p].load() < round) return false;
      }
      return true;
    });
  }
  std::vector<RecordedOperation> Collect() const {
    std::vector<RecordedOperation> history;
    for (int p = 0; p < kProcesses; ++p) {
      for (int i = 0; i < board_->begun[p].load(); ++i) history.push_back(board_->operations[p][i]);
    }
    return history;
  }

  std::unique_ptr<testing::Daemon> daemon_;
  Board* board_ = nullptr;
  pid_t pids_[kProcesses] = {};
  uint32_t seed_ = 0;
};

TEST_F(DoorsHistoryTest, BothDoorsAreOneObjectWhileTheDaemonIsKilled) {
  std::mt19937 random(seed_ + 1000);
  const int rounds = Rounds(150, 3'000);
  int killed = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int p = 0; p < kProcesses; ++p) board_->begun[p].store(0);
    board_->round.store(round);
    if (round % 8 == 7) {
      SleepNs(random() % 1'000'000);
      const Status back = daemon_->KillDaemonAndWait();
      ASSERT_TRUE(back.ok()) << back.ToString();
      ++killed;
    }
    ASSERT_TRUE(AllReached(round)) << "round " << round << ", seed " << seed_;

    std::string why;
    ASSERT_TRUE(IsLinearizable(Collect(), 0, 0, &why))
        << "round " << round << ", seed " << seed_ << "\n"
        << why;
  }
  EXPECT_GT(killed, 0);
}

}  // namespace
}  // namespace statehouse
