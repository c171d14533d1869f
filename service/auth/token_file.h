// The tokens file (docs/formats/tokens.md): who holds which access token. The service reads it; the
// CLI also writes it.
//
// Threads: the functions keep no state. Two processes that change one file take turns by a lock on
// "<path>.lock". Always true: a reader finds the file as it was before a change or as it is after
// it, never half of it. Failure: CONFIG_INVALID with file and line for what the file says,
// BACKING_INVALID for what the file system refused.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "service/auth/authenticator.h"

namespace statehouse {

inline constexpr size_t kTokenIdBytes = 8;
inline constexpr size_t kTokenSecretBytes = 32;  // Before base64url.
inline constexpr size_t kTokenTextBytes = 4 + kTokenIdBytes + 1 + 43;
inline constexpr size_t kTokensFileBytesMax = 4 << 20;
inline constexpr size_t kTokensMax = 10'000;    // Entries of one file.
inline constexpr size_t kTokenGrantsMax = 100;  // Grants of one token.
inline constexpr size_t kTokenDescriptionBytesMax = 256;

using TokenHash = std::array<unsigned char, 32>;

// What a token text holds. Views into the text.
struct TokenParts {
  std::string_view id;
  std::string_view secret;
};

// One [[token]] of the file.
struct TokenRecord {
  std::string id;
  TokenHash hash{};
  std::string description;
  int64_t expires_unix_s = 0;  // 0: never.
  std::vector<Grant> grants;
  // 0: no limit; nothing: the service's default.
  std::optional<uint32_t> calls_per_second = std::nullopt;
  std::optional<uint32_t> calls_at_once = std::nullopt;
};

// What a new token may do.
struct TokenSpec {
  std::string description;
  int64_t expires_unix_s = 0;                               // 0: never.
  std::vector<Grant> grants;                                // At least one.
  std::optional<uint32_t> calls_per_second = std::nullopt;  // As in TokenRecord.
  std::optional<uint32_t> calls_at_once = std::nullopt;
};

// Splits "sh1_<id>_<secret>"; false when the text has another form. Never looks at the time it
// takes: the id is no secret.
bool SplitToken(std::string_view text, TokenParts* parts);
// SHA-256 of the secret's text.
TokenHash HashSecret(std::string_view secret);

// A grant as people type it: "area:web/*:read,write", "service:*:admin".
StatusOr<Grant> ParseGrant(std::string_view text);
std::string FormatGrant(const Grant& grant);
// RFC 3339 in UTC or with an offset; CONFIG_INVALID for anything else.
StatusOr<int64_t> ParseTimestamp(std::string_view text);
std::string FormatTimestamp(int64_t unix_s);

// What the text says; `file_name` is for messages.
StatusOr<std::vector<TokenRecord>> ParseTokens(std::string_view text, std::string_view file_name);

// A missing file lists nothing.
StatusOr<std::vector<TokenRecord>> ListTokens(const std::string& path);
// Adds an entry and returns the token's text, which nobody can find out again. Makes the file
// (0600) where there is none.
StatusOr<std::string> CreateToken(const std::string& path, const TokenSpec& spec);
// Removes an entry. INVALID_ARGUMENT when there is none of that id.
Status RevokeToken(const std::string& path, std::string_view id);

}  // namespace statehouse
