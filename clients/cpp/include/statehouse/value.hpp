// Value: what an entry of a dict holds, as a C++ value. Part of client.hpp.
//
//   Value value = Map{{"web", Map{{"ports", List{80, 443}}}}, {"on", true}};
//   value.Find("on")->IfBool()                      // A pointer to true.
//
// Null, bool, int64, double, text, bytes, lists and maps are C++ values. The other kinds (big ints,
// timestamps, tensors, tagged values) are kept as the bytes that they are on the wire.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <optional>
#include <statehouse/result.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace statehouse::client {

class Value;

// Bytes that are no text.
struct Bytes {
  std::string data;
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

using List = std::vector<Value>;

// Values by key, in the order in which the keys were inserted.
class Map final {
 public:
  using Entry = std::pair<std::string, Value>;

  Map();
  // A key that comes twice keeps its first place and its last value.
  Map(std::initializer_list<Entry> entries);

  size_t size() const;
  std::vector<Entry>::const_iterator begin() const;
  std::vector<Entry>::const_iterator end() const;
  // Null where there is no such key.
  const Value* Find(std::string_view key) const;
  // Adds the key with null where it is missing.
  Value& operator[](std::string_view key);
  // In any order.
  friend bool operator==(const Map& a, const Map& b);

 private:
  friend class Value;
  std::vector<Entry> entries_;
};

// A value of a kind that has no C++ type here.
struct OpaqueValue {
  std::string wire;
  friend bool operator==(const OpaqueValue&, const OpaqueValue&) = default;
};

class Value final {
 public:
  Value() = default;                                          // Null.
  Value(std::nullptr_t) {}                                    // NOLINT: implicit
  Value(bool is) : held_(is) {}                               // NOLINT: implicit
  Value(double real) : held_(real) {}                         // NOLINT: implicit
  Value(std::string text) : held_(std::move(text)) {}         // NOLINT: implicit
  Value(std::string_view text) : held_(std::string(text)) {}  // NOLINT: implicit
  Value(const char* text) : held_(std::string(text)) {}       // NOLINT: implicit
  Value(Bytes bytes) : held_(std::move(bytes)) {}             // NOLINT: implicit
  Value(List list) : held_(std::move(list)) {}                // NOLINT: implicit
  Value(Map map) : held_(std::move(map)) {}                   // NOLINT: implicit
  // Whole numbers that always fit 64 bits with a sign.
  template <std::integral T>
  requires(!std::same_as<T, bool> && (std::signed_integral<T> || sizeof(T) < 8)) Value(T number)
      : held_(static_cast<int64_t>(number)) {}  // NOLINT: implicit

  // SH_VALUE_INVALID for bytes that are no value.
  static Result<Value> FromWire(std::string_view wire);
  static Result<Value> FromJson(std::string_view json);
  std::string ToWire() const;
  // SH_VALUE_INVALID where the value is too deep or too large.
  Result<std::string> ToJson() const;

  sh_value_kind kind() const;
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(held_); }

  // Null where the value is of another kind.
  const bool* IfBool() const { return std::get_if<bool>(&held_); }
  const int64_t* IfInt() const { return std::get_if<int64_t>(&held_); }
  const double* IfDouble() const { return std::get_if<double>(&held_); }
  const std::string* IfString() const { return std::get_if<std::string>(&held_); }
  const Bytes* IfBytes() const { return std::get_if<Bytes>(&held_); }
  const List* IfList() const { return std::get_if<List>(&held_); }
  List* IfList() { return std::get_if<List>(&held_); }
  const Map* IfMap() const { return std::get_if<Map>(&held_); }
  Map* IfMap() { return std::get_if<Map>(&held_); }
  const OpaqueValue* IfOpaque() const { return std::get_if<OpaqueValue>(&held_); }

  // Inside a map or a list; null where this is none, or has no such key or position.
  const Value* Find(std::string_view key) const {
    return IfMap() != nullptr ? IfMap()->Find(key) : nullptr;
  }
  const Value* At(size_t position) const {
    const List* const list = IfList();
    return list != nullptr && position < list->size() ? &(*list)[position] : nullptr;
  }

  // The value as a T, where it is one.
  template <typename T>
  std::optional<T> As() const {
    if constexpr (std::same_as<T, Value>) {
      return *this;
    } else {
      const T* const held = std::get_if<T>(&held_);
      return held == nullptr ? std::nullopt : std::optional<T>(*held);
    }
  }

  friend bool operator==(const Value&, const Value&) = default;

 private:
  using Held = std::variant<std::nullptr_t, bool, int64_t, double, std::string, Bytes, List, Map,
                            OpaqueValue>;

  static void AppendVarint(uint64_t number, std::string* out);
  static void AppendField(char tag, std::string_view bytes, std::string* out);
  static bool TakeVarint(std::string_view* from, uint64_t* number);
  static bool TakeField(char tag, std::string_view* from, std::string_view* bytes);
  // REQUIRES: the library took the bytes for a value.
  static bool Parse(std::string_view wire, Value* value);
  static bool ParseMap(std::string_view entries, Map* map);
  void Append(std::string* out) const;

  Held held_;
};

// The tags of the wire form (docs/formats/value.md).
namespace internal {
inline constexpr char kNullTag = 0x08, kBoolTag = 0x10, kIntTag = 0x18, kFloatTag = 0x29,
                      kStringTag = 0x32, kBytesTag = 0x3a, kListTag = 0x42, kMapTag = 0x4a,
                      kFirstTag = 0x0a, kSecondTag = 0x12;
}  // namespace internal

inline Map::Map() = default;
inline size_t Map::size() const { return entries_.size(); }
inline std::vector<Map::Entry>::const_iterator Map::begin() const { return entries_.begin(); }
inline std::vector<Map::Entry>::const_iterator Map::end() const { return entries_.end(); }

inline Map::Map(std::initializer_list<Entry> entries) {
  for (const Entry& entry : entries) (*this)[entry.first] = entry.second;
}

inline const Value* Map::Find(std::string_view key) const {
  for (const Entry& entry : entries_) {
    if (entry.first == key) return &entry.second;
  }
  return nullptr;
}

inline Value& Map::operator[](std::string_view key) {
  for (Entry& entry : entries_) {
    if (entry.first == key) return entry.second;
  }
  return entries_.emplace_back(std::string(key), Value()).second;
}

inline bool operator==(const Map& a, const Map& b) {
  if (a.size() != b.size()) return false;
  for (const Map::Entry& entry : a) {
    const Value* const other = b.Find(entry.first);
    if (other == nullptr || !(*other == entry.second)) return false;
  }
  return true;
}

inline void Value::AppendVarint(uint64_t number, std::string* out) {
  for (; number >= 0x80; number >>= 7) out->push_back(static_cast<char>(number | 0x80));
  out->push_back(static_cast<char>(number));
}

inline void Value::AppendField(char tag, std::string_view bytes, std::string* out) {
  out->push_back(tag);
  AppendVarint(bytes.size(), out);
  out->append(bytes);
}

inline void Value::Append(std::string* out) const {
  using namespace internal;
  if (is_null()) {
    out->append({kNullTag, 0});
  } else if (const bool* is = IfBool()) {
    out->append({kBoolTag, static_cast<char>(*is)});
  } else if (const int64_t* number = IfInt()) {
    out->push_back(kIntTag);
    AppendVarint(static_cast<uint64_t>(*number), out);
  } else if (const double* real = IfDouble()) {
    out->push_back(kFloatTag);
    uint64_t bits = std::bit_cast<uint64_t>(*real);
    for (int i = 0; i < 8; ++i, bits >>= 8) out->push_back(static_cast<char>(bits));
  } else if (const std::string* text = IfString()) {
    AppendField(kStringTag, *text, out);
  } else if (const Bytes* bytes = IfBytes()) {
    AppendField(kBytesTag, bytes->data, out);
  } else if (const List* list = IfList()) {
    std::string items;
    for (const Value& item : *list) AppendField(kFirstTag, item.ToWire(), &items);
    AppendField(kListTag, items, out);
  } else if (const Map* map = IfMap()) {
    std::string entries;
    for (const Map::Entry& entry : *map) {
      std::string both;
      // An empty key is the default, which is not written.
      if (!entry.first.empty()) AppendField(kFirstTag, entry.first, &both);
      AppendField(kSecondTag, entry.second.ToWire(), &both);
      AppendField(kFirstTag, both, &entries);
    }
    AppendField(kMapTag, entries, out);
  } else {
    out->append(IfOpaque()->wire);
  }
}

inline std::string Value::ToWire() const {
  std::string wire;
  Append(&wire);
  return wire;
}

inline bool Value::TakeVarint(std::string_view* from, uint64_t* number) {
  *number = 0;
  for (int shift = 0; shift < 64 && !from->empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(from->front());
    from->remove_prefix(1);
    *number |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

inline bool Value::TakeField(char tag, std::string_view* from, std::string_view* bytes) {
  if (from->empty() || from->front() != tag) return false;
  from->remove_prefix(1);
  uint64_t length = 0;
  if (!TakeVarint(from, &length) || length > from->size()) return false;
  *bytes = from->substr(0, length);
  from->remove_prefix(length);
  return true;
}

inline bool Value::ParseMap(std::string_view entries, Map* map) {
  while (!entries.empty()) {
    std::string_view entry;
    std::string_view key;
    std::string_view wire;
    if (!TakeField(internal::kFirstTag, &entries, &entry)) return false;
    if (!entry.empty() && entry.front() == internal::kFirstTag &&
        !TakeField(internal::kFirstTag, &entry, &key)) {
      return false;
    }
    Value value;
    if (!TakeField(internal::kSecondTag, &entry, &wire) || !Parse(wire, &value)) return false;
    map->entries_.emplace_back(std::string(key), std::move(value));
  }
  return true;
}

inline bool Value::Parse(std::string_view wire, Value* value) {
  using namespace internal;
  if (wire.empty()) return false;
  const std::string_view all = wire;
  const char tag = wire.front();
  std::string_view bytes;
  uint64_t number = 0;
  switch (tag) {
    case kNullTag: *value = Value(); return true;
    case kBoolTag:
    case kIntTag:
      wire.remove_prefix(1);
      if (!TakeVarint(&wire, &number)) return false;
      *value = tag == kBoolTag ? Value(number != 0) : Value(static_cast<int64_t>(number));
      return true;
    case kFloatTag:
      if (wire.size() != 9) return false;
      for (int i = 8; i > 0; --i) number = number << 8 | static_cast<unsigned char>(wire[i]);
      *value = Value(std::bit_cast<double>(number));
      return true;
    case kStringTag:
    case kBytesTag:
      if (!TakeField(tag, &wire, &bytes)) return false;
      *value = tag == kStringTag ? Value(std::string(bytes)) : Value(Bytes{std::string(bytes)});
      return true;
    case kListTag: {
      List list;
      if (!TakeField(tag, &wire, &bytes)) return false;
      for (std::string_view item; !bytes.empty();) {
        if (!TakeField(kFirstTag, &bytes, &item) || !Parse(item, &list.emplace_back())) {
          return false;
        }
      }
      *value = std::move(list);
      return true;
    }
    case kMapTag: {
      Map map;
      if (!TakeField(tag, &wire, &bytes) || !ParseMap(bytes, &map)) return false;
      *value = std::move(map);
      return true;
    }
    default: value->held_ = OpaqueValue{std::string(all)}; return true;
  }
}

inline Result<Value> Value::FromWire(std::string_view wire) {
  // The library checks the bytes whole, nesting included; so Parse may take them at their word.
  internal::ErrorSlot slot;
  const sh_reason reason = sh_value_check({wire.data(), wire.size()}, slot.out());
  if (reason != SH_OK) return slot.Take(reason);
  Value value;
  if (Parse(wire, &value)) return value;
  return Error(SH_INTERNAL, "the library took bytes for a value that are none", "", false);
}

inline Result<Value> Value::FromJson(std::string_view json) {
  sh_buffer wire{};
  internal::ErrorSlot slot;
  const sh_reason reason = sh_value_from_json({json.data(), json.size()}, &wire, slot.out());
  if (reason != SH_OK) return slot.Take(reason);
  Value value;
  const bool parsed = Parse(std::string_view(wire.data, wire.size), &value);
  sh_buffer_free(&wire);
  if (parsed) return value;
  return Error(SH_INTERNAL, "the library made bytes that are no value", "", false);
}

inline Result<std::string> Value::ToJson() const {
  const std::string wire = ToWire();
  sh_buffer json{};
  internal::ErrorSlot slot;
  const sh_reason reason = sh_value_to_json({wire.data(), wire.size()}, &json, slot.out());
  if (reason != SH_OK) return slot.Take(reason);
  std::string text(json.data, json.size);
  sh_buffer_free(&json);
  return text;
}

inline sh_value_kind Value::kind() const {
  if (const OpaqueValue* opaque = IfOpaque()) {
    return sh_value_kind_of({opaque->wire.data(), opaque->wire.size()});
  }
  constexpr sh_value_kind kKinds[] = {SH_VALUE_NULL,  SH_VALUE_BOOL,   SH_VALUE_INT,
                                      SH_VALUE_FLOAT, SH_VALUE_STRING, SH_VALUE_BYTES,
                                      SH_VALUE_LIST,  SH_VALUE_MAP};
  return kKinds[held_.index()];
}

}  // namespace statehouse::client
