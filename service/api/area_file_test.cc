#include "service/api/area_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace statehouse {
namespace {

class AreaFileTest : public ::testing::Test {
 protected:
  AreaFileTest() {
    char pattern[] = "/tmp/sh_area_file_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    root_ = folder_ + "/top";
    std::filesystem::create_directories(root_ + "/sub");
    std::filesystem::create_directories(folder_ + "/top2");
    for (const char* name : {"/top/a", "/top/sub/b", "/top2/c", "/outside"}) {
      std::ofstream(folder_ + name) << "x";
    }
    std::filesystem::create_symlink(folder_ + "/outside", root_ + "/leak");
    std::filesystem::create_symlink("/", root_ + "/slash");
    std::filesystem::create_symlink("a", root_ + "/inner");
  }
  ~AreaFileTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::string root_;
};

TEST_F(AreaFileTest, FilesBelowTheRootAreFoundByAnyWay) {
  EXPECT_EQ(*ResolveAreaFile(root_, "a"), root_ + "/a");
  EXPECT_EQ(*ResolveAreaFile(root_, root_ + "/a"), root_ + "/a");
  EXPECT_EQ(*ResolveAreaFile(root_, "sub/../sub/b"), root_ + "/sub/b");
  EXPECT_EQ(*ResolveAreaFile(root_, "inner"), root_ + "/a");
  EXPECT_EQ(*ResolveAreaFile(root_ + "/", "a"), root_ + "/a");
}

TEST_F(AreaFileTest, EscapesAreRefused) {
  for (const std::string& file :
       {std::string("../outside"), folder_ + "/outside", std::string("leak"),
        std::string("slash/etc/passwd"), folder_ + "/top2/c", std::string("../top2/c"),
        std::string("missing"), std::string("sub"), std::string(""), std::string("."),
        std::string("/dev/null"), std::string("a\0b", 3)}) {
    const auto resolved = ResolveAreaFile(root_, file);
    ASSERT_FALSE(resolved.ok()) << file;
    EXPECT_EQ(resolved.status().reason(), Reason::kBackingInvalid) << file;
  }
}

TEST_F(AreaFileTest, MissingAndOutsideGetTheSameAnswer) {
  std::string missing = ResolveAreaFile(root_, "../nothing").status().message();
  std::string outside = ResolveAreaFile(root_, "../outside").status().message();

  missing.erase(missing.find("nothing"), 7);
  outside.erase(outside.find("outside"), 7);
  EXPECT_EQ(missing, outside);
}

TEST_F(AreaFileTest, WithoutARootNothingIsAllowed) {
  EXPECT_EQ(ResolveAreaFile("", root_ + "/a").status().reason(), Reason::kBackingInvalid);
  EXPECT_EQ(ResolveAreaFile(folder_ + "/none", "a").status().reason(), Reason::kBackingInvalid);
}

}  // namespace
}  // namespace statehouse
