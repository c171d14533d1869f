#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

class BenchFolderTest : public ::testing::Test {
 protected:
  BenchFolderTest() {
    char pattern[] = "/tmp/sh_bench_folder_XXXXXX";
    base_ = mkdtemp(pattern);
    setenv("TMPDIR", base_.c_str(), 1);
  }
  ~BenchFolderTest() override {
    unsetenv("TMPDIR");
    std::filesystem::remove_all(base_);
  }
  size_t Folders() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(base_)) {
      count += entry.path().filename().string().rfind("statehouse-bench-", 0) == 0 ? 1 : 0;
    }
    return count;
  }
  // A bench that has its folder and is killed.
  static pid_t StartBench() {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      const BenchFolder folder;
      if (write(ready[1], "r", 1) != 1) _exit(1);
      for (;;) pause();
    }
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
  }
  static void Kill(pid_t pid) {
    EXPECT_EQ(kill(pid, SIGKILL), 0);
    EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
  }

  std::string base_;
};

TEST_F(BenchFolderTest, TheFolderOfAKilledBenchIsRemovedByTheNextOne) {
  Kill(StartBench());
  ASSERT_EQ(Folders(), 1u);

  const auto next = std::make_unique<BenchFolder>();

  EXPECT_EQ(Folders(), 1u);
  EXPECT_TRUE(std::filesystem::exists(next->path()));
}

TEST_F(BenchFolderTest, FoldersOfBenchesThatRunAndOthersStay) {
  std::filesystem::create_directory(base_ + "/statehouse-bench-older");
  const pid_t bench = StartBench();

  { const BenchFolder next; }

  EXPECT_EQ(Folders(), 2u);
  Kill(bench);
}

}  // namespace
}  // namespace statehouse::bench
