// The wall clock of the service and of its clients jumps: no lease, wait or session ends earlier or
// later for it, and tokens never go back.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <string>

#include "engine/os/futex.h"
#include "engine/state/lock_store.h"
#include "tests/support/daemon.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

constexpr int64_t kDayS = 86'400;
constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kBriefTtlMs = 1'000;
constexpr uint64_t kLongTtlMs = 600'000;
constexpr char kUrl[] = "CLOCK_TEST_URL";
constexpr char kShift[] = "WALL_CLOCK_SHIFT";

sh_lock* Take(sh_client* client, const std::string& name, uint64_t ttl_ms) {
  sh_lock_options options{};
  options.ttl_ms = ttl_ms;
  options.manual_renewal = 1;
  sh_lock* lock = nullptr;
  sh_error* error = nullptr;
  EXPECT_EQ(sh_lock_acquire(client, name.c_str(), &options, &lock, &error), SH_OK)
      << sh_error_message(error);
  sh_error_free(error);
  return lock;
}

// Runs in a process of its own, under the moved clock: takes "<door>/long" and "<door>/brief", and
// says for each line that it is sent which of them it holds by its own clock.
TEST(ClockHolder, DISABLED_HoldsTwoLocks) {
  const char* const url = getenv(kUrl);
  ASSERT_NE(url, nullptr) << "another test starts this one";
  sh_client* client = nullptr;
  ASSERT_EQ(sh_connect(url, nullptr, &client, nullptr), SH_OK);
  const std::string door = sh_transport_of(client) == SH_TRANSPORT_LOCAL ? "local" : "network";
  sh_lock* const of_long = Take(client, door + "/long", kLongTtlMs);
  sh_lock* const of_brief = Take(client, door + "/brief", kBriefTtlMs);
  char line[16];
  do {
    const int64_t wall_s = static_cast<int64_t>(time(nullptr));
    dprintf(STDOUT_FILENO, "holder %d %d %lld\n", sh_lock_held(of_long, nullptr),
            sh_lock_held(of_brief, nullptr), static_cast<long long>(wall_s));
  } while (fgets(line, sizeof(line), stdin) != nullptr);
}

struct Holder {
  pid_t pid = 0;
  FILE* says = nullptr;
  int ask = -1;

  struct Answer {
    int holds_long = -1;
    int holds_brief = -1;
    long long wall_s = 0;
  };
  Answer Listen() {
    Answer answer;
    char line[256];
    // The test program prints lines of its own before.
    while (answer.holds_long < 0 && fgets(line, sizeof(line), says) != nullptr) {
      if (sscanf(line, "holder %d %d %lld", &answer.holds_long, &answer.holds_brief,
                 &answer.wall_s) != 3) {
        answer = Answer();
      }
    }
    return answer;
  }
  Answer Ask() {
    EXPECT_EQ(write(ask, "\n", 1), 1);
    return Listen();
  }
};

class LockClockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = folder_.path() + "/shift";
    const UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(ftruncate(file.get(), sizeof(int64_t)), 0);
    void* const page =
        mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    ASSERT_NE(page, MAP_FAILED);
    shift_s_ = static_cast<std::atomic<int64_t>*>(page);
    environment_ = {std::string(kShift) + "=" + path, "LD_PRELOAD=" WALL_CLOCK_SHIM};
    DaemonOptions options;
    options.environment = environment_;
    auto daemon = Daemon::Start(options);
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    Connect();
  }
  void TearDown() override {
    sh_close(client_);
    for (Holder& holder : holders_) {
      if (holder.pid == 0) continue;
      fclose(holder.says);
      close(holder.ask);
      EXPECT_EQ(WaitForExit(holder.pid), 0);
    }
    munmap(shift_s_, sizeof(int64_t));
  }

  void Connect() {
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.transport = SH_TRANSPORT_LOCAL;
    ASSERT_EQ(sh_connect(url.c_str(), &options, &client_, nullptr), SH_OK);
  }
  void Start(Holder* holder, const std::string& door) {
    int to[2];
    int from[2];
    ASSERT_TRUE(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    holder->pid = fork();
    ASSERT_GE(holder->pid, 0);
    if (holder->pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      for (std::string& entry : environment_) putenv(entry.data());
      const std::string url = "statehouse+unix://" + daemon_->runtime_dir() + "?transport=" + door;
      setenv(kUrl, url.c_str(), 1);
      setenv("STATEHOUSE_TOKEN", daemon_->token().c_str(), 1);
      execl("/proc/self/exe", "holder", "--gtest_also_run_disabled_tests",
            "--gtest_filter=ClockHolder.*", nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    holder->ask = to[1];
    holder->says = fdopen(from[0], "r");
  }
  uint64_t TakeAndRelease(const std::string& name) {
    sh_lock* const lock = Take(client_, name, kLongTtlMs);
    const uint64_t token = lock == nullptr ? 0 : sh_lock_token(lock);
    sh_lock_release(lock, nullptr, nullptr);
    return token;
  }

  TemporaryFolder folder_;
  std::atomic<int64_t>* shift_s_ = nullptr;
  std::vector<std::string> environment_;
  std::unique_ptr<Daemon> daemon_;
  sh_client* client_ = nullptr;
  Holder holders_[2];
};

TEST_F(LockClockTest, AJumpOfADayEndsNoLeaseAndMakesNoneLonger) {
  const std::string doors[] = {"local", "network"};
  for (const int64_t jump_s : {kDayS, -kDayS}) {
    SCOPED_TRACE("a jump of " + std::to_string(jump_s) + " s");
    const uint64_t begin_ns = MonotonicNs();
    long long wall_s[2];
    for (int i = 0; i < 2; ++i) {
      Start(&holders_[i], doors[i]);
      const Holder::Answer answer = holders_[i].Listen();
      ASSERT_EQ(answer.holds_long, 1);
      wall_s[i] = answer.wall_s;
    }

    *shift_s_ += jump_s;

    for (int i = 0; i < 2; ++i) {
      const Holder::Answer after = holders_[i].Ask();
      EXPECT_GE(std::abs(after.wall_s - wall_s[i]), kDayS - 60) << "its clock has not jumped";
      sh_lock* const brief = Take(client_, doors[i] + "/brief", kLongTtlMs);
      EXPECT_GE(MonotonicNs() - begin_ns, kBriefTtlMs * kMs) << doors[i] << ": it ended early";
      sh_lock_release(brief, nullptr, nullptr);
      const Holder::Answer later = holders_[i].Ask();
      EXPECT_EQ(later.holds_long, 1) << doors[i];
      EXPECT_EQ(later.holds_brief, 0) << doors[i];
      sh_lock_info* info = nullptr;
      ASSERT_EQ(sh_lock_describe(client_, (doors[i] + "/long").c_str(), &info, nullptr), SH_OK);
      ASSERT_EQ(info->holder_count, 1u) << doors[i];
      EXPECT_LE(info->parties[0].expires_ms, kLongTtlMs + 10) << doors[i];
      EXPECT_GE(info->parties[0].expires_ms + (MonotonicNs() - begin_ns) / kMs, kLongTtlMs)
          << doors[i];
      sh_lock_infos_free(info, 1);
    }
    // Longer than a session that nobody renews.
    SleepNs(static_cast<uint64_t>(Rounds(0, 15'000)) * kMs);
    for (Holder& holder : holders_) {
      EXPECT_EQ(holder.Ask().holds_long, 1);
      close(holder.ask);
      EXPECT_EQ(WaitForExit(holder.pid), 0);
      fclose(holder.says);
      holder = Holder();
    }
  }
}

TEST_F(LockClockTest, TokensRiseOverRestartsWithTheClockSetBack) {
  uint64_t token = TakeAndRelease("a");
  EXPECT_GT(token, static_cast<uint64_t>(time(nullptr) - kDayS) << 20);

  *shift_s_ = -kDayS;
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  const uint64_t after_daemon = TakeAndRelease("a");
  EXPECT_GT(after_daemon, token);

  *shift_s_ = -2 * kDayS;
  ASSERT_TRUE(daemon_->KillKeeperAndWait().ok());
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_GT(TakeAndRelease("a"), after_daemon);
}

class ForgetfulVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

TEST(LockSeedTest, TheCounterThatWasKeptWinsOverAClockThatIsBehind) {
  ForgetfulVault vault;
  CatalogueHead head{};
  std::map<std::string, UniqueFd> nothing;
  std::vector<std::string> warnings;
  const uint64_t tomorrow = static_cast<uint64_t>(time(nullptr) + kDayS) << 20;
  head.lock_token_mark = tomorrow;

  const auto store = LockStore::Start(64, &nothing, &head, &vault, &warnings);

  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_GT((*store)->space().LastToken(), tomorrow) << "the space was lost, its tokens were not";
  EXPECT_EQ(head.lock_token_mark, (*store)->space().LastToken());
}

}  // namespace
}  // namespace statehouse::testing
