// TokenCache: the identities of the tokens that came last, so that a call of a known caller costs a
// compare.
//
// Owned by the door and used by its polling thread only. Always true: an entry is used only while
// the authenticator's generation is the one it was made at and its time is not over, so a reload
// ends every entry at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "service/auth/authenticator.h"

namespace statehouse {

class TokenCache final {
 public:
  explicit TokenCache(Authenticator* authenticator) : authenticator_(authenticator) {}
  // The identity behind an `authorization` value, "Bearer <token>". `peer` as gRPC writes it, with
  // a port; asked for where the cache does not know the token, because gRPC makes a string of it.
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                         const std::function<std::string()>& peer);
  uint64_t generation() const { return authenticator_->generation(); }
  // The identity that a stream goes on with, which began with `identity` while the authenticator
  // was at *generation; as Authenticator::Revalidate.
  StatusOr<std::shared_ptr<const Identity>> Current(std::shared_ptr<const Identity> identity,
                                                    uint64_t* generation);

 private:
  struct Entry {
    std::string authorization;
    uint64_t generation = 0;
    std::shared_ptr<const Identity> identity;
  };

  Authenticator* const authenticator_;
  std::array<Entry, 8> entries_;
  size_t next_ = 0;  // Replaced next.
};

// "ipv4:127.0.0.1" for "ipv4:127.0.0.1:51234": failures count for an address, not for a port.
std::string_view PeerAddress(std::string_view peer);

}  // namespace statehouse
