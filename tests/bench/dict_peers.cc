#include "tests/bench/dict_peers.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

namespace statehouse::bench {

const std::vector<Key>& Drawn(uint32_t keys) {
  static std::map<uint32_t, std::vector<Key>> drawn;
  std::vector<Key>& some = drawn[keys];
  if (some.empty()) {
    std::mt19937 random(keys);
    for (uint64_t i = 0; i < kDraws; ++i) some.push_back(KeyOf(random() % keys));
  }
  return some;
}

void PeerFailed(const std::string& what) {
  std::fprintf(stderr, "dict_bench: %s\n", what.c_str());
  std::exit(2);
}

}  // namespace statehouse::bench
