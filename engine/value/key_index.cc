#include "engine/value/key_index.h"

#include <algorithm>
#include <cstring>

#include "engine/value/value.h"

namespace statehouse::internal {
namespace {

bool Before(const KeyPlace& a, const KeyPlace& b) {
  if (a.hash != b.hash) return a.hash < b.hash;
  return a.key < b.key;
}

}  // namespace

uint64_t HashKey(std::string_view key) {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  uint64_t hash = key.size() * kMultiplier;
  const char* at = key.data();
  size_t left = key.size();
  for (; left >= 8; left -= 8, at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  }
  uint64_t word = 0;
  if (left > 0) std::memcpy(&word, at, left);
  hash = (hash ^ word) * kMultiplier;
  return hash ^ (hash >> 32);
}

KeyIndex::KeyIndex(std::string_view payload) {
  MapReader reader(payload);
  KeyPlace place;
  while (reader.Next(&place.key, &place.value)) {
    place.hash = HashKey(place.key);
    if (size_ == few_.size() && many_.empty()) {
      many_.reserve(4 * few_.size());
      many_.assign(few_.begin(), few_.end());
    }
    if (many_.empty()) {
      few_[size_] = place;
    } else {
      many_.push_back(place);
    }
    ++size_;
  }
  ok_ = reader.ok();
  std::sort(begin(), begin() + size_, Before);
}

const KeyPlace* KeyIndex::Repeated() const {
  const KeyPlace* const end = begin() + size_;
  const KeyPlace* const found = std::adjacent_find(
      begin(), end,
      [](const KeyPlace& a, const KeyPlace& b) { return a.hash == b.hash && a.key == b.key; });
  return found == end ? nullptr : found;
}

KeyPlace* KeyIndex::Find(std::string_view key) {
  KeyPlace wanted;
  wanted.hash = HashKey(key);
  wanted.key = key;
  KeyPlace* const end = begin() + size_;
  KeyPlace* const found = std::lower_bound(begin(), end, wanted, Before);
  return found != end && found->hash == wanted.hash && found->key == key ? found : nullptr;
}

}  // namespace statehouse::internal
