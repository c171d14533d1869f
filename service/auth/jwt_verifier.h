// JwtVerifier: access tokens that another service signs: JSON Web Tokens (RFC 7519), checked
// against a key file. docs/formats/tokens.md says what such a token holds.
//
// Threads: Verify from any; it keeps no state. Always true: what it accepts was signed with one of
// the file's keys, by the configured algorithm and no other, for this service, and ends.
// Failure: CONFIG_INVALID for a key file that cannot be used; UNAUTHENTICATED and TOKEN_EXPIRED for
// tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "service/auth/authenticator.h"
#include "service/config/jwt_settings.h"

namespace statehouse {

inline constexpr size_t kJwtKeyFileBytesMax = 64 << 10;
inline constexpr size_t kJwtKeysMax = 16;  // Of one file, so that they can overlap when renewed.
inline constexpr size_t kJwtSecretBytesMin = 32;
inline constexpr int kJwtRsaBitsMin = 2048;
inline constexpr size_t kJwtSubjectBytesMax = 256;
inline constexpr size_t kJwtHolderIdBytesMax = 32;            // What a session keeps of its token.
inline constexpr std::string_view kJwtHolderPrefix = "jwt:";  // No id of the tokens file has it.
inline constexpr int64_t kJwtClockSkewS = 60;  // Of a signer whose clock is ahead: for nbf and iat.

struct JwtOptions {
  std::string key_file;
  std::string algorithm;  // HS256, RS256, ES256 and so on; see IsJwtAlgorithm.
  std::string issuer;     // What `iss` must be; empty: anything.
  std::string audience;   // What `aud` must be or hold.
  // A token that ends later than so from now is refused: nobody can take it back before.
  uint32_t lifetime_s_max = 86'400;
};

// What a token says of its holder.
struct JwtClaims {
  std::string subject;
  std::string holder_id;  // "jwt:" and the subject: whole, or its begin and its SHA-256's.
  int64_t expires_unix_s = 0;
  std::vector<Grant> grants;
  std::string key_id;  // Of the key that signed it: begin of its SHA-256, in hex.
};

// Whether a text has the form of a JWT: three parts of base64url, the first of a JSON object. No
// token of the tokens file does.
bool LooksLikeJwt(std::string_view token);

class JwtVerifier final {
 public:
  static StatusOr<std::unique_ptr<JwtVerifier>> Load(const JwtOptions& options);
  // The same with the key file's text; for tests and the fuzzer.
  static StatusOr<std::unique_ptr<JwtVerifier>> FromText(const JwtOptions& options,
                                                         std::string_view text);
  StatusOr<JwtClaims> Verify(const std::string& token, int64_t now_unix_s) const;
  bool HasKey(std::string_view key_id) const;

 private:
  struct Key {
    std::string text;
    std::string id;
  };

  JwtVerifier(const JwtOptions& options, std::vector<Key> keys)
      : options_(options), keys_(std::move(keys)) {}
  StatusOr<JwtClaims> ReadClaims(std::string_view json, int64_t now_unix_s) const;

  const JwtOptions options_;
  const std::vector<Key> keys_;
};

}  // namespace statehouse
