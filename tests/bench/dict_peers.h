// The peers of dict_bench: stores with the same keys and values, and the same three operations.
//
// Who owns them: the benchmark. One thread. Always true: when a peer is gone, so are its processes
// and files. Failure: one that is not installed or does not start is told once and left out; one
// that fails later ends the benchmark.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/harness.h"

namespace statehouse::bench {

constexpr uint64_t kValueBytes = 64;

// "key:0001e240"
struct Key {
  std::array<char, 12> text;
  std::string_view view() const { return {text.data(), text.size()}; }
};

inline Key KeyOf(uint32_t index) {
  static constexpr char kDigits[] = "0123456789abcdef";
  Key key{{'k', 'e', 'y', ':'}};
  for (int i = 11; i >= 4; --i, index >>= 4) key.text[static_cast<size_t>(i)] = kDigits[index & 15];
  return key;
}

// kDraws keys, drawn from the first `keys` of them; made once, before any clock runs. Peers in
// other languages draw as many. Drawing a part would keep that part in the cache.
constexpr uint64_t kDraws = 1 << 20;
const std::vector<Key>& Drawn(uint32_t keys);
// Where a process begins among the draws, so that no two follow each other.
constexpr uint64_t FirstDraw(int process) { return static_cast<uint64_t>(process) * 4099; }

enum class Operation { kGet, kSet, kIncrement };

class Peer {
 public:
  virtual ~Peer() = default;
  // The operation on random ones of `keys` keys (kIncrement: on one hot key), in that many
  // processes.
  virtual Contender Enter(Operation operation, uint32_t keys, int processes) = 0;
  // Of the largest store; 0 where the peer does not tell.
  virtual double BytesPerEntry() = 0;
  virtual std::string name() const = 0;
};

// How many keys the stores have; ascending. `prefix`: where the programs are installed.
struct PeerOptions {
  std::string prefix = "/usr";
  std::vector<uint32_t> sizes;
};

constexpr const char* kNginxName = "nginx lua_shared_dict, in LuaJIT";  // A bar names it.

// Null, with a line on stdout, where the peer is missing.
std::unique_ptr<Peer> StartLmdb(const PeerOptions& options);
std::unique_ptr<Peer> StartRedis(const PeerOptions& options);
std::unique_ptr<Peer> StartNginx(const PeerOptions& options);
std::unique_ptr<Peer> StartApcu(const PeerOptions& options);

[[noreturn]] void PeerFailed(const std::string& what);

}  // namespace statehouse::bench
