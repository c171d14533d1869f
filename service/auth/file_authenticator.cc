#include "service/auth/file_authenticator.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "engine/base/limits.h"

namespace statehouse {
namespace {

constexpr int64_t kWindowS = kRateLimitRetryAfterMs / 1000;

}  // namespace

bool FailureLimit::CountFailure(std::string_view peer, int64_t now_s) {
  if (per_minute_max_ == 0) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = windows_.find(peer);
  if (found == windows_.end()) {
    if (windows_.size() >= kFailingPeersMax) {
      auto oldest = windows_.begin();
      for (auto it = windows_.begin(); it != windows_.end(); ++it) {
        if (it->second.began_s < oldest->second.began_s) oldest = it;
      }
      windows_.erase(oldest);
    }
    found = windows_.emplace(std::string(peer.substr(0, 128)), Window{now_s, 0}).first;
  }
  Window& window = found->second;
  // A clock that was set back must not keep a peer out for longer than one window.
  if (now_s - window.began_s >= kWindowS || now_s < window.began_s) window = Window{now_s, 0};
  if (window.failures >= per_minute_max_) return true;
  ++window.failures;
  return false;
}

bool FailureLimit::IsBeyond(std::string_view peer, int64_t now_s) const {
  if (per_minute_max_ == 0) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = windows_.find(peer);
  if (found == windows_.end()) return false;
  const Window& window = found->second;
  const bool is_over = now_s - window.began_s >= kWindowS || now_s < window.began_s;
  return !is_over && window.failures >= per_minute_max_;
}

size_t FailureLimit::peers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return windows_.size();
}

int64_t UnixSecondsNow() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

Status RefuseFailingPeer(std::string_view peer) {
  return Status(Reason::kRateLimited, "access token: too many failed attempts came from " +
                                          std::string(peer) +
                                          "; send a valid token, or wait a minute")
      .WithRetryAfter(kRateLimitRetryAfterMs);
}

FileAuthenticator::FileAuthenticator(Options options)
    : options_(std::move(options)),
      token_limits_(options_.token_limits),
      failures_(options_.failures_per_minute_max),
      table_(std::make_shared<const Table>()) {}

StatusOr<std::unique_ptr<Authenticator>> FileAuthenticator::Open(Options options) {
  std::unique_ptr<FileAuthenticator> authenticator(new FileAuthenticator(std::move(options)));
  SH_RETURN_IF_ERROR(authenticator->Reload());
  return std::unique_ptr<Authenticator>(std::move(authenticator));
}

std::shared_ptr<const FileAuthenticator::Table> FileAuthenticator::table() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return table_;
}

Status FileAuthenticator::Refuse(Reason reason, std::string_view why, std::string_view peer) {
  if (failures_.CountFailure(peer, options_.unix_s())) return RefuseFailingPeer(peer);
  return Status(reason, "access token: " + std::string(why));
}

StatusOr<std::shared_ptr<const Identity>> FileAuthenticator::Authenticate(std::string_view token,
                                                                          std::string_view peer) {
  constexpr std::string_view kUnknown =
      "it is unknown or revoked; ask the operator for a new one (statehouse token create)";
  if (token.empty()) {
    return Refuse(Reason::kUnauthenticated,
                  "none came with the call; send it as \"authorization: Bearer <token>\"", peer);
  }
  TokenParts parts;
  if (token.size() > kTokenBytesMax || !SplitToken(token, &parts)) {
    return Refuse(Reason::kUnauthenticated, "it does not have the form sh1_<id>_<secret>", peer);
  }
  const std::shared_ptr<const Table> table = this->table();
  const auto found = table->find(std::string(parts.id));
  // An unknown id is compared too, so that the time taken tells nothing about which ids exist.
  static constexpr TokenHash kNobody{};
  const TokenHash& expected = found == table->end() ? kNobody : found->second.hash;
  const TokenHash given = HashSecret(parts.secret);
  const bool equal = CRYPTO_memcmp(given.data(), expected.data(), given.size()) == 0;
  if (!equal || found == table->end()) return Refuse(Reason::kUnauthenticated, kUnknown, peer);
  const std::shared_ptr<const Identity>& identity = found->second.identity;
  if (identity->ExpiredAt(options_.unix_s())) {
    return Refuse(Reason::kTokenExpired,
                  "the time of token " + identity->token_id() + " is over; ask for a new one",
                  peer);
  }
  return identity;
}

StatusOr<std::shared_ptr<const Identity>> FileAuthenticator::Revalidate(const Identity& identity) {
  const std::shared_ptr<const Table> table = this->table();
  const auto found = table->find(identity.token_id());
  if (found == table->end()) {
    return Status(Reason::kUnauthenticated,
                  "access token: token " + identity.token_id() + " was revoked");
  }
  if (found->second.identity->ExpiredAt(options_.unix_s())) {
    return Status(Reason::kTokenExpired, "access token: the time of token " + identity.token_id() +
                                             " is over; ask for a new one");
  }
  return found->second.identity;
}

bool FileAuthenticator::AnyExpired(int64_t after_unix_s, int64_t until_unix_s) const {
  const std::shared_ptr<const Table> table = this->table();
  return std::any_of(table->begin(), table->end(), [&](const auto& entry) {
    const int64_t expires = entry.second.identity->expires_unix_s();
    return expires != 0 && expires > after_unix_s && expires <= until_unix_s;
  });
}

// The one that counts already goes on counting: a reload forgives nobody what he spent.
std::shared_ptr<CallLimit> FileAuthenticator::LimitOf(const Table& before,
                                                      const TokenRecord& record) const {
  const CallLimits limits{record.calls_per_second.value_or(token_limits_.calls_per_second),
                          record.calls_at_once.value_or(token_limits_.calls_at_once)};
  const auto found = before.find(record.id);
  std::shared_ptr<CallLimit> limit =
      found == before.end() ? nullptr : found->second.identity->limit();
  if (limit != nullptr) {
    limit->Configure(limits);
  } else if (limits.any()) {
    limit = std::make_shared<CallLimit>(limits);
  }
  return limit;
}

Status FileAuthenticator::Reload() {
  SH_ASSIGN_OR_RETURN(std::vector<TokenRecord> records, ListTokens(options_.tokens_file));
  const std::shared_ptr<const Table> before = this->table();
  auto table = std::make_shared<Table>();
  table->reserve(records.size());
  for (TokenRecord& record : records) {
    auto identity = std::make_shared<const Identity>(
        record.id, std::move(record.description), record.expires_unix_s, std::move(record.grants),
        LimitOf(*before, record));
    table->emplace(record.id, Entry{record.hash, std::move(identity)});
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  table_ = std::move(table);
  generation_.fetch_add(1, std::memory_order_release);
  return Status();
}

StatusOr<std::unique_ptr<Authenticator>> NewFileAuthenticator(const std::string& tokens_file,
                                                              uint32_t failures_per_minute_max,
                                                              const CallLimits& token_limits) {
  return FileAuthenticator::Open(
      {tokens_file, failures_per_minute_max, &UnixSecondsNow, token_limits});
}

}  // namespace statehouse
