// The daemon's side: areas that outlive a daemon, leases, limits and recovery after a restart.
#include "engine/state/engine.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/os/record_lock.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

// Keeps duplicates, as the keeper does.
class FakeVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override {
    if (refuse_next || (!refuse_names.empty() && name.starts_with(refuse_names))) {
      refuse_next = false;
      return Status(Reason::kUnavailable, "the vault refuses");
    }
    kept[name] = UniqueFd(dup(fd));
    return Status();
  }
  Status Remove(const std::string& name) override {
    kept.erase(name);
    if (const auto once = std::exchange(on_remove, nullptr); once != nullptr) once();
    return Status();
  }
  // What a restarted daemon inherits.
  std::map<std::string, UniqueFd> Inherit() const {
    std::map<std::string, UniqueFd> copies;
    for (const auto& [name, fd] : kept) copies[name] = UniqueFd(dup(fd.get()));
    return copies;
  }

  std::map<std::string, UniqueFd> kept;
  bool refuse_next = false;
  std::string refuse_names;         // Those that begin so.
  std::function<void()> on_remove;  // What happens during the next one.
};

class EngineTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> Start(const EngineOptions& options = {}) {
    auto engine = Engine::Start(options, vault_.Inherit(), &vault_);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    return engine.ok() ? std::move(*engine) : nullptr;
  }
  static AreaSpec Spec(std::string name, uint64_t size) {
    AreaSpec spec;
    spec.name = std::move(name);
    spec.size = size;
    return spec;
  }
  UniqueFd OwnPidfd() { return std::move(*OpenPidfd(getpid())); }

  FakeVault vault_;
};

TEST_F(EngineTest, CreateIsGetOrCreate) {
  auto engine = Start();

  auto first = engine->CreateArea(Spec("a", 100));
  auto again = engine->CreateArea(Spec("a", 100));

  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_TRUE(first->created);
  EXPECT_FALSE(again->created);
  EXPECT_EQ(first->area, again->area);
}

TEST_F(EngineTest, CreateRefusesOtherSizeExclusiveAndBadNames) {
  auto engine = Start();
  ASSERT_TRUE(engine->CreateArea(Spec("a", 100)).ok());
  AreaSpec exclusive = Spec("a", 100);
  exclusive.exclusive = true;

  EXPECT_EQ(engine->CreateArea(Spec("a", 101)).status().reason(), Reason::kAreaExists);
  EXPECT_EQ(engine->CreateArea(std::move(exclusive)).status().reason(), Reason::kAreaExists);
  EXPECT_EQ(engine->CreateArea(Spec("", 1)).status().reason(), Reason::kNameInvalid);
  EXPECT_EQ(engine->CreateArea(Spec("#1", 1)).status().reason(), Reason::kNameInvalid);
  EXPECT_EQ(engine->CreateArea(Spec("a b", 1)).status().reason(), Reason::kNameInvalid);
  EXPECT_EQ(engine->CreateArea(Spec(std::string(256, 'n'), 1)).status().reason(),
            Reason::kNameInvalid);
  EXPECT_TRUE(engine->CreateArea(Spec(std::string(255, 'n'), 1)).ok());
  EXPECT_EQ(engine->CreateArea(Spec("zero", 0)).status().reason(), Reason::kSizeInvalid);
  EXPECT_EQ(engine->CreateArea(Spec("big", kAreaBytesMax + 1)).status().reason(),
            Reason::kSizeInvalid);
  EXPECT_EQ(engine->ListAreas("", 0, 10).size(), 2u);
}

TEST_F(EngineTest, LimitsHoldAtTheLimitAndRefuseOnePast) {
  EngineOptions options;
  options.areas_max = 2;
  options.area_bytes_max = 8192;
  auto engine = Start(options);

  EXPECT_TRUE(engine->CreateArea(Spec("a", 8192)).ok());
  EXPECT_EQ(engine->CreateArea(Spec("b", 8193)).status().reason(), Reason::kSizeInvalid);
  EXPECT_TRUE(engine->CreateArea(Spec("b", 1)).ok());
  EXPECT_EQ(engine->CreateArea(Spec("c", 1)).status().reason(), Reason::kLimitExceeded);
}

TEST_F(EngineTest, MemoryLimitNamesUseAndFreesOnDelete) {
  EngineOptions options;
  options.memory_bytes_max = 40'000;
  auto engine = Start(options);
  ASSERT_TRUE(engine->CreateArea(Spec("a", 16384)).ok());

  const Status refused = engine->CreateArea(Spec("b", 16384)).status();
  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_NE(refused.message().find("of 40000"), std::string::npos) << refused.message();
  ASSERT_TRUE(engine->DeleteArea("a").ok());

  EXPECT_TRUE(engine->CreateArea(Spec("b", 16384)).ok());
}

TEST_F(EngineTest, IndexNamesAnAreaAndIsNeverUsedAgain) {
  auto engine = Start();
  ASSERT_TRUE(engine->CreateArea(Spec("a", 1)).ok());
  ASSERT_TRUE(engine->CreateArea(Spec("b", 1)).ok());
  ASSERT_TRUE(engine->DeleteArea("#1").ok());
  ASSERT_TRUE(engine->CreateArea(Spec("c", 1)).ok());

  EXPECT_EQ((*engine->FindArea("#0"))->info().name, "a");
  EXPECT_EQ((*engine->FindArea("#2"))->info().name, "c");
  for (const char* unknown : {"#1", "#", "#x", "#99999999999", "#-1", "b", ""}) {
    EXPECT_EQ(engine->FindArea(unknown).status().reason(), Reason::kAreaNotFound) << unknown;
  }
}

TEST_F(EngineTest, RestartedEngineServesTheSameBytesCountersAndIndices) {
  const Lane lane{1, kOperationTimeoutNsDefault};
  uint64_t updates = 0;
  {
    auto engine = Start();
    ASSERT_TRUE(engine->CreateArea(Spec("gone", 10)).ok());
    auto made = engine->CreateArea(Spec("kept", 10'000));
    ASSERT_TRUE(made.ok());
    ASSERT_TRUE(made->area->area().Write(lane, 9'000, Bytes("still here")).ok());
    updates = made->area->area().Updates();
    ASSERT_TRUE(engine->DeleteArea("gone").ok());
  }

  auto engine = Start();

  auto found = engine->FindArea("kept");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(ReadString((*found)->area(), 9'000, 10), "still here");
  EXPECT_EQ((*found)->area().Updates(), updates);
  EXPECT_EQ((*found)->info().index, 1u);
  EXPECT_FALSE(engine->FindArea("gone").ok());
  EXPECT_EQ(engine->Totals().generation, 2u);
}

TEST_F(EngineTest, StartFinishesWhatTheLastDaemonWasWriting) {
  {
    auto engine = Start();
    auto made = engine->CreateArea(Spec("a", 8192));
    ASSERT_TRUE(made.ok());
    uint64_t locked = 0;
    Area& area = made->area->area();
    ASSERT_TRUE(TryLockOwned(AreaInternals::Stripe(area, 1).control, 2, &locked));
    AreaInternals::Record(area, 2).intent = 1 | uint64_t{1} << 32;
  }

  auto engine = Start();

  const Lane hasty{1, 1'000'000};
  EXPECT_TRUE((*engine->FindArea("a"))->area().Write(hasty, 4096, Bytes("x")).ok());
}

TEST_F(EngineTest, CatalogueWithoutItsDescriptorsDropsTheRecord) {
  {
    auto engine = Start();
    ASSERT_TRUE(engine->CreateArea(Spec("a", 1)).ok());
  }
  vault_.kept.erase("area.1");
  vault_.kept["area.77"] = UniqueFd(dup(vault_.kept["catalogue"].get()));
  vault_.kept["alive.77"] = UniqueFd(dup(vault_.kept["catalogue"].get()));

  auto engine = Start();

  EXPECT_FALSE(engine->FindArea("a").ok());
  EXPECT_TRUE(engine->CreateArea(Spec("a", 1)).ok());
  EXPECT_EQ(vault_.kept.count("area.77"), 0u);
  EXPECT_EQ(vault_.kept.count("alive.77"), 0u);
}

TEST_F(EngineTest, ScribbledHeaderDoesNotKeepTheNextDaemonFromStarting) {
  {
    auto engine = Start();
    auto made = engine->CreateArea(Spec("a", 4096));
    ASSERT_TRUE(made.ok() && engine->CreateArea(Spec("b", 4096)).ok());
    ASSERT_TRUE(made->area->area().Write(engine->DaemonLane(0), 0, Bytes("kept")).ok());
    std::memset(AreaInternals::Control(made->area->area()), 0xee, 100);
  }

  auto engine = Start();

  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(ReadString((*engine->FindArea("a"))->area(), 0, 4), "kept");
  EXPECT_TRUE(engine->FindArea("b").ok());
}

TEST_F(EngineTest, DeletionThatWasCutShortIsFinishedByTheNextDaemon) {
  {
    auto engine = Start();
    auto made = engine->CreateArea(Spec("a", 4096));
    ASSERT_TRUE(made.ok());
    made->area->area().Retire(AreaState::kDeleted);  // As far as a killed daemon came.
  }

  auto engine = Start();

  EXPECT_FALSE(engine->FindArea("a").ok());
  EXPECT_EQ(vault_.kept.count("area.1"), 0u);
  EXPECT_TRUE(engine->CreateArea(Spec("a", 64)).ok());
}

TEST_F(EngineTest, VaultThatRefusesLeavesNoArea) {
  auto engine = Start();
  vault_.refuse_next = true;

  EXPECT_EQ(engine->CreateArea(Spec("a", 1)).status().reason(), Reason::kUnavailable);

  EXPECT_FALSE(engine->FindArea("a").ok());
  EXPECT_EQ(engine->Totals().memory_bytes, 0u);
}

TEST_F(EngineTest, LeaseIsHeldUntilItsDescriptionIsClosed) {
  auto engine = Start();
  auto lease = engine->LeaseLanes(OwnPidfd());
  ASSERT_TRUE(lease.ok());

  EXPECT_TRUE(engine->ProbeLease(lease->block));
  EXPECT_FALSE(engine->ReleaseBlock(lease->block));
  EXPECT_EQ(engine->Totals().attached_processes, 1u);
  lease->liveness.Reset();

  EXPECT_FALSE(engine->ProbeLease(lease->block));
  EXPECT_TRUE(engine->ReleaseBlock(lease->block));
  EXPECT_EQ(engine->Totals().attached_processes, 0u);
  EXPECT_EQ(vault_.kept.count("worker." + std::to_string(lease->block)), 0u);
  EXPECT_EQ(vault_.kept.count("alive." + std::to_string(lease->block)), 0u);
}

TEST_F(EngineTest, AWorkerThatLocksEveryByteItCanReachTakesNoBlockFromAnother) {
  auto engine = Start();
  auto greedy = engine->LeaseLanes(OwnPidfd());
  ASSERT_TRUE(greedy.ok());
  auto reopened = ReopenDescription(greedy->liveness.get(), true);
  ASSERT_TRUE(reopened.ok());
  for (uint64_t byte = 0; byte < kLaneBlocksMax; ++byte) {
    (void)TryLockByte(greedy->liveness.get(), byte);
    (void)TryLockByte(reopened->get(), byte);
  }

  auto next = engine->LeaseLanes(OwnPidfd());

  ASSERT_TRUE(next.ok()) << next.status().ToString();
  next->liveness.Reset();
  EXPECT_TRUE(engine->ReleaseBlock(next->block));
  EXPECT_TRUE(engine->ProbeLease(greedy->block));
}

TEST_F(EngineTest, ALeaseWhoseLivenessFileIsLostCountsAsDead) {
  LaneLease lost;
  {
    auto engine = Start();
    auto lease = engine->LeaseLanes(OwnPidfd());
    ASSERT_TRUE(lease.ok());
    lost = std::move(*lease);
  }
  vault_.kept.erase("alive." + std::to_string(lost.block));

  auto engine = Start();

  EXPECT_TRUE(engine->TakeSurvivingLeases().empty());
  EXPECT_EQ(engine->Totals().attached_processes, 0u);
  EXPECT_EQ(engine->Totals().recoveries, 1u);
  EXPECT_EQ(vault_.kept.count("worker." + std::to_string(lost.block)), 0u);
}

TEST_F(EngineTest, ALeaseThatTheVaultRefusesLeavesNothing) {
  auto engine = Start();
  for (const char* refused : {"alive.", "worker."}) {
    vault_.refuse_names = refused;

    EXPECT_EQ(engine->LeaseLanes(OwnPidfd()).status().reason(), Reason::kUnavailable);

    EXPECT_EQ(engine->Totals().attached_processes, 0u);
    EXPECT_EQ(vault_.kept.size(), 3u) << refused;  // Two catalogues and the locks.
  }
}

// A vault may wait for its keeper for seconds; lookups and other recoveries go on meanwhile.
TEST_F(EngineTest, AnEngineWhoseVaultWaitsServesEverybodyElse) {
  auto engine = Start();
  ASSERT_TRUE(engine->CreateArea(Spec("a", 64)).ok());
  auto lease = engine->LeaseLanes(OwnPidfd());
  ASSERT_TRUE(lease.ok());
  lease->liveness.Reset();
  bool looked_up = false;
  uint32_t leased = 0;
  vault_.on_remove = [&] {
    looked_up = engine->FindArea("a").ok();
    auto other = engine->LeaseLanes(OwnPidfd());
    if (other.ok()) leased = other->block;
    engine->RecoverBlock(lease->block);  // Somebody else noticed the same death.
  };

  engine->RecoverBlock(lease->block);

  EXPECT_TRUE(looked_up);
  EXPECT_NE(leased, 0u);
  EXPECT_NE(leased, lease->block);  // It is free only when the vault has forgotten it.
  EXPECT_EQ(engine->Totals().recoveries, 1u);
}

class ForeignWordTest : public EngineTest {
 protected:
  void SetUp() override {
    engine_ = Start();
    auto made = engine_->CreateArea(Spec("a", 8192));
    ASSERT_TRUE(made.ok());
    area_ = &made->area->area();
  }
  // As a worker that ignores the protocol.
  void Plant(uint32_t stripe, uint64_t word) {
    AreaInternals::Stripe(*area_, stripe).control = word;
  }
  uint32_t ScrubTimes(uint32_t times) {
    uint32_t mended = 0;
    for (uint32_t i = 0; i < times; ++i) mended += engine_->Scrub();
    return mended;
  }
  std::unique_ptr<Engine> engine_;
  Area* area_ = nullptr;
};

TEST_F(ForeignWordTest, AWordOfAnIdleDaemonLaneIsMendedAtTheLastLookAndNotBefore) {
  const Lane hasty{2, 1'000'000};
  Plant(1, kSequenceOne | 3);
  AreaInternals::Stripe(*area_, 1).range_counter = 5;

  EXPECT_EQ(ScrubTimes(kForeignWordLooks - 1), 0u);
  EXPECT_EQ(area_->Store(hasty, WordType::kU8, 4096, 1).reason(), Reason::kStalled);
  EXPECT_EQ(engine_->Scrub(), 1u);

  EXPECT_TRUE(area_->Store(hasty, WordType::kU8, 4096, 1).ok());
  EXPECT_EQ(engine_->Totals().repairs, 1u);
}

TEST_F(ForeignWordTest, AWordIsNeverTakenFromADaemonLaneInsideAnOperation) {
  uint64_t held = 0;
  {
    const auto use = engine_->UseDaemonLane(engine_->DaemonLane(0));
    ASSERT_TRUE(
        TryLockOwned(AreaInternals::Stripe(*area_, 0).control, engine_->DaemonLane(0).id, &held));

    EXPECT_EQ(ScrubTimes(3 * kForeignWordLooks), 0u);

    EXPECT_EQ(area_->ControlWord(0), held);
  }
  EXPECT_EQ(engine_->Scrub(), 1u);  // The operation is over and the word still there: foreign.
}

TEST_F(ForeignWordTest, AWordThatChangesBeginsAnew) {
  for (uint32_t i = 1; i < kForeignWordLooks; ++i) {
    Plant(0, kSequenceOne | 1);
    EXPECT_EQ(ScrubTimes(kForeignWordLooks - 1), 0u);
    Plant(0, 2 * kSequenceOne | 1);
    EXPECT_EQ(ScrubTimes(kForeignWordLooks - 1), 0u);
  }
  Plant(0, 0);
  EXPECT_EQ(engine_->Scrub(), 0u);
  Plant(0, 2 * kSequenceOne | 1);
  EXPECT_EQ(ScrubTimes(kForeignWordLooks - 1), 0u);
  EXPECT_EQ(engine_->Scrub(), 1u);
}

TEST_F(EngineTest, EveryBlockCanBeLeasedAndOneMoreIsRefused) {
  auto engine = Start();
  const UniqueFd pidfd = OwnPidfd();
  std::vector<LaneLease> leases;
  for (uint32_t i = 1; i < kLaneBlocksMax; ++i) {
    auto lease = engine->LeaseLanes(pidfd);
    ASSERT_TRUE(lease.ok()) << i << ": " << lease.status().ToString();
    leases.push_back(std::move(*lease));
  }

  EXPECT_EQ(engine->LeaseLanes(pidfd).status().reason(), Reason::kLanesExhausted);
  leases.back().liveness.Reset();
  ASSERT_TRUE(engine->ReleaseBlock(leases.back().block));
  EXPECT_TRUE(engine->LeaseLanes(pidfd).ok());
}

TEST_F(EngineTest, LeasesSurviveARestartAndDeadOnesAreRecovered) {
  LaneLease alive;
  {
    auto engine = Start();
    auto made = engine->CreateArea(Spec("a", 4096));
    ASSERT_TRUE(made.ok());
    auto first = engine->LeaseLanes(OwnPidfd());
    auto second = engine->LeaseLanes(OwnPidfd());
    ASSERT_TRUE(first.ok() && second.ok());
    alive = std::move(*first);
    const uint32_t dead_lane = second->first_lane;
    AreaInternals::Stripe(made->area->area(), 0).control = dead_lane;
    AreaInternals::Record(made->area->area(), dead_lane).intent = uint64_t{1} << 32;
  }

  auto engine = Start();

  const std::vector<SurvivingLease> survivors = engine->TakeSurvivingLeases();
  ASSERT_EQ(survivors.size(), 1u);
  EXPECT_EQ(survivors[0].block, alive.block);
  EXPECT_TRUE(survivors[0].pidfd.valid());
  EXPECT_EQ(engine->Totals().recoveries, 1u);
  EXPECT_EQ((*engine->FindArea("a"))->area().HolderOf(0), 0u);
}

TEST_F(EngineTest, ReadOnlyDescriptorsCannotBeMappedForWriting) {
  auto engine = Start();
  auto made = engine->CreateArea(Spec("a", 4096));
  ASSERT_TRUE(made.ok());

  auto reader = engine->OpenForWorker(*made->area, 0, Access::kReadOnly);
  auto writer = engine->OpenForWorker(*made->area, 0, Access::kReadWrite);

  ASSERT_TRUE(reader.ok() && writer.ok());
  const AreaGeometry& geometry = made->area->info().geometry;
  EXPECT_FALSE(Area::Map("a", geometry, reader->control.get(), -1, Access::kReadWrite).ok());
  EXPECT_TRUE(Area::Map("a", geometry, reader->control.get(), -1, Access::kReadOnly).ok());
  EXPECT_TRUE(Area::Map("a", geometry, writer->control.get(), -1, Access::kReadWrite).ok());
}

TEST_F(EngineTest, DescribeCountsAttachedProcesses) {
  auto engine = Start();
  auto made = engine->CreateArea(Spec("a", 4096));
  auto lease = engine->LeaseLanes(OwnPidfd());
  ASSERT_TRUE(made.ok() && lease.ok());
  ASSERT_TRUE(engine->OpenForWorker(*made->area, lease->block, Access::kReadWrite).ok());

  EXPECT_EQ(engine->DescribeArea("a")->attached_processes, 1u);
  lease->liveness.Reset();
  engine->RecoverBlock(lease->block);
  EXPECT_EQ(engine->DescribeArea("a")->attached_processes, 0u);
}

TEST_F(EngineTest, OneIdleWorkerCostsLessThanSixtyFourKibibytes) {
  auto engine = Start();
  auto made = engine->CreateArea(Spec("a", 4096));
  ASSERT_TRUE(made.ok());
  const uint64_t before = engine->DescribeArea("a")->memory_bytes;

  auto lease = engine->LeaseLanes(OwnPidfd());
  auto descriptors = engine->OpenForWorker(*made->area, lease->block, Access::kReadWrite);
  ASSERT_TRUE(descriptors.ok());
  auto mapped = Area::Map("a", made->area->info().geometry, descriptors->control.get(), -1,
                          Access::kReadWrite);
  ASSERT_TRUE(mapped.ok());
  (*mapped)->PrefaultLanes(lease->first_lane, lease->lane_count);

  EXPECT_LT(engine->DescribeArea("a")->memory_bytes - before, 64u << 10);
}

class FileAreaTest : public EngineTest {
 protected:
  void SetUp() override {
    fd_.Reset(mkstemp(path_));
    ASSERT_TRUE(fd_.valid());
    ASSERT_EQ(ftruncate(fd_.get(), 3 * 4096), 0);
  }
  void TearDown() override { unlink(path_); }
  AreaSpec FileSpec(uint64_t size, uint64_t offset) {
    AreaSpec spec = Spec("file", size);
    spec.backing = AreaBacking::kFile;
    spec.file = path_;
    spec.offset = offset;
    return spec;
  }

  char path_[64] = "/tmp/statehouse-engine-test-XXXXXX";
  UniqueFd fd_;
};

TEST_F(FileAreaTest, WritesReachTheFileAtTheOffset) {
  auto engine = Start();
  auto made = engine->CreateArea(FileSpec(4096, 8192));
  ASSERT_TRUE(made.ok()) << made.status().ToString();

  ASSERT_TRUE(made->area->area().Write(engine->DaemonLane(0), 10, Bytes("in the file")).ok());

  char seen[11];
  ASSERT_EQ(pread(fd_.get(), seen, 11, 8202), 11);
  EXPECT_EQ(std::string(seen, 11), "in the file");
}

TEST_F(FileAreaTest, ShortMisalignedAndMissingFilesAreRefused) {
  auto engine = Start();
  AreaSpec missing = FileSpec(1, 0);
  missing.file += ".missing";

  EXPECT_EQ(engine->CreateArea(FileSpec(4097, 8192)).status().reason(), Reason::kBackingInvalid);
  EXPECT_EQ(engine->CreateArea(FileSpec(1, 4096 * 4)).status().reason(), Reason::kBackingInvalid);
  EXPECT_EQ(engine->CreateArea(FileSpec(1, 100)).status().reason(), Reason::kBackingInvalid);
  EXPECT_EQ(engine->CreateArea(std::move(missing)).status().reason(), Reason::kBackingInvalid);
}

TEST_F(FileAreaTest, TruncatedFileQuarantinesTheAreaAndTheDaemonGoesOn) {
  auto engine = Start();
  auto made = engine->CreateArea(FileSpec(4096, 8192));
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(engine->CreateArea(Spec("other", 64)).ok());

  ASSERT_EQ(ftruncate(fd_.get(), 0), 0);
  std::vector<std::byte> out(16);
  (void)made->area->area().Read(0, out);

  EXPECT_EQ(made->area->area().Read(0, out).reason(), Reason::kDataLoss);
  EXPECT_TRUE(
      (*engine->FindArea("other"))->area().Write(engine->DaemonLane(0), 0, Bytes("x")).ok());
}

TEST_F(FileAreaTest, TruncatedFileDropsItsAreaAtTheNextStartAndNoOther) {
  {
    auto engine = Start();
    ASSERT_TRUE(engine->CreateArea(FileSpec(4096, 8192)).ok());
    ASSERT_TRUE(engine->CreateArea(Spec("other", 64)).ok());
  }
  ASSERT_EQ(ftruncate(fd_.get(), 0), 0);

  auto engine = Start();

  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(engine->TakeStartWarnings().size(), 1u);
  EXPECT_FALSE(engine->FindArea("file").ok());
  EXPECT_TRUE(engine->FindArea("other").ok());
}

TEST_F(FileAreaTest, DescriptorBackedAreaUsesTheGivenFile) {
  auto engine = Start();
  AreaSpec spec = Spec("fd", 4096);
  spec.backing = AreaBacking::kDescriptor;
  spec.descriptor = UniqueFd(dup(fd_.get()));
  auto made = engine->CreateArea(std::move(spec));
  ASSERT_TRUE(made.ok()) << made.status().ToString();

  ASSERT_TRUE(made->area->area().Write(engine->DaemonLane(0), 0, Bytes("fd")).ok());

  char seen[2];
  ASSERT_EQ(pread(fd_.get(), seen, 2, 0), 2);
  EXPECT_EQ(std::string(seen, 2), "fd");
}

}  // namespace
}  // namespace statehouse
