// What the settings of JSON Web Tokens may say; service/auth verifies such tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace statehouse {

inline constexpr uint32_t kJwtLifetimeSMax = 30 * 86'400;

// HS (a shared secret), RS and ES (a public key) with 256, 384 and 512.
inline bool IsJwtAlgorithm(std::string_view name) {
  static constexpr std::string_view kKnown[] = {"HS256", "HS384", "HS512", "RS256", "RS384",
                                                "RS512", "ES256", "ES384", "ES512"};
  return std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown);
}

}  // namespace statehouse
