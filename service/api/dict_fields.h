// Between the messages of dict.proto and the engine's types. What goes in is checked here, once.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/dict_edit.h"
#include "service/api/dict_verbs.h"
#include "service/session/bound_entries.h"

namespace statehouse {

// How often a verb follows a dict that moves before it gives up with DICT_MOVED.
inline constexpr int kDictMovesMax = 16;

// KEY_INVALID unless 1 … 1,024 bytes of UTF-8.
Status CheckEntryKey(std::string_view key);

// A value for the engine; *storage keeps its bytes. Errors: VALUE_INVALID, also where it is
// missing.
StatusOr<DictValue> ToDictValue(const v1::Value& value, const char* field, std::string* storage);
// A number for an increment: int_value or float_value. INVALID_ARGUMENT for another kind.
StatusOr<DictValue> ToNumber(const v1::Value& value, const char* field);

StatusOr<DictCondition> ToCondition(const v1::Condition& condition, std::string* storage);
StatusOr<DictTtl> ToTtl(const v1::Ttl& ttl);
// Milliseconds, at least 1. INVALID_ARGUMENT for what is negative or too long.
StatusOr<uint64_t> ToMilliseconds(const google::protobuf::Duration& duration, const char* field);

// The steps borrow from the message.
StatusOr<std::vector<PathStep>> ToPath(
    const google::protobuf::RepeatedPtrField<v1::PathStep>& steps);

// DATA_LOSS where the bytes are no value: a worker on the host stored them.
Status FromWire(std::string_view wire, v1::Value* value);
Status FromDictValue(const DictEntry& entry, v1::Value* value);
// All of an entry but its key; FromPart with a part of its value.
Status FromPart(const Dict& dict, const DictEntry& entry, std::string_view part, v1::Entry* out);
Status FromEntry(const Dict& dict, const DictEntry& entry, v1::Entry* out);
void FromNumber(DictKind kind, uint64_t bits, v1::Value* value);

struct IncrementFields {
  const v1::Value* delta = nullptr;  // Null: 1.
  const v1::Value* initial = nullptr;
  const v1::Value* min = nullptr;
  const v1::Value* max = nullptr;
};
// The numbers of an increment, checked against each other.
Status ToIncrement(const IncrementFields& fields, DictIncrement* increment);

// What a page token of a scan says: how much of the space of hashes is done, as a fraction of 2^32.
// It means the same in a table of another size.
struct ScanCursor {
  static uint32_t Token(uint32_t bucket, uint32_t bucket_count) {
    return static_cast<uint32_t>((uint64_t{bucket} << 32) / bucket_count);
  }
  static uint32_t Bucket(uint32_t token, uint32_t bucket_count) {
    return static_cast<uint32_t>(uint64_t{token} * bucket_count >> 32);
  }
};
// What an entry costs in a page beside its key and value.
inline constexpr size_t kEntryOverheadBytes = 48;

// What EditEntry asks for. *storage keeps the bytes of values.
Status ToEdit(const v1::EditEntryRequest& request, EntryEdit* edit, std::string* storage);

// What WithDict does about a failure: OK when the dict is another one now and the operation can be
// tried again, else what to answer.
Status MoveIfItHelps(const VerbContext& context, const std::shared_ptr<ServedDict>& served,
                     const Status& failure);

// The name of a mutation; invalid where the caller gave none. INVALID_ARGUMENT for session 0.
StatusOr<DictOperationId> ToOperationId(bool given, const v1::OperationId& operation);

// A mutation that was named and may have been carried out before. Nobody else carries it out while
// this lives.
class OnceGuard final {
 public:
  // *known: it was carried out, and remembered() says what it did. Errors: CONFLICT (too old to be
  // remembered), STALLED (the session is busy and the caller's thread may not wait).
  Status Begin(const VerbContext& context, Dict& dict, DictOperationId operation, bool* known);
  const DictRemembered& remembered() const { return remembered_; }

 private:
  std::unique_lock<std::mutex> held_;
  DictRemembered remembered_;
};

// Around a mutation that may bind entries to sessions: they are known to end with them before they
// are there.
class BindingGuard final {
 public:
  // That the session is the caller's; it lives on for its ttl. SESSION_NOT_FOUND. 0 is none.
  static Status Check(const VerbContext& context, uint64_t session);
  // Errors: SESSION_NOT_FOUND, LIMIT_EXCEEDED; STALLED where the caller's thread may not find out.
  Status Begin(const VerbContext& context, const Dict& dict, std::string_view key,
               uint64_t session);
  Status Begin(const VerbContext& context, const Dict& dict,
               std::span<const DictOperation> operations);
  // Whether any was bound.
  void End(bool bound);

 private:
  std::vector<BoundEntries::Intent> intents_;
};

// Runs `operation` on the dict, follows it when it moves, makes it larger or gives it memory when
// it is full below its limits, and leaves what is damaged behind.
template <typename Operation>
Status WithDict(const VerbContext& context, std::string_view name, Verb verb,
                const Operation& operation) {
  Status status;
  for (int round = 0; round < kDictMovesMax; ++round) {
    SH_ASSIGN_OR_RETURN(const std::shared_ptr<ServedDict> served, ResolveDict(context, name, verb));
    status = operation(served->dict());
    if (status.ok()) [[likely]]
      return status;
    const Status moved = MoveIfItHelps(context, served, status);
    // Another operation's question may have been answered after this one was refused.
    const bool news =
        moved.reason() == Reason::kMemoryExhausted && served->dict().BackingIsNews(context.lane);
    if (!moved.ok() && !news) return moved;
  }
  return status;
}

}  // namespace statehouse
