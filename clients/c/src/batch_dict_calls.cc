// The part of the C interface that notes operations on dicts in a batch.
#include <string>
#include <utility>
#include <vector>

#include "clients/c/src/batch_handle.h"
#include "engine/value/wire.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using internal::AppendVarint;

// Fields of the short operations, behind the dict's place.
constexpr char kKeyTag = 2 << 3 | 2;
constexpr char kValueTag = 3 << 3 | 2;
constexpr char kTtlTag = 4 << 3;
constexpr char kDeltaTag = 3 << 3;

Status CheckBatch(const sh_batch* batch) {
  if (batch != nullptr) return Status();
  return Status(Reason::kInvalidArgument, "the batch is NULL");
}

std::string Copy(sh_bytes bytes) {
  if (bytes.data == nullptr) return std::string();
  return std::string(static_cast<const char*>(bytes.data), bytes.size);
}

// Copies of what the caller's structures point to.

class WriteOptions final {
 public:
  explicit WriteOptions(const sh_write_options* from)
      : options_(from == nullptr ? sh_write_options{} : *from),
        value_(Copy(options_.condition.value)) {}
  sh_write_options ToC() const {
    sh_write_options options = options_;
    options.condition.value = FromBytes(value_);
    return options;
  }

 private:
  sh_write_options options_;
  std::string value_;
};

class PathCopy final {
 public:
  PathCopy(const sh_path_step* path, size_t steps) {
    for (size_t i = 0; path != nullptr && i < steps; ++i) {
      steps_.push_back(path[i]);
      keys_.push_back(Copy(path[i].key));
    }
  }
  std::vector<sh_path_step> ToC() const {
    std::vector<sh_path_step> steps = steps_;
    for (size_t i = 0; i < steps.size(); ++i) steps[i].key = FromBytes(keys_[i]);
    return steps;
  }

 private:
  std::vector<sh_path_step> steps_;
  std::vector<std::string> keys_;
};

class IncrementOptions final {
 public:
  explicit IncrementOptions(const sh_increment_options& from)
      : options_(from),
        path_(from.path, from.steps),
        initial_(from.initial == nullptr ? sh_number{} : *from.initial),
        min_(from.min == nullptr ? sh_number{} : *from.min),
        max_(from.max == nullptr ? sh_number{} : *from.max) {}
  template <typename Use>
  sh_reason With(const Use& use) const {
    sh_increment_options options = options_;
    const std::vector<sh_path_step> path = path_.ToC();
    options.path = path.data();
    options.steps = path.size();
    if (options.initial != nullptr) options.initial = &initial_;
    if (options.min != nullptr) options.min = &min_;
    if (options.max != nullptr) options.max = &max_;
    return use(options);
  }

 private:
  sh_increment_options options_;
  PathCopy path_;
  sh_number initial_;
  sh_number min_;
  sh_number max_;
};

// A path that the caller gave, before it is copied.
Status CheckPath(const sh_path_step* path, size_t steps) { return ToPath(path, steps).status(); }

Status CheckUnbound(const sh_write_options* options) {
  if (options == nullptr || options->bound == 0) return Status();
  return Status(
      Reason::kInvalidArgument,
      "batch: options.bound: a batch binds no entries; set this one by a call of its own");
}

std::string KeyField(std::string_view key) {
  std::string tail(1, kKeyTag);
  AppendVarint(&tail, key.size());
  return tail.append(key);
}

Status NoteGet(sh_batch* batch, sh_dict* dict, sh_bytes c_key, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_RETURN_IF_ERROR(batch->CheckOwn(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  const auto action = [&]() -> BatchAction {
    return [dicts = *batch->Use(dict), key = std::string(key)](BatchTarget target, BatchResult* r,
                                                               sh_error** error) {
      const sh_reason reason =
          sh_dict_get(dicts->at(target), FromBytes(key), nullptr, 0, &r->entry, error);
      // As over the network, where no more than the value and its version come.
      r->entry.ttl_ms = r->entry.fence = r->entry.ordinal = r->entry.bound_session = 0;
      return reason;
    };
  };
  return batch->NoteShort(kShowsEntry, v1::Operation::kGet, dict->name, KeyField(key), action,
                          index);
}

Status NoteGetEntry(sh_batch* batch, sh_dict* dict, sh_bytes key, const sh_path_step* path,
                    size_t steps, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  SH_RETURN_IF_ERROR(CheckPath(path, steps));
  SH_RETURN_IF_ERROR(ToKey(key).status());
  const auto action = [dicts, key = Copy(key), path = PathCopy(path, steps)](
                          BatchTarget target, BatchResult* r, sh_error** error) {
    const std::vector<sh_path_step> c_path = path.ToC();
    return sh_dict_get(dicts->at(target), FromBytes(key), c_path.data(), c_path.size(), &r->entry,
                       error);
  };
  return batch->Note(kShowsEntry, action, index);
}

Status NoteSet(sh_batch* batch, sh_dict* dict, sh_bytes c_key, sh_bytes c_value,
               const sh_write_options* options, bool previous, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_RETURN_IF_ERROR(batch->CheckOwn(dict));
  SH_RETURN_IF_ERROR(CheckUnbound(options));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  SH_RETURN_IF_ERROR(ToValue(c_value, "value").status());
  const auto action = [&]() -> BatchAction {
    return [dicts = *batch->Use(dict), key = std::string(key), value = Copy(c_value),
            options = WriteOptions(options),
            previous](BatchTarget target, BatchResult* r, sh_error** error) {
      const sh_write_options c_options = options.ToC();
      return sh_dict_set(dicts->at(target), FromBytes(key), FromBytes(value), &c_options,
                         &r->outcome, previous ? &r->entry : nullptr, error);
    };
  };
  const uint64_t ttl_ms = options == nullptr ? 0 : options->ttl_ms;
  const bool plain =
      options == nullptr || (options->condition.kind == SH_IF_ANY && options->fence == 0 &&
                             ttl_ms != SH_TTL_KEEP && ttl_ms != SH_FOREVER);
  const uint16_t shows = kShowsOutcome | (previous ? kShowsEntry : 0);
  if (!plain || previous) {
    SH_RETURN_IF_ERROR(batch->Use(dict).status());
    return batch->Note(shows, action(), index);
  }
  std::string tail = KeyField(key);
  tail.push_back(kValueTag);
  AppendVarint(&tail, c_value.size);
  tail.append(static_cast<const char*>(c_value.data), c_value.size);
  if (ttl_ms != 0) {
    tail.push_back(kTtlTag);
    AppendVarint(&tail, ttl_ms);
  }
  return batch->NoteShort(shows, v1::Operation::kSet, dict->name, tail, action, index);
}

Status NoteDelete(sh_batch* batch, sh_dict* dict, sh_bytes key, const sh_write_options* options,
                  bool previous, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  SH_RETURN_IF_ERROR(CheckUnbound(options));
  const auto action = [dicts, key = Copy(key), options = WriteOptions(options), previous](
                          BatchTarget target, BatchResult* r, sh_error** error) {
    const sh_write_options c_options = options.ToC();
    return sh_dict_delete_entry(dicts->at(target), FromBytes(key), &c_options, &r->outcome,
                                previous ? &r->entry : nullptr, error);
  };
  return batch->Note(kShowsOutcome | (previous ? kShowsEntry : 0), action, index);
}

Status NoteTouch(sh_batch* batch, sh_dict* dict, sh_bytes key, uint64_t ttl_ms, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  const auto action = [dicts, key = Copy(key), ttl_ms](BatchTarget target, BatchResult* r,
                                                       sh_error** error) {
    return sh_dict_touch(dicts->at(target), FromBytes(key), ttl_ms, &r->outcome, error);
  };
  return batch->Note(kShowsOutcome, action, index);
}

Status NoteIncrement(sh_batch* batch, sh_dict* dict, sh_bytes c_key, sh_number delta,
                     const sh_increment_options* options, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_RETURN_IF_ERROR(batch->CheckOwn(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  const sh_increment_options given = options == nullptr ? sh_increment_options{} : *options;
  SH_RETURN_IF_ERROR(CheckPath(given.path, given.steps));
  const auto action = [&]() -> BatchAction {
    return
        [dicts = *batch->Use(dict), key = std::string(key), delta,
         options = IncrementOptions(given)](BatchTarget target, BatchResult* r, sh_error** error) {
          return options.With([&](const sh_increment_options& c_options) {
            return sh_dict_increment(dicts->at(target), FromBytes(key), delta, &c_options,
                                     &r->number, &r->outcome.version, error);
          });
        };
  };
  if (options != nullptr || delta.is_double != 0) {
    SH_RETURN_IF_ERROR(batch->Use(dict).status());
    return batch->Note(kShowsNumber, action(), index);
  }
  std::string tail = KeyField(key);
  if (delta.integer != 1) {
    tail.push_back(kDeltaTag);
    AppendVarint(&tail, static_cast<uint64_t>(delta.integer) << 1 ^
                            static_cast<uint64_t>(delta.integer >> 63));
  }
  return batch->NoteShort(kShowsNumber, v1::Operation::kIncrement, dict->name, tail, action, index);
}

Status NoteEdit(sh_batch* batch, sh_dict* dict, sh_bytes key, const sh_edit* edit, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  if (edit == nullptr) return Status(Reason::kInvalidArgument, "the edit is NULL");
  SH_RETURN_IF_ERROR(CheckPath(edit->path, edit->steps));
  SH_RETURN_IF_ERROR(ToBytes(edit->value, "edit.value").status());
  const auto action = [dicts, key = Copy(key), edit = *edit, value = Copy(edit->value),
                       path = PathCopy(edit->path, edit->steps)](BatchTarget target, BatchResult* r,
                                                                 sh_error** error) {
    const std::vector<sh_path_step> c_path = path.ToC();
    sh_edit c_edit = edit;
    c_edit.path = c_path.data();
    c_edit.steps = c_path.size();
    c_edit.value = FromBytes(value);
    return sh_dict_edit(dicts->at(target), FromBytes(key), &c_edit, &r->entry, &r->count,
                        &r->outcome.version, error);
  };
  return batch->Note(kShowsEntry | kShowsCount, action, index);
}

// Several keys or values, copied.
class BytesList final {
 public:
  BytesList(const sh_bytes* from, size_t count) {
    for (size_t i = 0; i < count; ++i) items_.push_back(Copy(from[i]));
  }
  std::vector<sh_bytes> ToC() const {
    std::vector<sh_bytes> list;
    for (const std::string& item : items_) list.push_back(FromBytes(item));
    return list;
  }

 private:
  std::vector<std::string> items_;
};

Status NoteGetMany(sh_batch* batch, sh_dict* dict, const sh_bytes* keys, size_t count,
                   int consistent, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  SH_RETURN_IF_ERROR(ToKeys(keys, count).status());
  const auto action = [dicts, keys = BytesList(keys, count), consistent](
                          BatchTarget target, BatchResult* r, sh_error** error) {
    const std::vector<sh_bytes> c_keys = keys.ToC();
    return sh_dict_get_many(dicts->at(target), c_keys.data(), c_keys.size(), consistent,
                            &r->Room().entries, error);
  };
  return batch->Note(kShowsEntries, action, index);
}

Status NoteSetMany(sh_batch* batch, sh_dict* dict, const sh_bytes* keys, const sh_bytes* values,
                   size_t count, const sh_write_options* options, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  SH_RETURN_IF_ERROR(CheckUnbound(options));
  SH_RETURN_IF_ERROR(ToKeys(keys, count).status());
  if (values == nullptr && count > 0) {
    return Status(Reason::kInvalidArgument, "the values are NULL");
  }
  for (size_t i = 0; i < count; ++i) SH_RETURN_IF_ERROR(ToValue(values[i], "value").status());
  const auto action = [dicts, keys = BytesList(keys, count), values = BytesList(values, count),
                       options = WriteOptions(options)](BatchTarget target, BatchResult* r,
                                                        sh_error** error) {
    const std::vector<sh_bytes> c_keys = keys.ToC();
    const std::vector<sh_bytes> c_values = values.ToC();
    const sh_write_options c_options = options.ToC();
    std::vector<uint64_t>& versions = r->Room().versions;
    versions.assign(c_keys.size(), 0);
    return sh_dict_set_many(dicts->at(target), c_keys.data(), c_values.data(), c_keys.size(),
                            &c_options, versions.data(), error);
  };
  return batch->Note(kShowsVersions, action, index);
}

// What needs no more than the dict.
template <typename CallOfDict>
Status NoteCount(sh_batch* batch, sh_dict* dict, const CallOfDict& call, size_t* index) {
  SH_RETURN_IF_ERROR(CheckBatch(batch));
  SH_ASSIGN_OR_RETURN(NotedBatch::Dicts* const dicts, batch->Use(dict));
  const auto action = [dicts, call](BatchTarget target, BatchResult* r, sh_error** error) {
    return call(dicts->at(target), &r->count, error);
  };
  return batch->Note(kShowsCount, action, index);
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;
using statehouse::NameOf;

sh_reason sh_batch_dict_get(sh_batch* batch, sh_dict* dict, sh_bytes key, size_t* index,
                            sh_error** error) {
  return Finish(statehouse::NoteGet(batch, dict, key, index), NameOf(dict), error);
}

sh_reason sh_batch_dict_get_entry(sh_batch* batch, sh_dict* dict, sh_bytes key,
                                  const sh_path_step* path, size_t steps, size_t* index,
                                  sh_error** error) {
  return Finish(statehouse::NoteGetEntry(batch, dict, key, path, steps, index), NameOf(dict),
                error);
}

sh_reason sh_batch_dict_set(sh_batch* batch, sh_dict* dict, sh_bytes key, sh_bytes value,
                            const sh_write_options* options, int previous, size_t* index,
                            sh_error** error) {
  return Finish(statehouse::NoteSet(batch, dict, key, value, options, previous != 0, index),
                NameOf(dict), error);
}

sh_reason sh_batch_dict_delete(sh_batch* batch, sh_dict* dict, sh_bytes key,
                               const sh_write_options* options, int previous, size_t* index,
                               sh_error** error) {
  return Finish(statehouse::NoteDelete(batch, dict, key, options, previous != 0, index),
                NameOf(dict), error);
}

sh_reason sh_batch_dict_touch(sh_batch* batch, sh_dict* dict, sh_bytes key, uint64_t ttl_ms,
                              size_t* index, sh_error** error) {
  return Finish(statehouse::NoteTouch(batch, dict, key, ttl_ms, index), NameOf(dict), error);
}

sh_reason sh_batch_dict_increment(sh_batch* batch, sh_dict* dict, sh_bytes key, sh_number delta,
                                  const sh_increment_options* options, size_t* index,
                                  sh_error** error) {
  return Finish(statehouse::NoteIncrement(batch, dict, key, delta, options, index), NameOf(dict),
                error);
}

sh_reason sh_batch_dict_edit(sh_batch* batch, sh_dict* dict, sh_bytes key, const sh_edit* edit,
                             size_t* index, sh_error** error) {
  return Finish(statehouse::NoteEdit(batch, dict, key, edit, index), NameOf(dict), error);
}

sh_reason sh_batch_dict_get_many(sh_batch* batch, sh_dict* dict, const sh_bytes* keys, size_t count,
                                 int consistent, size_t* index, sh_error** error) {
  return Finish(statehouse::NoteGetMany(batch, dict, keys, count, consistent, index), NameOf(dict),
                error);
}

sh_reason sh_batch_dict_set_many(sh_batch* batch, sh_dict* dict, const sh_bytes* keys,
                                 const sh_bytes* values, size_t count,
                                 const sh_write_options* options, size_t* index, sh_error** error) {
  return Finish(statehouse::NoteSetMany(batch, dict, keys, values, count, options, index),
                NameOf(dict), error);
}

sh_reason sh_batch_dict_length(sh_batch* batch, sh_dict* dict, size_t* index, sh_error** error) {
  return Finish(statehouse::NoteCount(batch, dict, sh_dict_length, index), NameOf(dict), error);
}

sh_reason sh_batch_dict_clear(sh_batch* batch, sh_dict* dict, size_t* index, sh_error** error) {
  return Finish(statehouse::NoteCount(batch, dict, sh_dict_clear, index), NameOf(dict), error);
}

sh_reason sh_batch_dict_delete_prefix(sh_batch* batch, sh_dict* dict, sh_bytes prefix,
                                      size_t* index, sh_error** error) {
  const auto call = [prefix = statehouse::Copy(prefix)](sh_dict* at, uint64_t* count,
                                                        sh_error** e) {
    return sh_dict_delete_prefix(at, statehouse::FromBytes(prefix), count, e);
  };
  return Finish(statehouse::NoteCount(batch, dict, call, index), NameOf(dict), error);
}
