// What giving a lock back says, through each door of a real service, where an operator took the
// lock away before and where the first answer was lost.
#include <sys/stat.h>

#include <string>
#include <thread>

#include "clients/c/testing/batch_client.h"
#include "statehouse/lock.h"
#include "tests/support/fault_proxy.h"

namespace statehouse {
namespace {

constexpr int kRounds = 20;  // A client may hear of the loss before it gives the lock back.
constexpr const char* kName = "mine/1";

class LockReleaseTest : public BatchClientTest {
 protected:
  // Its token may not lock every name, so its locks are those of a session through each door.
  ClientPtr ConnectWithSession() { return Connect(AddToken("lock:mine/*:lock")); }

  static sh_lock* Take(sh_client* client) {
    sh_lock_options options{};
    options.ttl_ms = 600'000;
    sh_lock* lock = nullptr;
    EXPECT_EQ(sh_lock_acquire(client, kName, &options, &lock, nullptr), SH_OK);
    return lock;
  }
  void TakeAway() {
    uint32_t released = 0;
    EXPECT_EQ(sh_lock_force_release(client_.get(), kName, 0, &released, nullptr), SH_OK);
    EXPECT_EQ(released, 1u);
  }
  // What each says of *held.
  static int Release(sh_lock* lock) {
    int held = 2;
    EXPECT_EQ(sh_lock_release(lock, &held, nullptr), SH_OK);
    return held;
  }
  static int ReleaseInBatch(sh_client* client, sh_lock* lock) {
    sh_batch* begun = nullptr;
    EXPECT_EQ(sh_batch_begin(client, nullptr, &begun, nullptr), SH_OK);
    const BatchPtr batch(begun);
    size_t at = 0;
    EXPECT_EQ(sh_batch_lock_release(batch.get(), lock, &at, nullptr), SH_OK);
    EXPECT_EQ(RunAll(batch.get()), SH_OK);
    int held = 2;
    EXPECT_EQ(sh_batch_result_released(batch.get(), at, &held, nullptr), SH_OK);
    return held;
  }
};

TEST_P(LockReleaseTest, ALockThatAnOperatorTookAwayWasNotHeld) {
  const ClientPtr with_session = ConnectWithSession();
  const ClientPtr with_memory = Connect(daemon_->token());
  for (sh_client* const client : {with_session.get(), with_memory.get()}) {
    for (int round = 0; round < kRounds; ++round) {
      sh_lock* const lock = Take(client);
      TakeAway();
      EXPECT_EQ(Release(lock), 0) << "round " << round;

      sh_lock* const other = Take(client);
      TakeAway();
      EXPECT_EQ(ReleaseInBatch(client, other), 0) << "round " << round;
    }
    EXPECT_EQ(Release(Take(client)), 1);
    EXPECT_EQ(ReleaseInBatch(client, Take(client)), 1);
  }
}

// Nothing of what the service answers arrives until it is killed. The next daemon has the session.
class LostReleaseTest : public LockReleaseTest {
 protected:
  void SetUp() override {
    LockReleaseTest::SetUp();
    folder_ = daemon_->folder() + "/far";
    ASSERT_EQ(mkdir(folder_.c_str(), 0700), 0);
    ASSERT_NO_FATAL_FAILURE(StartProxy());
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.timeout_ms = kPatienceMs;
    options.transport = SH_TRANSPORT_NETWORK;
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + folder_;
    ASSERT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    far_.reset(client);
  }
  void StartProxy() {
    proxy_.reset();
    testing::FaultProxy::Options options;
    options.target = daemon_->grpc_socket();
    options.life_ms_max = 0;
    options.listen_path = folder_ + "/grpc.sock";
    auto proxy = testing::FaultProxy::Start(std::move(options));
    ASSERT_TRUE(proxy.ok()) << proxy.status().message();
    proxy_ = *std::move(proxy);
  }
  template <typename GiveBack>
  int GiveBackWithoutTheFirstAnswer(const GiveBack& give_back) {
    sh_lock* const lock = Take(far_.get());
    int held = 2;
    proxy_->Stall(testing::FaultProxy::Direction::kDown);
    std::thread thread([&] { held = give_back(lock); });
    EXPECT_TRUE(IsFree(kName));
    EXPECT_TRUE(daemon_->KillDaemonAndWait().ok());
    StartProxy();  // Ends its connections.
    thread.join();
    return held;
  }

  std::string folder_;
  std::unique_ptr<testing::FaultProxy> proxy_;
  ClientPtr far_;
};

TEST_P(LostReleaseTest, WasHeldWhereItWasCarriedOutAndSentAgain) {
  EXPECT_EQ(GiveBackWithoutTheFirstAnswer([](sh_lock* lock) { return Release(lock); }), 1);
}

TEST_P(LostReleaseTest, WasHeldWhereTheBatchWasCarriedOutAndSentAgain) {
  const auto in_batch = [&](sh_lock* lock) { return ReleaseInBatch(far_.get(), lock); };
  EXPECT_EQ(GiveBackWithoutTheFirstAnswer(in_batch), 1);
}

INSTANTIATE_TEST_SUITE_P(Doors, LockReleaseTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);
INSTANTIATE_TEST_SUITE_P(Doors, LostReleaseTest, ::testing::Values(SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse
