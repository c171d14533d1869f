// Access tokens: who calls, and what they may do.
//
// A token is "sh1_<id>_<secret>": an 8-character id and a 256-bit secret in base64url. The file
// (tokens.toml) holds only the SHA-256 of the secret. Comparison takes the same time wherever a
// wrong secret differs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "service/auth/call_limit.h"

namespace statehouse {

// How long a peer that failed too often is refused, at most: what a RATE_LIMITED answer gives as
// `retry_after_ms`.
inline constexpr uint32_t kRateLimitRetryAfterMs = 60'000;

enum class Verb : uint8_t {
  kRead = 1,
  kWrite = 2,
  kCreate = 4,
  kWatch = 8,
  kLock = 16,
  kAdmin = 32
};
enum class ObjectKind : uint8_t { kArea, kDict, kService, kLock };

// "read" for kRead, and so on; "area" for kArea.
std::string_view VerbName(Verb verb);
std::string_view ObjectKindName(ObjectKind kind);
// Whether `name` matches `pattern`, where '*' stands for any run of characters, also an empty one.
bool PatternMatches(std::string_view pattern, std::string_view name);

// One grant: verbs on the objects of a kind whose name matches a pattern ('*' stands for any run of
// characters).
struct Grant {
  ObjectKind kind = ObjectKind::kArea;
  std::string pattern;
  uint8_t verbs = 0;  // Verb values, or-ed.
};

// A caller that has been authenticated. Immutable; shared by every call and connection of the
// token, because a reload replaces the whole table while calls still run.
class Identity final {
 public:
  Identity(std::string token_id, std::string description, int64_t expires_unix_s,
           std::vector<Grant> grants, std::shared_ptr<CallLimit> limit = nullptr,
           std::string key_id = "");
  const std::string& token_id() const { return token_id_; }
  const std::string& description() const { return description_; }
  bool Allows(ObjectKind kind, std::string_view name, Verb verb) const;
  // Whether a grant allows it for every name there can be.
  bool AllowsEvery(ObjectKind kind, Verb verb) const;
  bool ExpiredAt(int64_t unix_s) const;  // expires_unix_s 0: never.
  int64_t expires_unix_s() const { return expires_unix_s_; }
  // Of its calls, shared by all identities of the token; null: there is none.
  const std::shared_ptr<CallLimit>& limit() const { return limit_; }
  Identity WithLimit(std::shared_ptr<CallLimit> limit) const {
    Identity other(*this);
    other.limit_ = std::move(limit);
    return other;
  }
  // Of the key that signed the token; empty for one of the tokens file.
  const std::string& key_id() const { return key_id_; }
  // OK, or PERMISSION_DENIED naming verb, kind, name and token id.
  Status Require(ObjectKind kind, std::string_view name, Verb verb) const;

 private:
  std::string token_id_;
  std::string description_;
  int64_t expires_unix_s_;
  std::vector<Grant> grants_;
  std::shared_ptr<CallLimit> limit_;
  std::string key_id_;
};

// Threads: Authenticate and Revalidate from any thread; Reload from any one at a time.
class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // `peer` names the caller's address for the limit on failures ("unix:uid=1000",
  // "ipv4:127.0.0.1"). Errors: UNAUTHENTICATED, TOKEN_EXPIRED, RATE_LIMITED.
  virtual StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view token,
                                                                 std::string_view peer) = 0;
  // The identity that a long-lived connection should go on with: the same token after a reload, or
  // why it may not.
  virtual StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) = 0;
  // Grows with every successful Reload: a connection revalidates when it has changed.
  virtual uint64_t generation() const = 0;
  // Whether the time of some token ended after `after_unix_s` and until `until_unix_s`: then
  // whoever lives longer than a call revalidates, as after a Reload.
  virtual bool AnyExpired(int64_t after_unix_s, int64_t until_unix_s) const = 0;
  // From the next Reload on, of tokens whose entry says nothing else. The same thread's as Reload.
  virtual void SetTokenLimits(const CallLimits& limits) = 0;
  // Reads the file again. On failure CONFIG_INVALID and the old table stays.
  virtual Status Reload() = 0;
};

// The authenticator over a tokens file. A missing file is an empty table. A peer with more failures
// within a minute than `failures_per_minute_max` gets RATE_LIMITED instead of UNAUTHENTICATED; a
// valid token is accepted from it all the same, so that one broken worker cannot shut out the
// others of its host. 0: no limit. `token_limits`: of tokens whose entry says nothing else.
StatusOr<std::unique_ptr<Authenticator>> NewFileAuthenticator(const std::string& tokens_file,
                                                              uint32_t failures_per_minute_max,
                                                              const CallLimits& token_limits = {});

}  // namespace statehouse
