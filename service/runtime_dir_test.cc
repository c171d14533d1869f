#include "service/runtime_dir.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace statehouse {
namespace {

class RuntimeDirTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(folder_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Text(const std::string& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::string folder_ = "/tmp/statehouse-runtime-XXXXXX";
};

TEST_F(RuntimeDirTest, AMissingFolderIsMadePrivate) {
  const auto dir = RuntimeDir::Open(folder_ + "/a/run", UniqueFd());
  ASSERT_TRUE(dir.ok()) << dir.status().ToString();

  struct stat facts {};
  ASSERT_EQ(stat((folder_ + "/a/run").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
  EXPECT_EQ(dir->attach_socket(), folder_ + "/a/run/attach.sock");
}

TEST_F(RuntimeDirTest, AFolderThatIsServedIsRefusedUntilItsServiceEnds) {
  {
    const auto first = RuntimeDir::Open(folder_, UniqueFd());
    ASSERT_TRUE(first.ok());

    const auto second = RuntimeDir::Open(folder_, UniqueFd());

    EXPECT_EQ(second.status().reason(), Reason::kUnavailable);
    EXPECT_NE(second.status().message().find(std::to_string(getpid())), std::string::npos);
  }
  EXPECT_TRUE(RuntimeDir::Open(folder_, UniqueFd()).ok());
}

TEST_F(RuntimeDirTest, TheNextDaemonTakesTheLockOver) {
  UniqueFd kept;
  {
    const auto first = RuntimeDir::Open(folder_, UniqueFd());
    ASSERT_TRUE(first.ok());
    kept.Reset(dup(first->lock_fd()));
  }

  EXPECT_EQ(RuntimeDir::Open(folder_, UniqueFd()).status().reason(), Reason::kUnavailable);
  EXPECT_TRUE(RuntimeDir::Open(folder_, std::move(kept)).ok());
}

TEST_F(RuntimeDirTest, FoldersThatOthersCouldChangeAreRefused) {
  std::filesystem::create_directory(folder_ + "/open");
  ASSERT_EQ(chmod((folder_ + "/open").c_str(), 0777), 0);
  std::filesystem::create_symlink(folder_, folder_ + "/link");
  std::ofstream(folder_ + "/file") << "x";

  for (const char* name : {"/open", "/link", "/file"}) {
    EXPECT_EQ(RuntimeDir::Open(folder_ + name, UniqueFd()).status().reason(),
              Reason::kConfigInvalid)
        << name;
  }
}

TEST_F(RuntimeDirTest, FilesAreWrittenWholeAndPrivateAndRemovedAtTheEnd) {
  const auto dir = RuntimeDir::Open(folder_, UniqueFd());
  ASSERT_TRUE(dir.ok());

  ASSERT_TRUE(dir->WriteFile("endpoints.json", "long text").ok());
  ASSERT_TRUE(dir->WriteFile("endpoints.json", "short").ok());

  EXPECT_EQ(Text(folder_ + "/endpoints.json"), "short");
  struct stat facts {};
  ASSERT_EQ(stat((folder_ + "/endpoints.json").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  ASSERT_TRUE(dir->RemoveFiles().ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  EXPECT_TRUE(dir->RemoveFiles().ok());
}

}  // namespace
}  // namespace statehouse
