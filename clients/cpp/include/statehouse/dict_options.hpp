// What calls on a dict take and give: conditions, times to live, edits, transactions. Part of
// client.hpp.
#pragma once

#include <statehouse/dict.h>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <statehouse/value.hpp>
#include <string>
#include <utility>
#include <vector>

namespace statehouse::client {

// How to create a dict; what is not set has the service's default, or what a dict that exists has.
struct DictSpec {
  uint64_t max_entries = 0;
  uint64_t max_bytes = 0;
  std::chrono::milliseconds default_ttl{};
  bool evict = false;      // A full dict makes room instead of refusing.
  bool exclusive = false;  // Refuse a name that exists.

  sh_dict_spec ToC() const {
    sh_dict_spec spec{};
    spec.max_entries = max_entries;
    spec.max_bytes = max_bytes;
    spec.default_ttl_ms = static_cast<uint64_t>(default_ttl.count());
    spec.evict = evict ? 1 : 0;
    spec.exclusive = exclusive ? 1 : 0;
    return spec;
  }
};

// How long an entry lives. Without a word: the dict's default.
class Ttl final {
 public:
  Ttl() = default;
  // From now, rounded up to milliseconds, at least one.
  static Ttl For(std::chrono::nanoseconds time) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(time).count();
    return Ttl(ms < 1 ? 1 : static_cast<uint64_t>(ms));
  }
  static Ttl Forever() { return Ttl(SH_FOREVER); }
  static Ttl Keep() { return Ttl(SH_TTL_KEEP); }  // That of the entry which is replaced.
  uint64_t ms() const { return ms_; }

 private:
  explicit Ttl(uint64_t ms) : ms_(ms) {}
  uint64_t ms_ = SH_TTL_DEFAULT;
};

// What an entry must be for a mutation to happen. Without a word: anything.
class Condition final {
 public:
  Condition() = default;
  static Condition Absent() { return Condition(SH_IF_ABSENT, 0, {}); }
  static Condition Present() { return Condition(SH_IF_PRESENT, 0, {}); }
  static Condition Version(uint64_t version) { return Condition(SH_IF_VERSION, version, {}); }
  static Condition Holds(const Value& value) { return Condition(SH_IF_VALUE, 0, value.ToWire()); }
  // Borrows from this.
  sh_condition ToC() const { return {kind_, version_, {wire_.data(), wire_.size()}}; }

 private:
  Condition(sh_condition_kind kind, uint64_t version, std::string wire)
      : kind_(kind), version_(version), wire_(std::move(wire)) {}
  sh_condition_kind kind_ = SH_IF_ANY;
  uint64_t version_ = 0;
  std::string wire_;
};

struct WriteOptions {
  Condition condition = {};
  Ttl ttl = {};
  uint64_t fence = 0;  // A fencing token; 0: none.
  // What is set ends with this client (sh_write_options): for what tells that somebody is there.
  bool bound = false;

  // Borrows from this.
  sh_write_options ToC() const { return {condition.ToC(), ttl.ms(), fence, bound ? 1 : 0}; }
};

// What a mutation did.
struct Outcome {
  bool applied = false;  // False: the condition did not hold.
  uint64_t version = 0;  // The entry's version now; 0: there is none.
};

struct Entry {
  std::string key;
  Value value;
  uint64_t version = 0;
  std::optional<std::chrono::milliseconds> ttl;  // How long it will live; empty: for ever.
  uint64_t fence = 0;
  uint64_t ordinal = 0;        // Grows in the order in which keys were inserted.
  uint64_t bound_session = 0;  // The session that it ends with; 0: it is not bound.
};

// A step into a value: a key of a map, or a position of a list (-1 is the last).
class PathStep final {
 public:
  PathStep(const char* key) : key_(key) {}             // NOLINT: implicit
  PathStep(std::string key) : key_(std::move(key)) {}  // NOLINT: implicit
  template <std::integral T>
  PathStep(T index) : is_index_(true), index_(static_cast<int64_t>(index)) {}  // NOLINT: implicit
  // Borrows from this.
  sh_path_step ToC() const { return {is_index_ ? 1 : 0, {key_.data(), key_.size()}, index_}; }

 private:
  std::string key_;
  bool is_index_ = false;
  int64_t index_ = 0;
};
using Path = std::vector<PathStep>;

// One change inside a value; docs at sh_edit_kind.
class Edit final {
 public:
  static Edit Set(const Value& value) { return Edit(SH_EDIT_SET, value.ToWire()); }
  static Edit Delete() { return Edit(SH_EDIT_DELETE, ""); }
  static Edit Append(const Value& value) { return Edit(SH_EDIT_APPEND, value.ToWire()); }
  static Edit Extend(List values) {
    return Edit(SH_EDIT_EXTEND, Value(std::move(values)).ToWire());
  }
  static Edit Insert(int64_t position, const Value& value) {
    return Edit(SH_EDIT_INSERT, value.ToWire(), position);
  }
  static Edit Pop() { return Edit(SH_EDIT_POP, ""); }
  static Edit Remove(const Value& value) { return Edit(SH_EDIT_REMOVE, value.ToWire()); }
  static Edit Merge(Map map) { return Edit(SH_EDIT_MERGE, Value(std::move(map)).ToWire()); }
  static Edit Clear() { return Edit(SH_EDIT_CLEAR, ""); }
  static Edit Slice(int64_t start, int64_t stop, List values) {
    return Edit(SH_EDIT_SLICE, Value(std::move(values)).ToWire(), start, stop);
  }
  static Edit SetDefault(const Value& value) { return Edit(SH_EDIT_SET_DEFAULT, value.ToWire()); }
  static Edit AppendString(std::string text) {
    return Edit(SH_EDIT_APPEND_STRING, std::move(text));
  }
  static Edit AppendBytes(std::string bytes) {
    return Edit(SH_EDIT_APPEND_BYTES, std::move(bytes));
  }

  // Makes what is missing on the way, the entry too.
  Edit CreateParents() && {
    create_parents_ = true;
    return std::move(*this);
  }
  // SH_CONFLICT where the entry has another version.
  Edit IfVersion(uint64_t version) && {
    if_version_ = version;
    return std::move(*this);
  }
  Edit Fence(uint64_t fence) && {
    fence_ = fence;
    return std::move(*this);
  }

  // Borrows from this and the path.
  sh_edit ToC(const std::vector<sh_path_step>& path) const {
    sh_edit edit{};
    edit.kind = kind_;
    edit.path = path.data();
    edit.steps = path.size();
    edit.value = {value_.data(), value_.size()};
    edit.start = start_;
    edit.stop = stop_;
    edit.create_parents = create_parents_ ? 1 : 0;
    edit.if_version = if_version_;
    edit.fence = fence_;
    return edit;
  }

 private:
  Edit(sh_edit_kind kind, std::string value, int64_t start = 0, int64_t stop = 0)
      : kind_(kind), value_(std::move(value)), start_(start), stop_(stop) {}
  sh_edit_kind kind_;
  std::string value_;
  int64_t start_;
  int64_t stop_;
  bool create_parents_ = false;
  uint64_t if_version_ = 0;
  uint64_t fence_ = 0;
};

struct EditOutcome {
  std::optional<Value> value;  // What Delete and Pop took, what SetDefault found or put.
  uint64_t length = 0;         // Of the list, map, string or bytes that was edited.
  uint64_t version = 0;        // The entry's version now.
};

template <typename T>
concept EntryNumber = std::same_as<T, int64_t> || std::same_as<T, double>;

template <EntryNumber T>
struct IncrementOptions {
  Path path = {};  // Where the number is inside the value.
  T initial = 0;   // What an absent number counts as.
  bool must_exist = false;
  std::optional<T> min = {};
  std::optional<T> max = {};
  Ttl ttl = {};  // Of an entry that the call creates.
  uint64_t fence = 0;
};

// A transaction: what must hold, and what to do then or otherwise.
//
//   Transaction move;
//   move.If("from", Condition::Present()).Increment("from", -1).Increment("to", 1);
//   auto result = dict.Transact(move);
class Transaction final {
 public:
  Transaction& If(std::string key, Condition condition) {
    compares_.push_back({std::move(key), std::move(condition)});
    return *this;
  }
  // What follows happens where something does not hold.
  Transaction& Otherwise() {
    list_ = &otherwise_;
    return *this;
  }
  Transaction& Get(std::string key) {
    return Add({SH_STEP_GET, std::move(key), "", {}, sh_int(0)});
  }
  Transaction& Set(std::string key, const Value& value, WriteOptions options = {}) {
    return Add({SH_STEP_SET, std::move(key), value.ToWire(), std::move(options), sh_int(0)});
  }
  Transaction& Delete(std::string key, WriteOptions options = {}) {
    return Add({SH_STEP_DELETE, std::move(key), "", std::move(options), sh_int(0)});
  }
  template <EntryNumber T>
  Transaction& Increment(std::string key, T delta) {
    if constexpr (std::same_as<T, double>) {
      return Add({SH_STEP_INCREMENT, std::move(key), "", {}, sh_double(delta)});
    } else {
      return Add({SH_STEP_INCREMENT, std::move(key), "", {}, sh_int(delta)});
    }
  }
  Transaction& Increment(std::string key, int delta = 1) {
    return Increment<int64_t>(std::move(key), delta);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  Transaction() = default;

 private:
  friend class Dict;
  struct Compare {
    std::string key;
    Condition condition;
  };
  struct Step {
    sh_step_kind kind;
    std::string key;
    std::string wire;
    WriteOptions options;
    sh_number delta;
  };
  Transaction& Add(Step step) {
    list_->push_back(std::move(step));
    return *this;
  }

  std::vector<Compare> compares_;
  std::vector<Step> then_;
  std::vector<Step> otherwise_;
  std::vector<Step>* list_ = &then_;
};

struct TransactionOutcome {
  bool compared = false;  // Everything held.
  // What each step gave: Get the entry, Set and Delete the entry before, Increment the number.
  std::vector<std::optional<Entry>> results;
  std::vector<uint64_t> versions;  // Each entry's version now.
};

// What Dict::Wait waits for. Default: an entry that is there. With a `path` it is about the part of
// the value there; versions belong to whole entries.
struct WaitUntil {
  static WaitUntil Present() { return {}; }
  static WaitUntil Absent() { return {SH_WAIT_ABSENT, 0, {}, {}}; }
  static WaitUntil VersionAbove(uint64_t version) {
    return {SH_WAIT_VERSION_ABOVE, version, {}, {}};
  }
  // Another version, or none; 0 stands for no entry.
  static WaitUntil VersionDiffers(uint64_t version) {
    return {SH_WAIT_VERSION_DIFFERS, version, {}, {}};
  }
  static WaitUntil Holds(Value value) { return {SH_WAIT_VALUE, 0, std::move(value), {}}; }

  sh_wait_kind kind = SH_WAIT_PRESENT;
  uint64_t version = 0;
  Value value = {};
  Path path = {};
};
struct EntryWaitOutcome {
  bool met = false;            // False: the time was over.
  std::optional<Entry> entry;  // As it was seen last; empty: there is none.
};

}  // namespace statehouse::client
