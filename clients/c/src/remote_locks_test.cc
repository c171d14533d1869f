// What a release says: the service's word where it was sent once, and this process's clock only
// where the service's answer may be about another sending than the one that was carried out.
#include "clients/c/src/remote_locks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "clients/c/src/batch_tape.h"
#include "clients/c/testing/fake_daemon.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr uint64_t kTtlNs = 60'000'000'000;

class RemoteLocksTest : public testing::Test {
 protected:
  void SetUp() override {
    daemon_.HandleCalls([this](const std::string& method, const std::string&) {
      return Answer(method.substr(method.rfind('/') + 1));
    });
    LocalSessionOptions options;
    options.runtime_dir = daemon_.runtime_dir();
    options.timeout = kPatience;
    auto session = LocalSession::Connect(options);
    ASSERT_TRUE(session.ok()) << session.status().ToString();
    session_ = *std::move(session);
    caller_ = std::make_unique<LocalCaller>(session_);
    locks_ = std::make_shared<RemoteLocks>(caller_.get(), "test", kPatience, [] {});
  }
  void TearDown() override {
    if (locks_ != nullptr) locks_->Close();
  }

  // Nobody tells the session what it loses.
  StatusOr<std::string> Answer(const std::string& verb) {
    if (verb == "OpenSession") {
      v1::OpenSessionResponse response;
      response.set_session_id(1);
      return response.SerializeAsString();
    }
    if (verb == "RenewSession") {
      v1::RenewSessionResponse response;
      response.set_held(true);
      return response.SerializeAsString();
    }
    if (verb == "AcquireLock") {
      v1::AcquireLockResponse response;
      response.set_acquired(true);
      response.set_token(1);
      response.mutable_expires_in()->set_seconds(kTtlNs / 1'000'000'000);
      is_held_ = true;
      return response.SerializeAsString();
    }
    if (verb == "RenewLock") {
      v1::RenewLockResponse response;
      response.mutable_expires_in()->set_seconds(kTtlNs / 1'000'000'000);
      return response.SerializeAsString();
    }
    if (verb == "ReleaseLock") {
      if (loses_release_.exchange(false)) daemon_.LoseNextAnswer();
      ++releases_;
      return Released(is_held_.exchange(false));
    }
    return Status(Reason::kDraining, verb + " is not for this test");
  }
  static std::string Released(bool held) {
    v1::ReleaseLockResponse response;
    response.set_held(held);
    return response.SerializeAsString();
  }

  std::unique_ptr<HeldLock> Take() {
    LockAsk ask;
    ask.name = "a";
    ask.request.ttl_ns = kTtlNs;
    std::unique_ptr<HeldLock> lock;
    const Status acquired = locks_->Acquire(ask, &lock);
    EXPECT_TRUE(acquired.ok()) << acquired.ToString();
    return lock;
  }
  // As an operation of a batch, whose answer is given.
  static Status ReleaseInBatch(HeldLock& lock, const BatchTape::Answer& answer, bool* held) {
    BatchTape tape;
    tape.Note();
    EXPECT_EQ(lock.ReleaseThrough(tape, held).reason(), Reason::kCancelled);
    tape.Give(answer);
    return lock.ReleaseThrough(tape, held);
  }

  FakeDaemon daemon_;
  std::atomic<bool> is_held_{false};  // As the service says.
  std::atomic<bool> loses_release_{false};
  std::atomic<int> releases_{0};
  std::shared_ptr<LocalSession> session_;
  std::unique_ptr<LocalCaller> caller_;
  std::shared_ptr<RemoteLocks> locks_;
};

TEST_F(RemoteLocksTest, AReleaseSaysWhatTheServiceDoesWhateverTheClockSays) {
  bool held = false;
  std::unique_ptr<HeldLock> lock = Take();
  ASSERT_TRUE(lock->Release(&held).ok());
  EXPECT_TRUE(held);

  lock = Take();
  is_held_ = false;  // Taken away.
  EXPECT_TRUE(lock->Look().held);
  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_FALSE(held);
  EXPECT_EQ(releases_, 2);
}

TEST_F(RemoteLocksTest, AReleaseWhoseFirstAnswerWasLostSaysWhatTheClockDid) {
  const std::unique_ptr<HeldLock> lock = Take();
  loses_release_ = true;

  bool held = false;
  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_TRUE(held);
  EXPECT_EQ(releases_, 2);
}

TEST_F(RemoteLocksTest, ALockThatIsKnownToBeLostIsNotHeldAndNotReleased) {
  const std::unique_ptr<HeldLock> lock = Take();
  locks_->Lose(1);  // With its session.

  bool held = true;
  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_FALSE(held);
  EXPECT_EQ(releases_, 0);
}

TEST_F(RemoteLocksTest, ABatchThatWasSentOnceIsBelievedAndOneThatWasSentAgainIsNot) {
  const std::string not_held = Released(false);
  for (const bool sent_again : {false, true}) {
    const std::unique_ptr<HeldLock> lock = Take();

    bool held = !sent_again;
    ASSERT_TRUE(ReleaseInBatch(*lock, {Status(), not_held, sent_again}, &held).ok());

    EXPECT_EQ(held, sent_again);
  }
  EXPECT_EQ(releases_, 0) << "the batch's was the only one";
}

TEST_F(RemoteLocksTest, AReleaseAfterABatchWithoutAnAnswerCountsAsSentAgain) {
  const std::unique_ptr<HeldLock> lock = Take();
  bool held = false;
  const Status lost(Reason::kUnavailable, "the answer was lost");
  ASSERT_EQ(ReleaseInBatch(*lock, {lost, "", true}, &held).reason(), Reason::kUnavailable);
  is_held_ = false;  // It had been carried out.

  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_TRUE(held);
  EXPECT_EQ(releases_, 1);
}

TEST_F(RemoteLocksTest, AReleaseAfterABatchThatDidNotBeginItIsBelieved) {
  const std::unique_ptr<HeldLock> lock = Take();
  bool held = true;
  const Status skipped(Reason::kCancelled, "an operation before it was refused");
  ASSERT_EQ(ReleaseInBatch(*lock, {skipped, "", false}, &held).reason(), Reason::kCancelled);
  is_held_ = false;  // Taken away.

  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_FALSE(held);
}

TEST_F(RemoteLocksTest, ARenewalShowsThatABatchWithoutAnAnswerReleasedNothing) {
  const std::unique_ptr<HeldLock> lock = Take();
  bool held = true;
  const Status lost(Reason::kUnavailable, "the answer was lost");
  ASSERT_EQ(ReleaseInBatch(*lock, {lost, "", true}, &held).reason(), Reason::kUnavailable);
  ASSERT_TRUE(lock->Renew(kTtlNs).ok());
  is_held_ = false;  // Taken away.

  ASSERT_TRUE(lock->Release(&held).ok());

  EXPECT_FALSE(held);
}

}  // namespace
}  // namespace statehouse
