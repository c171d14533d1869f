// Waiting until an entry is as asked: what is asked, whether it holds, and sleeping until it does.
// Shared by the service and by clients that map the dict.
//
// Nothing is missed between looking and sleeping: whoever waits reads the dict's event word, arms,
// and looks then; a change after that look wakes him (dict.watch).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/dict_edit.h"

namespace statehouse {

struct EntryWait {
  enum class Kind : uint8_t {
    kPresent,         // There is an entry, or with a path a value there.
    kAbsent,          // There is none.
    kVersionAbove,    // There is one with a higher version.
    kVersionDiffers,  // Its version is another one; 0 stands for no entry.
    kValue,           // It holds exactly `value`, or with a path has it there.
  };

  Kind kind = Kind::kPresent;
  uint64_t version = 0;
  std::string value;           // Wire bytes.
  std::vector<PathStep> path;  // Borrows its keys. Of no use to the kinds that ask for a version.
};

// INVALID_ARGUMENT where path and kind do not fit; VALUE_INVALID, KEY_INVALID.
Status CheckEntryWait(const EntryWait& wait);

// An entry as it was looked at.
struct EntryLook {
  bool met = false;
  bool found = false;
  DictEntry entry;  // Where found.
  // When it has to be looked at again although nothing changes: its time to live is over then.
  // On Dict::NowMs's clock; 0: never.
  uint64_t look_again_ms = 0;
};

// Looks once. Errors: as Dict::Get.
Status LookAtEntry(const Dict& dict, std::string_view key, const EntryWait& wait, EntryLook* look,
                   uint64_t operation_timeout_ns = kOperationTimeoutNsDefault);

// Looks, and sleeps until it is met, `timeout_ns` are over (look->met is false then) or the dict
// needs to be followed (the error of LookAtEntry).
// REQUIRES: the dict is mapped for writing, because sleepers arm.
Status WaitForEntry(Dict& dict, std::string_view key, const EntryWait& wait, uint64_t timeout_ns,
                    EntryLook* look);

}  // namespace statehouse
