// What a dict's entries mean as values (engine/value): the wire form of an entry, parts of it, and
// edits at a path. Shared by the service and by clients that map the dict.
//
// A dict keeps an int and a float as numbers, so that increments need no block; everything else is
// kept as the value's wire bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/state/dict.h"
#include "engine/value/edit.h"
#include "engine/value/path.h"

namespace statehouse {

// The entry's value for a dict. Borrows the bytes. REQUIRES: CheckValue accepts `wire`.
DictValue DictValueOf(std::string_view wire);

// The wire form of an entry's value; it may be the entry's own bytes.
std::string_view WireOf(const DictEntry& entry, std::string* storage);

// Reads the part of an entry at a path. Errors: as Dict::Get and GetPath; *found false where there
// is no entry. *part points into *entry or *storage.
Status GetPart(const Dict& dict, std::string_view key, std::span<const PathStep> path,
               DictEntry* entry, std::string* storage, bool* found, std::string_view* part,
               uint64_t operation_timeout_ns = kOperationTimeoutNsDefault);

struct EntryEdit {
  std::span<const PathStep> path;
  Edit edit;
  bool create = false;      // An absent entry counts as no value; else KEY_NOT_FOUND.
  uint64_t if_version = 0;  // CONFLICT where the entry has another version; 0: any.
  DictTtl ttl{DictTtl::Kind::kKeep, 0};
  uint64_t fence = 0;
  DictOperationId operation;  // As DictSetOptions.
  int attempts_max = 1000;    // Then STALLED: others change the entry all the time.
};

struct EntryEditResult {
  uint64_t version = 0;
  EditResult edit;      // Its views point into `before`.
  std::string before;   // The wire form that was edited; empty where there was no entry.
  std::string storage;  // Of the edit's own making.
};

// Carries out one edit of an entry's value as one atomic change: the value is read, edited, and set
// if nobody changed it meanwhile, else once more. Errors: as Dict::Set and EditValue,
// KEY_NOT_FOUND, CONFLICT.
Status EditDictEntry(Dict& dict, const Lane& lane, std::string_view key, const EntryEdit& edit,
                     EntryEditResult* result);

}  // namespace statehouse
