// KeyIndex: the keys of a map, for looking up without going through the map. Internal to
// engine/value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace statehouse::internal {

// A number for a key, the same in every process. Whoever chooses the keys can make them collide.
uint64_t HashKey(std::string_view key);

// One key with where it stands.
struct KeyPlace {
  uint64_t hash = 0;
  std::string_view key;
  std::string_view value;
  bool is_used = false;  // For the caller.
};

// The entries of one map, sorted. It belongs to the function that builds it and borrows the map's
// bytes. Sorting by hash, then by the bytes, keeps the time at n log n whatever keys somebody
// chose: equal hashes cost comparisons, never a longer search. Maps of up to 32 keys need no
// allocation.
class KeyIndex final {
 public:
  // `payload` as for MapReader; entries behind one that is malformed are left out.
  explicit KeyIndex(std::string_view payload);
  KeyIndex(const KeyIndex&) = delete;
  KeyIndex& operator=(const KeyIndex&) = delete;

  // Whether the whole payload was a map.
  bool ok() const { return ok_; }
  size_t size() const { return size_; }
  // A key that two entries have, or nullptr.
  const KeyPlace* Repeated() const;
  // The entry with this key, or nullptr.
  KeyPlace* Find(std::string_view key);

 private:
  KeyPlace* begin() { return many_.empty() ? few_.data() : many_.data(); }
  const KeyPlace* begin() const { return many_.empty() ? few_.data() : many_.data(); }

  std::array<KeyPlace, 32> few_;
  std::vector<KeyPlace> many_;
  size_t size_ = 0;
  bool ok_ = false;
};

}  // namespace statehouse::internal
