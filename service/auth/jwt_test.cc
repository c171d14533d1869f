// JSON Web Tokens as access tokens: what is accepted, and each way in which one is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <jwt.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <vector>

#include "engine/base/limits.h"
#include "service/auth/jwt_authenticator.h"
#include "service/auth/token_file.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNow = 1'800'000'000;
const std::string kSecret(kJwtSecretBytesMin, 's');

struct KeyPair {
  std::string secret;  // PEM.
  std::string open;    // PEM.
};

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(bytes));
}

KeyPair PairOf(EVP_PKEY* raw) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(raw, &EVP_PKEY_free);
  const std::unique_ptr<BIO, decltype(&BIO_free)> secret(BIO_new(BIO_s_mem()), &BIO_free);
  const std::unique_ptr<BIO, decltype(&BIO_free)> open(BIO_new(BIO_s_mem()), &BIO_free);
  EXPECT_EQ(
      PEM_write_bio_PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr), 1);
  EXPECT_EQ(PEM_write_bio_PUBKEY(open.get(), key.get()), 1);
  return {TextOf(secret.get()), TextOf(open.get())};
}

KeyPair Rsa(int bits = kJwtRsaBitsMin) { return PairOf(EVP_RSA_gen(static_cast<unsigned>(bits))); }
KeyPair Ec(const char* curve = "P-256") { return PairOf(EVP_EC_gen(curve)); }

// What a signer makes, which tests spoil.
struct Token {
  std::string subject = "worker-7";
  std::string audience = "\"statehouse\"";  // JSON.
  std::string issuer = "login";
  std::string grants = R"(["dict:web/*:read,write","lock:*:lock"])";
  std::string more;  // JSON members, with a comma before each.
  int64_t expires = kNow + 600;
  std::string header;  // JSON: more of it.

  std::string Sign(jwt_alg_t algorithm, const std::string& key) const {
    jwt_t* jwt = nullptr;
    EXPECT_EQ(jwt_new(&jwt), 0);
    const std::string json = R"({"sub":")" + subject + R"(","iss":")" + issuer + R"(","aud":)" +
                             audience + R"(,"exp":)" + std::to_string(expires) +
                             R"(,"statehouse_grants":)" + grants + more + "}";
    EXPECT_EQ(jwt_add_grants_json(jwt, json.c_str()), 0) << json;
    if (!header.empty()) {
      EXPECT_EQ(jwt_add_headers_json(jwt, header.c_str()), 0) << header;
    }
    const auto* const bytes = reinterpret_cast<const unsigned char*>(key.data());
    EXPECT_EQ(
        jwt_set_alg(jwt, algorithm, key.empty() ? nullptr : bytes, static_cast<int>(key.size())),
        0);
    char* const text = jwt_encode_str(jwt);
    EXPECT_NE(text, nullptr);
    const std::string token = text == nullptr ? "" : text;
    std::free(text);  // NOLINT: libjwt gives it so.
    jwt_free(jwt);
    return token;
  }
};

JwtOptions OptionsFor(const std::string& algorithm) {
  return {"keys", algorithm, "login", "statehouse", 3600};
}

TEST(JwtVerifierTest, EveryAlgorithmVerifiesItsOwn) {
  struct Case {
    std::string name;
    jwt_alg_t algorithm;
    KeyPair keys;
  };
  const KeyPair rsa = Rsa();
  const Case cases[] = {{"HS256", JWT_ALG_HS256, {kSecret, kSecret}},
                        {"HS384", JWT_ALG_HS384, {kSecret, kSecret}},
                        {"HS512", JWT_ALG_HS512, {kSecret, kSecret}},
                        {"RS256", JWT_ALG_RS256, rsa},
                        {"RS384", JWT_ALG_RS384, rsa},
                        {"RS512", JWT_ALG_RS512, rsa},
                        {"ES256", JWT_ALG_ES256, Ec()},
                        {"ES384", JWT_ALG_ES384, Ec("P-384")},
                        {"ES512", JWT_ALG_ES512, Ec("P-521")}};
  for (const Case& each : cases) {
    ASSERT_TRUE(IsJwtAlgorithm(each.name));
    const auto verifier = JwtVerifier::FromText(OptionsFor(each.name), each.keys.open);
    ASSERT_TRUE(verifier.ok()) << each.name << verifier.status().ToString();
    const std::string token = Token().Sign(each.algorithm, each.keys.secret);
    ASSERT_TRUE(LooksLikeJwt(token)) << token;
    EXPECT_LE(token.size(), kTokenBytesMax);
    const auto claims = (*verifier)->Verify(token, kNow);
    ASSERT_TRUE(claims.ok()) << each.name << claims.status().ToString();
    EXPECT_EQ(claims->subject, "worker-7");
    EXPECT_EQ(claims->expires_unix_s, kNow + 600);
    ASSERT_EQ(claims->grants.size(), 2u);
    EXPECT_EQ(claims->grants[0].pattern, "web/*");
    EXPECT_TRUE((*verifier)->HasKey(claims->key_id));
    // One letter of the signature, and one of what is signed.
    for (const size_t at : {token.size() - 8, token.find('.') + 12}) {
      std::string spoilt = token;
      spoilt[at] = spoilt[at] == 'A' ? 'B' : 'A';
      EXPECT_EQ((*verifier)->Verify(spoilt, kNow).status().reason(), Reason::kUnauthenticated)
          << each.name << " at " << at;
    }
  }
  EXPECT_FALSE(IsJwtAlgorithm("none"));
  EXPECT_FALSE(IsJwtAlgorithm("hs256"));
}

TEST(JwtVerifierTest, AnotherAlgorithmThanTheConfiguredOneIsRefused) {
  const KeyPair rsa = Rsa();
  const auto verifier = JwtVerifier::FromText(OptionsFor("RS256"), rsa.open).value();
  ASSERT_TRUE(verifier->Verify(Token().Sign(JWT_ALG_RS256, rsa.secret), kNow).ok());
  // The public key, which everybody has, as a secret.
  for (const std::string& secret : {rsa.open, rsa.open.substr(0, rsa.open.size() - 1)}) {
    EXPECT_FALSE(verifier->Verify(Token().Sign(JWT_ALG_HS256, secret), kNow).ok());
  }
  EXPECT_FALSE(verifier->Verify(Token().Sign(JWT_ALG_RS512, rsa.secret), kNow).ok());
  EXPECT_FALSE(verifier->Verify(Token().Sign(JWT_ALG_NONE, ""), kNow).ok());
  // {"alg":"none"} with the claims of a good token.
  const std::string good = Token().Sign(JWT_ALG_RS256, rsa.secret);
  const std::string claims = good.substr(good.find('.'), good.rfind('.') + 1 - good.find('.'));
  EXPECT_FALSE(verifier->Verify("eyJhbGciOiJub25lIn0" + claims, kNow).ok());
}

TEST(JwtVerifierTest, AHeaderThatAsksForMoreThanIsKnownIsRefused) {
  const auto verifier = JwtVerifier::FromText(OptionsFor("HS256"), kSecret).value();
  Token token;
  token.header = R"({"kid":"7"})";
  EXPECT_TRUE(verifier->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow).ok());
  token.header = R"({"crit":["x"],"x":1})";
  const Status critical = verifier->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow).status();
  EXPECT_EQ(critical.reason(), Reason::kUnauthenticated);
  EXPECT_THAT(critical.message(), HasSubstr("crit"));
}

TEST(JwtVerifierTest, EachClaimIsChecked) {
  struct Case {
    std::string name;
    std::function<void(Token*)> spoil;
    Reason reason;
    std::string says;
  };
  constexpr Reason kRefused = Reason::kUnauthenticated;
  const std::string many = [] {
    std::string list = "[";
    for (size_t i = 0; i <= kTokenGrantsMax; ++i) list += R"("dict:*:read",)";
    list.back() = ']';
    return list;
  }();
  const Case cases[] = {
      {"over", [](Token* t) { t->expires = kNow; }, Reason::kTokenExpired, "over"},
      {"no end", [](Token* t) { t->expires = 0; }, kRefused, "exp"},
      {"too long", [](Token* t) { t->expires = kNow + 3601; }, kRefused, "jwt_lifetime_s_max"},
      {"not yet", [](Token* t) { t->more = ",\"nbf\":1800000061"; }, kRefused, "nbf"},
      {"from the future", [](Token* t) { t->more = ",\"iat\":1800000061"; }, kRefused, "iat"},
      {"no number", [](Token* t) { t->more = ",\"nbf\":\"soon\""; }, kRefused, "nbf"},
      {"issuer", [](Token* t) { t->issuer = "Login"; }, kRefused, "iss"},
      {"audience", [](Token* t) { t->audience = "\"state\""; }, kRefused, "aud"},
      {"audiences", [](Token* t) { t->audience = "[\"a\",\"b\"]"; }, kRefused, "aud"},
      {"no audience", [](Token* t) { t->audience = "null"; }, kRefused, "aud"},
      {"no subject", [](Token* t) { t->subject = ""; }, kRefused, "sub"},
      {"a line", [](Token* t) { t->subject = "a\\nb"; }, kRefused, "sub"},
      {"long", [](Token* t) { t->subject.assign(kJwtSubjectBytesMax + 1, 'a'); }, kRefused, "sub"},
      {"no grants", [](Token* t) { t->grants = "[]"; }, kRefused, "statehouse_grants"},
      {"no list", [](Token* t) { t->grants = "\"dict:*:read\""; }, kRefused, "statehouse_grants"},
      {"no text", [](Token* t) { t->grants = "[1]"; }, kRefused, "statehouse_grants"},
      {"a wrong grant", [](Token* t) { t->grants = "[\"dict:*:fly\"]"; }, kRefused, "fly"},
      {"many grants", [&](Token* t) { t->grants = many; }, kRefused, "100"},
  };
  const auto verifier = JwtVerifier::FromText(OptionsFor("HS256"), kSecret).value();
  for (const Case& each : cases) {
    Token token;
    each.spoil(&token);
    const Status status = verifier->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow).status();
    EXPECT_EQ(status.reason(), each.reason) << each.name << ": " << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(each.says)) << each.name;
  }
}

TEST(JwtVerifierTest, WhatIsAtItsLimitIsAccepted) {
  const auto verifier = JwtVerifier::FromText(OptionsFor("HS256"), kSecret + "\n").value();
  Token token;
  token.expires = kNow + 3600;
  token.subject.assign(kJwtSubjectBytesMax, 'a');
  token.audience = R"(["other","statehouse"])";
  token.more = R"(,"nbf":1800000060,"iat":1800000060.5)";
  token.grants = "[";
  for (size_t i = 0; i < kTokenGrantsMax; ++i) token.grants += R"("dict:*:read",)";
  token.grants.back() = ']';
  const auto claims = verifier->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow);
  ASSERT_TRUE(claims.ok()) << claims.status().ToString();
  EXPECT_EQ(claims->grants.size(), kTokenGrantsMax);
  JwtOptions any_issuer = OptionsFor("HS256");
  any_issuer.issuer.clear();
  EXPECT_TRUE(JwtVerifier::FromText(any_issuer, kSecret)
                  .value()
                  ->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow)
                  .ok());
}

TEST(JwtVerifierTest, AHoldersIdFitsASessionAndTellsSubjectsApart) {
  const auto verifier = JwtVerifier::FromText(OptionsFor("HS256"), kSecret).value();
  const auto id_of = [&](const std::string& subject) {
    Token token;
    token.subject = subject;
    return verifier->Verify(token.Sign(JWT_ALG_HS256, kSecret), kNow).value().holder_id;
  };
  const std::string fits(kJwtHolderIdBytesMax - 4, 'a');
  EXPECT_EQ(id_of(fits), "jwt:" + fits);
  EXPECT_EQ(id_of(fits + "a").size(), kJwtHolderIdBytesMax);
  EXPECT_EQ(id_of(fits + "a").substr(0, 16), "jwt:aaaaaaaaaaa~");
  EXPECT_NE(id_of(fits + "a"), id_of(fits + "b"));
  EXPECT_EQ(id_of(fits + "a"), id_of(fits + "a"));
}

TEST(JwtVerifierTest, AKeyFileThatCannotBeUsedSaysWhy) {
  const auto refusal = [](const std::string& algorithm, const std::string& text) {
    const Status status = JwtVerifier::FromText(OptionsFor(algorithm), text).status();
    EXPECT_EQ(status.reason(), Reason::kConfigInvalid) << text;
    return status.message();
  };
  EXPECT_THAT(refusal("HS256", std::string(kJwtSecretBytesMin - 1, 's')), HasSubstr("32 bytes"));
  EXPECT_THAT(refusal("HS256", Ec().open), HasSubstr("PEM"));
  EXPECT_THAT(refusal("RS256", ""), HasSubstr("no public key"));
  EXPECT_THAT(refusal("RS256", Rsa(1024).open), HasSubstr("2048 bits"));
  EXPECT_THAT(refusal("RS256", Ec().open), HasSubstr("RSA"));
  EXPECT_THAT(refusal("ES256", Rsa().open), HasSubstr("elliptic"));
  EXPECT_THAT(refusal("ES256", Ec("P-384").open), HasSubstr("curve"));
  EXPECT_THAT(refusal("ES256", "-----BEGIN PUBLIC KEY-----\nAAAA"), HasSubstr("no end"));
  EXPECT_THAT(refusal("ES256", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
              HasSubstr("cannot be read"));
  EXPECT_THAT(refusal("HS256", std::string(kJwtKeyFileBytesMax + 1, 's')), HasSubstr("longer"));
  const std::string key = Ec().open;
  std::string keys;
  for (size_t i = 0; i < kJwtKeysMax; ++i) keys += key;
  EXPECT_TRUE(JwtVerifier::FromText(OptionsFor("ES256"), keys).ok());
  EXPECT_THAT(refusal("ES256", keys + key), HasSubstr("16 keys"));
}

class JwtAuthenticatorTest : public ::testing::Test {
 protected:
  JwtAuthenticatorTest() {
    char pattern[] = "/tmp/sh_jwt_XXXXXX";
    folder_ = ::mkdtemp(pattern);
  }
  ~JwtAuthenticatorTest() override { std::filesystem::remove_all(folder_); }

  void WriteKeys(const std::string& text) { std::ofstream(folder_ + "/keys") << text; }
  StatusOr<std::unique_ptr<Authenticator>> Open(const std::string& algorithm,
                                                const CallLimits& limits = {}) {
    auto tokens = FileAuthenticator::Open({folder_ + "/tokens.toml", 3, [this] { return now_; }});
    JwtOptions jwt = OptionsFor(algorithm);
    jwt.key_file = folder_ + "/keys";
    return JwtAuthenticator::Open({jwt, 3, [this] { return now_; }, limits}, std::move(*tokens));
  }

  std::string folder_;
  int64_t now_ = kNow;
};

TEST_F(JwtAuthenticatorTest, TokensOfTheFileAndOfASignerAreTakenSideBySide) {
  const KeyPair keys = Ec();
  WriteKeys(keys.open);
  const std::string own =
      CreateToken(folder_ + "/tokens.toml", {"own", 0, {ParseGrant("area:*:read").value()}, {}, {}})
          .value();
  const auto authenticator = Open("ES256").value();

  const auto signed_one =
      authenticator->Authenticate(Token().Sign(JWT_ALG_ES256, keys.secret), "unix:");
  const auto own_one = authenticator->Authenticate(own, "unix:");

  ASSERT_TRUE(signed_one.ok()) << signed_one.status().ToString();
  EXPECT_EQ((*signed_one)->token_id(), "jwt:worker-7");
  EXPECT_TRUE((*signed_one)->Allows(ObjectKind::kDict, "web/a", Verb::kWrite));
  EXPECT_FALSE((*signed_one)->Allows(ObjectKind::kArea, "web/a", Verb::kRead));
  ASSERT_TRUE(own_one.ok()) << own_one.status().ToString();
  EXPECT_TRUE(authenticator->Revalidate(**signed_one).ok());
  EXPECT_TRUE(authenticator->Revalidate(**own_one).ok());
  EXPECT_EQ(authenticator->Authenticate("eyJ.e30.x", "unix:").status().reason(),
            Reason::kUnauthenticated);
}

TEST_F(JwtAuthenticatorTest, ItsEndEndsWhoHoldsIt) {
  WriteKeys(kSecret);
  ASSERT_EQ(::chmod((folder_ + "/keys").c_str(), 0600), 0);
  const auto authenticator = Open("HS256").value();
  const auto identity =
      authenticator->Authenticate(Token().Sign(JWT_ALG_HS256, kSecret), "unix:").value();
  EXPECT_FALSE(authenticator->AnyExpired(kNow, kNow + 599));
  EXPECT_TRUE(authenticator->AnyExpired(kNow + 599, kNow + 600));
  EXPECT_FALSE(authenticator->AnyExpired(kNow + 600, kNow + 9000));
  const Identity session("jwt:worker-7", "", 0, {});
  now_ = kNow + 599;
  EXPECT_TRUE(authenticator->Revalidate(*identity).ok());
  EXPECT_TRUE(authenticator->Revalidate(session).ok());
  Token later;
  later.expires = kNow + 700;
  EXPECT_TRUE(authenticator->Authenticate(later.Sign(JWT_ALG_HS256, kSecret), "unix:").ok());
  now_ = kNow + 600;
  EXPECT_EQ(authenticator->Revalidate(*identity).status().reason(), Reason::kTokenExpired);
  EXPECT_TRUE(authenticator->Revalidate(session).ok()) << "its subject holds another token";
  now_ = kNow + 700;
  EXPECT_EQ(authenticator->Revalidate(session).status().reason(), Reason::kTokenExpired);
  EXPECT_TRUE(authenticator->Revalidate(Identity("jwt:nobody", "", 0, {})).ok())
      << "it may have been opened before this daemon";
}

TEST_F(JwtAuthenticatorTest, KeysAreRenewedByAReload) {
  const KeyPair old_keys = Ec();
  const KeyPair new_keys = Ec();
  WriteKeys(old_keys.open);
  const auto authenticator = Open("ES256").value();
  const std::string old_token = Token().Sign(JWT_ALG_ES256, old_keys.secret);
  const std::string new_token = Token().Sign(JWT_ALG_ES256, new_keys.secret);
  const auto held = authenticator->Authenticate(old_token, "unix:").value();
  EXPECT_FALSE(authenticator->Authenticate(new_token, "unix:").ok());

  const uint64_t generation = authenticator->generation();
  WriteKeys(old_keys.open + new_keys.open);
  ASSERT_TRUE(authenticator->Reload().ok());
  EXPECT_GT(authenticator->generation(), generation);
  EXPECT_TRUE(authenticator->Authenticate(new_token, "unix:").ok());
  EXPECT_TRUE(authenticator->Revalidate(*held).ok());

  WriteKeys("nothing of use");
  EXPECT_EQ(authenticator->Reload().reason(), Reason::kConfigInvalid);
  EXPECT_TRUE(authenticator->Authenticate(old_token, "unix:").ok());

  WriteKeys(new_keys.open);
  ASSERT_TRUE(authenticator->Reload().ok());
  EXPECT_FALSE(authenticator->Authenticate(old_token, "unix:").ok());
  EXPECT_EQ(authenticator->Revalidate(*held).status().reason(), Reason::kUnauthenticated);
}

TEST_F(JwtAuthenticatorTest, FailuresAndCallsAreLimitedAsOfEveryToken) {
  WriteKeys(kSecret);
  EXPECT_THAT(Open("HS256").status().message(), HasSubstr("everybody can read"));
  ASSERT_EQ(::chmod((folder_ + "/keys").c_str(), 0600), 0);
  const auto authenticator = Open("HS256", {2, 0}).value();
  Token wrong;
  wrong.issuer = "nobody";
  const std::string refused = wrong.Sign(JWT_ALG_HS256, kSecret);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(authenticator->Authenticate(refused, "peer").status().reason(),
              Reason::kUnauthenticated);
  }
  EXPECT_EQ(authenticator->Authenticate(refused, "peer").status().reason(), Reason::kRateLimited);
  EXPECT_EQ(authenticator->Authenticate(refused, "other").status().reason(),
            Reason::kUnauthenticated);
  // Its signatures are not even looked at, but of those that were verified before.
  const std::string good = Token().Sign(JWT_ALG_HS256, kSecret);
  EXPECT_EQ(authenticator->Authenticate(good, "peer").status().reason(), Reason::kRateLimited);
  EXPECT_TRUE(authenticator->Authenticate(good, "other").ok());
  EXPECT_TRUE(authenticator->Authenticate(good, "peer").ok());
  now_ += 60;

  Token later;
  later.expires = kNow + 601;
  const auto first = authenticator->Authenticate(Token().Sign(JWT_ALG_HS256, kSecret), "peer");
  const auto second = authenticator->Authenticate(later.Sign(JWT_ALG_HS256, kSecret), "peer");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE((*first)->limit(), nullptr);
  EXPECT_EQ((*first)->limit(), (*second)->limit()) << "a new token is no new allowance";
  authenticator->SetTokenLimits({0, 0});
  EXPECT_EQ(authenticator->Revalidate(**first).value()->limit(), (*first)->limit());
}

TEST_F(JwtAuthenticatorTest, ALimitThatIsSetLaterCountsForWhoIsConnected) {
  const KeyPair keys = Ec();
  WriteKeys(keys.open);
  const auto authenticator = Open("ES256").value();
  const auto held =
      authenticator->Authenticate(Token().Sign(JWT_ALG_ES256, keys.secret), "unix:").value();
  ASSERT_EQ(held->limit(), nullptr);
  authenticator->SetTokenLimits({5, 0});
  EXPECT_NE(authenticator->Revalidate(*held).value()->limit(), nullptr);
}

TEST_F(JwtAuthenticatorTest, EachFileIsReadAgainWhateverTheOtherSays) {
  const KeyPair old_keys = Ec();
  const KeyPair new_keys = Ec();
  WriteKeys(old_keys.open);
  const std::string tokens = folder_ + "/tokens.toml";
  const std::string own =
      CreateToken(tokens, {"own", 0, {ParseGrant("area:*:read").value()}, {}, {}}).value();
  const auto authenticator = Open("ES256").value();
  const std::string signed_one = Token().Sign(JWT_ALG_ES256, old_keys.secret);
  ASSERT_TRUE(authenticator->Authenticate(signed_one, "unix:").ok());

  WriteKeys("half a key");
  ASSERT_TRUE(RevokeToken(tokens, own.substr(4, 8)).ok());
  EXPECT_FALSE(authenticator->Reload().ok());
  EXPECT_FALSE(authenticator->Authenticate(own, "unix:").ok()) << "it was revoked";
  EXPECT_TRUE(authenticator->Authenticate(signed_one, "unix:").ok());

  WriteKeys(new_keys.open);
  std::ofstream(tokens) << "nonsense";
  EXPECT_FALSE(authenticator->Reload().ok());
  EXPECT_FALSE(authenticator->Authenticate(signed_one, "other:").ok()) << "its key is gone";
}

TEST_F(JwtAuthenticatorTest, ASessionLivesWhileAnyOfItsSubjectsTokensIsGood) {
  const KeyPair old_keys = Ec();
  const KeyPair new_keys = Ec();
  WriteKeys(old_keys.open + new_keys.open);
  const auto authenticator = Open("ES256").value();
  Token lasting;
  lasting.expires = kNow + 3000;
  ASSERT_TRUE(
      authenticator->Authenticate(lasting.Sign(JWT_ALG_ES256, old_keys.secret), "unix:").ok());
  ASSERT_TRUE(
      authenticator->Authenticate(Token().Sign(JWT_ALG_ES256, new_keys.secret), "unix:").ok());
  WriteKeys(new_keys.open);
  ASSERT_TRUE(authenticator->Reload().ok());
  EXPECT_TRUE(authenticator->Revalidate(Identity("jwt:worker-7", "", 0, {})).ok());
  now_ = kNow + 600;
  EXPECT_FALSE(authenticator->Revalidate(Identity("jwt:worker-7", "", 0, {})).ok());
}

TEST_F(JwtAuthenticatorTest, OneSubjectBeyondTheLimitWaitsForAnothersEnd) {
  WriteKeys(kSecret);
  ASSERT_EQ(::chmod((folder_ + "/keys").c_str(), 0600), 0);
  auto tokens = FileAuthenticator::Open({folder_ + "/tokens.toml", 3, [this] { return now_; }});
  JwtOptions jwt = OptionsFor("HS256");
  jwt.key_file = folder_ + "/keys";
  const auto authenticator =
      JwtAuthenticator::Open({jwt, 0, [this] { return now_; }, {}, 3}, std::move(*tokens)).value();
  const auto reason_of = [&](const std::string& subject, int64_t lasts_s) {
    Token token;
    token.subject = subject;
    token.expires = now_ + lasts_s;
    return authenticator->Authenticate(token.Sign(JWT_ALG_HS256, kSecret), "unix:")
        .status()
        .reason();
  };
  EXPECT_EQ(reason_of("a", 100), Reason::kOk);
  EXPECT_EQ(reason_of("b", 500), Reason::kOk);
  EXPECT_EQ(reason_of("c", 500), Reason::kOk);
  EXPECT_EQ(reason_of("d", 500), Reason::kLimitExceeded);
  EXPECT_EQ(reason_of("b", 600), Reason::kOk) << "it holds one already";
  now_ += 100;
  EXPECT_EQ(reason_of("d", 500), Reason::kOk);
}

TEST_F(JwtAuthenticatorTest, OneTokenBeyondTheLimitMakesTheOthersBeVerifiedAgain) {
  WriteKeys(kSecret);
  ASSERT_EQ(::chmod((folder_ + "/keys").c_str(), 0600), 0);
  auto tokens = FileAuthenticator::Open({folder_ + "/tokens.toml", 3, [this] { return now_; }});
  JwtAuthenticator::Options options{OptionsFor("HS256"), 0, [this] { return now_; }};
  options.jwt.key_file = folder_ + "/keys";
  options.verified_max = 2;
  const auto authenticator = JwtAuthenticator::Open(options, std::move(*tokens)).value();
  // Who is verified anew gets an identity of his own; the old ones are held, so none is taken for
  // another.
  std::vector<std::shared_ptr<const Identity>> held;
  const auto identity_of = [&](const std::string& subject, int64_t expires) {
    Token token;
    token.subject = subject;
    token.expires = expires;
    held.push_back(
        authenticator->Authenticate(token.Sign(JWT_ALG_HS256, kSecret), "unix:").value());
    return held.back();
  };
  const auto a = identity_of("a", kNow + 100);
  const auto b = identity_of("b", kNow + 500);
  EXPECT_EQ(identity_of("a", kNow + 100), a);
  EXPECT_EQ(identity_of("b", kNow + 500), b);

  const auto c = identity_of("c", kNow + 100);
  EXPECT_EQ(identity_of("c", kNow + 100), c);
  const auto b_again = identity_of("b", kNow + 500);
  EXPECT_NE(b_again, b);
  EXPECT_EQ(identity_of("c", kNow + 100), c);

  now_ += 100;  // Of c, whose place is free.
  const auto d = identity_of("d", kNow + 500);
  EXPECT_EQ(identity_of("b", kNow + 500), b_again);
  EXPECT_EQ(identity_of("d", kNow + 500), d);
}

TEST_F(JwtAuthenticatorTest, ATextBeyondTheLimitIsNotEvenRead) {
  WriteKeys(kSecret);
  ASSERT_EQ(::chmod((folder_ + "/keys").c_str(), 0600), 0);
  const auto authenticator = Open("HS256").value();
  Token token;
  const size_t bytes = token.Sign(JWT_ALG_HS256, kSecret).size();
  // Base64 makes 4 bytes of 3.
  token.more = ",\"pad\":\"" + std::string((kTokenBytesMax - bytes) / 4 * 3 - 12, 'x') + "\"";
  std::string last = token.Sign(JWT_ALG_HS256, kSecret);
  while (last.size() <= kTokenBytesMax) {
    EXPECT_TRUE(authenticator->Authenticate(last, "unix:").ok()) << last.size();
    token.more.insert(token.more.size() - 1, "x");
    last = token.Sign(JWT_ALG_HS256, kSecret);
  }
  EXPECT_EQ(authenticator->Authenticate(last, "unix:").status().reason(), Reason::kUnauthenticated);
}

}  // namespace
}  // namespace statehouse
