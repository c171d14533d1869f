// Workers in PID namespaces of their own, each of which is process 1 in its own: what tells two
// holders apart is never a process id.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr uint64_t kLongTtlMs = 600'000;  // No lease of this test ends by itself.
constexpr char kUrl[] = "NAMESPACE_URL";
constexpr char kToken[] = "STATEHOUSE_TOKEN";
constexpr char kLocks[] = "NAMESPACE_LOCKS";
constexpr char kPage[] = "NAMESPACE_PAGE";

// Shared by the workers of the counting test.
struct Page {
  std::atomic<uint64_t> inside;  // The token of whoever is inside now, or was when it was killed.
  std::atomic<uint64_t> turns;
  std::atomic<uint64_t> faults;
};

uint64_t TakeLock(sh_client* client, const std::string& name, sh_lock** lock) {
  sh_lock_options options{};
  options.ttl_ms = kLongTtlMs;
  sh_error* error = nullptr;
  if (sh_lock_acquire(client, name.c_str(), &options, lock, &error) != SH_OK || *lock == nullptr) {
    std::fprintf(stderr, "taking \"%s\": %s\n", name.c_str(), sh_error_message(error));
    _exit(3);
  }
  return sh_lock_token(*lock);
}

// Takes the locks one after the other, says "worker <own pid> <token>" for each, and holds them.
[[noreturn]] void HoldForEver(sh_client* client, const std::string& names) {
  for (size_t begin = 0; begin < names.size();) {
    const size_t end = std::min(names.find(' ', begin), names.size());
    sh_lock* lock = nullptr;
    const uint64_t token = TakeLock(client, names.substr(begin, end - begin), &lock);
    dprintf(STDOUT_FILENO, "worker %d %llu\n", getpid(), static_cast<unsigned long long>(token));
    begin = end + 1;
  }
  for (;;) pause();
}

[[noreturn]] void TakeTurnsForEver(sh_client* client, Page* page) {
  for (;;) {
    sh_lock* lock = nullptr;
    const uint64_t token = TakeLock(client, "turns", &lock);
    if (page->inside.exchange(token) >= token) ++page->faults;
    for (int i = 0; i < 200; ++i) CpuRelax();
    if (page->inside.load() != token) ++page->faults;
    ++page->turns;
    int held = 0;
    if (sh_lock_release(lock, &held, nullptr) != SH_OK || held != 1) ++page->faults;
  }
}

// Runs in a process of its own, which the others start.
TEST(NamespaceWorker, DISABLED_WorksUntilItIsKilled) {
  const char* const url = getenv(kUrl);
  ASSERT_NE(url, nullptr) << "another test starts this one";
  sh_options options{};
  options.transport = SH_TRANSPORT_LOCAL;
  sh_client* client = nullptr;
  sh_error* error = nullptr;
  ASSERT_EQ(sh_connect(url, &options, &client, &error), SH_OK) << sh_error_message(error);
  const char* const page_fd = getenv(kPage);
  if (page_fd == nullptr) HoldForEver(client, getenv(kLocks));
  auto page = MapShared(atoi(page_fd), 0, sizeof(Page), true);
  ASSERT_TRUE(page.ok());
  TakeTurnsForEver(client, reinterpret_cast<Page*>(*page));
}

// A process that is number 1 in a namespace of its own.
struct Worker {
  pid_t pid = -1;          // As this process sees it.
  FILE* output = nullptr;  // What it says.
};

struct Said {
  int pid = 0;         // As it sees itself.
  uint64_t token = 0;  // Of the lock that it has now.
};
Said Listen(const Worker& worker) {
  Said said;
  char line[256];
  unsigned long long token = 0;
  // The test program prints lines of its own before.
  while (said.token == 0 && fgets(line, sizeof(line), worker.output) != nullptr) {
    if (sscanf(line, "worker %d %llu", &said.pid, &token) == 2) said.token = token;
  }
  return said;
}

class LockNamespacesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    url_ = "statehouse+unix://" + daemon_->runtime_dir();
    const long probe = ForkInNamespace();
    if (probe == 0) _exit(0);
    if (probe < 0) GTEST_SKIP() << "the kernel makes no PID namespace: " << strerror(errno);
    ASSERT_EQ(WaitForExit(static_cast<pid_t>(probe)), 0);
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.transport = SH_TRANSPORT_LOCAL;
    ASSERT_EQ(sh_connect(url_.c_str(), &options, &client_, nullptr), SH_OK);
  }
  void TearDown() override {
    for (Worker& worker : workers_) Kill(worker);
    sh_close(client_);
  }

  // As fork. Without privileges a user namespace gives the right to make one of processes.
  static long ForkInNamespace() {
    const long child = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, 0);
    if (child >= 0 || errno != EPERM) return child;
    return syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, 0);
  }
  // `page` -1: it holds `locks`.
  void Start(Worker* worker, const std::string& locks, int page = -1) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const long child = ForkInNamespace();
    ASSERT_GE(child, 0) << strerror(errno);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(ends[1], STDOUT_FILENO);
      setenv(kUrl, url_.c_str(), 1);
      setenv(kToken, daemon_->token().c_str(), 1);
      setenv(kLocks, locks.c_str(), 1);
      if (page >= 0) setenv(kPage, std::to_string(dup(page)).c_str(), 1);
      execl("/proc/self/exe", "worker", "--gtest_also_run_disabled_tests", "--gtest_brief=1",
            "--gtest_filter=NamespaceWorker.*", nullptr);
      _exit(127);
    }
    close(ends[1]);
    worker->pid = static_cast<pid_t>(child);
    worker->output = fdopen(ends[0], "r");
  }
  static void Kill(Worker& worker) {
    if (worker.pid <= 0) return;
    kill(worker.pid, SIGKILL);
    EXPECT_EQ(WaitForExit(worker.pid), 128 + SIGKILL);
    fclose(worker.output);
    worker = Worker();
  }
  // 0: nobody.
  uint64_t HolderOf(const char* name) {
    sh_lock_info* info = nullptr;
    EXPECT_EQ(sh_lock_describe(client_, name, &info, nullptr), SH_OK);
    EXPECT_LE(info->holder_count, 1u);
    const uint64_t token = info->holder_count == 0 ? 0 : info->parties[0].token;
    sh_lock_infos_free(info, 1);
    return token;
  }
  void AwaitWaiter(const char* name) {
    EXPECT_TRUE(Eventually([&] {
      sh_lock_info* info = nullptr;
      EXPECT_EQ(sh_lock_describe(client_, name, &info, nullptr), SH_OK);
      const bool waits = info->waiter_count == 1;
      sh_lock_infos_free(info, 1);
      return waits;
    }));
  }

  std::unique_ptr<Daemon> daemon_;
  std::string url_;
  sh_client* client_ = nullptr;
  Worker workers_[3];
};

TEST_F(LockNamespacesTest, TheDeathOfOneReleasesItsOwnLocksAlone) {
  constexpr int kRounds = 10;
  const std::string own[] = {"of-worker-0", "of-worker-1"};
  uint64_t own_token[2] = {};
  Start(&workers_[0], own[0] + " common");
  own_token[0] = Listen(workers_[0]).token;
  uint64_t token = Listen(workers_[0]).token;
  ASSERT_NE(token, 0u);
  double slowest_ms = 0;

  for (int round = 0; round < kRounds; ++round) {
    const int dying = round % 2;
    const int next = 1 - dying;
    Start(&workers_[next], own[next] + " common");
    const Said first = Listen(workers_[next]);
    ASSERT_EQ(first.pid, 1) << "both are process 1, each of its namespace";
    own_token[next] = first.token;
    AwaitWaiter("common");
    EXPECT_EQ(HolderOf("common"), token);

    const auto killed = std::chrono::steady_clock::now();
    Kill(workers_[dying]);
    const Said said = Listen(workers_[next]);

    ASSERT_GT(said.token, token) << "the next one holds it";
    slowest_ms = std::max(slowest_ms, std::chrono::duration<double, std::milli>(
                                          std::chrono::steady_clock::now() - killed)
                                          .count());
    token = said.token;
    EXPECT_EQ(HolderOf("common"), token);
    EXPECT_EQ(HolderOf(own[next].c_str()), own_token[next]) << "its twin's death took it";
    EXPECT_EQ(HolderOf(own[dying].c_str()), 0u);
  }
  std::printf("killed -> its twin in another namespace holds the lock: at most %.1f ms\n",
              slowest_ms);
}

TEST_F(LockNamespacesTest, OnlyOneIsInsideWhileOthersAreKilled) {
  constexpr int kKills = 40;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const UniqueFd memory = std::move(*CreateSealedMemory("namespaces-page", sizeof(Page)));
  auto mapped = MapShared(memory.get(), 0, sizeof(Page), true);
  ASSERT_TRUE(mapped.ok());
  const Page* const page = reinterpret_cast<Page*>(*mapped);
  for (Worker& worker : workers_) Start(&worker, "", memory.get());

  for (int i = 0; i < kKills; ++i) {
    const uint64_t turns = page->turns;
    ASSERT_TRUE(Eventually([&] { return page->turns > turns; })) << "nobody gets the lock";
    SleepNs(random() % 3'000'000);
    Worker& victim = workers_[random() % std::size(workers_)];
    Kill(victim);
    Start(&victim, "", memory.get());
  }
  for (Worker& worker : workers_) Kill(worker);

  EXPECT_EQ(page->faults, 0u);
  EXPECT_TRUE(Eventually([&] { return HolderOf("turns") == 0; }));
  std::printf("%d kills, %llu turns\n", kKills, static_cast<unsigned long long>(page->turns));
  Unmap(*mapped, sizeof(Page));
}

}  // namespace
}  // namespace statehouse::testing
