// How long a soak runs: short by default, long where STATEHOUSE_LONG is set (tests/run.sh --long).
#pragma once

#include <cstdlib>

namespace statehouse {

inline int Rounds(int by_default, int when_long) {
  return std::getenv("STATEHOUSE_LONG") != nullptr ? when_long : by_default;
}

}  // namespace statehouse
