// The largest and the most frequent of many entries, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace statehouse::cli {

inline constexpr size_t kRankedMax = 1000;            // Entries that a ranking may keep.
inline constexpr size_t kCountedKeysMax = 1'000'000;  // Distinct keys that are counted.

// Which entry.
struct EntryName {
  std::string dict;
  std::string key;
  auto operator<=>(const EntryName&) const = default;
};
struct Ranked {
  EntryName what;
  uint64_t number = 0;
  bool operator==(const Ranked&) const = default;
};

// Keeps those with the highest numbers; of equal ones the first in the order of their names. An
// entry that is offered twice, as a scan may give it, is kept once with its higher number.
class Ranking final {
 public:
  explicit Ranking(size_t kept) : kept_(kept) {}
  void Offer(const EntryName& what, uint64_t number);
  // The highest first.
  std::vector<Ranked> Sorted() const;

 private:
  using Place = std::pair<uint64_t, EntryName>;
  struct Before {
    bool operator()(const Place& a, const Place& b) const {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    }
  };

  const size_t kept_;
  std::set<Place, Before> places_;
};

// Counts, of at most kCountedKeysMax keys; changes of further ones are only summed up.
class KeyCounts final {
 public:
  explicit KeyCounts(size_t keys_max = kCountedKeysMax) : keys_max_(keys_max) {}
  void Count(EntryName what);
  std::vector<Ranked> Hottest(size_t count) const;
  uint64_t total() const { return total_; }
  uint64_t uncounted() const { return uncounted_; }
  size_t keys() const { return counts_.size(); }

 private:
  struct Hash {
    size_t operator()(const EntryName& name) const {
      return std::hash<std::string>()(name.dict) * 31 + std::hash<std::string>()(name.key);
    }
  };

  const size_t keys_max_;
  std::unordered_map<EntryName, uint64_t, Hash> counts_;
  uint64_t total_ = 0;
  uint64_t uncounted_ = 0;
};

}  // namespace statehouse::cli
