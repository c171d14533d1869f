// JwtAuthenticator: the Authenticator that takes JSON Web Tokens beside those of a tokens file.
// Owned by the composition root. Threads: as Authenticator's.
// Always true: a token whose time ends, or whose key leaves the key file, ends what it holds like a
// token that was revoked. A peer that failed too often gets no signature verified for the rest of
// its minute; tokens that were verified before go on. Failure: a key file that cannot be used
// leaves the keys as they were, and the tokens file is read all the same; and the other way round.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "service/auth/file_authenticator.h"
#include "service/auth/jwt_verifier.h"

namespace statehouse {

// Subjects that hold tokens whose time is not over; a further one is refused.
inline constexpr size_t kJwtSubjectsMax = 100'000;
// Tokens that are not verified again; one more, and all of them are once.
inline constexpr size_t kJwtVerifiedMax = 10'000;

class JwtAuthenticator final : public Authenticator {
 public:
  struct Options {
    JwtOptions jwt;
    uint32_t failures_per_minute_max = 60;
    std::function<int64_t()> unix_s;
    CallLimits token_limits = {};  // Of each subject.
    size_t subjects_max = kJwtSubjectsMax;
    size_t verified_max = kJwtVerifiedMax;
  };
  // `tokens` decides about every token that is no JWT. Errors: CONFIG_INVALID.
  static StatusOr<std::unique_ptr<Authenticator>> Open(Options options,
                                                       std::unique_ptr<Authenticator> tokens);

  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view token,
                                                         std::string_view peer) override;
  // An identity without the key's id stands for whatever its subject holds, such as a session.
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) override;
  uint64_t generation() const override {
    return tokens_->generation() + reloads_.load(std::memory_order_acquire);
  }
  bool AnyExpired(int64_t after_unix_s, int64_t until_unix_s) const override;
  void SetTokenLimits(const CallLimits& limits) override;
  Status Reload() override;

 private:
  // All tokens of a subject count together, however often it asks for new ones.
  struct Subject {
    std::map<std::string, int64_t> ends;  // Of the token of each key that ends last.
    std::shared_ptr<CallLimit> limit;     // Null: there is none.
  };

  JwtAuthenticator(Options options, std::unique_ptr<Authenticator> tokens,
                   std::unique_ptr<const JwtVerifier> verifier);
  std::shared_ptr<const JwtVerifier> verifier() const;
  StatusOr<std::shared_ptr<CallLimit>> Remember(const JwtClaims& claims, int64_t now_s);
  // REQUIRES: mutex_ held.
  std::shared_ptr<CallLimit> LimitOf(Subject* subject) const;
  // Null where the token with that SHA-256 was not verified yet.
  std::shared_ptr<const Identity> FindVerified(const std::string& digest, int64_t now_s) const;
  void KeepVerified(const std::string& digest, const std::shared_ptr<const Identity>& identity,
                    int64_t now_s);

  const Options options_;
  const std::unique_ptr<Authenticator> tokens_;
  FailureLimit failures_;
  std::atomic<uint64_t> reloads_{0};

  mutable std::mutex mutex_;
  std::shared_ptr<const JwtVerifier> verifier_;
  CallLimits token_limits_;
  // When tokens that were accepted end, each second once: for as long as a token may last.
  std::set<int64_t> ends_;
  std::map<std::string, Subject> subjects_;  // By their holder_id.
  // By the token's SHA-256; of the keys and limits that count now.
  std::unordered_map<std::string, std::shared_ptr<const Identity>> verified_;
};

// With the system's clock.
StatusOr<std::unique_ptr<Authenticator>> NewJwtAuthenticator(const JwtOptions& jwt,
                                                             uint32_t failures_per_minute_max,
                                                             const CallLimits& token_limits,
                                                             std::unique_ptr<Authenticator> tokens);

}  // namespace statehouse
