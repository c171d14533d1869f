#include "service/session/bound_entries.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "engine/shm/owned_lock.h"
#include "engine/state/engine.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

class ForgetfulVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override { return Status(); }
  Status Remove(const std::string& name) override { return Status(); }
};

template <typename Condition>
bool Eventually(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::yield();
  }
  return true;
}

class BoundEntriesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    MakeDict("d");
  }
  void TearDown() override { bound_.reset(); }
  void MakeDict(const std::string& name, uint64_t max_entries = 1'000'000) {
    DictSpec spec;
    spec.name = name;
    spec.max_entries = max_entries;
    const auto created = engine_->dicts().Create(spec);
    ASSERT_TRUE(created.ok()) << created.status().ToString();
  }
  void Start(const std::vector<uint64_t>& sessions = {}, BoundEntriesOptions options = {}) {
    bound_ = BoundEntries::Start(options, &engine_->dicts(),
                                 engine_->DaemonLane(kBoundEntriesThread), sessions);
  }
  std::shared_ptr<ServedDict> Served(const std::string& name = "d") {
    auto served = engine_->dicts().Find(name);
    EXPECT_TRUE(served.ok());
    return *served;
  }
  // As a door sets it, without the note.
  void Put(const std::string& key, uint64_t session, const std::string& dict = "d") {
    DictSetOptions options;
    options.bind_session = session;
    DictResult result;
    Status status;
    do {
      const auto served = Served(dict);
      status =
          served->dict().Set(engine_->DaemonLane(0), key, DictValue::Bytes("v"), options, &result);
      if (!status.ok()) {
        ASSERT_TRUE(
            engine_->dicts().MoveDict(engine_->DaemonLane(0), served, DictStore::Move::kGrow).ok());
      }
    } while (!status.ok());
  }
  StatusOr<BoundEntries::Intent> Intend(uint64_t session, const std::string& key,
                                        bool wait = true) {
    const std::string_view view = key;
    return bound_->Intend(session, "d", {&view, 1}, wait);
  }
  void Bind(uint64_t session, const std::string& key) {
    auto intent = Intend(session, key);
    ASSERT_TRUE(intent.ok()) << intent.status().ToString();
    Put(key, session);
    intent->Settle(true);
  }
  bool Has(const std::string& key, const std::string& dict = "d") {
    DictEntry entry;
    bool found = false;
    const Status status = Served(dict)->dict().Get(key, &entry, &found);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return found;
  }
  bool Gone(const std::string& key, const std::string& dict = "d") {
    return Eventually([&] { return !Has(key, dict); });
  }

  ForgetfulVault vault_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<BoundEntries> bound_;
};

TEST_F(BoundEntriesTest, EntriesGoWithTheirSessionAndOthersStay) {
  Start();
  bound_->BeginSession(7);
  bound_->BeginSession(8);
  for (int i = 0; i < 100; ++i) Bind(7, "mine/" + std::to_string(i));
  Bind(8, "other");
  Bind(7, "rebound");
  Bind(8, "rebound");
  Bind(7, "unbound");
  Put("unbound", 0);

  bound_->EndSession(7);

  for (int i = 0; i < 100; ++i) EXPECT_TRUE(Gone("mine/" + std::to_string(i)));
  EXPECT_TRUE(Eventually([&] { return bound_->Totals().removed == 100; }));
  EXPECT_TRUE(Has("other"));
  EXPECT_TRUE(Has("rebound"));
  EXPECT_TRUE(Has("unbound"));
  EXPECT_EQ(Served()->Stats().bound_entries, 2u);
  bound_->EndSession(8);
  EXPECT_TRUE(Gone("other"));
  EXPECT_TRUE(Gone("rebound"));
  EXPECT_EQ(bound_->Totals().noted, 0u);
}

TEST_F(BoundEntriesTest, OnlyASessionThatLivesIsBoundTo) {
  Start({9});
  EXPECT_EQ(Intend(7, "k").status().reason(), Reason::kSessionNotFound);
  Bind(9, "k");
  bound_->EndSession(9);
  EXPECT_EQ(Intend(9, "k").status().reason(), Reason::kSessionNotFound);
  bound_->EndSession(9);  // Once more changes nothing.
}

TEST_F(BoundEntriesTest, ASessionThatEndsBeforeTheSetTakesTheEntryAllTheSame) {
  Start({7});
  auto intent = Intend(7, "late");
  ASSERT_TRUE(intent.ok());
  bound_->EndSession(7);
  Put("late", 7);
  EXPECT_TRUE(Has("late"));
  intent->Settle(true);
  EXPECT_TRUE(Gone("late"));
}

TEST_F(BoundEntriesTest, ANextDaemonFindsWhatIsBoundAndRemovesWhatHasNoSession) {
  for (int i = 0; i < 30'000; ++i) Put("live/" + std::to_string(i), i % 3 == 0 ? 7 : 0);
  for (int i = 0; i < 1000; ++i) Put("dead/" + std::to_string(i), 100 + i % 5);
  MakeDict("plain");
  Put("p", 0, "plain");

  Start({7});

  EXPECT_TRUE(Eventually([&] { return bound_->Totals().removed == 1000; }));
  EXPECT_TRUE(Eventually([&] { return bound_->Totals().noted == 10'000; }));
  for (int i = 0; i < 30'000; i += 500) EXPECT_TRUE(Has("live/" + std::to_string(i)));
  bound_->EndSession(7);
  EXPECT_TRUE(Eventually([&] { return Served()->Stats().bound_entries == 0; }));
  EXPECT_TRUE(Has("live/1"));
  EXPECT_EQ(Served()->Stats().entries, 20'000u);
}

TEST_F(BoundEntriesTest, TheLimitOfASessionCountsWhatIsStillBound) {
  BoundEntriesOptions options;
  options.entries_per_session_max = 100;
  Start({7, 8}, options);
  for (int i = 0; i < 100; ++i) Bind(7, std::to_string(i));
  Bind(7, "5");  // It is there already.
  EXPECT_EQ(Intend(7, "one too many").status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(Intend(7, "one too many", false).status().reason(), Reason::kStalled);
  Bind(8, "of another session");

  Put("5", 0);
  Put("6", 8);
  Bind(7, "a");
  Bind(7, "b");
  EXPECT_EQ(Intend(7, "c").status().reason(), Reason::kLimitExceeded);
}

TEST_F(BoundEntriesTest, TheLimitOfAllSessionsHolds) {
  BoundEntriesOptions options;
  options.entries_max = 3;
  Start({7, 8}, options);
  Bind(7, "a");
  Bind(7, "b");
  Bind(8, "c");
  EXPECT_EQ(Intend(8, "d").status().reason(), Reason::kLimitExceeded);
  bound_->EndSession(7);
  Bind(8, "d");
}

TEST_F(BoundEntriesTest, AnIntentThatCameToNothingLeavesNoNote) {
  Start({7});
  { const auto intent = Intend(7, "a"); }
  EXPECT_EQ(bound_->Totals().noted, 0u);
  Bind(7, "a");
  { const auto intent = Intend(7, "a"); }
  EXPECT_EQ(bound_->Totals().noted, 1u) << "it is bound since before";
}

TEST_F(BoundEntriesTest, NotesOfWhatIsNotBoundAnyMoreAreForgottenInTime) {
  Start({7});
  for (int i = 0; i < 1000; ++i) Bind(7, std::to_string(i));
  for (int i = 0; i < 999; ++i) Put(std::to_string(i), 0);
  EXPECT_TRUE(Eventually([&] { return bound_->Totals().noted == 1; }));
  bound_->EndSession(7);
  EXPECT_TRUE(Gone("999"));
}

TEST_F(BoundEntriesTest, ARemovalFollowsADictThatMovedAndForgetsOneThatIsGone) {
  Start({7});
  Bind(7, "k");
  ASSERT_TRUE(
      engine_->dicts().MoveDict(engine_->DaemonLane(0), Served(), DictStore::Move::kGrow).ok());
  MakeDict("gone");
  Put("k", 7, "gone");
  const std::string_view key = "k";
  bound_->Intend(7, "gone", {&key, 1}, true)->Settle(true);
  ASSERT_TRUE(engine_->dicts().Delete("gone").ok());
  bound_->EndSession(7);
  EXPECT_TRUE(Gone("k"));
}

TEST_F(BoundEntriesTest, AHeldBucketDelaysOnlyItsOwnEntry) {
  Start({7});
  Bind(7, "held");
  for (int i = 0; i < 50; ++i) Bind(7, std::to_string(i));
  Dict& dict = Served()->dict();
  BucketLine& bucket = DictInternals::Bucket(dict, DictInternals::BucketOf(dict, "held"));
  const uint64_t free = bucket.control.load();
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(bucket.control, 2000, &locked));  // A worker that was stopped.
  bound_->EndSession(7);
  for (int i = 0; i < 50; ++i) {
    const std::string key = std::to_string(i);
    if (DictInternals::BucketOf(dict, key) == DictInternals::BucketOf(dict, "held")) continue;
    EXPECT_TRUE(Gone(key));
  }
  EXPECT_TRUE(Has("held"));
  bucket.control.store(free);
  EXPECT_TRUE(Gone("held"));
}

}  // namespace
}  // namespace statehouse
