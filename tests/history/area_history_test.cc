// Histories of real processes on one pair of words, recorded and checked for linearizability; some
// callers are killed in the middle. First the checker itself must tell right from wrong.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"
#include "tests/history/checker.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

RecordedOperation Op(Action action, uint64_t argument, uint64_t result, uint64_t begin,
                     uint64_t end) {
  return RecordedOperation{action, 0, argument, 0, result, 0, begin, end, true};
}

TEST(CheckerTest, AcceptsAnOverlapThatSomeOrderExplains) {
  std::string why;
  EXPECT_TRUE(
      IsLinearizable({Op(Action::kAdd, 1, 2, 0, 10), Op(Action::kAdd, 1, 1, 1, 9)}, 0, 0, &why))
      << why;
}

TEST(CheckerTest, RefusesALostUpdate) {
  std::string why;
  EXPECT_FALSE(
      IsLinearizable({Op(Action::kAdd, 1, 1, 0, 10), Op(Action::kAdd, 1, 1, 1, 9)}, 0, 0, &why));
  EXPECT_NE(why.find("add word 0"), std::string::npos);
}

TEST(CheckerTest, RefusesAStaleReadAfterTheWriteEnded) {
  std::string why;
  EXPECT_FALSE(
      IsLinearizable({Op(Action::kStore, 5, 0, 0, 1), Op(Action::kLoad, 0, 0, 2, 3)}, 0, 0, &why));
  EXPECT_TRUE(
      IsLinearizable({Op(Action::kStore, 5, 0, 0, 2), Op(Action::kLoad, 0, 0, 1, 3)}, 0, 0, &why))
      << why;
}

TEST(CheckerTest, RefusesATornPair) {
  RecordedOperation write{Action::kWritePair, 0, 7, 8, 0, 0, 0, 9, true};
  RecordedOperation read{Action::kReadPair, 0, 0, 0, 7, 0, 1, 8, true};
  std::string why;
  EXPECT_FALSE(IsLinearizable({write, read}, 0, 0, &why));
  read.result2 = 8;
  EXPECT_TRUE(IsLinearizable({write, read}, 0, 0, &why)) << why;
}

TEST(CheckerTest, KilledOperationMayHaveHappenedOrNot) {
  RecordedOperation killed{Action::kAdd, 0, 1, 0, 0, 0, 0, UINT64_MAX, false};
  std::string why;
  EXPECT_TRUE(IsLinearizable({killed, Op(Action::kLoad, 0, 0, 5, 6)}, 0, 0, &why)) << why;
  EXPECT_TRUE(IsLinearizable({killed, Op(Action::kLoad, 0, 1, 5, 6)}, 0, 0, &why)) << why;
  EXPECT_FALSE(IsLinearizable({killed, Op(Action::kLoad, 0, 2, 5, 6)}, 0, 0, &why));
}

constexpr int kProcesses = 3;
constexpr int kOperationsEach = 12;

// What the processes share beside the area. A process fills a slot's arguments, sets begun,
// operates, then sets answered.
struct Board {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::atomic<int> begun[kProcesses];
  RecordedOperation operations[kProcesses][kOperationsEach];
};

// The pair stands where the test wants it: aligned in one stripe, or with the second word across
// two.
struct Place {
  const char* name;
  uint64_t pos;
};

void Perform(Area& area, const Lane& lane, uint64_t pos, RecordedOperation* operation) {
  const uint64_t at = pos + operation->word * sizeof(uint64_t);
  uint64_t pair[2] = {operation->argument, operation->argument2};
  CompareExchangeResult exchange;
  Status status;
  switch (operation->action) {
    case Action::kLoad: status = area.LoadAs(at, &operation->result); break;
    case Action::kStore: status = area.StoreAs(lane, at, operation->argument); break;
    case Action::kAdd:
      status = area.AddAs(lane, at, operation->argument, &operation->result);
      break;
    case Action::kCompareExchange:
      status = area.CompareExchange(lane, WordType::kU64, at, operation->argument2,
                                    operation->argument, &exchange);
      operation->result = exchange.found;
      operation->result2 = exchange.exchanged ? 1 : 0;
      break;
    case Action::kReadPair:
      status = area.Read(pos, std::as_writable_bytes(std::span(pair)), &lane);
      operation->result = pair[0];
      operation->result2 = pair[1];
      break;
    case Action::kWritePair: status = area.Write(lane, pos, std::as_bytes(std::span(pair))); break;
    default: _exit(6);  // Of entries.
  }
  if (!status.ok()) _exit(5);
}

[[noreturn]] void RunProcess(Area& area, Board* board, int index, uint64_t pos, uint32_t seed) {
  std::mt19937 random(seed);
  const Lane lane{static_cast<uint32_t>(index + 1), uint64_t{30} * 1'000'000'000};
  board->ready.fetch_add(1);
  while (!board->go.load()) CpuRelax();
  for (int i = 0; i < kOperationsEach; ++i) {
    RecordedOperation& operation = board->operations[index][i];
    operation.action = static_cast<Action>(random() % 6);
    operation.word = static_cast<uint8_t>(random() % 2);
    operation.argument = 1 + random() % 3;
    operation.argument2 = random() % 4;
    operation.begin = MonotonicNs();
    board->begun[index].store(i + 1);
    Perform(area, lane, pos, &operation);
    operation.end = MonotonicNs();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    operation.answered = true;
  }
  _exit(0);
}

std::vector<RecordedOperation> Collect(const Board& board) {
  std::vector<RecordedOperation> history;
  for (int p = 0; p < kProcesses; ++p) {
    for (int i = 0; i < board.begun[p].load(); ++i) {
      history.push_back(board.operations[p][i]);
      if (!history.back().answered) history.back().end = UINT64_MAX;
    }
  }
  return history;
}

// One round: three processes, in every second round one of them is killed and its lane recovered
// while the others go on.
void RunRound(const Place& place, uint32_t seed, bool with_kill) {
  TestArea test(3 * 4096);
  auto* board =
      new (mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
          Board{};
  std::mt19937 random(seed);
  pid_t pids[kProcesses];
  for (int p = 0; p < kProcesses; ++p) {
    pids[p] = fork();
    if (pids[p] == 0)
      RunProcess(*test.area, board, p, place.pos, seed * 31 + static_cast<uint32_t>(p));
  }
  while (board->ready.load() < kProcesses) SleepNs(0);
  board->go.store(true);
  if (with_kill) {
    const uint64_t until = MonotonicNs() + random() % 20'000;
    while (MonotonicNs() < until) CpuRelax();
    auto pidfd = OpenPidfd(pids[0]);
    kill(pids[0], SIGKILL);
    while (!ProcessHasEnded(pidfd->get())) SleepNs(0);
    (void)test.area->RecoverLane(1);
  }
  for (const pid_t pid : pids) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0)
        << "a process failed with " << WEXITSTATUS(status);
  }

  std::string why;
  EXPECT_TRUE(IsLinearizable(Collect(*board), 0, 0, &why))
      << place.name << ", seed " << seed << "\n"
      << why;
  munmap(board, sizeof(Board));
}

TEST(AreaHistoryTest, WordsAndRangesOfSeveralProcessesAreLinearizable) {
  const Place places[] = {
      {"one stripe, aligned", 64}, {"one stripe, unaligned", 101}, {"across stripes", 4084}};
  const uint32_t seed = std::random_device{}();
  for (int round = 0; round < Rounds(600, 20'000); ++round) {
    RunRound(places[round % 3], seed + static_cast<uint32_t>(round), round % 2 == 1);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace statehouse
