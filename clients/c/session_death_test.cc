// What a process has of the service ends with it, also when it is killed as soon as it has it.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>

#include "clients/c/testing/dict_client.h"
#include "statehouse/lock.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

constexpr int kMortals = 120;  // For each door; each second one locks, the others bind.
// A session that nobody holds lasts 10 s.
constexpr std::chrono::seconds kGoneWithin{2};
constexpr char kUrlVariable[] = "SESSION_DEATH_URL";
constexpr char kDoorVariable[] = "SESSION_DEATH_DOOR";
constexpr char kTokenVariable[] = "SESSION_DEATH_TOKEN";
constexpr char kLockTokenVariable[] = "SESSION_DEATH_LOCK_TOKEN";

bool Locks(int mortal) { return mortal % 2 == 0; }
std::string NameOf(int mortal) { return "mortal/" + std::to_string(mortal); }

sh_reason LockFor60s(sh_client* client, const std::string& name, uint64_t timeout_ms,
                     sh_lock** lock) {
  sh_lock_options options{};
  options.ttl_ms = 60'000;
  options.timeout_ms = timeout_ms;
  return sh_lock_acquire(client, name.c_str(), &options, lock, nullptr);
}

// Takes a lock or binds an entry, and is killed before it does anything else.
void LiveAndDie(int mortal) {
  sh_options options{};
  options.token = getenv(Locks(mortal) ? kLockTokenVariable : kTokenVariable);
  options.timeout_ms = kPatienceMs;
  options.transport = static_cast<sh_transport>(atoi(getenv(kDoorVariable)));
  sh_client* client = nullptr;
  if (sh_connect(getenv(kUrlVariable), &options, &client, nullptr) != SH_OK) _exit(2);
  if (Locks(mortal)) {
    sh_lock* lock = nullptr;
    if (LockFor60s(client, NameOf(mortal), kPatienceMs, &lock) != SH_OK || !lock) _exit(3);
  } else {
    sh_dict* dict = nullptr;
    if (sh_dict_open(client, "d", nullptr, &dict, nullptr) != SH_OK) _exit(4);
    sh_write_options bound{};
    bound.bound = 1;
    if (sh_dict_set_int(dict, Bytes(NameOf(mortal)), 1, &bound, nullptr) != SH_OK) _exit(5);
  }
  kill(getpid(), SIGKILL);
}

// A process of its own, because it forks and so must have made no call over the network.
TEST(SessionDeathMortals, DISABLED_DieOnceTheyHaveSomething) {
  ASSERT_NE(getenv(kUrlVariable), nullptr) << "another test starts this one";
  for (int mortal = 0; mortal < kMortals; ++mortal) {
    const pid_t pid = fork();
    if (pid == 0) {
      LiveAndDie(mortal);
      _exit(6);
    }
    ASSERT_GT(pid, 0);
    EXPECT_EQ(testing::WaitForExit(pid), 128 + SIGKILL);
  }
}

class SessionDeathTest : public DictClientTest {
 protected:
  void RunMortals() const {
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    const std::string door = std::to_string(static_cast<int>(GetParam()));
    const pid_t pid = fork();
    if (pid == 0) {
      setenv(kUrlVariable, url.c_str(), 1);
      setenv(kDoorVariable, door.c_str(), 1);
      setenv(kTokenVariable, daemon_->token().c_str(), 1);
      setenv(kLockTokenVariable, lock_token_.c_str(), 1);
      execl("/proc/self/exe", "mortals", "--gtest_also_run_disabled_tests", "--gtest_brief=1",
            "--gtest_filter=SessionDeathMortals.*", nullptr);
      _exit(127);
    }
    ASSERT_GT(pid, 0);
    EXPECT_EQ(testing::WaitForExit(pid), 0);
  }

  // It may not lock every name, so its locks are those of a session through each door.
  std::string lock_token_;
};

TEST_P(SessionDeathTest, LocksAndBoundEntriesEndWithAProcessThatIsKilledAtOnce) {
  lock_token_ = AddToken("lock:mortal/*:lock");
  const DictPtr dict = Open("d");
  ASSERT_NO_FATAL_FAILURE(RunMortals());
  const steady_clock::time_point died = steady_clock::now();

  for (int mortal = 0; mortal < kMortals; ++mortal) {
    if (!Locks(mortal)) continue;
    sh_lock* lock = nullptr;
    EXPECT_EQ(LockFor60s(client_.get(), NameOf(mortal), kPatienceMs, &lock), SH_OK);
    ASSERT_NE(lock, nullptr);
    EXPECT_EQ(sh_lock_release(lock, nullptr, nullptr), SH_OK);
  }
  EXPECT_TRUE(testing::Eventually([&] {
    sh_dict_info info{};
    EXPECT_EQ(sh_dict_describe(client_.get(), "d", &info, nullptr), SH_OK);
    return info.entries == 0;
  }));

  EXPECT_LT(steady_clock::now() - died, kGoneWithin);
}

INSTANTIATE_TEST_SUITE_P(Doors, SessionDeathTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
