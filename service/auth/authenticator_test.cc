#include "service/auth/authenticator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/base/limits.h"
#include "service/auth/file_authenticator.h"
#include "service/auth/token_file.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNow = 1'800'000'000;

class AuthenticatorTest : public ::testing::Test {
 protected:
  AuthenticatorTest() {
    char pattern[] = "/tmp/sh_auth_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/tokens.toml";
  }
  ~AuthenticatorTest() override { std::filesystem::remove_all(folder_); }

  std::string NewToken(int64_t expires = 0, std::string_view grant = "area:web/*:read") {
    return CreateToken(path_, {"test", expires, {ParseGrant(grant).value()}, {}, {}}).value();
  }
  std::unique_ptr<Authenticator> Open(uint32_t failures_max = 3) {
    auto opened = FileAuthenticator::Open({path_, failures_max, [this] { return now_.load(); }});
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return *std::move(opened);
  }
  static Reason ReasonOf(Authenticator& authenticator, std::string_view token,
                         std::string_view peer = "unix:") {
    return authenticator.Authenticate(token, peer).status().reason();
  }

  std::atomic<int64_t> now_{kNow};
  std::string folder_;
  std::string path_;
};

TEST_F(AuthenticatorTest, ValidTokenGivesItsIdentity) {
  const std::string token = NewToken();
  const auto authenticator = Open();

  const auto identity = authenticator->Authenticate(token, "unix:");

  ASSERT_TRUE(identity.ok()) << identity.status().ToString();
  EXPECT_EQ((*identity)->token_id(), token.substr(4, 8));
  EXPECT_TRUE((*identity)->Allows(ObjectKind::kArea, "web/a", Verb::kRead));
  EXPECT_FALSE((*identity)->Allows(ObjectKind::kArea, "web/a", Verb::kWrite));
  EXPECT_FALSE((*identity)->Allows(ObjectKind::kArea, "db/a", Verb::kRead));
  EXPECT_FALSE((*identity)->Allows(ObjectKind::kService, "web/a", Verb::kRead));
  const Status refused = (*identity)->Require(ObjectKind::kArea, "db/a", Verb::kRead);
  EXPECT_EQ(refused.reason(), Reason::kPermissionDenied);
  EXPECT_THAT(refused.message(), HasSubstr("read area \"db/a\""));
  EXPECT_TRUE((*identity)->Require(ObjectKind::kArea, "web/a", Verb::kRead).ok());
}

TEST_F(AuthenticatorTest, WrongTextIsUnauthenticated) {
  const std::string token = NewToken();
  const auto authenticator = Open(0);
  std::string last_wrong = token;
  last_wrong.back() = last_wrong.back() == 'A' ? 'Q' : 'A';
  std::string other_id = token;
  other_id[4] = other_id[4] == 'a' ? 'b' : 'a';

  EXPECT_EQ(ReasonOf(*authenticator, ""), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, last_wrong), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, other_id), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, token + "x"), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, token.substr(0, 20)), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, std::string(kTokenBytesMax + 1, 'x')),
            Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, token), Reason::kOk);
}

TEST_F(AuthenticatorTest, MessageNeverRepeatsTheSecret) {
  const std::string token = NewToken();
  const auto authenticator = Open();
  const std::string wrong = token.substr(0, 13) + std::string(43, 'W');

  const Status refused = authenticator->Authenticate(wrong, "unix:").status();

  EXPECT_EQ(refused.message().find("WWWW"), std::string::npos);
}

TEST_F(AuthenticatorTest, ExpiryEndsATokenAtItsSecond) {
  const std::string token = NewToken(kNow + 10);
  const auto authenticator = Open();
  const auto identity = authenticator->Authenticate(token, "unix:");
  ASSERT_TRUE(identity.ok());

  now_ = kNow + 9;
  EXPECT_EQ(ReasonOf(*authenticator, token), Reason::kOk);
  EXPECT_TRUE(authenticator->Revalidate(**identity).ok());
  now_ = kNow + 10;
  EXPECT_EQ(ReasonOf(*authenticator, token), Reason::kTokenExpired);
  EXPECT_EQ(authenticator->Revalidate(**identity).status().reason(), Reason::kTokenExpired);
}

TEST_F(AuthenticatorTest, TellsWhetherATokenExpiredMeanwhile) {
  NewToken(kNow + 10);
  NewToken(kNow + 20);
  NewToken();  // Never.
  const auto authenticator = Open();

  EXPECT_FALSE(authenticator->AnyExpired(kNow, kNow + 9));
  EXPECT_TRUE(authenticator->AnyExpired(kNow + 9, kNow + 10));
  EXPECT_FALSE(authenticator->AnyExpired(kNow + 10, kNow + 19));
  EXPECT_TRUE(authenticator->AnyExpired(kNow, kNow + 100));
  EXPECT_FALSE(authenticator->AnyExpired(kNow + 20, kNow + 100));
  EXPECT_FALSE(authenticator->AnyExpired(kNow + 100, kNow)) << "the clock was set back";
}

TEST_F(AuthenticatorTest, ReloadTakesNewTokensAndDropsRevokedOnes) {
  const std::string first = NewToken();
  const auto authenticator = Open(0);
  const uint64_t generation = authenticator->generation();
  const auto identity = authenticator->Authenticate(first, "unix:");
  const std::string second = NewToken();
  EXPECT_EQ(ReasonOf(*authenticator, second), Reason::kUnauthenticated);

  ASSERT_TRUE(RevokeToken(path_, first.substr(4, 8)).ok());
  ASSERT_TRUE(authenticator->Reload().ok());

  EXPECT_GT(authenticator->generation(), generation);
  EXPECT_EQ(ReasonOf(*authenticator, second), Reason::kOk);
  EXPECT_EQ(ReasonOf(*authenticator, first), Reason::kUnauthenticated);
  EXPECT_EQ(authenticator->Revalidate(**identity).status().reason(), Reason::kUnauthenticated);
}

TEST_F(AuthenticatorTest, BrokenFileKeepsTheOldTable) {
  const std::string token = NewToken();
  const auto authenticator = Open();
  const uint64_t generation = authenticator->generation();
  std::ofstream(path_) << "# one\n[[token]]\nid = 3\n";

  const Status reloaded = authenticator->Reload();

  EXPECT_EQ(reloaded.reason(), Reason::kConfigInvalid);
  EXPECT_THAT(reloaded.message(), HasSubstr("tokens.toml:3"));
  EXPECT_EQ(authenticator->generation(), generation);
  EXPECT_EQ(ReasonOf(*authenticator, token), Reason::kOk);
}

TEST_F(AuthenticatorTest, MissingFileIsAnEmptyTable) {
  const auto authenticator = Open();

  EXPECT_EQ(ReasonOf(*authenticator, "sh1_aaaaaaaa_" + std::string(43, 'A')),
            Reason::kUnauthenticated);
}

TEST_F(AuthenticatorTest, FailingPeerIsLimitedForAMinuteAndOthersAreNot) {
  const std::string token = NewToken();
  const auto authenticator = Open(3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ReasonOf(*authenticator, "bad", "ipv4:127.0.0.1"), Reason::kUnauthenticated);
  }

  EXPECT_EQ(ReasonOf(*authenticator, "bad", "ipv4:127.0.0.1"), Reason::kRateLimited);
  EXPECT_EQ(authenticator->Authenticate("bad", "ipv4:127.0.0.1").status().retry_after_ms(),
            kRateLimitRetryAfterMs);
  EXPECT_EQ(ReasonOf(*authenticator, "bad", "ipv4:127.0.0.2"), Reason::kUnauthenticated);
  EXPECT_EQ(ReasonOf(*authenticator, token, "ipv4:127.0.0.1"), Reason::kOk);
  now_ = kNow + 60;
  EXPECT_EQ(ReasonOf(*authenticator, "bad", "ipv4:127.0.0.1"), Reason::kUnauthenticated);
}

TEST(FailureLimitTest, RemembersABoundedNumberOfPeers) {
  FailureLimit limit(1);
  for (size_t i = 0; i < 2 * kFailingPeersMax; ++i) {
    EXPECT_FALSE(limit.CountFailure("peer" + std::to_string(i), kNow + static_cast<int64_t>(i)));
  }

  EXPECT_EQ(limit.peers(), kFailingPeersMax);
}

TEST(FailureLimitTest, ClockThatWasSetBackStartsANewWindow) {
  FailureLimit limit(1);
  EXPECT_FALSE(limit.CountFailure("p", kNow));
  EXPECT_TRUE(limit.CountFailure("p", kNow));

  EXPECT_FALSE(limit.CountFailure("p", kNow - 1000));
}

TEST_F(AuthenticatorTest, ATokensLimitCountsOnOverAReload) {
  TokenSpec spec{"test", 0, {ParseGrant("area:*:read").value()}, 2, std::nullopt};
  const std::string limited = CreateToken(path_, spec).value();
  const std::string other = NewToken();
  auto opened = FileAuthenticator::Open({path_, 3, [this] { return now_.load(); }, {0, 7}});
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  const auto limit_of = [&](const std::string& token) {
    return (*(*opened)->Authenticate(token, "unix:"))->limit();
  };
  const std::shared_ptr<CallLimit> before = limit_of(limited);
  ASSERT_NE(before, nullptr);
  ASSERT_TRUE(before->Begin("x", 1).ok());
  ASSERT_TRUE(before->Begin("x", 1).ok());
  EXPECT_FALSE(before->Begin("x", 1).ok());
  EXPECT_EQ(before->at_once(), 2u);

  ASSERT_TRUE((*opened)->Reload().ok());

  EXPECT_EQ(limit_of(limited), before);
  EXPECT_FALSE(limit_of(limited)->Begin("x", 1).ok());
  // The service's default: 7 at once.
  for (int i = 0; i < 7; ++i) EXPECT_TRUE(limit_of(other)->Begin("x", 1).ok()) << i;
  EXPECT_FALSE(limit_of(other)->Begin("x", 1).ok());
}

TEST_F(AuthenticatorTest, ReloadBesideAuthenticateShowsOneTableOrTheOther) {
  const std::string token = NewToken();
  const auto authenticator = Open();
  std::atomic<bool> stop{false};
  std::thread reloader([&] {
    while (!stop) EXPECT_TRUE(authenticator->Reload().ok());
  });

  for (int i = 0; i < 2000; ++i) EXPECT_EQ(ReasonOf(*authenticator, token), Reason::kOk);

  stop = true;
  reloader.join();
}

}  // namespace
}  // namespace statehouse
