// libFuzzer target: JSON Web Tokens. The first byte says what the rest is: a token as it comes;
// claims, which are signed here so that they are read; or a key file. Nothing crashes, and what is
// accepted keeps what service/auth/jwt_verifier.h promises.
#include <jwt.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/base/limits.h"
#include "service/auth/jwt_verifier.h"
#include "service/auth/token_file.h"

namespace {

using statehouse::JwtOptions;
using statehouse::JwtVerifier;
using statehouse::Reason;

constexpr int64_t kNow = 1'800'000'000;
const std::string kSecret(statehouse::kJwtSecretBytesMin, 's');

void Require(bool holds) {
  if (!holds) abort();
}

JwtOptions Options(const char* algorithm) { return {"fuzz", algorithm, "", "a", 3600}; }

void CheckToken(const JwtVerifier& verifier, const std::string& token, bool may_be_valid) {
  const auto claims = verifier.Verify(token, kNow);
  if (!claims.ok()) {
    Require(claims.status().reason() == Reason::kUnauthenticated ||
            claims.status().reason() == Reason::kTokenExpired);
    return;
  }
  Require(may_be_valid);
  Require(claims->expires_unix_s > kNow && claims->expires_unix_s <= kNow + 3600);
  Require(!claims->subject.empty() && claims->subject.size() <= statehouse::kJwtSubjectBytesMax);
  Require(claims->holder_id.starts_with("jwt:") &&
          claims->holder_id.size() <= statehouse::kJwtHolderIdBytesMax);
  Require(!claims->grants.empty() && claims->grants.size() <= statehouse::kTokenGrantsMax);
  Require(verifier.HasKey(claims->key_id));
}

std::string Signed(std::string_view claims) {
  jwt_t* jwt = nullptr;
  if (jwt_new(&jwt) != 0) return "";
  std::string token;
  // What is no JSON object is not taken, and an empty token is left.
  jwt_add_grants_json(jwt, std::string(claims).c_str());
  jwt_add_grants_json(jwt, R"({"aud":"a"})");
  if (jwt_set_alg(jwt, JWT_ALG_HS256, reinterpret_cast<const unsigned char*>(kSecret.data()),
                  static_cast<int>(kSecret.size())) == 0) {
    if (char* const text = jwt_encode_str(jwt)) {
      token = text;
      free(text);
    }
  }
  jwt_free(jwt);
  return token;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const auto verifier = JwtVerifier::FromText(Options("HS256"), kSecret).value();
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 3) {
    case 0:
      // Nobody who does not know the secret makes a valid one.
      CheckToken(*verifier, std::string(text), false);
      break;
    case 1: CheckToken(*verifier, Signed(text), true); break;
    case 2:
      for (const char* const algorithm : {"HS256", "RS256", "ES256"}) {
        const auto loaded = JwtVerifier::FromText(Options(algorithm), text);
        Require(loaded.ok() || loaded.status().reason() == Reason::kConfigInvalid);
      }
      break;
  }
  return 0;
}
