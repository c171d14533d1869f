// Dict: a dict of the service as a C++ object. Part of client.hpp.
//
//   dict.Set("user", "Ada", {.ttl = Ttl::For(std::chrono::minutes(30))});
//   std::optional<std::string> user = dict.Get<std::string>("user").value();
//   int64_t visits = dict.Increment("visits").value();
//   dict.EditAt("config", {"web", "ports"}, Edit::Append(8080));
//   dict.Update("cart", [](Value& cart) { cart.IfList()->push_back("book"); });
#pragma once

#include <statehouse/dict.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <statehouse/dict_options.hpp>
#include <statehouse/result.hpp>
#include <statehouse/value.hpp>
#include <statehouse/watch.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace statehouse::client {

namespace internal {
struct DictCloser {
  void operator()(sh_dict* dict) const { sh_dict_close(dict); }
};

template <EntryNumber T>
sh_number ToNumber(T value) {
  if constexpr (std::same_as<T, double>) {
    return sh_double(value);
  } else {
    return sh_int(value);
  }
}
template <EntryNumber T>
T FromNumber(const sh_number& number) {
  return std::same_as<T, double> ? static_cast<T>(sh_number_as_double(number))
                                 : static_cast<T>(sh_number_as_int(number));
}

// The C structure with what it points to.
template <EntryNumber T>
class IncrementArguments final {
 public:
  explicit IncrementArguments(const IncrementOptions<T>& options)
      : initial_(ToNumber(options.initial)),
        min_(ToNumber(options.min.value_or(T()))),
        max_(ToNumber(options.max.value_or(T()))) {
    for (const PathStep& step : options.path) steps_.push_back(step.ToC());
    c_options_.path = steps_.data();
    c_options_.steps = steps_.size();
    c_options_.initial = &initial_;
    c_options_.must_exist = options.must_exist ? 1 : 0;
    c_options_.min = options.min.has_value() ? &min_ : nullptr;
    c_options_.max = options.max.has_value() ? &max_ : nullptr;
    c_options_.ttl_ms = options.ttl.ms();
    c_options_.fence = options.fence;
  }
  IncrementArguments(const IncrementArguments&) = delete;
  IncrementArguments& operator=(const IncrementArguments&) = delete;
  const sh_increment_options* get() const { return &c_options_; }

 private:
  std::vector<sh_path_step> steps_;
  sh_number initial_;
  sh_number min_;
  sh_number max_;
  sh_increment_options c_options_{};
};

}  // namespace internal

// One open dict.
//
// Who owns it: whoever holds it; it is moved, not copied. It may outlive its Client, and then
// answers SH_CLIENT_CLOSED. Threads: any number may call its methods at once. Failure: errors of
// every call are those of dict.h; a refused call changed nothing.
class Dict final {
 public:
  std::string name() const { return sh_dict_name(dict_.get()); }
  Result<uint64_t> Length() const {
    uint64_t length = 0;
    return internal::Finish<uint64_t>(
        [&](sh_error** e) { return sh_dict_length(dict_.get(), &length, e); },
        [&] { return length; });
  }

  // The value, or the part of it at a path; empty: no such key. T: Value, bool, int64_t, double,
  // std::string, Bytes, List or Map; SH_TYPE_MISMATCH where the value is none.
  template <typename T = Value>
  Result<std::optional<T>> Get(std::string_view key, const Path& path = {}) const;
  // With what is known of it.
  Result<std::optional<Entry>> GetEntry(std::string_view key, const Path& path = {}) const;
  // Of each key; with `consistent` all as of one moment.
  Result<std::vector<std::optional<Entry>>> GetMany(const std::vector<std::string>& keys,
                                                    bool consistent = false) const;

  // `previous`: where to put the entry as it was before.
  Result<Outcome> Set(std::string_view key, const Value& value, const WriteOptions& options = {},
                      std::optional<Entry>* previous = nullptr);
  Result<Outcome> Delete(std::string_view key, const WriteOptions& options = {},
                         std::optional<Entry>* previous = nullptr);
  // Takes an entry out.
  Result<std::optional<Entry>> Pop(std::string_view key);
  // Puts the value where there is none, and gives what is there.
  Result<Value> GetOrSet(std::string_view key, const Value& value);
  // Up to 1,024 entries, all or none; no key twice. Gives their versions.
  Result<std::vector<uint64_t>> SetMany(const std::vector<std::pair<std::string, Value>>& entries,
                                        Ttl ttl = {}, uint64_t fence = 0, bool bound = false);
  Result<Outcome> Touch(std::string_view key, Ttl ttl);
  // Waits until the entry is as asked. A time-out is no error: `met` is false then. Without a
  // `timeout` it waits for ever. What holds only for a moment may be missed.
  Result<EntryWaitOutcome> Wait(
      std::string_view key, const WaitUntil& until,
      std::optional<std::chrono::milliseconds> timeout = std::nullopt) const;

  // Begins a watch: every change from now on, after the entries that are there.
  Result<client::Watch> Watch(const WatchOptions& options = {}) const {
    const sh_watch_options c_options = options.ToC();
    sh_watch* watch = nullptr;
    return internal::Finish<client::Watch>(
        [&](sh_error** e) { return sh_dict_watch(dict_.get(), &c_options, &watch, e); },
        [&] { return client::Watch(watch); });
  }

  // Adds to a number and gives the new one. Where the entry holds a double, an int64_t gives what
  // stands before its point; the entry keeps all of it.
  template <EntryNumber T = int64_t>
  Result<T> Increment(std::string_view key, std::type_identity_t<T> delta = 1,
                      const IncrementOptions<T>& options = {});
  // One atomic change at a path.
  Result<EditOutcome> EditAt(std::string_view key, const Path& path, const Edit& edit);
  // Reads the value (null where there is none), lets `change` work on it and sets it if nobody
  // changed it meanwhile, else again. SH_CONFLICT after `attempts_max` tries. REQUIRES: `change`
  // may be called several times.
  Result<Outcome> Update(std::string_view key, const std::function<void(Value&)>& change,
                         int attempts_max = 100);
  Result<TransactionOutcome> Transact(const Transaction& transaction);

  // Calls `take` with each entry whose key begins with `prefix`, in no order, until it returns
  // false. An entry that is there all the time comes once, or twice where the dict moves meanwhile.
  Result<Done> Scan(std::string_view prefix, const std::function<bool(Entry)>& take) const;
  // Deletes every entry at once, or what begins with a prefix one by one; gives how many.
  Result<uint64_t> Clear();
  Result<uint64_t> DeletePrefix(std::string_view prefix);

 private:
  friend class Batch;
  friend class Client;
  explicit Dict(sh_dict* dict) : dict_(dict) {}

  // The C structures with their memory.
  struct EntrySlot {
    EntrySlot() = default;
    EntrySlot(const EntrySlot&) = delete;
    EntrySlot& operator=(const EntrySlot&) = delete;
    ~EntrySlot() { sh_entry_free(&entry); }
    sh_entry entry{};
  };
  struct EntriesSlot {
    EntriesSlot() = default;
    EntriesSlot(const EntriesSlot&) = delete;
    EntriesSlot& operator=(const EntriesSlot&) = delete;
    ~EntriesSlot() { sh_entries_free(&entries); }
    sh_entries entries{};
  };
  static sh_bytes ToC(std::string_view text) { return {text.data(), text.size()}; }
  static std::string_view View(sh_bytes bytes) {
    if (bytes.data == nullptr) return {};
    return {static_cast<const char*>(bytes.data), bytes.size};
  }
  static std::vector<sh_path_step> ToC(const Path& path) {
    std::vector<sh_path_step> steps;
    for (const PathStep& step : path) steps.push_back(step.ToC());
    return steps;
  }
  static Result<std::optional<Entry>> FromC(const sh_entry& from, std::string_view key);
  static Result<std::vector<std::optional<Entry>>> FromC(const sh_entries& from);

  std::unique_ptr<sh_dict, internal::DictCloser> dict_;
};

inline Result<std::optional<Entry>> Dict::FromC(const sh_entry& from, std::string_view key) {
  if (!from.found) return std::optional<Entry>();
  Result<Value> value = Value::FromWire(View(from.value));
  if (!value.ok()) return value.error();
  Entry entry;
  entry.key = std::string(key);
  entry.value = *std::move(value);
  entry.version = from.version;
  if (from.ttl_ms != SH_FOREVER) {
    entry.ttl = std::chrono::milliseconds(static_cast<int64_t>(from.ttl_ms));
  }
  entry.fence = from.fence;
  entry.ordinal = from.ordinal;
  entry.bound_session = from.bound_session;
  return std::optional<Entry>(std::move(entry));
}

inline Result<std::vector<std::optional<Entry>>> Dict::FromC(const sh_entries& from) {
  std::vector<std::optional<Entry>> entries;
  for (size_t i = 0; i < from.count; ++i) {
    Result<std::optional<Entry>> entry = FromC(from.items[i], View(from.items[i].key));
    if (!entry.ok()) return entry.error();
    entries.push_back(*std::move(entry));
  }
  return entries;
}

inline Result<std::optional<Entry>> Dict::GetEntry(std::string_view key, const Path& path) const {
  const std::vector<sh_path_step> steps = ToC(path);
  EntrySlot slot;
  return internal::Finish<std::optional<Entry>>(
      [&](sh_error** e) {
        return sh_dict_get(dict_.get(), ToC(key), steps.data(), steps.size(), &slot.entry, e);
      },
      [&] { return FromC(slot.entry, key); });
}

template <typename T>
Result<std::optional<T>> Dict::Get(std::string_view key, const Path& path) const {
  Result<std::optional<Entry>> entry = GetEntry(key, path);
  if (!entry.ok()) return entry.error();
  if (!entry->has_value()) return std::optional<T>();
  std::optional<T> value = (*entry)->value.template As<T>();
  if (value.has_value()) return value;
  return Error(SH_TYPE_MISMATCH,
               "dict \"" + name() + "\": the value is of another kind than asked for", name(),
               false);
}

inline Result<std::vector<std::optional<Entry>>> Dict::GetMany(const std::vector<std::string>& keys,
                                                               bool consistent) const {
  std::vector<sh_bytes> c_keys;
  for (const std::string& key : keys) c_keys.push_back(ToC(key));
  EntriesSlot slot;
  return internal::Finish<std::vector<std::optional<Entry>>>(
      [&](sh_error** e) {
        return sh_dict_get_many(dict_.get(), c_keys.data(), c_keys.size(), consistent ? 1 : 0,
                                &slot.entries, e);
      },
      [&] { return FromC(slot.entries); });
}

inline Result<Outcome> Dict::Set(std::string_view key, const Value& value,
                                 const WriteOptions& options, std::optional<Entry>* previous) {
  const std::string wire = value.ToWire();
  const sh_write_options c_options = options.ToC();
  sh_outcome outcome{};
  EntrySlot slot;
  return internal::Finish<Outcome>(
      [&](sh_error** e) {
        return sh_dict_set(dict_.get(), ToC(key), ToC(wire), &c_options, &outcome,
                           previous != nullptr ? &slot.entry : nullptr, e);
      },
      [&]() -> Result<Outcome> {
        if (previous != nullptr) {
          Result<std::optional<Entry>> before = FromC(slot.entry, key);
          if (!before.ok()) return before.error();
          *previous = *std::move(before);
        }
        return Outcome{outcome.applied != 0, outcome.version};
      });
}

inline Result<Outcome> Dict::Delete(std::string_view key, const WriteOptions& options,
                                    std::optional<Entry>* previous) {
  const sh_write_options c_options = options.ToC();
  sh_outcome outcome{};
  EntrySlot slot;
  return internal::Finish<Outcome>(
      [&](sh_error** e) {
        return sh_dict_delete_entry(dict_.get(), ToC(key), &c_options, &outcome,
                                    previous != nullptr ? &slot.entry : nullptr, e);
      },
      [&]() -> Result<Outcome> {
        if (previous != nullptr) {
          Result<std::optional<Entry>> before = FromC(slot.entry, key);
          if (!before.ok()) return before.error();
          *previous = *std::move(before);
        }
        return Outcome{outcome.applied != 0, outcome.version};
      });
}

inline Result<std::optional<Entry>> Dict::Pop(std::string_view key) {
  std::optional<Entry> entry;
  const Result<Outcome> outcome = Delete(key, {}, &entry);
  if (!outcome.ok()) return outcome.error();
  return entry;
}

inline Result<Value> Dict::GetOrSet(std::string_view key, const Value& value) {
  std::optional<Entry> before;
  WriteOptions options;
  options.condition = Condition::Absent();
  const Result<Outcome> outcome = Set(key, value, options, &before);
  if (!outcome.ok()) return outcome.error();
  return before.has_value() ? std::move(before->value) : value;
}

inline Result<std::vector<uint64_t>> Dict::SetMany(
    const std::vector<std::pair<std::string, Value>>& entries, Ttl ttl, uint64_t fence,
    bool bound) {
  std::vector<std::string> wires;
  std::vector<sh_bytes> keys;
  std::vector<sh_bytes> values;
  for (const auto& [key, value] : entries) wires.push_back(value.ToWire());
  for (size_t i = 0; i < entries.size(); ++i) {
    keys.push_back(ToC(entries[i].first));
    values.push_back(ToC(wires[i]));
  }
  sh_write_options options{};
  options.ttl_ms = ttl.ms();
  options.fence = fence;
  options.bound = bound ? 1 : 0;
  std::vector<uint64_t> versions(entries.size());
  return internal::Finish<std::vector<uint64_t>>(
      [&](sh_error** e) {
        return sh_dict_set_many(dict_.get(), keys.data(), values.data(), keys.size(), &options,
                                versions.data(), e);
      },
      [&] { return std::move(versions); });
}

inline Result<Outcome> Dict::Touch(std::string_view key, Ttl ttl) {
  sh_outcome outcome{};
  return internal::Finish<Outcome>(
      [&](sh_error** e) { return sh_dict_touch(dict_.get(), ToC(key), ttl.ms(), &outcome, e); },
      [&] {
        return Outcome{outcome.applied != 0, outcome.version};
      });
}

inline Result<EntryWaitOutcome> Dict::Wait(std::string_view key, const WaitUntil& until,
                                           std::optional<std::chrono::milliseconds> timeout) const {
  const std::vector<sh_path_step> steps = ToC(until.path);
  const std::string wire = until.value.ToWire();
  sh_entry_wait wait{};
  wait.kind = until.kind;
  wait.version = until.version;
  if (until.kind == SH_WAIT_VALUE) wait.value = ToC(wire);
  wait.path = steps.data();
  wait.steps = steps.size();
  wait.timeout_ms = SH_FOREVER;
  if (timeout) {
    wait.timeout_ms = static_cast<uint64_t>(std::max<int64_t>(timeout->count(), 0));
  }
  int met = 0;
  EntrySlot slot;
  return internal::Finish<EntryWaitOutcome>(
      [&](sh_error** e) {
        return sh_dict_wait(dict_.get(), ToC(key), &wait, &met, &slot.entry, e);
      },
      [&]() -> Result<EntryWaitOutcome> {
        Result<std::optional<Entry>> entry = FromC(slot.entry, key);
        if (!entry.ok()) return entry.error();
        return EntryWaitOutcome{met != 0, *std::move(entry)};
      });
}

template <EntryNumber T>
Result<T> Dict::Increment(std::string_view key, std::type_identity_t<T> delta,
                          const IncrementOptions<T>& options) {
  const internal::IncrementArguments<T> arguments(options);
  sh_number sum{};
  return internal::Finish<T>(
      [&](sh_error** e) {
        return sh_dict_increment(dict_.get(), ToC(key), internal::ToNumber(delta), arguments.get(),
                                 &sum, nullptr, e);
      },
      [&] { return internal::FromNumber<T>(sum); });
}

inline Result<EditOutcome> Dict::EditAt(std::string_view key, const Path& path, const Edit& edit) {
  const std::vector<sh_path_step> steps = ToC(path);
  const sh_edit c_edit = edit.ToC(steps);
  EntrySlot slot;
  EditOutcome outcome;
  return internal::Finish<EditOutcome>(
      [&](sh_error** e) {
        return sh_dict_edit(dict_.get(), ToC(key), &c_edit, &slot.entry, &outcome.length,
                            &outcome.version, e);
      },
      [&]() -> Result<EditOutcome> {
        if (slot.entry.found) {
          Result<Value> value = Value::FromWire(View(slot.entry.value));
          if (!value.ok()) return value.error();
          outcome.value = *std::move(value);
        }
        return std::move(outcome);
      });
}

inline Result<Outcome> Dict::Update(std::string_view key, const std::function<void(Value&)>& change,
                                    int attempts_max) {
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    Result<std::optional<Entry>> entry = GetEntry(key);
    if (!entry.ok()) return entry.error();
    Value value = entry->has_value() ? std::move((*entry)->value) : Value();
    WriteOptions options;
    options.condition = Condition::Version(entry->has_value() ? (*entry)->version : 0);
    if (entry->has_value()) options.ttl = Ttl::Keep();
    change(value);
    Result<Outcome> outcome = Set(key, value, options);
    if (!outcome.ok() || outcome->applied) return outcome;
  }
  return Error(SH_CONFLICT,
               "dict \"" + name() + "\": others changed the entry in each of " +
                   std::to_string(attempts_max) + " tries",
               name(), true);
}

inline Result<TransactionOutcome> Dict::Transact(const Transaction& transaction) {
  std::vector<sh_compare> compares;
  for (const Transaction::Compare& compare : transaction.compares_) {
    compares.push_back({ToC(compare.key), compare.condition.ToC()});
  }
  const size_t longest = std::max(transaction.then_.size(), transaction.otherwise_.size());
  std::vector<sh_write_options> options;
  options.reserve(transaction.then_.size() + transaction.otherwise_.size());
  const auto to_c = [&](const std::vector<Transaction::Step>& steps) {
    std::vector<sh_step> result;
    for (const Transaction::Step& step : steps) {
      options.push_back(step.options.ToC());
      sh_step c_step{};
      c_step.kind = step.kind;
      c_step.key = ToC(step.key);
      c_step.value = ToC(step.wire);
      c_step.options = &options.back();
      c_step.delta = step.delta;
      result.push_back(c_step);
    }
    return result;
  };
  const std::vector<sh_step> then = to_c(transaction.then_);
  const std::vector<sh_step> otherwise = to_c(transaction.otherwise_);
  const sh_transaction c_transaction = {compares.data(), compares.size(),  then.data(),
                                        then.size(),     otherwise.data(), otherwise.size()};
  TransactionOutcome outcome;
  outcome.versions.resize(longest);
  int compared = 0;
  EntriesSlot slot;
  return internal::Finish<TransactionOutcome>(
      [&](sh_error** e) {
        return sh_dict_transact(dict_.get(), &c_transaction, &compared, &slot.entries,
                                outcome.versions.data(), e);
      },
      [&]() -> Result<TransactionOutcome> {
        Result<std::vector<std::optional<Entry>>> results = FromC(slot.entries);
        if (!results.ok()) return results.error();
        outcome.compared = compared != 0;
        outcome.results = *std::move(results);
        outcome.versions.resize(outcome.results.size());
        return std::move(outcome);
      });
}

inline Result<Done> Dict::Scan(std::string_view prefix,
                               const std::function<bool(Entry)>& take) const {
  struct CursorSlot {
    ~CursorSlot() { sh_cursor_free(&cursor); }
    sh_cursor cursor{};
  } cursor;
  EntriesSlot slot;
  while (cursor.cursor.done == 0) {
    internal::ErrorSlot error;
    const sh_reason reason =
        sh_dict_scan(dict_.get(), ToC(prefix), 0, &cursor.cursor, &slot.entries, error.out());
    if (reason != SH_OK) return error.Take(reason);
    for (size_t i = 0; i < slot.entries.count; ++i) {
      const sh_entry& from = slot.entries.items[i];
      Result<std::optional<Entry>> entry = FromC(from, View(from.key));
      if (!entry.ok()) return entry.error();
      if (entry->has_value() && !take(*std::move(*entry))) return Done();
    }
  }
  return Done();
}

inline Result<uint64_t> Dict::Clear() {
  uint64_t deleted = 0;
  return internal::Finish<uint64_t>(
      [&](sh_error** e) { return sh_dict_clear(dict_.get(), &deleted, e); },
      [&] { return deleted; });
}

inline Result<uint64_t> Dict::DeletePrefix(std::string_view prefix) {
  uint64_t deleted = 0;
  return internal::Finish<uint64_t>(
      [&](sh_error** e) { return sh_dict_delete_prefix(dict_.get(), ToC(prefix), &deleted, e); },
      [&] { return deleted; });
}

}  // namespace statehouse::client
