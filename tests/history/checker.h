// A linearizability checker for small objects: two 64-bit words that are read and written one by
// one or as a pair, or an entry of a dict, which has a value and a version.
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

enum class Action : uint8_t {
  kLoad,
  kStore,
  kAdd,
  kCompareExchange,
  kReadPair,
  kWritePair,
  // Of an entry: word 0 is its value, 0 where there is none. result2 is its version, which is
  // whatever the dict says, as long as it is higher than every one before.
  kGetEntry,
  kSetEntry,
  kDeleteEntry,  // result: whether there was one.
  kAddToEntry,   // result: the new value.
  kSwapEntry,    // Sets `argument` if the version is `argument2`; result: whether it did.
};

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
