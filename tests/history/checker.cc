#include "tests/history/checker.h"

#include <set>
#include <tuple>

namespace statehouse {
namespace {

// Of an entry whose last writer was killed before it learned its version.
constexpr uint64_t kUnknownVersion = UINT64_MAX;

struct State {
  uint64_t words[2];     // Of an entry: its value, its version.
  uint64_t highest = 0;  // Of an entry: no version up to this one may come again.
};

// The version of what stands there now is `version`, as somebody was told.
bool HasVersion(uint64_t version, State* state) {
  if (state->words[1] != kUnknownVersion) return state->words[1] == version;
  if (version <= state->highest) return false;
  state->words[1] = version;
  state->highest = version;
  return true;
}

// The entry changes to `value` with a version that nobody had before, or is no more.
bool Change(uint64_t value, bool answered, uint64_t version, State* state) {
  state->words[0] = value;
  if (value == 0) {
    state->words[1] = 0;
    return true;
  }
  state->words[1] = kUnknownVersion;
  return !answered || HasVersion(version, state);
}

bool ApplyToEntry(const RecordedOperation& operation, State* state) {
  const uint64_t value = state->words[0];
  const bool answered = operation.answered;
  switch (operation.action) {
    case Action::kSetEntry: return Change(operation.argument, answered, operation.result2, state);
    case Action::kDeleteEntry:
      return Change(0, answered, 0, state) && (!answered || operation.result == (value != 0));
    case Action::kAddToEntry:
      return Change(value + operation.argument, answered, operation.result2, state) &&
             (!answered || operation.result == value + operation.argument);
    case Action::kSwapEntry:
      // Not answered: it was done, or it may as well be left out.
      if (answered && operation.result == 0) {
        return operation.result2 != operation.argument2 && HasVersion(operation.result2, state);
      }
      return HasVersion(operation.argument2, state) &&
             Change(operation.argument, answered, operation.result2, state);
    default:  // kGetEntry
      if (!answered) return true;
      return operation.result == value && HasVersion(operation.result2, state);
  }
}

// What the object answers, and whether that is what was recorded.
bool Apply(const RecordedOperation& operation, State* state) {
  if (operation.action >= Action::kGetEntry) return ApplyToEntry(operation, state);
  uint64_t& word = state->words[operation.word];
  uint64_t result = 0;
  uint64_t result2 = 0;
  switch (operation.action) {
    case Action::kLoad: result = word; break;
    case Action::kStore: word = operation.argument; break;
    case Action::kAdd: result = word += operation.argument; break;
    case Action::kCompareExchange:
      result = word;
      result2 = word == operation.argument2 ? 1 : 0;
      if (result2 == 1) word = operation.argument;
      break;
    case Action::kReadPair:
      result = state->words[0];
      result2 = state->words[1];
      break;
    case Action::kWritePair:
      state->words[0] = operation.argument;
      state->words[1] = operation.argument2;
      break;
    default: return false;
  }
  if (!operation.answered) return true;
  return result == operation.result && result2 == operation.result2;
}

class Search {
 public:
  explicit Search(const std::vector<RecordedOperation>& history) : history_(history) {}

  bool Run(uint64_t done, State state) {
    if (Complete(done)) return true;
    if (!tried_.emplace(done, state.words[0], state.words[1], state.highest).second) return false;
    const uint64_t first_end = FirstEnd(done);
    for (size_t i = 0; i < history_.size(); ++i) {
      const uint64_t bit = uint64_t{1} << i;
      if ((done & bit) != 0 || history_[i].begin > first_end) continue;
      State next = state;
      if (Apply(history_[i], &next) && Run(done | bit, next)) return true;
    }
    return false;
  }

 private:
  // What was answered stands in the order; the rest may be left out.
  bool Complete(uint64_t done) const {
    for (size_t i = 0; i < history_.size(); ++i) {
      if (history_[i].answered && (done & uint64_t{1} << i) == 0) return false;
    }
    return true;
  }
  // Nothing that began after this may come next.
  uint64_t FirstEnd(uint64_t done) const {
    uint64_t end = UINT64_MAX;
    for (size_t i = 0; i < history_.size(); ++i) {
      if ((done & uint64_t{1} << i) == 0 && history_[i].answered && history_[i].end < end)
        end = history_[i].end;
    }
    return end;
  }

  const std::vector<RecordedOperation>& history_;
  std::set<std::tuple<uint64_t, uint64_t, uint64_t, uint64_t>> tried_;
};

std::string Describe(const RecordedOperation& operation) {
  static constexpr const char* kNames[] = {
      "load",      "store",     "add",          "compare_exchange", "read_pair", "write_pair",
      "get_entry", "set_entry", "delete_entry", "add_to_entry",     "swap_entry"};
  return std::string(kNames[static_cast<int>(operation.action)]) + " word " +
         std::to_string(operation.word) + " (" + std::to_string(operation.argument) + ", " +
         std::to_string(operation.argument2) + ") -> " +
         (operation.answered ? "(" + std::to_string(operation.result) + ", " +
                                   std::to_string(operation.result2) + ")"
                             : "killed") +
         " [" + std::to_string(operation.begin) + ", " + std::to_string(operation.end) + "]";
}

}  // namespace

bool IsLinearizable(const std::vector<RecordedOperation>& history, uint64_t first, uint64_t second,
                    std::string* why) {
  if (Search(history).Run(0, State{{first, second}, second})) return true;
  *why = "no order explains this history, from (" + std::to_string(first) + ", " +
         std::to_string(second) + "):\n";
  for (const RecordedOperation& operation : history) *why += "  " + Describe(operation) + "\n";
  return false;
}

}  // namespace statehouse
