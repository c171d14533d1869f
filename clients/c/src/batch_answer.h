// The answer to a batch (RunBatchResponse), read without building messages. Views point into the
// bytes that were read. Threads: any.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace statehouse {

// One result: its field of OperationResult.kind, and that field's message.
struct BatchAnswered {
  uint32_t field = 0;
  std::string_view message;
};

// The results in their order. False for what is no such answer.
bool ReadBatchAnswer(std::string_view answer, std::vector<BatchAnswered>* answered);

// The result of a short operation; what it does not have stays as it is here.
struct ShortResult {
  bool has_value = false;
  std::string_view value;  // The wire form, unchecked.
  uint64_t version = 0;
  bool is_float = false;
  uint64_t bits = 0;  // Of the number, or of the word.
};
// Fields of Operation.kind and OperationResult.kind.
inline constexpr uint32_t kShortGet = 1;
inline constexpr uint32_t kShortSet = 2;
inline constexpr uint32_t kShortIncrement = 3;
inline constexpr uint32_t kShortAdd = 4;
// False for what is no message of that field.
bool ReadShortResult(uint32_t field, std::string_view message, ShortResult* result);

}  // namespace statehouse
