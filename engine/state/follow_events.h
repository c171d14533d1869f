// FollowEvents: words that grow with what is followed, to sleep on.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace statehouse {

struct FollowEvents {
  // Each holds the memory that it is in.
  using Word = std::shared_ptr<const std::atomic<uint32_t>>;

  std::array<Word, 2> words;  // The first `count` are there.
  std::array<uint32_t, 2> seen{};
  size_t count = 0;

  // Reads the word, whose memory `memory` holds.
  void Add(const std::atomic<uint32_t>& word, const std::shared_ptr<const void>& memory) {
    words[count] = Word(memory, &word);
    seen[count] = word.load(std::memory_order_acquire);  // SYNC: follow.event
    ++count;
  }
};

}  // namespace statehouse
