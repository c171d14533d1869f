// Batch: operations that are noted one by one and carried out together. Part of client.hpp.
//
//   Batch batch = client.NewBatch();
//   Noted<int64_t> hits = batch.Increment(dict, "hits");
//   Noted<Outcome> last = batch.Set(dict, "last", "now");
//   if (Result<Done> ran = batch.Run(); !ran.ok()) return Report(ran.error());
//   std::cout << hits.value() << '\n';
//
// What a batch is, when it is sent again and what its limits are is told in batch.h.
#pragma once

#include <statehouse/batch.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <statehouse/area.hpp>
#include <statehouse/dict.hpp>
#include <statehouse/lock.hpp>
#include <statehouse/noted.hpp>
#include <statehouse/result.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statehouse::client {

// Who owns it: whoever holds it; it is moved, not copied. Threads: one at a time. Failure: what is
// wrong with an argument is the noted operation's result at once, and Run's too; use of a Batch
// that was moved from or ended is SH_INVALID_ARGUMENT. It ends with its object, whatever operations
// of it are kept: what they gave is to be read before.
class Batch final {
 public:
  struct Options {
    bool stop_at_failure = false;  // Carry out nothing behind the first operation that is refused.
  };

  Batch(Batch&&) = default;
  Batch& operator=(Batch other) {  // Ends what it was.
    std::swap(state_, other.state_);
    std::swap(refused_, other.refused_);
    return *this;
  }
  ~Batch() { End(); }

  size_t count() const { return state_ == nullptr ? 0 : sh_batch_count(state_->batch); }
  // Carries out what was noted. The error of the first operation that was refused, at noting or
  // when it was run; all have their own results. Where one was refused at noting nothing is run.
  Result<Done> Run();
  // Forgets what was noted, and results.
  void Clear();
  // The same, for ever.
  void End();

  // Dicts; see dict.hpp. T as for Dict::Get.
  template <typename T = Value>
  Noted<std::optional<T>> Get(const Dict& dict, std::string_view key);
  Noted<std::optional<Entry>> GetEntry(const Dict& dict, std::string_view key,
                                       const Path& path = {});
  Noted<Outcome> Set(Dict& dict, std::string_view key, const Value& value,
                     const WriteOptions& options = {});
  // Sets, and gives the entry as it was before.
  Noted<std::optional<Entry>> Exchange(Dict& dict, std::string_view key, const Value& value,
                                       const WriteOptions& options = {});
  Noted<Outcome> Delete(Dict& dict, std::string_view key, const WriteOptions& options = {});
  Noted<std::optional<Entry>> Pop(Dict& dict, std::string_view key);
  Noted<Outcome> Touch(Dict& dict, std::string_view key, Ttl ttl);
  template <EntryNumber T = int64_t>
  Noted<T> Increment(Dict& dict, std::string_view key, std::type_identity_t<T> delta = 1);
  template <EntryNumber T = int64_t>
  Noted<T> Increment(Dict& dict, std::string_view key, std::type_identity_t<T> delta,
                     const IncrementOptions<T>& options);
  Noted<EditOutcome> EditAt(Dict& dict, std::string_view key, const Path& path, const Edit& edit);
  Noted<std::vector<std::optional<Entry>>> GetMany(const Dict& dict,
                                                   const std::vector<std::string>& keys,
                                                   bool consistent = false);
  Noted<std::vector<uint64_t>> SetMany(Dict& dict,
                                       const std::vector<std::pair<std::string, Value>>& entries,
                                       Ttl ttl = {}, uint64_t fence = 0);
  Noted<uint64_t> Length(const Dict& dict);
  Noted<uint64_t> ClearDict(Dict& dict);
  Noted<uint64_t> DeletePrefix(Dict& dict, std::string_view prefix);

  // Areas; see area.hpp.
  template <Word T>
  Noted<T> Load(const Area& area, uint64_t pos);
  template <Word T>
  Noted<Done> Store(Area& area, uint64_t pos, std::type_identity_t<T> value, uint64_t fence = 0);
  template <Word T>
  Noted<T> Add(Area& area, uint64_t pos, int64_t delta = 1, uint64_t fence = 0);
  template <Word T>
  Noted<client::Exchange<T>> CompareExchange(Area& area, uint64_t pos,
                                             std::type_identity_t<T> expected,
                                             std::type_identity_t<T> desired, uint64_t fence = 0);
  template <Word T>
  Noted<T> BitwiseAnd(Area& area, uint64_t pos, std::type_identity_t<T> operand,
                      uint64_t fence = 0) {
    return Bitwise<T>(area, SH_AND, pos, operand, fence);
  }
  template <Word T>
  Noted<T> BitwiseOr(Area& area, uint64_t pos, std::type_identity_t<T> operand,
                     uint64_t fence = 0) {
    return Bitwise<T>(area, SH_OR, pos, operand, fence);
  }
  template <Word T>
  Noted<T> BitwiseXor(Area& area, uint64_t pos, std::type_identity_t<T> operand,
                      uint64_t fence = 0) {
    return Bitwise<T>(area, SH_XOR, pos, operand, fence);
  }
  Noted<std::vector<std::byte>> Read(const Area& area, uint64_t pos, uint64_t len);
  Noted<Done> Write(Area& area, uint64_t pos, std::span<const std::byte> bytes, uint64_t fence = 0);
  Noted<Done> Fill(Area& area, uint64_t pos, uint64_t len, std::byte value, uint64_t fence = 0);

  // Tries for a lock; empty: it was not had. The result is given once.
  Noted<std::optional<Lock>> TryLock(const std::string& name, const LockOptions& options = {});
  // Gives a lock back: true where it was held until now. `lock` holds nothing from then on, unless
  // this is refused at noting.
  Noted<bool> Release(Lock& lock);
  // The lock of a Release that was not carried out. Errors: SH_INVALID_ARGUMENT where it was.
  Result<Lock> TakeBack(const Noted<bool>& release);

 private:
  friend class Client;
  explicit Batch(sh_batch* batch) : state_(std::make_shared<internal::BatchState>(batch)) {}

  template <typename T, typename Note, typename Reader>
  Noted<T> Noting(const Note& note, Reader read);
  template <Word T>
  Noted<T> Bitwise(Area& area, sh_bitwise_operator op, uint64_t pos, T operand, uint64_t fence);
  template <Word T>
  static Result<T> ReadWord(sh_batch* batch, size_t index);
  static Result<Outcome> ReadOutcome(sh_batch* batch, size_t index);
  static Result<uint64_t> ReadCount(sh_batch* batch, size_t index);
  static Result<Done> ReadDone(sh_batch* batch, size_t index);
  template <EntryNumber T>
  static Result<T> ReadNumber(sh_batch* batch, size_t index);
  static auto ReadEntry(std::string key);
  static Lock Own(internal::BatchState* state, size_t index, sh_lock* lock);

  std::shared_ptr<internal::BatchState> state_;
  std::optional<Error> refused_;  // The first that was at noting.
};

inline Result<Done> Batch::Run() {
  if (state_ == nullptr || state_->batch == nullptr) {
    return internal::NoResult("batch: it was ended or moved from; make another one");
  }
  if (refused_.has_value()) return *refused_;
  state_->was_run = true;
  return internal::Finish<Done>(
      [&](sh_error** e) { return sh_batch_run(state_->batch, nullptr, e); }, [] { return Done(); });
}

inline void Batch::Clear() {
  refused_.reset();
  if (state_ == nullptr) return;
  sh_batch_clear(state_->batch);
  state_->leases.clear();
  state_->looked_at.clear();
  state_->was_run = false;
  ++state_->round;
}

inline void Batch::End() {
  Clear();
  if (state_ == nullptr) return;
  sh_batch_end(std::exchange(state_->batch, nullptr));
}

template <typename T, typename Note, typename Reader>
Noted<T> Batch::Noting(const Note& note, Reader read) {
  if (state_ == nullptr || state_->batch == nullptr) {
    return Noted<T>(internal::NoResult("batch: it was ended or moved from; make another one"));
  }
  if (state_->was_run) Clear();
  size_t index = 0;
  internal::ErrorSlot slot;
  const sh_reason reason = note(state_->batch, &index, slot.out());
  if (reason == SH_OK) return Noted<T>(state_, index, std::move(read));
  const Error refused = slot.Take(reason);
  if (!refused_.has_value()) refused_ = refused;
  return Noted<T>(refused);
}

inline Result<Outcome> Batch::ReadOutcome(sh_batch* batch, size_t index) {
  sh_outcome outcome{};
  return internal::Finish<Outcome>(
      [&](sh_error** e) { return sh_batch_result_outcome(batch, index, &outcome, e); },
      [&] {
        return Outcome{outcome.applied != 0, outcome.version};
      });
}

inline Result<uint64_t> Batch::ReadCount(sh_batch* batch, size_t index) {
  uint64_t count = 0;
  return internal::Finish<uint64_t>(
      [&](sh_error** e) { return sh_batch_result_count(batch, index, &count, e); },
      [&] { return count; });
}

inline Result<Done> Batch::ReadDone(sh_batch* batch, size_t index) {
  return internal::Finish<Done>([&](sh_error** e) { return sh_batch_result(batch, index, e); },
                                [] { return Done(); });
}

template <Word T>
Result<T> Batch::ReadWord(sh_batch* batch, size_t index) {
  uint64_t word = 0;
  return internal::Finish<T>(
      [&](sh_error** e) { return sh_batch_result_word(batch, index, &word, e); },
      [&] { return static_cast<T>(word); });
}

template <EntryNumber T>
Result<T> Batch::ReadNumber(sh_batch* batch, size_t index) {
  sh_number sum{};
  return internal::Finish<T>(
      [&](sh_error** e) { return sh_batch_result_number(batch, index, &sum, nullptr, e); },
      [&] { return internal::FromNumber<T>(sum); });
}

inline auto Batch::ReadEntry(std::string key) {
  return [key = std::move(key)](sh_batch* batch, size_t index) {
    const sh_entry* entry = nullptr;
    return internal::Finish<std::optional<Entry>>(
        [&](sh_error** e) { return sh_batch_result_entry(batch, index, &entry, e); },
        [&] { return Dict::FromC(*entry, key); });
  };
}

template <typename T>
Noted<std::optional<T>> Batch::Get(const Dict& dict, std::string_view key) {
  const auto read = [name = dict.name()](sh_batch* batch,
                                         size_t index) -> Result<std::optional<T>> {
    const sh_entry* entry = nullptr;
    internal::ErrorSlot slot;
    const sh_reason reason = sh_batch_result_entry(batch, index, &entry, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    if (!entry->found) return std::optional<T>();
    Result<Value> value = Value::FromWire(Dict::View(entry->value));
    if (!value.ok()) return value.error();
    std::optional<T> typed = value->template As<T>();
    if (typed.has_value()) return typed;
    return Error(SH_TYPE_MISMATCH,
                 "dict \"" + name + "\": the value is of another kind than asked for", name, false);
  };
  return Noting<std::optional<T>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_get(batch, dict.dict_.get(), Dict::ToC(key), index, e);
      },
      read);
}

inline Noted<std::optional<Entry>> Batch::GetEntry(const Dict& dict, std::string_view key,
                                                   const Path& path) {
  const std::vector<sh_path_step> steps = Dict::ToC(path);
  return Noting<std::optional<Entry>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_get_entry(batch, dict.dict_.get(), Dict::ToC(key), steps.data(),
                                       steps.size(), index, e);
      },
      ReadEntry(std::string(key)));
}

inline Noted<Outcome> Batch::Set(Dict& dict, std::string_view key, const Value& value,
                                 const WriteOptions& options) {
  const std::string wire = value.ToWire();
  const sh_write_options c_options = options.ToC();
  return Noting<Outcome>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_set(batch, dict.dict_.get(), Dict::ToC(key), Dict::ToC(wire),
                                 &c_options, 0, index, e);
      },
      &ReadOutcome);
}

inline Noted<std::optional<Entry>> Batch::Exchange(Dict& dict, std::string_view key,
                                                   const Value& value,
                                                   const WriteOptions& options) {
  const std::string wire = value.ToWire();
  const sh_write_options c_options = options.ToC();
  return Noting<std::optional<Entry>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_set(batch, dict.dict_.get(), Dict::ToC(key), Dict::ToC(wire),
                                 &c_options, 1, index, e);
      },
      ReadEntry(std::string(key)));
}

inline Noted<Outcome> Batch::Delete(Dict& dict, std::string_view key, const WriteOptions& options) {
  const sh_write_options c_options = options.ToC();
  return Noting<Outcome>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_delete(batch, dict.dict_.get(), Dict::ToC(key), &c_options, 0, index,
                                    e);
      },
      &ReadOutcome);
}

inline Noted<std::optional<Entry>> Batch::Pop(Dict& dict, std::string_view key) {
  return Noting<std::optional<Entry>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_delete(batch, dict.dict_.get(), Dict::ToC(key), nullptr, 1, index, e);
      },
      ReadEntry(std::string(key)));
}

inline Noted<Outcome> Batch::Touch(Dict& dict, std::string_view key, Ttl ttl) {
  return Noting<Outcome>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_touch(batch, dict.dict_.get(), Dict::ToC(key), ttl.ms(), index, e);
      },
      &ReadOutcome);
}

template <EntryNumber T>
Noted<T> Batch::Increment(Dict& dict, std::string_view key, std::type_identity_t<T> delta) {
  return Noting<T>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_increment(batch, dict.dict_.get(), Dict::ToC(key),
                                       internal::ToNumber<T>(delta), nullptr, index, e);
      },
      &ReadNumber<T>);
}

template <EntryNumber T>
Noted<T> Batch::Increment(Dict& dict, std::string_view key, std::type_identity_t<T> delta,
                          const IncrementOptions<T>& options) {
  const internal::IncrementArguments<T> arguments(options);
  return Noting<T>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_increment(batch, dict.dict_.get(), Dict::ToC(key),
                                       internal::ToNumber<T>(delta), arguments.get(), index, e);
      },
      &ReadNumber<T>);
}

inline Noted<EditOutcome> Batch::EditAt(Dict& dict, std::string_view key, const Path& path,
                                        const Edit& edit) {
  const std::vector<sh_path_step> steps = Dict::ToC(path);
  const sh_edit c_edit = edit.ToC(steps);
  const auto read = [](sh_batch* batch, size_t index) -> Result<EditOutcome> {
    const sh_entry* entry = nullptr;
    EditOutcome outcome;
    internal::ErrorSlot slot;
    const sh_reason reason = sh_batch_result_entry(batch, index, &entry, slot.out());
    if (reason != SH_OK) return slot.Take(reason);
    (void)sh_batch_result_count(batch, index, &outcome.length, nullptr);
    outcome.version = entry->version;
    if (entry->found) {
      Result<Value> value = Value::FromWire(Dict::View(entry->value));
      if (!value.ok()) return value.error();
      outcome.value = *std::move(value);
    }
    return outcome;
  };
  return Noting<EditOutcome>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_edit(batch, dict.dict_.get(), Dict::ToC(key), &c_edit, index, e);
      },
      read);
}

inline Noted<std::vector<std::optional<Entry>>> Batch::GetMany(const Dict& dict,
                                                               const std::vector<std::string>& keys,
                                                               bool consistent) {
  std::vector<sh_bytes> c_keys;
  for (const std::string& key : keys) c_keys.push_back(Dict::ToC(key));
  const auto read = [](sh_batch* batch, size_t index) {
    const sh_entries* entries = nullptr;
    return internal::Finish<std::vector<std::optional<Entry>>>(
        [&](sh_error** e) { return sh_batch_result_entries(batch, index, &entries, e); },
        [&] { return Dict::FromC(*entries); });
  };
  return Noting<std::vector<std::optional<Entry>>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_get_many(batch, dict.dict_.get(), c_keys.data(), c_keys.size(),
                                      consistent ? 1 : 0, index, e);
      },
      read);
}

inline Noted<std::vector<uint64_t>> Batch::SetMany(
    Dict& dict, const std::vector<std::pair<std::string, Value>>& entries, Ttl ttl,
    uint64_t fence) {
  std::vector<std::string> wires;
  std::vector<sh_bytes> keys;
  std::vector<sh_bytes> values;
  for (const auto& [key, value] : entries) wires.push_back(value.ToWire());
  for (size_t i = 0; i < entries.size(); ++i) {
    keys.push_back(Dict::ToC(entries[i].first));
    values.push_back(Dict::ToC(wires[i]));
  }
  sh_write_options options{};
  options.ttl_ms = ttl.ms();
  options.fence = fence;
  const auto read = [](sh_batch* batch, size_t index) {
    const uint64_t* versions = nullptr;
    size_t count = 0;
    return internal::Finish<std::vector<uint64_t>>(
        [&](sh_error** e) { return sh_batch_result_versions(batch, index, &versions, &count, e); },
        [&] { return std::vector<uint64_t>(versions, versions + count); });
  };
  return Noting<std::vector<uint64_t>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_set_many(batch, dict.dict_.get(), keys.data(), values.data(),
                                      keys.size(), &options, index, e);
      },
      read);
}

inline Noted<uint64_t> Batch::Length(const Dict& dict) {
  return Noting<uint64_t>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_length(batch, dict.dict_.get(), index, e);
      },
      &ReadCount);
}

inline Noted<uint64_t> Batch::ClearDict(Dict& dict) {
  return Noting<uint64_t>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_clear(batch, dict.dict_.get(), index, e);
      },
      &ReadCount);
}

inline Noted<uint64_t> Batch::DeletePrefix(Dict& dict, std::string_view prefix) {
  return Noting<uint64_t>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_dict_delete_prefix(batch, dict.dict_.get(), Dict::ToC(prefix), index, e);
      },
      &ReadCount);
}

template <Word T>
Noted<T> Batch::Load(const Area& area, uint64_t pos) {
  return Noting<T>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_load(batch, area.area_.get(), WordTypeOf<T>(), pos, index, e);
      },
      &ReadWord<T>);
}

template <Word T>
Noted<Done> Batch::Store(Area& area, uint64_t pos, std::type_identity_t<T> value, uint64_t fence) {
  return Noting<Done>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_store(batch, area.area_.get(), WordTypeOf<T>(), pos,
                                   Area::Widen(value), fence, index, e);
      },
      &ReadDone);
}

template <Word T>
Noted<T> Batch::Add(Area& area, uint64_t pos, int64_t delta, uint64_t fence) {
  return Noting<T>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_add(batch, area.area_.get(), WordTypeOf<T>(), pos, delta, fence, index,
                                 e);
      },
      &ReadWord<T>);
}

template <Word T>
Noted<client::Exchange<T>> Batch::CompareExchange(Area& area, uint64_t pos,
                                                  std::type_identity_t<T> expected,
                                                  std::type_identity_t<T> desired, uint64_t fence) {
  const auto read = [](sh_batch* batch, size_t index) {
    int exchanged = 0;
    uint64_t found = 0;
    return internal::Finish<client::Exchange<T>>(
        [&](sh_error** e) { return sh_batch_result_exchange(batch, index, &exchanged, &found, e); },
        [&] {
          return client::Exchange<T>{exchanged != 0, static_cast<T>(found)};
        });
  };
  return Noting<client::Exchange<T>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_compare_exchange(batch, area.area_.get(), WordTypeOf<T>(), pos,
                                              Area::Widen(expected), Area::Widen(desired), fence,
                                              index, e);
      },
      read);
}

template <Word T>
Noted<T> Batch::Bitwise(Area& area, sh_bitwise_operator op, uint64_t pos, T operand,
                        uint64_t fence) {
  return Noting<T>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_bitwise(batch, area.area_.get(), op, WordTypeOf<T>(), pos,
                                     Area::Widen(operand), fence, index, e);
      },
      &ReadWord<T>);
}

inline Noted<std::vector<std::byte>> Batch::Read(const Area& area, uint64_t pos, uint64_t len) {
  const auto read = [](sh_batch* batch, size_t index) {
    sh_bytes bytes{};
    return internal::Finish<std::vector<std::byte>>(
        [&](sh_error** e) { return sh_batch_result_bytes(batch, index, &bytes, e); },
        [&] {
          const auto* const first = static_cast<const std::byte*>(bytes.data);
          return std::vector<std::byte>(first, first + bytes.size);
        });
  };
  return Noting<std::vector<std::byte>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_read(batch, area.area_.get(), pos, len, index, e);
      },
      read);
}

inline Noted<Done> Batch::Write(Area& area, uint64_t pos, std::span<const std::byte> bytes,
                                uint64_t fence) {
  return Noting<Done>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_write(batch, area.area_.get(), pos, bytes.data(), bytes.size(), fence,
                                   index, e);
      },
      &ReadDone);
}

inline Noted<Done> Batch::Fill(Area& area, uint64_t pos, uint64_t len, std::byte value,
                               uint64_t fence) {
  return Noting<Done>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_area_fill(batch, area.area_.get(), pos, len, static_cast<uint8_t>(value),
                                  fence, index, e);
      },
      &ReadDone);
}

inline Noted<std::optional<Lock>> Batch::TryLock(const std::string& name,
                                                 const LockOptions& options) {
  auto lease = std::make_unique<Lock::Lease>();
  lease->on_lost = options.on_lost;
  sh_lock_options c_options = options.ToC();
  c_options.on_lost = &Lock::Lease::Tell;
  c_options.context = lease.get();
  // Means 1 in the C interface.
  if (options.limit == 0) c_options.mode = static_cast<sh_lock_mode>(-1);
  const auto read = [state = state_.get()](sh_batch* batch, size_t index) {
    sh_lock* lock = nullptr;
    return internal::Finish<std::optional<Lock>>(
        [&](sh_error** e) { return sh_batch_result_lock(batch, index, &lock, e); },
        [&]() -> std::optional<Lock> {
          if (lock == nullptr) return std::nullopt;
          return Own(state, index, lock);
        });
  };
  Noted<std::optional<Lock>> noted = Noting<std::optional<Lock>>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_lock_try(batch, name.c_str(), &c_options, index, e);
      },
      read);
  if (noted.index() != SIZE_MAX) state_->leases[noted.index()] = std::move(lease);
  return noted;
}

// The lock that the C batch gave out, with its lease.
inline Lock Batch::Own(internal::BatchState* state, size_t index, sh_lock* lock) {
  std::unique_ptr<Lock::Lease> lease = std::move(state->leases[index]);
  lease->lock = lock;
  return Lock(std::move(lease));
}

inline Noted<bool> Batch::Release(Lock& lock) {
  const auto read = [](sh_batch* batch, size_t index) {
    int held = 0;
    return internal::Finish<bool>(
        [&](sh_error** e) { return sh_batch_result_released(batch, index, &held, e); },
        [&] { return held != 0; });
  };
  Noted<bool> noted = Noting<bool>(
      [&](sh_batch* batch, size_t* index, sh_error** e) {
        return sh_batch_lock_release(batch, lock.lease_ ? lock.lease_->lock : nullptr, index, e);
      },
      read);
  if (noted.index() == SIZE_MAX) return noted;
  lock.lease_->lock = nullptr;  // The batch's.
  state_->leases[noted.index()] = std::move(lock.lease_);
  return noted;
}

inline Result<Lock> Batch::TakeBack(const Noted<bool>& release) {
  if (state_ == nullptr || release.state_ != state_ || release.round_ != state_->round) {
    return internal::NoResult("batch: it has no such operation any more");
  }
  sh_lock* lock = nullptr;
  return internal::Finish<Lock>(
      [&](sh_error** e) { return sh_batch_result_lock(state_->batch, release.index_, &lock, e); },
      [&] { return Own(state_.get(), release.index_, lock); });
}

}  // namespace statehouse::client
