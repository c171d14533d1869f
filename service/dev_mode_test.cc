#include "service/dev_mode.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "service/api/api_test_support.h"
#include "service/auth/token_file.h"

namespace statehouse {
namespace {

class DevTokenTest : public ::testing::Test {
 protected:
  DevTokenTest() {
    char pattern[] = "/tmp/sh_dev_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    config_.runtime_dir = folder_;
    config_.origins["runtime_dir"] = "--runtime-dir";
  }
  ~DevTokenTest() override { std::filesystem::remove_all(folder_); }

  // A service that begins on the folder.
  DevMode Begin() {
    Config config = config_;
    InheritedDescriptors nothing;
    DevMode dev = DevMode::Prepare(&config, &nothing, &vault_).value();
    tokens_file_ = config.auth.tokens_file;
    const Status taken = dev.TakeToken(tokens_file_, &nothing, &vault_);
    EXPECT_TRUE(taken.ok()) << taken.ToString();
    return dev;
  }
  std::vector<std::string> Descriptions() const {
    std::vector<std::string> descriptions;
    const std::vector<TokenRecord> records = ListTokens(tokens_file_).value();
    for (const TokenRecord& record : records) {
      descriptions.push_back(record.description);
    }
    return descriptions;
  }

  std::string folder_;
  std::string tokens_file_;
  Config config_;
  ForgetfulVault vault_;
};

using Texts = std::vector<std::string>;

TEST_F(DevTokenTest, TheTokenEndsWithTheServiceAndTheOperatorsFolderStays) {
  const DevMode dev = Begin();
  EXPECT_EQ(Descriptions(), Texts{"made by statehoused --dev"});
  const Status removed = dev.Remove();
  EXPECT_TRUE(removed.ok()) << removed.ToString();
  EXPECT_EQ(Descriptions(), Texts{});
  EXPECT_TRUE(std::filesystem::exists(folder_));
}

TEST_F(DevTokenTest, ATokenOfAServiceThatWasKilledEndsWhenTheNextOneBegins) {
  (void)Begin();
  ASSERT_TRUE(CreateToken(tokens_file_, {"mine", 0, {ParseGrant("dict:*:read").value()}}).ok());
  (void)Begin();
  EXPECT_EQ(Descriptions(), (Texts{"mine", "made by statehoused --dev"}));
}

TEST_F(DevTokenTest, OfATokensFileThatOthersMayUseOnlyItsOwnIsRemoved) {
  config_.auth.tokens_file = folder_ + "/shared.toml";
  config_.origins["auth.tokens_file"] = "--tokens-file";
  const DevMode first = Begin();
  const DevMode second = Begin();
  EXPECT_EQ(Descriptions().size(), 2u);
  EXPECT_TRUE(second.Remove().ok());
  EXPECT_EQ(Descriptions().size(), 1u);
  EXPECT_TRUE(first.Remove().ok());
  EXPECT_EQ(Descriptions(), Texts{});
}

}  // namespace
}  // namespace statehouse
