// The operations that the dict's crash test stops at every instruction: what is there before, what
// is done, and what may be there afterwards.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "tests/crash/dict_crash_scene.h"

namespace statehouse {

// One atomic step of an operation: what it makes of the entries, and its change records.
struct CrashOutcome {
  std::function<void(SeenDict&)> edit;
  std::vector<std::pair<ChangeOperation, std::string>> changes;
};

struct CrashOperation {
  const char* name;
  SceneShape shape;
  std::function<void(DictScene&)> prepare;
  std::function<Status(DictScene&, Dict&)> run;
  Reason answer = Reason::kOk;
  // What becomes of the dict, one after another. None: nothing changes.
  std::function<std::vector<CrashOutcome>(const DictScene&)> outcomes;
  std::vector<std::string> keys;  // Looked up at each boundary, beside those that are there.
  DictOperationId id;             // What it goes by, where it has a name.
  std::string told;               // The entry that its second step remembers, if any.
  bool marks = false;             // Readers may have to wait for a recovery.
  bool full = false;              // Others may be refused for want of room.
  // Copies so much that only some of the boundaries inside the copying are looked at.
  bool bulk = false;
};

// The session and number of operations that are named, and of the one that stands in its place
// before.
inline constexpr DictOperationId kNamed{77, 65};
inline constexpr DictOperationId kNamedBefore{77, 65 - kOperationsPerSession};

// Those of one key, with the others.
std::vector<CrashOperation> CrashOperations();
std::vector<CrashOperation> CrashBindings();
std::vector<CrashOperation> CrashTransactions();

// Text of `bytes` bytes that begins with `seed`.
std::string Text(size_t bytes, char seed);
SeenEntry BytesEntry(std::string bytes);
SeenEntry NumberEntry(int64_t number);
DictValue ValueOf(const SeenEntry& entry);

// One key set, or erased; several at once.
CrashOutcome Puts(const std::string& key, const SeenEntry& entry);
CrashOutcome Erases(const std::string& key, ChangeOperation why = ChangeOperation::kDelete);
CrashOutcome Together(const std::vector<CrashOutcome>& parts);
// Outcomes that do not depend on the scene.
std::function<std::vector<CrashOutcome>(const DictScene&)> Always(
    std::vector<CrashOutcome> outcomes);

}  // namespace statehouse
