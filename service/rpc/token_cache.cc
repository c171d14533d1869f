#include "service/rpc/token_cache.h"

#include <openssl/crypto.h>
#include <strings.h>

#include <chrono>

#include "engine/base/limits.h"

namespace statehouse {
namespace {

constexpr std::string_view kScheme = "Bearer ";

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Most tokens have no end: no clock is read for them.
bool IsOver(const Identity& identity) {
  return identity.expires_unix_s() != 0 && identity.ExpiredAt(UnixSeconds());
}

}  // namespace

std::string_view PeerAddress(std::string_view peer) {
  if (!peer.starts_with("ipv4:") && !peer.starts_with("ipv6:")) return peer;
  return peer.substr(0, peer.rfind(':'));
}

StatusOr<std::shared_ptr<const Identity>> TokenCache::Authenticate(
    std::string_view authorization, const std::function<std::string()>& peer) {
  const uint64_t generation = authenticator_->generation();
  for (const Entry& entry : entries_) {
    // Constant time, so that the cache does not tell how much of a secret was right.
    if (entry.identity != nullptr && entry.generation == generation &&
        entry.authorization.size() == authorization.size() &&
        CRYPTO_memcmp(entry.authorization.data(), authorization.data(), authorization.size()) ==
            0 &&
        !IsOver(*entry.identity)) {
      return entry.identity;
    }
  }
  const bool has_scheme = authorization.size() >= kScheme.size() &&
                          strncasecmp(authorization.data(), kScheme.data(), kScheme.size()) == 0;
  const std::string_view token =
      has_scheme ? authorization.substr(kScheme.size()) : std::string_view();
  auto identity = authenticator_->Authenticate(token, PeerAddress(peer()));
  if (identity.ok() && authorization.size() <= kTokenBytesMax) {
    entries_[next_] = Entry{std::string(authorization), generation, *identity};
    next_ = (next_ + 1) % entries_.size();
  }
  return identity;
}

StatusOr<std::shared_ptr<const Identity>> TokenCache::Current(
    std::shared_ptr<const Identity> identity, uint64_t* generation) {
  const uint64_t now = authenticator_->generation();
  if (*generation == now && !IsOver(*identity)) return identity;
  *generation = now;
  return authenticator_->Revalidate(*identity);
}

}  // namespace statehouse
