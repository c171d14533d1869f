// NetworkDict: the verbs of a dict over the network door, in the engine's terms, so that the C
// interface does not care which door it uses.
//
// Who owns it: the handle sh_dict. Threads: any at once.
// Always true: a mutation that was named (operation_ids.h) is carried out once and may be retried.
// Failure: as NetworkSession.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "clients/c/src/caller.h"
#include "clients/c/src/operation_ids.h"
#include "engine/base/status.h"
#include "engine/state/dict.h"
#include "engine/state/dict_edit.h"
#include "engine/state/entry_wait.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse {

// An entry as it came: the value as wire bytes.
struct NetworkEntry {
  bool found = false;
  std::string key;
  std::string wire;
  uint64_t version = 0;
  uint64_t ttl_ms = 0;
  bool has_ttl = false;
  uint64_t fence = 0;
  uint64_t ordinal = 0;
  uint64_t bound_session = 0;
};

struct NetworkEditResult {
  uint64_t version = 0;
  uint64_t length = 0;
  std::string wire;  // Empty: none.
};

struct NetworkTransactionResult {
  bool compared = false;
  std::vector<NetworkEntry> entries;  // Of an increment: `wire` is the number.
  std::vector<uint64_t> versions;
};

class NetworkDict final {
 public:
  // Who names the mutations: the dict, or whoever sends them.
  enum class Naming : uint8_t { kOwn, kByCaller };

  NetworkDict(std::string name, std::shared_ptr<Caller> caller, std::chrono::nanoseconds timeout,
              Naming naming = Naming::kOwn)
      : name_(std::move(name)), caller_(std::move(caller)), timeout_(timeout), naming_(naming) {}

  Status Get(std::string_view key, std::span<const PathStep> path, NetworkEntry* entry);
  // Until `deadline`, which is no error: *met is false then.
  Status Wait(std::string_view key, const EntryWait& wait, Deadline deadline, bool* met,
              NetworkEntry* entry);
  // `previous` may be null.
  Status Set(std::string_view key, const DictValue& value, const DictSetOptions& options,
             DictResult* result, NetworkEntry* previous);
  Status Delete(std::string_view key, const DictDeleteOptions& options, DictResult* result,
                NetworkEntry* previous);
  Status Touch(std::string_view key, const DictTtl& ttl, DictResult* result);
  Status Increment(std::string_view key, std::span<const PathStep> path,
                   const DictIncrement& increment, DictResult* result);
  // `kind` is the field of message Edit that `edit` stands for.
  Status Edit(std::string_view key, v1::Edit::KindCase kind, const EntryEdit& edit,
              NetworkEditResult* result);

  Status GetMany(std::span<const std::string_view> keys, bool consistent,
                 std::vector<NetworkEntry>* entries);
  Status SetMany(std::span<const DictOperation> sets, std::vector<uint64_t>* versions);
  // One page; *page_token is where to go on, and empty after the last.
  Status Scan(std::string_view prefix, uint32_t limit, std::string* page_token,
              std::vector<NetworkEntry>* entries);
  Status Transact(std::span<const DictCompare> compares, std::span<const DictOperation> then,
                  std::span<const DictOperation> otherwise, NetworkTransactionResult* result);
  Status Clear(uint64_t* deleted);
  Status DeletePrefix(std::string_view prefix, uint64_t* deleted);
  StatusOr<uint64_t> Length();

 private:
  enum class Retry : uint8_t { kNever, kSafe };
  template <typename Request, typename Response>
  Status Call(const char* verb, const Request& request, Response* response, Retry retry) const;
  template <typename Request, typename Response>
  Status CallOnce(const char* verb, Request* request, Response* response);

  const std::string name_;
  const std::shared_ptr<Caller> caller_;
  const std::chrono::nanoseconds timeout_;
  const Naming naming_;
  OperationIds operation_ids_;
};

}  // namespace statehouse
