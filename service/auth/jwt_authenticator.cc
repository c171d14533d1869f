#include "service/auth/jwt_authenticator.h"

#include <utility>

#include "engine/base/limits.h"

namespace statehouse {
namespace {

// Ends are remembered so long after: who asks about them does so every second or two.
constexpr int64_t kEndsKeptS = 3600;

}  // namespace

JwtAuthenticator::JwtAuthenticator(Options options, std::unique_ptr<Authenticator> tokens,
                                   std::unique_ptr<const JwtVerifier> verifier)
    : options_(std::move(options)),
      tokens_(std::move(tokens)),
      failures_(options_.failures_per_minute_max),
      verifier_(std::move(verifier)),
      token_limits_(options_.token_limits) {}

StatusOr<std::unique_ptr<Authenticator>> JwtAuthenticator::Open(
    Options options, std::unique_ptr<Authenticator> tokens) {
  SH_ASSIGN_OR_RETURN(std::unique_ptr<const JwtVerifier> verifier, JwtVerifier::Load(options.jwt));
  return std::unique_ptr<Authenticator>(
      new JwtAuthenticator(std::move(options), std::move(tokens), std::move(verifier)));
}

std::shared_ptr<const JwtVerifier> JwtAuthenticator::verifier() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return verifier_;
}

StatusOr<std::shared_ptr<CallLimit>> JwtAuthenticator::Remember(const JwtClaims& claims,
                                                                int64_t now_s) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (subjects_.size() >= kJwtSubjectsMax && !subjects_.contains(claims.holder_id)) {
    std::erase_if(subjects_, [&](const auto& each) { return each.second.ends_unix_s <= now_s; });
    if (subjects_.size() >= kJwtSubjectsMax) {
      return Status(Reason::kLimitExceeded,
                    "access token (JWT): " + std::to_string(kJwtSubjectsMax) +
                        " subjects hold tokens already; wait until some have ended");
    }
  }
  ends_.erase(ends_.begin(), ends_.lower_bound(now_s - kEndsKeptS));
  ends_.insert(claims.expires_unix_s);
  Subject& subject = subjects_[claims.holder_id];
  if (claims.expires_unix_s >= subject.ends_unix_s) {
    subject.ends_unix_s = claims.expires_unix_s;
    subject.key_id = claims.key_id;
  }
  if (subject.limit == nullptr && token_limits_.any()) {
    subject.limit = std::make_shared<CallLimit>(token_limits_);
  }
  return subject.limit;
}

StatusOr<std::shared_ptr<const Identity>> JwtAuthenticator::Authenticate(std::string_view token,
                                                                         std::string_view peer) {
  if (token.size() > kTokenBytesMax || !LooksLikeJwt(token)) {
    return tokens_->Authenticate(token, peer);
  }
  const int64_t now_s = options_.unix_s();
  StatusOr<JwtClaims> claims = verifier()->Verify(std::string(token), now_s);
  if (!claims.ok()) {
    if (failures_.CountFailure(peer, now_s)) return RefuseFailingPeer(peer);
    return claims.status();
  }
  SH_ASSIGN_OR_RETURN(std::shared_ptr<CallLimit> limit, Remember(*claims, now_s));
  return std::make_shared<const Identity>(claims->holder_id, "the JWT of " + claims->subject,
                                          claims->expires_unix_s, std::move(claims->grants),
                                          std::move(limit), std::move(claims->key_id));
}

StatusOr<std::shared_ptr<const Identity>> JwtAuthenticator::Revalidate(const Identity& identity) {
  if (!identity.token_id().starts_with(kJwtHolderPrefix)) return tokens_->Revalidate(identity);
  int64_t ends_s = identity.expires_unix_s();
  std::string key_id = identity.key_id();
  if (key_id.empty()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = subjects_.find(identity.token_id());
    // Of before this daemon: its holder comes back, or its session ends by its time.
    if (found == subjects_.end()) return std::make_shared<const Identity>(identity);
    ends_s = found->second.ends_unix_s;
    key_id = found->second.key_id;
  }
  if (options_.unix_s() >= ends_s) {
    return Status(Reason::kTokenExpired, "access token (JWT): the time of " + identity.token_id() +
                                             " is over; ask for a new one");
  }
  if (!verifier()->HasKey(key_id)) {
    return Status(Reason::kUnauthenticated, "access token (JWT): the key that signed " +
                                                identity.token_id() +
                                                " is no longer in auth.jwt_key_file");
  }
  return std::make_shared<const Identity>(identity);
}

bool JwtAuthenticator::AnyExpired(int64_t after_unix_s, int64_t until_unix_s) const {
  if (tokens_->AnyExpired(after_unix_s, until_unix_s)) return true;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto next = ends_.upper_bound(after_unix_s);
  return next != ends_.end() && *next <= until_unix_s;
}

void JwtAuthenticator::SetTokenLimits(const CallLimits& limits) {
  tokens_->SetTokenLimits(limits);
  const std::lock_guard<std::mutex> lock(mutex_);
  token_limits_ = limits;
  for (const auto& [name, subject] : subjects_) {
    if (subject.limit != nullptr) subject.limit->Configure(limits);
  }
}

Status JwtAuthenticator::Reload() {
  SH_ASSIGN_OR_RETURN(std::unique_ptr<const JwtVerifier> fresh, JwtVerifier::Load(options_.jwt));
  SH_RETURN_IF_ERROR(tokens_->Reload());
  const std::lock_guard<std::mutex> lock(mutex_);
  verifier_ = std::move(fresh);
  reloads_.fetch_add(1, std::memory_order_release);
  return Status();
}

StatusOr<std::unique_ptr<Authenticator>> NewJwtAuthenticator(
    const JwtOptions& jwt, uint32_t failures_per_minute_max, const CallLimits& token_limits,
    std::unique_ptr<Authenticator> tokens) {
  return JwtAuthenticator::Open({jwt, failures_per_minute_max, &UnixSecondsNow, token_limits},
                                std::move(tokens));
}

}  // namespace statehouse
