// CheckValue: one pass over the bytes, and a second one over the keys of each map.
#include <array>
#include <string>

#include "engine/value/key_index.h"
#include "engine/value/path.h"
#include "engine/value/value.h"
#include "engine/value/wire.h"

namespace statehouse {
namespace {

using internal::WireReader;

// The shortest two's complement of a number outside int64.
bool IsBigInt(std::string_view bytes) {
  if (bytes.size() <= sizeof(int64_t)) return false;
  const auto first = static_cast<unsigned char>(bytes[0]);
  const bool second_is_negative = (static_cast<unsigned char>(bytes[1]) & 0x80) != 0;
  return !(first == 0x00 && !second_is_negative) && !(first == 0xff && second_is_negative);
}

bool IsTag(std::string_view tag) {
  if (tag.empty() || tag.size() > kTagBytesMax) return false;
  for (const char c : tag) {
    const bool is_allowed =
        (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!is_allowed) return false;
  }
  return true;
}

// Whether no two entries of a well-formed map have the same key. Up to 64 keys go into a small hash
// table on the stack, where keys that were chosen to collide cost two thousand comparisons at most.
bool KeysAreUnique(std::string_view payload, size_t entries) {
  constexpr size_t kFew = 64;
  constexpr size_t kSlots = 4 * kFew;
  if (entries > kFew) return internal::KeyIndex(payload).Repeated() == nullptr;
  std::array<std::string_view, kFew + 1> keys;  // Slot numbers begin at 1; 0 is a free slot.
  std::array<uint8_t, kSlots> slots{};
  MapReader reader(payload);
  std::string_view value;
  for (size_t i = 1; i <= entries && reader.Next(&keys[i], &value); ++i) {
    size_t slot = internal::HashKey(keys[i]) % kSlots;
    for (; slots[slot] != 0; slot = (slot + 1) % kSlots) {
      if (keys[slots[slot]] == keys[i]) return false;
    }
    slots[slot] = static_cast<uint8_t>(i);
  }
  return true;
}

bool HoldsOthers(ValueKind kind) {
  return kind == ValueKind::kList || kind == ValueKind::kMap || kind == ValueKind::kTagged;
}

// Why a value that holds no others is none; null for a good one. REQUIRES: it has such a kind.
const char* ProblemOf(const ValueView& view) {
  switch (view.kind()) {
    case ValueKind::kString:
      return internal::IsUtf8(view.payload()) ? nullptr : "a string that is not UTF-8";
    case ValueKind::kBigInt:
      return IsBigInt(view.payload())
                 ? nullptr
                 : "a big int that fits int_value or is not in its shortest form";
    case ValueKind::kTimestamp: {
      TimestampValue timestamp;
      return view.ReadTimestamp(&timestamp)
                 ? nullptr
                 : "a timestamp outside the years 1 to 9999 or with unknown fields";
    }
    case ValueKind::kTensor: {
      TensorValue tensor;
      return view.ReadTensor(&tensor)
                 ? nullptr
                 : "a tensor of an unknown dtype, or whose data is not as long as dtype and shape "
                   "say, or with repeated, unordered or unknown fields";
    }
    default: return nullptr;
  }
}

// One run of CheckValue. Remembers the way to where it is, for the message. A method that returns
// false has said why in `problem_` and leaves the way as it is.
class Checker final {
 public:
  Checker(const char* begin, size_t levels_above) : begin_(begin), depth_(levels_above) {}

  bool Value(std::string_view wire);

  Status Failure() const {
    return Status(Reason::kValueInvalid,
                  "the value is malformed at byte " + std::to_string(problem_at_ - begin_) + " (" +
                      internal::PathForMessage({way_.data(), way_length_}) + "): " + problem_);
  }

 private:
  bool Fail(const char* at, const char* problem) {
    problem_at_ = at;
    problem_ = problem;
    return false;
  }

  bool List(const ValueView& view);
  bool Map(const ValueView& view);
  bool Tagged(const ValueView& view);
  // Why the view of `wire` has no kind.
  bool NoValue(std::string_view wire);

  bool Inner(const PathStep& step, std::string_view wire) {
    way_[way_length_++] = step;
    if (!Value(wire)) return false;
    --way_length_;
    return true;
  }

  const char* const begin_;
  const char* problem_at_ = nullptr;
  const char* problem_ = "";
  size_t depth_;
  std::array<PathStep, kValueDepthMax> way_;  // One step for each level at most.
  size_t way_length_ = 0;
};

bool Checker::Value(std::string_view wire) {
  const ValueView view(wire);
  if (++depth_ > kValueDepthMax) {
    return Fail(wire.data(), "more than 32 values inside each other");
  }
  bool is_good = false;
  switch (view.kind()) {
    case ValueKind::kInvalid: return NoValue(wire);
    case ValueKind::kList: is_good = List(view); break;
    case ValueKind::kMap: is_good = Map(view); break;
    case ValueKind::kTagged: is_good = Tagged(view); break;
    default: {
      const char* const problem = ProblemOf(view);
      is_good = problem == nullptr || Fail(wire.data(), problem);
    }
  }
  --depth_;
  return is_good;
}

bool Checker::List(const ValueView& view) {
  ListReader reader(view.payload());
  std::string_view value;
  const char* end = view.payload().data();
  for (int64_t i = 0; reader.Next(&value); ++i) {
    if (!Inner(PathStep::Index(i), value)) return false;
    end = value.data() + value.size();
  }
  return reader.ok() || Fail(end, "a list with something else than values, or cut off");
}

bool Checker::Map(const ValueView& view) {
  MapReader reader(view.payload());
  std::string_view key;
  std::string_view value;
  const char* end = view.payload().data();
  size_t entries = 0;
  for (; reader.Next(&key, &value); ++entries) {
    if (key.size() > kMapKeyBytesMax) return Fail(end, "a key of more than 1,024 bytes");
    if (!internal::IsUtf8(key)) return Fail(end, "a key that is not UTF-8");
    if (!Inner(PathStep::Key(key), value)) return false;
    end = value.data() + value.size();
  }
  if (!reader.ok()) {
    return Fail(end, "a map with something else than entries of key and value, or cut off");
  }
  return entries <= 1 || KeysAreUnique(view.payload(), entries) ||
         Fail(view.payload().data(), "a map that has a key twice");
}

bool Checker::Tagged(const ValueView& view) {
  TaggedValue tagged;
  if (!view.ReadTagged(&tagged)) {
    return Fail(view.payload().data(), "a tagged value that is not one tag and one value");
  }
  if (!IsTag(tagged.tag)) {
    return Fail(tagged.tag.data(), "a tag that is not 1 to 64 bytes of a-z, 0-9, '.', '_', '-'");
  }
  return Value(tagged.value);
}

bool Checker::NoValue(std::string_view wire) {
  if (wire.empty()) return Fail(wire.data(), "a value without a kind");
  WireReader reader(wire);
  reader.Take(wire[0]);
  std::string_view bytes;
  uint64_t number = 0;
  switch (wire[0]) {
    case internal::kNullTag:
    case internal::kBoolTag:
    case internal::kIntTag:
      if (!reader.Varint(&number)) {
        return Fail(reader.at(), "a varint that is cut off or not in its shortest form");
      }
      if (reader.AtEnd()) return Fail(wire.data(), "a null or a bool with another number");
      break;
    case internal::kFloatTag:
      if (!reader.Fixed64(&number)) return Fail(reader.at(), "a float that is cut off");
      break;
    case internal::kBigIntTag:
    case internal::kStringTag:
    case internal::kBytesTag:
    case internal::kListTag:
    case internal::kMapTag:
    case internal::kTimestampTag:
    case internal::kTensorTag:
    case internal::kTaggedTag:
      if (!reader.Bytes(&bytes)) {
        return Fail(reader.at(), "a length beyond the end or not in its shortest form");
      }
      break;
    default: return Fail(wire.data(), "a field that Value does not have");
  }
  return Fail(reader.at(), "something behind the one kind of a value");
}

}  // namespace

Status internal::CheckValueBelow(std::string_view wire, size_t levels_above) {
  if (wire.size() > kValueBytesMax) {
    return Status(Reason::kValueInvalid, "the value has " + std::to_string(wire.size()) +
                                             " bytes; a value has at most 1,048,576");
  }
  // Most values hold no others, and need no memory of the way to them.
  const ValueView view(wire);
  const bool is_plain = view.kind() != ValueKind::kInvalid && !HoldsOthers(view.kind());
  if (is_plain && levels_above < kValueDepthMax && ProblemOf(view) == nullptr) return Status();
  Checker checker(wire.data(), levels_above);
  return checker.Value(wire) ? Status() : checker.Failure();
}

Status CheckValue(std::string_view wire) { return internal::CheckValueBelow(wire, 0); }

}  // namespace statehouse
