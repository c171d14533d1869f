// Histories of real processes on one dict, recorded and checked for linearizability; some callers
// are killed in the middle. Two keys alone and in transactions, and one entry with its versions.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "engine/state/test_dict.h"
#include "gtest/gtest.h"
#include "tests/history/checker.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

RecordedOperation Entry(Action action, uint64_t argument, uint64_t argument2, uint64_t result,
                        uint64_t result2, uint64_t begin, uint64_t end) {
  return RecordedOperation{action, 0, argument, argument2, result, result2, begin, end, true};
}

TEST(EntryCheckerTest, VersionsAreWhatTheDictSaysAndOnlyGrow) {
  std::string why;
  const auto set_one = Entry(Action::kSetEntry, 1, 0, 0, 5, 0, 1);
  EXPECT_TRUE(IsLinearizable({set_one, Entry(Action::kSetEntry, 2, 0, 0, 9, 2, 3)}, 0, 0, &why));
  EXPECT_FALSE(IsLinearizable({set_one, Entry(Action::kSetEntry, 2, 0, 0, 5, 2, 3)}, 0, 0, &why))
      << "a version was used twice";
  EXPECT_FALSE(IsLinearizable({set_one, Entry(Action::kGetEntry, 0, 0, 1, 6, 2, 3)}, 0, 0, &why))
      << "nobody was told this version";
  EXPECT_FALSE(IsLinearizable({set_one, Entry(Action::kDeleteEntry, 0, 0, 1, 0, 2, 3),
                               Entry(Action::kSetEntry, 1, 0, 0, 5, 4, 5)},
                              0, 0, &why))
      << "not even after a deletion";
}

TEST(EntryCheckerTest, ASwapHappensExactlyWhenTheVersionIsTheExpectedOne) {
  std::string why;
  const auto set_one = Entry(Action::kSetEntry, 1, 0, 0, 5, 0, 1);
  EXPECT_TRUE(IsLinearizable({set_one, Entry(Action::kSwapEntry, 3, 5, 1, 6, 2, 3)}, 0, 0, &why));
  EXPECT_TRUE(IsLinearizable({set_one, Entry(Action::kSwapEntry, 3, 4, 0, 5, 2, 3)}, 0, 0, &why));
  EXPECT_FALSE(IsLinearizable({set_one, Entry(Action::kSwapEntry, 3, 4, 1, 6, 2, 3)}, 0, 0, &why));
  EXPECT_FALSE(IsLinearizable({set_one, Entry(Action::kSwapEntry, 3, 5, 0, 5, 2, 3)}, 0, 0, &why));
  EXPECT_TRUE(IsLinearizable({Entry(Action::kSwapEntry, 3, 0, 1, 2, 2, 3)}, 0, 0, &why))
      << "version 0 means absent";
}

TEST(EntryCheckerTest, AKilledWriterLeavesAVersionThatIsFoundOutLater) {
  std::string why;
  RecordedOperation killed{Action::kSetEntry, 0, 1, 0, 0, 0, 0, UINT64_MAX, false};
  EXPECT_TRUE(IsLinearizable({killed, Entry(Action::kGetEntry, 0, 0, 1, 4, 5, 6),
                              Entry(Action::kSwapEntry, 2, 4, 1, 7, 7, 8)},
                             0, 0, &why))
      << why;
  EXPECT_FALSE(IsLinearizable({killed, Entry(Action::kGetEntry, 0, 0, 1, 4, 5, 6),
                               Entry(Action::kGetEntry, 0, 0, 1, 5, 7, 8)},
                              0, 0, &why));
}

constexpr int kProcesses = 3;
constexpr int kOperationsEach = 12;
constexpr uint64_t kPatienceNs = uint64_t{30} * 1'000'000'000;

// What the processes share beside the dict. A process fills an operation's arguments, sets begun,
// operates, then sets answered.
struct Board {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::atomic<int> begun[kProcesses];
  RecordedOperation operations[kProcesses][kOperationsEach];
};

// Two keys: in one bucket's line, in one bucket with a line hung on it, or in two buckets.
struct Place {
  const char* name;
  bool same_bucket;
  int crowd;  // Other keys in the first one's bucket.
};

struct Keys {
  std::string names[2];
};

Keys MakeKeys(TestDict& test, const Place& place) {
  const uint32_t bucket = 7;
  Keys keys;
  int crowd = place.crowd;
  for (int i = 0; keys.names[1].empty(); ++i) {
    const std::string key = "k" + std::to_string(i);
    if (DictInternals::BucketOf(*test.dict, key) != bucket) continue;
    if (keys.names[0].empty()) {
      keys.names[0] = key;
      if (!place.same_bucket) keys.names[1] = "elsewhere";
    } else if (crowd-- > 0) {
      test.Put(key, "crowd");
    } else if (place.same_bucket) {
      keys.names[1] = key;
    }
  }
  return keys;
}

class Caller final {
 public:
  Caller(Dict& dict, const Keys& keys, uint32_t lane)
      : dict_(dict), keys_(keys), lane_{lane, kPatienceNs} {}

  void Perform(RecordedOperation* operation) {
    const std::string& key = keys_.names[operation->word];
    DictResult result;
    switch (operation->action) {
      case Action::kLoad: operation->result = Get(key).bits; break;
      case Action::kStore: Must(SetOrDelete(key, operation->argument)); break;
      case Action::kAdd: operation->result = Add(key, operation->argument).bits; break;
      case Action::kCompareExchange: CompareExchange(key, operation); break;
      case Action::kReadPair:
      case Action::kWritePair: Pair(operation); break;
      case Action::kGetEntry: {
        const DictEntry entry = Get(key);
        operation->result = entry.bits;
        operation->result2 = entry.version;
        break;
      }
      case Action::kSetEntry:
        Must(dict_.Set(lane_, key, Number(operation->argument), {}, &result));
        operation->result2 = result.version;
        break;
      case Action::kDeleteEntry:
        Must(dict_.Delete(lane_, key, {}, &result));
        operation->result = result.existed ? 1 : 0;
        break;
      case Action::kAddToEntry:
        result = Add(key, operation->argument);
        operation->result = result.bits;
        operation->result2 = result.version;
        break;
      case Action::kSwapEntry: {
        DictSetOptions options;
        options.condition.kind = DictCondition::Kind::kVersion;
        options.condition.version = operation->argument2;
        Must(dict_.Set(lane_, key, Number(operation->argument), options, &result));
        operation->result = result.applied ? 1 : 0;
        operation->result2 = result.version;
        break;
      }
    }
  }
  // A version to expect: that of now, or of some time before.
  uint64_t VersionNow() { return Get(keys_.names[0]).version; }

 private:
  static void Must(const Status& status) {
    if (!status.ok()) _exit(5);
  }
  static DictValue Number(uint64_t number) {
    return DictValue::Int64(static_cast<int64_t>(number));
  }
  // Of what is absent: all zeros.
  DictEntry Get(const std::string& key) {
    DictEntry entry;
    bool found = false;
    Must(dict_.Get(key, &entry, &found, kPatienceNs));
    return found ? entry : DictEntry();
  }
  Status SetOrDelete(const std::string& key, uint64_t number) {
    DictResult result;
    if (number == 0) return dict_.Delete(lane_, key, {}, &result);
    return dict_.Set(lane_, key, Number(number), {}, &result);
  }
  DictResult Add(const std::string& key, uint64_t delta) {
    DictIncrement increment;
    increment.delta = Number(delta);
    DictResult result;
    Must(dict_.Increment(lane_, key, increment, &result));
    return result;
  }
  static DictOperation Step(std::string_view key, uint64_t number) {
    DictOperation step;
    step.kind = number == 0 ? DictOperation::Kind::kDelete : DictOperation::Kind::kSet;
    step.key = key;
    step.value = Number(number);
    return step;
  }
  void CompareExchange(const std::string& key, RecordedOperation* operation) {
    DictCompare compare;
    compare.key = key;
    compare.condition.kind =
        operation->argument2 == 0 ? DictCondition::Kind::kAbsent : DictCondition::Kind::kValue;
    compare.condition.value = Number(operation->argument2);
    const DictOperation then = Step(key, operation->argument);
    DictOperation otherwise;
    otherwise.key = key;
    DictTransactionResult result;
    Must(dict_.Transact(lane_, {&compare, 1}, {&then, 1}, {&otherwise, 1}, &result));
    operation->result2 = result.compared ? 1 : 0;
    operation->result = result.compared ? operation->argument2 : result.results[0].entry.bits;
  }
  void Pair(RecordedOperation* operation) {
    DictOperation steps[2];
    if (operation->action == Action::kWritePair) {
      steps[0] = Step(keys_.names[0], operation->argument);
      steps[1] = Step(keys_.names[1], operation->argument2);
    } else {
      steps[0].key = keys_.names[0];
      steps[1].key = keys_.names[1];
    }
    DictTransactionResult result;
    Must(dict_.Transact(lane_, {}, steps, {}, &result));
    if (operation->action == Action::kWritePair) return;
    operation->result = result.results[0].entry.bits;
    operation->result2 = result.results[1].entry.bits;
  }

  Dict& dict_;
  const Keys& keys_;
  const Lane lane_;
};

void Choose(bool entries, std::mt19937* random, Caller* caller, uint64_t* version,
            RecordedOperation* operation) {
  operation->argument = (*random)() % 4;
  operation->argument2 = (*random)() % 4;
  if (!entries) {
    operation->action = static_cast<Action>((*random)() % 6);
    operation->word = static_cast<uint8_t>((*random)() % 2);
    if (operation->action == Action::kAdd) ++operation->argument;
    return;
  }
  const int first = static_cast<int>(Action::kGetEntry);
  operation->action = static_cast<Action>(first + static_cast<int>((*random)() % 5));
  ++operation->argument;
  if (operation->action != Action::kSwapEntry) return;
  if ((*random)() % 4 != 0) *version = caller->VersionNow();
  operation->argument2 = *version;
}

[[noreturn]] void RunProcess(Dict& dict, const Keys& keys, Board* board, int index, bool entries,
                             uint32_t seed) {
  std::mt19937 random(seed);
  Caller caller(dict, keys, static_cast<uint32_t>(index + 1));
  uint64_t version = 0;
  board->ready.fetch_add(1);
  while (!board->go.load()) CpuRelax();
  for (int i = 0; i < kOperationsEach; ++i) {
    RecordedOperation& operation = board->operations[index][i];
    Choose(entries, &random, &caller, &version, &operation);
    operation.begin = MonotonicNs();
    board->begun[index].store(i + 1);
    caller.Perform(&operation);
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

// One round: three processes; with a kill one of them dies and its lane is recovered while the
// others go on.
void RunRound(const Place& place, bool entries, uint32_t seed, bool with_kill) {
  TestDict test(1000, 1 << 20);
  const Keys keys = MakeKeys(test, place);
  auto* board =
      new (mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
          Board{};
  std::mt19937 random(seed);
  pid_t pids[kProcesses];
  for (int p = 0; p < kProcesses; ++p) {
    pids[p] = fork();
    if (pids[p] == 0)
      RunProcess(*test.dict, keys, board, p, entries, seed * 31 + static_cast<uint32_t>(p));
  }
  while (board->ready.load() < kProcesses) SleepNs(0);
  board->go.store(true);
  if (with_kill) {
    const uint64_t until = MonotonicNs() + random() % 20'000;
    while (MonotonicNs() < until) CpuRelax();
    auto pidfd = OpenPidfd(pids[0]);
    kill(pids[0], SIGKILL);
    while (!ProcessHasEnded(pidfd->get())) SleepNs(0);
    (void)test.dict->RecoverLane(1);
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
  test.ExpectSound();
  munmap(board, sizeof(Board));
}

constexpr Place kPlaces[] = {
    {"one bucket", true, 0}, {"one bucket with a line", true, 6}, {"two buckets", false, 2}};

TEST(DictHistoryTest, KeysAloneAndInTransactionsAreLinearizable) {
  const uint32_t seed = std::random_device{}();
  for (int round = 0; round < Rounds(400, 20'000); ++round) {
    RunRound(kPlaces[round % 3], false, seed + static_cast<uint32_t>(round), round % 2 == 1);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DictHistoryTest, AnEntryAndItsVersionsAreLinearizable) {
  const uint32_t seed = std::random_device{}();
  for (int round = 0; round < Rounds(400, 20'000); ++round) {
    RunRound(kPlaces[round % 3], true, seed + static_cast<uint32_t>(round), round % 2 == 1);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace statehouse
