#include "clients/c/src/local_dict.h"

#include <utility>

#include "clients/c/src/dict_message.h"
#include "engine/value/wire.h"

namespace statehouse {
namespace {

// Entries that one turn of DeletePrefix looks at.
constexpr size_t kDeleteBatch = 256;
constexpr uint64_t kCursorEnd = uint64_t{1} << 32;

uint64_t CursorAt(uint32_t bucket, uint32_t bucket_count) {
  return (uint64_t{bucket} << 32) / bucket_count;
}
uint32_t BucketAt(uint64_t cursor, uint32_t bucket_count) {
  return static_cast<uint32_t>(cursor * bucket_count >> 32);
}

}  // namespace

LocalDict::LocalDict(std::shared_ptr<LocalSession> session, LocalDictFacts facts,
                     std::unique_ptr<Mapping> mapping)
    : session_(std::move(session)),
      facts_(std::move(facts)),
      current_(mapping.release()),
      writable_(current_.load()->dict->writable()) {}

LocalDict::~LocalDict() { delete current_.load(); }

Status LocalDict::Unusable() const {
  if (usable_.load(std::memory_order_relaxed) == kSessionClosed) {
    return Status(Reason::kClientClosed,
                  "dict \"" + name() + "\": its client was closed; connect again");
  }
  return Status(Reason::kDictNotFound,
                "dict \"" + name() + "\": the service no longer has it; open it again by name");
}

Status LocalDict::RefuseReadOnly() const {
  return Status(Reason::kReadOnly, "dict \"" + name() +
                                       "\" is attached read-only: the access token has no grant "
                                       "to write");
}

Status LocalDict::RefuseKey(std::string_view key) const {
  return Status(Reason::kKeyInvalid, "dict \"" + name() + "\": a key of " +
                                         std::to_string(key.size()) + " bytes; 1 to " +
                                         std::to_string(kDictKeyBytesMax) +
                                         " bytes of UTF-8 are allowed");
}

Status LocalDict::CheckKey(std::string_view key) const {
  const bool valid = !key.empty() && key.size() <= kDictKeyBytesMax && internal::IsUtf8(key);
  return valid ? Status() : RefuseKey(key);
}

template <typename Operation>
Status LocalDict::Read(std::string_view key, const Operation& operation) {
  std::optional<Deadline> deadline;
  for (;;) {
    if (!usable()) [[unlikely]]
      return Unusable();
    uint32_t generation = 0;
    Status status;
    {
      const Use<Mapping> use(current_);
      generation = use->generation;
      status = operation(*use->dict);
    }
    if (status.ok()) [[likely]]
      return status;
    SH_RETURN_IF_ERROR(Follow(generation, key, status, &deadline));
  }
}

template <typename Operation>
Status LocalDict::WriteOnce(const Operation& operation, Attempt* attempt) {
  if (thread_lane.attachment_id != session_->attachment_id()) [[unlikely]]
    SH_RETURN_IF_ERROR(session_->AcquireLane());
  std::unique_lock<std::mutex> shared;
  if (thread_lane.shared != nullptr) [[unlikely]]
    shared = std::unique_lock<std::mutex>(*thread_lane.shared);
  const Use<Mapping> use(current_);
  attempt->generation = use->generation;
  // SYNC: local_dict.prepared — the lanes' magazines are in order before anybody works with them.
  attempt->unprepared =
      use->prepared_id.load(std::memory_order_acquire) != thread_lane.attachment_id;
  if (attempt->unprepared) [[unlikely]]
    return Status();
  return operation(*use->dict, thread_lane.lane);
}

template <typename Operation>
Status LocalDict::Write(const Operation& operation) {
  std::optional<Deadline> deadline;
  for (;;) {
    if (!usable()) [[unlikely]]
      return Unusable();
    if (!writable()) [[unlikely]]
      return RefuseReadOnly();
    Attempt attempt;
    const Status status = WriteOnce(operation, &attempt);
    if (attempt.unprepared) [[unlikely]] {
      SH_RETURN_IF_ERROR(PrepareLanes());
      continue;
    }
    if (status.ok()) [[likely]]
      return status;
    if (attempt.generation == 0) return status;  // There was no lane.
    SH_RETURN_IF_ERROR(Follow(attempt.generation, {}, status, &deadline));
  }
}

Status LocalDict::Get(std::string_view key, DictEntry* entry, bool* found) {
  *found = false;
  SH_RETURN_IF_ERROR(Read(key, [&](const Dict& dict) { return dict.Get(key, entry, found); }));
  // What is there has a key that was checked when it was set.
  return *found ? Status() : CheckKey(key);
}

Status LocalDict::Peek(std::string_view key, DictEntry* entry, bool* found) const {
  *found = false;
  if (!usable()) return Unusable();
  const Use<Mapping> use(current_);
  return use->dict->Get(key, entry, found, 0);
}

Status LocalDict::GetWire(std::string_view key, std::span<const PathStep> path, LocalValue* value) {
  SH_RETURN_IF_ERROR(CheckPath(path));
  SH_RETURN_IF_ERROR(Read(key, [&](const Dict& dict) {
    return GetPart(dict, key, path, &value->entry, &value->storage, &value->found, &value->wire);
  }));
  return value->found ? Status() : CheckKey(key);
}

Status LocalDict::GetMany(std::span<const std::string_view> keys, bool consistent,
                          std::vector<DictOperationResult>* results) {
  if (keys.size() > kTransactionOpsMax) {
    return Status(Reason::kLimitExceeded, "dict \"" + name() + "\": reading " +
                                              std::to_string(keys.size()) +
                                              " entries at once; at most " +
                                              std::to_string(kTransactionOpsMax) + " are allowed");
  }
  if (consistent) {
    std::vector<DictOperation> gets(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) gets[i].key = keys[i];
    DictTransactionResult result;
    SH_RETURN_IF_ERROR(Transact({}, gets, {}, &result));
    *results = std::move(result.results);
    return Status();
  }
  for (const std::string_view key : keys) SH_RETURN_IF_ERROR(CheckKey(key));
  results->resize(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    DictOperationResult& each = (*results)[i];
    each.result = DictResult();
    SH_RETURN_IF_ERROR(Get(keys[i], &each.entry, &each.result.existed));
    if (each.result.existed) each.result.version = each.entry.version;
  }
  return Status();
}

Status LocalDict::Scan(LocalDictCursor* cursor, size_t limit, std::string_view prefix,
                       std::vector<DictEntry>* entries) {
  return Read({}, [&](const Dict& dict) {
    const DictGeometry& geometry = dict.geometry();
    entries->clear();
    if (cursor->at == kCursorEnd) return Status();
    // Under another seed the entries stand in another order.
    uint32_t bucket =
        cursor->seed == geometry.seed ? BucketAt(cursor->at, geometry.bucket_count) : 0;
    SH_RETURN_IF_ERROR(dict.Scan(&bucket, limit, prefix,
                                 [&](DictEntry& entry) { entries->push_back(std::move(entry)); }));
    cursor->seed = geometry.seed;
    cursor->at = CursorAt(bucket, geometry.bucket_count);
    cursor->done = cursor->at == kCursorEnd;
    return Status();
  });
}

StatusOr<DictStats> LocalDict::Stats() {
  DictStats stats;
  const Status status = Read({}, [&](const Dict& dict) {
    stats = dict.Stats();
    // A scan of no bucket says whether the segment still counts.
    uint32_t bucket = dict.geometry().bucket_count;
    return dict.Scan(&bucket, 0, {}, [](DictEntry&) {});
  });
  if (!status.ok()) return status;
  return stats;
}

StatusOr<std::shared_ptr<Dict>> LocalDict::Newest() {
  SH_RETURN_IF_ERROR(Stats().status());  // Follows the dict.
  const Use<Mapping> use(current_);
  return use->dict;
}

StatusOr<uint64_t> LocalDict::Length() {
  SH_ASSIGN_OR_RETURN(const DictStats stats, Stats());
  return stats.entries;
}

std::optional<uint64_t> LocalDict::TtlMs(const DictEntry& entry) const {
  if (entry.expires_ms == 0) return std::nullopt;
  const Use<Mapping> use(current_);
  const uint64_t now = use->dict->NowMs();
  return entry.expires_ms > now ? entry.expires_ms - now : 0;
}

Status LocalDict::Set(std::string_view key, const DictValue& value, const DictSetOptions& options,
                      DictResult* result) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  return Write(
      [&](Dict& dict, const Lane& lane) { return dict.Set(lane, key, value, options, result); });
}

Status LocalDict::Delete(std::string_view key, const DictDeleteOptions& options,
                         DictResult* result) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  return Write(
      [&](Dict& dict, const Lane& lane) { return dict.Delete(lane, key, options, result); });
}

Status LocalDict::Increment(std::string_view key, const DictIncrement& increment,
                            DictResult* result) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  return Write(
      [&](Dict& dict, const Lane& lane) { return dict.Increment(lane, key, increment, result); });
}

Status LocalDict::Edit(std::string_view key, const EntryEdit& edit, EntryEditResult* result) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  return Write(
      [&](Dict& dict, const Lane& lane) { return EditDictEntry(dict, lane, key, edit, result); });
}

Status LocalDict::Touch(std::string_view key, const DictTtl& ttl, DictResult* result) {
  SH_RETURN_IF_ERROR(CheckKey(key));
  constexpr int kAttemptsMax = 1000;
  DictEntry entry;
  DictSetOptions options;
  options.ttl = ttl;
  options.condition.kind = DictCondition::Kind::kVersion;
  return Write([&](Dict& dict, const Lane& lane) -> Status {
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      bool found = false;
      SH_RETURN_IF_ERROR(dict.Get(key, &entry, &found, lane.operation_timeout_ns));
      *result = DictResult();
      if (!found) return Status();
      options.condition.version = entry.version;
      options.bind_session = entry.bound_session;
      SH_RETURN_IF_ERROR(dict.Set(lane, key, entry.value(), options, result));
      if (result->applied) return Status();
    }
    return Status(Reason::kStalled, "dict \"" + name() + "\": touching key \"" + std::string(key) +
                                        "\": others change it all the time");
  });
}

Status LocalDict::Transact(std::span<const DictCompare> compares,
                           std::span<const DictOperation> then,
                           std::span<const DictOperation> otherwise,
                           DictTransactionResult* result) {
  const size_t count = compares.size() + then.size() + otherwise.size();
  if (count > kTransactionOpsMax) {
    return Status(Reason::kLimitExceeded, "dict \"" + name() + "\": a transaction of " +
                                              std::to_string(count) +
                                              " compares and steps; at most " +
                                              std::to_string(kTransactionOpsMax) + " are allowed");
  }
  for (const DictCompare& compare : compares) SH_RETURN_IF_ERROR(CheckKey(compare.key));
  for (const DictOperation& step : then) SH_RETURN_IF_ERROR(CheckKey(step.key));
  for (const DictOperation& step : otherwise) SH_RETURN_IF_ERROR(CheckKey(step.key));
  return Write([&](Dict& dict, const Lane& lane) {
    return dict.Transact(lane, compares, then, otherwise, result);
  });
}

Status LocalDict::DeletePrefix(std::string_view prefix, uint64_t* deleted) {
  *deleted = 0;
  if (prefix.empty()) {
    return Status(
        Reason::kInvalidArgument,
        "dict \"" + name() + "\": deleting an empty prefix; to delete everything, clear the dict");
  }
  return Write([&](Dict& dict, const Lane& lane) -> Status {
    // In another segment it begins again; what is deleted stays deleted.
    uint32_t bucket = 0;
    std::vector<std::string> keys;
    while (bucket < dict.geometry().bucket_count) {
      keys.clear();
      SH_RETURN_IF_ERROR(dict.Scan(
          &bucket, kDeleteBatch, prefix,
          [&](DictEntry& entry) { keys.push_back(std::move(entry.key)); },
          lane.operation_timeout_ns));
      for (const std::string& key : keys) {
        DictResult result;
        SH_RETURN_IF_ERROR(dict.Delete(lane, key, DictDeleteOptions(), &result));
        *deleted += result.applied ? 1 : 0;
      }
    }
    return Status();
  });
}

Status LocalDict::Clear(uint64_t* deleted) {
  if (!usable()) return Unusable();
  if (!writable()) return RefuseReadOnly();
  CallOptions options;
  options.deadline = session_->DefaultDeadline();
  SH_ASSIGN_OR_RETURN(const std::string response,
                      session_->Call("/statehouse.v1.Dicts/ClearDict",
                                     EncodeDictName("#" + std::to_string(facts_.index)), options));
  SH_ASSIGN_OR_RETURN(*deleted, DecodeClearDictResponse(response));
  return Status();
}

}  // namespace statehouse
