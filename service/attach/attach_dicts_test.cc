// Dicts through the attach door: what a worker gets, and when a dict moves for it.
#include "engine/os/memory.h"
#include "engine/state/dict.h"
#include "service/attach/test_attach_door.h"

namespace statehouse {
namespace {

constexpr uint8_t kReads = static_cast<uint8_t>(Verb::kRead);
constexpr uint8_t kWrites = kReads | static_cast<uint8_t>(Verb::kWrite);

class AttachDictsTest : public AttachDoorTest {
 protected:
  void SetUp() override {
    AttachDoorTest::SetUp();
    tokens_.grants = {{ObjectKind::kDict, "w*", kWrites}, {ObjectKind::kDict, "r*", kReads}};
  }
  std::shared_ptr<ServedDict> Create(const std::string& name, uint64_t max_entries = 1 << 20) {
    DictSpec spec;
    spec.name = name;
    spec.max_entries = max_entries;
    auto created = engine_->dicts().Create(spec);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    return created.ok() ? created->dict : nullptr;
  }
  UniqueFd Worker() {
    UniqueFd fd = Attached();
    const auto packet = Receive(fd);
    EXPECT_TRUE(packet.ok() && std::holds_alternative<AttachWelcome>(packet->message));
    if (packet.ok()) first_lane_ = std::get<AttachWelcome>(packet->message).first_lane;
    kept_liveness_.push_back(std::move(kept_.back()));
    kept_.clear();
    return fd;
  }
  // The answer; the segment is in kept_.
  StatusOr<AttachDictOpened> Open(const UniqueFd& fd, const AttachOpenDict& open) {
    kept_.clear();
    Send(fd, {++last_request_, open});
    SH_ASSIGN_OR_RETURN(const AttachPacket packet, Receive(fd));
    EXPECT_EQ(packet.request_id, last_request_);
    if (const auto* error = std::get_if<AttachError>(&packet.message)) {
      return Status(error->reason, error->message);
    }
    return std::get<AttachDictOpened>(packet.message);
  }
  StatusOr<std::unique_ptr<Dict>> Map(const AttachDictOpened& opened, Access access) {
    DictGeometry geometry;
    geometry.data_bytes = opened.data_bytes;
    geometry.entries_max = opened.entries_max;
    geometry.seed = {opened.seed_a, opened.seed_b};
    geometry.default_ttl_ms = opened.default_ttl_ms;
    geometry.bucket_count = opened.bucket_count;
    geometry.lane_count = opened.lane_count;
    geometry.evict = opened.evict;
    if (kept_.size() != 1) return Status(Reason::kInternal, "not one descriptor came");
    return Dict::Map(opened.name, geometry, kept_.front().get(), access);
  }

  std::vector<UniqueFd> kept_liveness_;
  uint32_t first_lane_ = 0;
  uint64_t last_request_ = 100;
};

TEST_F(AttachDictsTest, AWorkerWritesInTheSegmentThatTheServiceReads) {
  StartDoor();
  const auto served = Create("w1");
  const UniqueFd worker = Worker();

  const auto opened = Open(worker, {"w1"});

  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  EXPECT_TRUE(opened->writable);
  EXPECT_EQ(opened->generation, 1u);
  EXPECT_EQ(opened->index, served->record().index);
  EXPECT_EQ(opened->max_entries, 1u << 20);
  EXPECT_GT(opened->clock_ns, 0u);
  const auto dict = Map(*opened, Access::kReadWrite);
  ASSERT_TRUE(dict.ok()) << dict.status().ToString();
  ASSERT_TRUE((*dict)->PrepareLanes(first_lane_, kLanesPerBlock).ok());
  DictResult result;
  ASSERT_TRUE((*dict)->Set(Lane{first_lane_}, "k", DictValue::Int64(7), {}, &result).ok());
  DictEntry entry;
  bool found = false;
  ASSERT_TRUE(served->dict().Get("k", &entry, &found).ok());
  EXPECT_TRUE(found);
  EXPECT_EQ(entry.bits, 7u);
  EXPECT_EQ(engine_->dicts().AttachedProcesses(served->record().id), 1u);
}

TEST_F(AttachDictsTest, WhoMayOnlyReadGetsADescriptorThatCannotBeWritten) {
  StartDoor();
  Create("r1");
  Create("w1");
  const UniqueFd worker = Worker();
  const UniqueFd laneless = Greeted();
  struct Case {
    const UniqueFd& connection;
    const char* name;
  };
  for (const Case& c : {Case{worker, "r1"}, Case{laneless, "w1"}, Case{laneless, "#0"}}) {
    const auto opened = Open(c.connection, {c.name});
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    EXPECT_FALSE(opened->writable) << c.name;
    EXPECT_FALSE(Map(*opened, Access::kReadWrite).ok()) << c.name;
    EXPECT_TRUE(Map(*opened, Access::kReadOnly).ok()) << c.name;
  }
}

TEST_F(AttachDictsTest, ANameWithoutAGrantIsRefusedWhetherOrNotItExists) {
  StartDoor();
  Create("secret");
  const UniqueFd worker = Worker();

  EXPECT_EQ(Open(worker, {"secret"}).status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(Open(worker, {"other"}).status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(Open(worker, {"#0"}).status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(Open(worker, {"#1"}).status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(Open(worker, {"#x"}).status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(Open(worker, {"w1"}).status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(Open(worker, {""}).status().reason(), Reason::kPermissionDenied);
  for (const auto need : {AttachDictNeed::kRoomForEntries, AttachDictNeed::kRepair}) {
    EXPECT_EQ(Open(worker, {"secret", 1, need}).status().reason(), Reason::kPermissionDenied);
  }
}

TEST_F(AttachDictsTest, AFullSegmentIsFollowedByALargerOneOnceForEverybody) {
  StartDoor();
  const auto first = Create("w1");
  const UniqueFd worker = Worker();
  const UniqueFd other = Worker();

  const auto moved = Open(worker, {"w1", 1, AttachDictNeed::kRoomForEntries});
  const auto followed = Open(other, {"#0", 1, AttachDictNeed::kRoomForEntries});

  ASSERT_TRUE(moved.ok()) << moved.status().ToString();
  EXPECT_EQ(moved->generation, 2u);
  EXPECT_GT(moved->entries_max, first->record().geometry.entries_max);
  EXPECT_EQ(moved->seed_a, first->record().geometry.seed.a);
  EXPECT_TRUE(moved->writable);
  ASSERT_TRUE(followed.ok()) << followed.status().ToString();
  EXPECT_EQ(followed->generation, 2u);
  EXPECT_EQ(first->dict().state(), DictState::kMoved);
}

TEST_F(AttachDictsTest, ANeedThatNoMoveMeetsIsRefusedWithItsReason) {
  StartDoor();
  Create("w1", 100);
  Create("w2");
  const UniqueFd worker = Worker();

  const auto entries = Open(worker, {"w1", 1, AttachDictNeed::kRoomForEntries});
  const auto bytes = Open(worker, {"w2", 1, AttachDictNeed::kRoomForBytes});

  EXPECT_EQ(entries.status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(bytes.status().reason(), Reason::kMemoryExhausted);
  EXPECT_EQ((*engine_->dicts().Find("w1"))->record().generation, 1u);
  EXPECT_EQ((*engine_->dicts().Find("w2"))->record().generation, 1u);
}

TEST_F(AttachDictsTest, AWorkerWhoseDictHasNoMemoryIsGivenSomeUpToTheLimit) {
  EngineOptions options;
  options.memory_bytes_max = 3 << 20;
  metrics_.reset();
  auto limited = Engine::Start(options, {}, &vault_);
  ASSERT_TRUE(limited.ok());
  engine_ = *std::move(limited);
  metrics_ = NewMetrics(engine_.get(), {"/x"}, "0");
  StartDoor();
  const auto served = Create("w1");
  const UniqueFd worker = Worker();
  const auto opened = Open(worker, {"w1"});
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  const auto dict = Map(*opened, Access::kReadWrite);
  ASSERT_TRUE(dict.ok() && (*dict)->PrepareLanes(first_lane_, kLanesPerBlock).ok());
  DictResult result;

  // The first set finds no memory, which the door gives; then several go without it.
  const std::string value(4000, 'v');
  int entries = 0;
  int asked = 0;
  Status refused;
  while (refused.ok() && entries < 2000) {
    const Status set = (*dict)->Set(Lane{first_lane_}, std::to_string(entries),
                                    DictValue::Bytes(value), {}, &result);
    entries += set.ok() ? 1 : 0;
    if (set.ok()) continue;
    ASSERT_EQ(set.reason(), Reason::kMemoryExhausted) << set.ToString();
    const auto answer = Open(worker, {"w1", 1, AttachDictNeed::kRoomForBytes});
    refused = answer.status();
    ++asked;
    if (answer.ok()) EXPECT_EQ(answer->generation, 1u);
  }

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_NE(refused.message().find("of 3145728 (areas.memory_max)"), std::string::npos)
      << refused.message();
  EXPECT_GT(entries, 400);
  EXPECT_LT(asked, 10);
  EXPECT_LE(engine_->Totals().memory_bytes, (3u << 20) + (256 << 10));  // With the worker's lane.
}

TEST_F(AttachDictsTest, WhoMayNotWriteMovesNothing) {
  StartDoor();
  Create("r1");
  Create("w1");
  const UniqueFd worker = Worker();
  const UniqueFd laneless = Greeted();

  const auto read_only = Open(worker, {"r1", 1, AttachDictNeed::kRoomForEntries});
  const auto without_lanes = Open(laneless, {"w1", 1, AttachDictNeed::kRoomForEntries});

  ASSERT_TRUE(read_only.ok() && without_lanes.ok());
  EXPECT_EQ(read_only->generation, 1u);
  EXPECT_EQ(without_lanes->generation, 1u);
}

// A dict that was made or repaired a moment ago is refused; whoever asks again gets there.
TEST_F(AttachDictsTest, ADamagedSegmentIsLeftBehind) {
  StartDoor();
  const auto damaged = Create("w1");
  const UniqueFd worker = Worker();

  EXPECT_TRUE(Eventually([&] {
    const auto opened = Open(worker, {"w1", 1, AttachDictNeed::kRepair});
    if (opened.ok()) return opened->generation == 2;
    EXPECT_EQ(opened.status().reason(), Reason::kDataLoss);
    return false;
  }));
  EXPECT_EQ(damaged->dict().state(), DictState::kMoved);
}

TEST_F(AttachDictsTest, ARequestIdInFlightMayNotBeUsedForADict) {
  StartDoor();
  Create("w1");
  const UniqueFd worker = Worker();
  Send(worker, {7, AttachCall{"/x", 0, ""}});

  Send(worker, {7, AttachOpenDict{"w1", 1, AttachDictNeed::kRoomForEntries}});

  ExpectErrorAndClosure(worker, Reason::kInvalidArgument);
}

TEST_F(AttachDictsTest, TheDoorClosesWhileWorkersWaitForMoves) {
  StartDoor();
  std::vector<UniqueFd> workers;
  for (int i = 0; i < 8; ++i) {
    Create("w" + std::to_string(i));
    workers.push_back(Worker());
  }
  for (int i = 0; i < 8; ++i) {
    Send(workers[i],
         {1, AttachOpenDict{"w" + std::to_string(i), 1, AttachDictNeed::kRoomForEntries}});
  }

  door_.reset();

  for (const UniqueFd& worker : workers) {
    StatusOr<AttachPacket> last = Receive(worker);
    while (last.ok()) last = Receive(worker);
    EXPECT_EQ(last.status().reason(), Reason::kUnavailable);
  }
}

TEST_F(AttachDictsTest, AFollowLogIsForWhoMayReadItsDict) {
  std::vector<std::pair<uint64_t, uint64_t>> asked;
  open_follow_log_ = [&asked](uint64_t dict_id, uint64_t log_id) -> StatusOr<UniqueFd> {
    asked.emplace_back(dict_id, log_id);
    if (log_id != 7) return Status(Reason::kUnavailable, "it is no more");
    return CreateSealedMemory("log", kPageBytes);
  };
  StartDoor();
  const auto readable = Create("r");
  const auto secret = Create("x");
  const UniqueFd fd = Greeted();  // Without lanes.
  const auto answer = [&](const std::string& name, uint64_t log_id) -> StatusOr<uint64_t> {
    kept_.clear();
    Send(fd, {++last_request_, AttachOpenFollowLog{name, log_id}});
    SH_ASSIGN_OR_RETURN(const AttachPacket packet, Receive(fd));
    EXPECT_EQ(packet.request_id, last_request_);
    const auto* error = std::get_if<AttachError>(&packet.message);
    if (error != nullptr) return Status(error->reason, error->message);
    return std::get<AttachFollowLogOpened>(packet.message).dict_id;
  };

  const std::string index = "#" + std::to_string(readable->record().index);
  for (const std::string& name : {std::string("r"), index}) {
    const auto opened = answer(name, 7);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    EXPECT_EQ(*opened, readable->record().id);
    EXPECT_EQ(kept_.size(), 1u);
  }
  EXPECT_EQ(answer("r", 8).status().reason(), Reason::kUnavailable);
  EXPECT_EQ(asked.size(), 3u);
  EXPECT_EQ(answer("x", 7).status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(answer("#" + std::to_string(secret->record().index), 7).status().reason(),
            Reason::kDictNotFound);
  EXPECT_EQ(answer("r-none", 7).status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(asked.size(), 3u);
}

TEST_F(AttachDictsTest, WithoutWatchesThereIsNoFollowLog) {
  StartDoor();
  (void)Create("r");
  const UniqueFd fd = Greeted();
  Send(fd, {5, AttachOpenFollowLog{"r", 7}});
  const auto packet = Receive(fd);
  ASSERT_TRUE(packet.ok());
  const auto* error = std::get_if<AttachError>(&packet->message);
  ASSERT_NE(error, nullptr);

  EXPECT_EQ(error->reason, Reason::kUnimplemented);
}

}  // namespace
}  // namespace statehouse
