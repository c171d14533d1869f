// Histories of processes that use both doors of a real service at once, through the C library,
// while the daemon is killed and comes back: what was answered must fit one order of operations on
// one object, and every addition must count exactly once.
//
// The parent never touches gRPC, so that its children can.
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
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
constexpr int kTalliesEach = 4;
constexpr uint64_t kAreaBytes = 4 << 20;
// Words at the end, which no pair reaches: one that all add to, then one for each process alone.
constexpr uint64_t kSharedTallyPos = kAreaBytes - 1024;
constexpr uint64_t OwnTallyPos(int index) {
  return kSharedTallyPos + 64 * (1 + static_cast<uint64_t>(index));
}
constexpr sh_transport kDoors[kProcesses] = {SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK,
                                             SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK};

// What the processes share. Round r begins when `round` becomes r; a process answers with
// `finished`.
struct Board {
  std::atomic<int> round{-1};
  std::atomic<int> finished[kProcesses];
  std::atomic<int> begun[kProcesses];
  std::atomic<bool> stop{false};
  // Additions to the shared word that were answered, and those that may have happened.
  std::atomic<uint64_t> shared_answered{0};
  std::atomic<uint64_t> shared_unknown{0};
  // Additions to the process's own word that happened; exact, because nobody else adds there.
  std::atomic<uint64_t> own_happened[kProcesses];
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
    default: return false;  // Of entries.
  }
  return reason == SH_OK;
}

// Adds one to the own word and to the shared one. An addition without an answer either happened or
// did not; the own word tells which. False when it holds anything else.
bool Tally(sh_area* area, Board* board, int index) {
  const uint64_t before = board->own_happened[index].load();
  uint64_t value = 0;
  if (sh_add(area, SH_U64, OwnTallyPos(index), 1, &value, nullptr) != SH_OK &&
      sh_load(area, SH_U64, OwnTallyPos(index), &value, nullptr) != SH_OK) {
    return false;
  }
  if (value != before + 1 && (kDoors[index] == SH_TRANSPORT_LOCAL || value != before)) return false;
  board->own_happened[index].store(value);
  const sh_reason shared = sh_add(area, SH_U64, kSharedTallyPos, 1, nullptr, nullptr);
  if (shared != SH_OK && kDoors[index] == SH_TRANSPORT_LOCAL) return false;
  ++(shared == SH_OK ? board->shared_answered : board->shared_unknown);
  return true;
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
    for (int i = 0; i < kTalliesEach; ++i) {
      if (!Tally(area, board, index)) _exit(5);
    }
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
    EndProcesses();
    munmap(board_, sizeof(Board));
  }

  void EndProcesses() {
    board_->stop.store(true);
    for (pid_t& pid : pids_) {
      if (pid == 0) continue;
      int status = 0;
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      pid = 0;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << "a process ended with status " << status;
    }
  }

  // Through the local door only: this process must not start gRPC.
  void ExpectExactTallies() {
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    sh_options options = {};
    options.token = daemon_->token().c_str();
    options.transport = SH_TRANSPORT_LOCAL;
    sh_client* client = nullptr;
    sh_area* area = nullptr;
    ASSERT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    ASSERT_EQ(sh_area_open(client, "history", 0, &area, nullptr), SH_OK);
    uint64_t value = 0;
    for (int p = 0; p < kProcesses; ++p) {
      ASSERT_EQ(sh_load(area, SH_U64, OwnTallyPos(p), &value, nullptr), SH_OK);
      EXPECT_EQ(value, board_->own_happened[p].load()) << "process " << p << ", seed " << seed_;
    }
    ASSERT_EQ(sh_load(area, SH_U64, kSharedTallyPos, &value, nullptr), SH_OK);
    EXPECT_GE(value, board_->shared_answered.load());
    EXPECT_LE(value, board_->shared_answered.load() + board_->shared_unknown.load());
    sh_area_close(area);
    sh_close(client);
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
  // The long run kills in every other round: 1,200 times.
  const int rounds = Rounds(150, 2'400);
  const int rounds_per_kill = Rounds(8, 2);
  uint64_t killed = 0;
  uint64_t answered = 0;
  uint64_t unknown = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int p = 0; p < kProcesses; ++p) board_->begun[p].store(0);
    board_->round.store(round);
    if (round % rounds_per_kill == rounds_per_kill - 1) {
      SleepNs(random() % 1'000'000);
      const Status back = daemon_->KillDaemonAndWait();
      ASSERT_TRUE(back.ok()) << back.ToString();
      ++killed;
    }
    ASSERT_TRUE(AllReached(round)) << "round " << round << ", seed " << seed_;

    const std::vector<RecordedOperation> history = Collect();
    for (const RecordedOperation& operation : history) ++(operation.answered ? answered : unknown);
    std::string why;
    ASSERT_TRUE(IsLinearizable(history, 0, 0, &why))
        << "round " << round << ", seed " << seed_ << "\n"
        << why;
  }
  EndProcesses();

  ExpectExactTallies();
  EXPECT_EQ(killed, static_cast<uint64_t>(rounds / rounds_per_kill));
  RecordProperty("daemon_kills", std::to_string(killed));
  RecordProperty("operations_answered", std::to_string(answered));
  std::printf(
      "%llu daemon kills in %d rounds: %llu operations answered, %llu not; %llu additions "
      "answered, %llu not\n",
      static_cast<unsigned long long>(killed), rounds, static_cast<unsigned long long>(answered),
      static_cast<unsigned long long>(unknown),
      static_cast<unsigned long long>(board_->shared_answered.load()),
      static_cast<unsigned long long>(board_->shared_unknown.load()));
}

}  // namespace
}  // namespace statehouse
