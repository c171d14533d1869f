#include "engine/state/session_store.h"

#include <gtest/gtest.h>

#include "engine/state/test_keeping_vault.h"

namespace statehouse {
namespace {

class SessionStoreTest : public ::testing::Test {
 protected:
  // What the next daemon finds.
  std::unique_ptr<SessionStore> Start(uint32_t sessions_max = kSessionsMax) {
    auto store = SessionStore::Start(vault_.Give("sessions"), &vault_, sessions_max);
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return *std::move(store);
  }
  static SessionRecord Record() {
    SessionRecord record;
    record.token_id = "abcdefgh";
    record.client_name = "python pid 7";
    record.ttl_ns = 1000;
    record.linger_ns = 10;
    record.deadline_ns = 5000;
    return record;
  }

  KeepingVault vault_;
};

TEST_F(SessionStoreTest, TheNextDaemonFindsWhatStands) {
  auto store = Start();
  SessionRecord kept = Record();
  SessionRecord ended = Record();
  ASSERT_TRUE(store->Add(&kept).ok());
  ASSERT_TRUE(store->Add(&ended).ok());
  store->SetDeadline(kept.slot, 7000);
  store->Remove(ended.slot);
  store.reset();

  store = Start();
  const std::vector<SessionRecord> found = store->Sessions();

  ASSERT_EQ(found.size(), 1u);
  EXPECT_NE(kept.id, 0u);
  EXPECT_EQ(found[0].id, kept.id);
  EXPECT_EQ(found[0].token_id, "abcdefgh");
  EXPECT_EQ(found[0].client_name, "python pid 7");
  EXPECT_EQ(found[0].ttl_ns, 1000u);
  EXPECT_EQ(found[0].linger_ns, 10u);
  EXPECT_EQ(found[0].deadline_ns, 7000u);
}

TEST_F(SessionStoreTest, TheLimitIsTold) {
  auto store = Start(2);
  SessionRecord one = Record();
  SessionRecord two = Record();
  SessionRecord three = Record();
  ASSERT_TRUE(store->Add(&one).ok());
  ASSERT_TRUE(store->Add(&two).ok());

  EXPECT_EQ(store->Add(&three).reason(), Reason::kLimitExceeded);
  store->Remove(one.slot);
  EXPECT_TRUE(store->Add(&three).ok());
  EXPECT_NE(two.id, three.id);
}

TEST_F(SessionStoreTest, ANameIsCut) {
  auto store = Start();
  SessionRecord record = Record();
  record.client_name = std::string(kSessionNameBytesMax + 1, 'x');
  ASSERT_TRUE(store->Add(&record).ok());

  EXPECT_EQ(store->Sessions().at(0).client_name, std::string(kSessionNameBytesMax, 'x'));
}

}  // namespace
}  // namespace statehouse
