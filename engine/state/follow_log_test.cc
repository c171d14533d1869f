// The follow log: what a reader is given while the writer goes round, and what it makes of a log
// that makes no sense. Built a second time with seeded bugs that its checks must find.
#include "engine/state/follow_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/watch_mutant.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"

namespace statehouse {
namespace {

constexpr uint64_t kDictId = 7;
constexpr uint64_t kLogBytes = kFeedLogBytesMin;
using Found = FollowLogReader::Found;

// A change whose every byte follows from its revision.
DictChange ChangeOf(uint64_t revision) {
  DictChange change;
  change.revision = revision;
  change.version = revision * 3;
  change.bits = revision * 5;
  change.time_ms = revision * 7;
  change.key = "key" + std::to_string(revision);
  change.bytes.assign(revision * 37 % 700, static_cast<char>('a' + revision % 26));
  return change;
}

bool IsWhole(const DictChange& change) {
  const DictChange want = ChangeOf(change.revision);
  return change.version == want.version && change.bits == want.bits &&
         change.time_ms == want.time_ms && change.key == want.key && change.bytes == want.bytes;
}

struct Scene {
  Scene() {
    auto made = FollowLogWriter::Create(kDictId, kLogBytes);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    writer = *std::move(made);
    auto mapped = FollowLog::Map(writer->facts(), writer->fd());
    EXPECT_TRUE(mapped.ok()) << mapped.status().ToString();
    log = *std::move(mapped);
  }
  void Write(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) writer->Append(ChangeOf(++revision));
    writer->Commit();
  }

  std::unique_ptr<FollowLogWriter> writer;
  std::shared_ptr<const FollowLog> log;
  uint64_t revision = 0;
};

TEST(FollowLogTest, AReaderThatEndsGivesWhatIsThereAndNothingThatComesLater) {
  Scene scene;
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;
  scene.Write(3);

  reader.EndHere();
  scene.Write(2);

  for (uint64_t i = 1; i <= 3; ++i) {
    ASSERT_EQ(reader.Next(&change), Found::kChange);
    EXPECT_EQ(change.revision, i);
  }
  EXPECT_EQ(reader.Next(&change), Found::kNothing);
  scene.Write(2'000);  // Over what it stands at.
  EXPECT_EQ(reader.Next(&change), Found::kNothing);
}

TEST(FollowLogTest, GivesEveryChangeInOrderOverManyRounds) {
  Scene scene;
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;

  EXPECT_EQ(reader.Next(&change), Found::kNothing);
  for (int round = 0; round < 400; ++round) {
    scene.Write(1 + round % 40);
    while (reader.Next(&change) == Found::kChange) ASSERT_TRUE(IsWhole(change));
    ASSERT_EQ(reader.Next(&change), Found::kNothing);
    ASSERT_EQ(reader.revision(), scene.revision);
  }
  EXPECT_GT(scene.writer->head_position(), 10 * kLogBytes);
}

TEST(FollowLogTest, AReaderThatSteppedBackIsGivenTheSameAgain) {
  Scene scene;
  scene.Write(2);
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;
  ASSERT_EQ(reader.Next(&change), Found::kChange);
  ASSERT_EQ(reader.Next(&change), Found::kChange);

  reader.StepBack();

  EXPECT_EQ(reader.revision(), 1u);
  ASSERT_EQ(reader.Next(&change), Found::kChange);
  EXPECT_EQ(change.revision, 2u);
  EXPECT_EQ(reader.Next(&change), Found::kNothing);
}

TEST(FollowLogTest, EventGrowsWithEachCommit) {
  Scene scene;
  const uint32_t before = scene.log->event().load();

  scene.Write(3);

  EXPECT_EQ(scene.log->event().load(), before + 1);
}

#ifndef SH_WATCH_MUTANT
TEST(FollowLogTest, ASlowReaderIsOverrunAndStaysSo) {
  Scene scene;
  FollowLogReader reader(scene.log, 0, 0);
  scene.Write(1);
  while (scene.writer->tail_position() == 0) scene.Write(1);
  DictChange change;

  EXPECT_EQ(reader.Next(&change), Found::kOverrun);
  EXPECT_EQ(reader.Next(&change), Found::kOverrun);
  EXPECT_EQ(reader.revision(), 0u);
}

TEST(FollowLogTest, TheOldestChangeThatIsKeptIsStillGiven) {
  Scene scene;
  FollowLogReader oldest(scene.log, 0, 0);
  DictChange change;
  scene.Write(1);
  uint64_t given = 0;
  while (scene.writer->tail_position() == 0) scene.Write(1);
  // One place further is not past the tail.
  FollowLogReader reader(scene.log, scene.writer->tail_position(), given = 1);
  EXPECT_EQ(oldest.Next(&change), Found::kOverrun);
  while (reader.Next(&change) == Found::kDamaged && given < 10) {
    reader = FollowLogReader(scene.log, scene.writer->tail_position(), ++given);
  }
  EXPECT_EQ(reader.Next(&change), Found::kChange);
}

TEST(FollowLogTest, AValueThatFitsIsKeptAndOneByteMoreIsGone) {
  Scene scene;
  DictChange largest = ChangeOf(1);
  largest.key = "k";
  largest.bytes.assign(kLogBytes - sizeof(FeedRecord) - 1, 'x');
  DictChange larger = largest;
  larger.revision = 2;
  larger.bytes.push_back('x');
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;

  EXPECT_EQ(scene.writer->RecordBytesOf(largest), kLogBytes);
  scene.writer->Append(largest);
  scene.writer->Commit();
  ASSERT_EQ(reader.Next(&change), Found::kChange);
  EXPECT_EQ(change.bytes, largest.bytes);
  EXPECT_FALSE(change.value_gone);

  scene.writer->Append(larger);
  scene.writer->Commit();
  ASSERT_EQ(reader.Next(&change), Found::kChange);
  EXPECT_TRUE(change.value_gone);
  EXPECT_TRUE(change.bytes.empty());
  DictChange without_value;
  without_value.key = "k";
  EXPECT_EQ(scene.writer->RecordBytesOf(larger), scene.writer->RecordBytesOf(without_value));
}

TEST(FollowLogTest, NobodyElseCanWriteItHoweverItIsOpened) {
  Scene scene;
  const int fd = scene.writer->fd();
  auto again = ReopenDescription(fd, true);
  ASSERT_TRUE(again.ok()) << again.status().ToString();

  for (const int each : {fd, again->get()}) {
    EXPECT_EQ(::pwrite(each, "x", 1, 0), -1);
    EXPECT_EQ(errno, EPERM);
    void* const writable = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, each, 0);
    EXPECT_EQ(writable, MAP_FAILED);
    void* const readable = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, each, 0);
    ASSERT_NE(readable, MAP_FAILED);
    EXPECT_EQ(::mprotect(readable, kPageBytes, PROT_READ | PROT_WRITE), -1);
    ::munmap(readable, kPageBytes);
    EXPECT_EQ(::ftruncate(each, 0), -1);
  }
  scene.Write(1);  // Its maker still can.
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;
  EXPECT_EQ(reader.Next(&change), Found::kChange);
}

TEST(FollowLogTest, AFileThatSomebodyCouldWriteIsRefused) {
  UniqueFd fd = *CreateSealedMemory("test", kFollowLogOffset + kLogBytes);

  EXPECT_EQ(FollowLog::Map({kDictId, 1}, fd.get()).status().reason(), Reason::kDataLoss);
}

TEST(FollowLogTest, AnotherLogIsRefused) {
  Scene scene;
  const FollowLogFacts facts = scene.writer->facts();

  EXPECT_EQ(FollowLog::Map({facts.dict_id, facts.log_id + 1}, scene.writer->fd()).status().reason(),
            Reason::kDataLoss);
  EXPECT_EQ(FollowLog::Map({facts.dict_id + 1, facts.log_id}, scene.writer->fd()).status().reason(),
            Reason::kDataLoss);
}

TEST(FollowLogTest, SizesBeyondTheLimitsAreRefused) {
  const auto map = [](uint64_t log_bytes) {
    auto memory = CreatePublishedMemory("test", kFollowLogOffset + log_bytes);
    EXPECT_TRUE(memory.ok());
    auto& head = *reinterpret_cast<FollowLogHead*>(memory->base);
    head.magic = kFollowLogMagic;
    head.version = kFollowLogVersion;
    head.log_bytes = log_bytes;
    head.dict_id = kDictId;
    head.log_id = 9;
    const Status status = FollowLog::Map({kDictId, 9}, memory->fd.get()).status();
    Unmap(memory->base, kFollowLogOffset + log_bytes);
    return status.reason();
  };

  EXPECT_EQ(map(kFeedLogBytesMin), Reason::kOk);
  EXPECT_EQ(map(kFeedLogBytesMin - kPageBytes), Reason::kDataLoss);
  EXPECT_EQ(map(kFeedLogBytesMin + 8), Reason::kDataLoss);
  EXPECT_EQ(map(kFeedLogBytesMax), Reason::kOk);
  EXPECT_EQ(map(kFeedLogBytesMax + kPageBytes), Reason::kDataLoss);
}

TEST(FollowLogTest, APlaceThatIsNoneIsDamaged) {
  Scene scene;
  scene.Write(5);
  DictChange change;
  for (const uint64_t position :
       {uint64_t{8}, uint64_t{16}, scene.writer->head_position() - 8,
        scene.writer->head_position() + 8, kLogBytes, UINT64_MAX, uint64_t{1} << 63}) {
    FollowLogReader reader(scene.log, position, 0);
    EXPECT_EQ(reader.Next(&change), Found::kDamaged) << position;
  }
}

TEST(FollowLogTest, ARevisionThatDoesNotFollowIsDamaged) {
  Scene scene;
  scene.writer->Append(ChangeOf(1));
  scene.writer->Append(ChangeOf(3));
  scene.writer->Commit();
  FollowLogReader reader(scene.log, 0, 0);
  DictChange change;

  EXPECT_EQ(reader.Next(&change), Found::kChange);
  EXPECT_EQ(reader.Next(&change), Found::kDamaged);
  EXPECT_EQ(reader.revision(), 1u);
}

TEST(FollowLogTest, AWriterWakesWhoSleeps) {
  Scene scene;
  const uint32_t seen = scene.log->event().load();
  std::atomic<bool> woken{false};
  std::thread sleeper([&] {
    const std::atomic<uint32_t>* const words[] = {&scene.log->event()};
    const uint32_t expected[] = {seen};
    while (scene.log->event().load() == seen) FutexWaitAny(words, expected, 60'000'000'000);
    woken = true;
  });

  SleepNs(20'000'000);
  EXPECT_FALSE(woken);
  scene.Write(1);
  scene.writer->Wake();
  sleeper.join();

  EXPECT_TRUE(woken);
}
#endif

// Readers of different speed beside a writer that never waits: what they are given is whole and in
// order, or they were overrun. Whether all of that held.
bool ReadersAreNeverGivenTornChanges(uint64_t rounds) {
  Scene scene;
  std::atomic<bool> done{false};
  std::atomic<bool> good{true};
  std::atomic<uint64_t> given{0};
  std::atomic<uint64_t> overruns{0};
  std::vector<std::thread> readers;
  // Where somebody may begin: a position, and the revision before it, under one sequence number.
  std::atomic<uint64_t> sequence{0};
  std::atomic<uint64_t> position{0};
  std::atomic<uint64_t> revision{0};
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      DictChange change;
      while (!done) {
        const uint64_t before = sequence.load();
        FollowLogReader reader(scene.log, position.load(), revision.load());
        if (before % 2 == 1 || sequence.load() != before) continue;
        for (Found found = reader.Next(&change); !done; found = reader.Next(&change)) {
          if (found == Found::kOverrun) {
            ++overruns;
            break;
          }
          if (found == Found::kNothing) {
            SleepNs(0);
            continue;
          }
          if (found == Found::kDamaged || !IsWhole(change)) good = false;
          if (!good) return;
          // One of them is slow now and then.
          if (++given % 97 == 0 && i == 0) SleepNs(100'000);
        }
      }
    });
  }
  for (uint64_t round = 0; round < rounds && good; ++round) {
    scene.Write(1 + round % 30);
    sequence.fetch_add(1);
    position = scene.writer->head_position();
    revision = scene.revision;
    sequence.fetch_add(1);
    if (round % 64 == 0) SleepNs(0);
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  return good;
}

TEST(FollowLogRaceTest, ReadersAreNeverGivenTornChanges) {
  EXPECT_TRUE(ReadersAreNeverGivenTornChanges(100'000));
}

#ifdef SH_WATCH_MUTANT
class FollowLogMutantTest : public ::testing::TestWithParam<WatchMutant> {};

TEST_P(FollowLogMutantTest, IsFound) {
  chosen_watch_mutant = GetParam();
  bool found = false;
  for (int i = 0; i < 20 && !found; ++i) found = !ReadersAreNeverGivenTornChanges(100'000);
  chosen_watch_mutant = WatchMutant::kNone;

  EXPECT_TRUE(found);
}

INSTANTIATE_TEST_SUITE_P(All, FollowLogMutantTest,
                         ::testing::Values(WatchMutant::kFollowTailNotMoved,
                                           WatchMutant::kFollowOverrunHidden));
#endif

}  // namespace
}  // namespace statehouse
