#include "service/auth/jwt_authenticator.h"

#include <algorithm>
#include <utility>

#include "engine/base/limits.h"
#include "service/auth/token_file.h"

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
  if (subjects_.size() >= options_.subjects_max && !subjects_.contains(claims.holder_id)) {
    std::erase_if(subjects_, [&](const auto& each) {
      const auto& ends = each.second.ends;
      return std::all_of(ends.begin(), ends.end(),
                         [&](const auto& end) { return end.second <= now_s; });
    });
    if (subjects_.size() >= options_.subjects_max) {
      return Status(Reason::kLimitExceeded,
                    "access token (JWT): " + std::to_string(options_.subjects_max) +
                        " subjects hold tokens already; wait until some have ended");
    }
  }
  ends_.erase(ends_.begin(), ends_.lower_bound(now_s - kEndsKeptS));
  ends_.insert(claims.expires_unix_s);
  Subject& subject = subjects_[claims.holder_id];
  std::erase_if(subject.ends, [&](const auto& end) { return end.second <= now_s; });
  int64_t& end_s = subject.ends[claims.key_id];
  end_s = std::max(end_s, claims.expires_unix_s);
  return LimitOf(&subject);
}

std::shared_ptr<CallLimit> JwtAuthenticator::LimitOf(Subject* subject) const {
  if (subject->limit == nullptr && token_limits_.any()) {
    subject->limit = std::make_shared<CallLimit>(token_limits_);
  }
  return subject->limit;
}

std::shared_ptr<const Identity> JwtAuthenticator::FindVerified(const std::string& digest,
                                                               int64_t now_s) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = verified_.find(digest);
  if (found == verified_.end() || found->second->ExpiredAt(now_s)) return nullptr;
  return found->second;
}

void JwtAuthenticator::KeepVerified(const std::string& digest,
                                    const std::shared_ptr<const Identity>& identity,
                                    int64_t now_s) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // Its key may have gone while it was verified.
  if (!verifier_->HasKey(identity->key_id())) return;
  if (verified_.size() >= options_.verified_max) {
    std::erase_if(verified_, [&](const auto& each) { return each.second->ExpiredAt(now_s); });
    if (verified_.size() >= options_.verified_max) verified_.clear();
  }
  verified_[digest] = identity;
}

StatusOr<std::shared_ptr<const Identity>> JwtAuthenticator::Authenticate(std::string_view token,
                                                                         std::string_view peer) {
  if (token.size() > kTokenBytesMax || !LooksLikeJwt(token)) {
    return tokens_->Authenticate(token, peer);
  }
  const int64_t now_s = options_.unix_s();
  const TokenHash hash = HashSecret(token);
  const std::string digest(hash.begin(), hash.end());
  if (auto known = FindVerified(digest, now_s)) return known;
  // A signature costs up to milliseconds of a thread that serves everybody.
  if (failures_.IsBeyond(peer, now_s)) return RefuseFailingPeer(peer);
  StatusOr<JwtClaims> claims = verifier()->Verify(std::string(token), now_s);
  if (!claims.ok()) {
    if (failures_.CountFailure(peer, now_s)) return RefuseFailingPeer(peer);
    return claims.status();
  }
  SH_ASSIGN_OR_RETURN(std::shared_ptr<CallLimit> limit, Remember(*claims, now_s));
  const auto identity = std::make_shared<const Identity>(
      claims->holder_id, "the JWT of " + claims->subject, claims->expires_unix_s,
      std::move(claims->grants), std::move(limit), std::move(claims->key_id));
  KeepVerified(digest, identity, now_s);
  return identity;
}

StatusOr<std::shared_ptr<const Identity>> JwtAuthenticator::Revalidate(const Identity& identity) {
  if (!identity.token_id().starts_with(kJwtHolderPrefix)) return tokens_->Revalidate(identity);
  const int64_t now_s = options_.unix_s();
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = subjects_.find(identity.token_id());
  std::map<std::string, int64_t> ends;  // By key.
  if (!identity.key_id().empty()) {
    ends[identity.key_id()] = identity.expires_unix_s();
  } else if (found != subjects_.end()) {
    ends = found->second.ends;
  } else {
    // Of before this daemon: its holder comes back, or its session ends by its time.
    return std::make_shared<const Identity>(identity);
  }
  std::erase_if(ends, [&](const auto& end) { return end.second <= now_s; });
  if (ends.empty()) {
    return Status(Reason::kTokenExpired, "access token (JWT): the time of " + identity.token_id() +
                                             " is over; ask for a new one");
  }
  std::erase_if(ends, [&](const auto& end) { return !verifier_->HasKey(end.first); });
  if (ends.empty()) {
    return Status(Reason::kUnauthenticated, "access token (JWT): the key that signed " +
                                                identity.token_id() +
                                                " is no longer in auth.jwt_key_file");
  }
  // A limit may have been set since.
  return std::make_shared<const Identity>(
      identity.WithLimit(found == subjects_.end() ? nullptr : LimitOf(&found->second)));
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
  verified_.clear();
  for (const auto& [name, subject] : subjects_) {
    if (subject.limit != nullptr) subject.limit->Configure(limits);
  }
}

// Each half for itself: a key file that is being written keeps no revoked token alive, nor a broken
// tokens file a key that was taken away.
Status JwtAuthenticator::Reload() {
  StatusOr<std::unique_ptr<JwtVerifier>> fresh = JwtVerifier::Load(options_.jwt);
  Status tokens = tokens_->Reload();
  if (!fresh.ok()) return fresh.status();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    verifier_ = *std::move(fresh);
    verified_.clear();
    reloads_.fetch_add(1, std::memory_order_release);
  }
  return tokens;
}

StatusOr<std::unique_ptr<Authenticator>> NewJwtAuthenticator(
    const JwtOptions& jwt, uint32_t failures_per_minute_max, const CallLimits& token_limits,
    std::unique_ptr<Authenticator> tokens) {
  return JwtAuthenticator::Open(
      {jwt, failures_per_minute_max, &UnixSecondsNow, token_limits, kJwtSubjectsMax},
      std::move(tokens));
}

}  // namespace statehouse
