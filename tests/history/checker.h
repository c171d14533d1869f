// A linearizability checker for a small object: two 64-bit words that are read and written one by
// one or as a pair.
//
// It searches for an order of the operations that respects real time (an operation that ended
// before another began stands before it) and explains every answer, after Wing and Gong, with
// memory of the states already tried, after Lowe. An operation whose caller was killed may stand
// anywhere after its beginning, or nowhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace statehouse {

enum class Action : uint8_t { kLoad, kStore, kAdd, kCompareExchange, kReadPair, kWritePair };

struct RecordedOperation {
  Action action = Action::kLoad;
  uint8_t word = 0;        // 0 or 1; unused for pairs.
  uint64_t argument = 0;   // Stored, added, desired, or the first word of a pair.
  uint64_t argument2 = 0;  // Expected, or the second word of a pair.
  uint64_t result = 0;     // Loaded, the new value, what was found, or the first word of a pair.
  uint64_t result2 = 0;    // 1 when exchanged, or the second word of a pair.
  uint64_t begin = 0;      // Any clock that all callers share.
  uint64_t end = UINT64_MAX;
  bool answered = false;  // False: the caller was killed; result and end mean nothing.
};

// REQUIRES: at most 64 operations. *why describes the history when the answer is false.
bool IsLinearizable(const std::vector<RecordedOperation>& history, uint64_t first, uint64_t second,
                    std::string* why);

}  // namespace statehouse
