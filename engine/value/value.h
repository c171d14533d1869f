// Values as bytes: what an entry of a dict holds. A value is the wire form of the protobuf message
// statehouse.v1.Value (docs/formats/value.md); everything here works on those bytes as they are,
// without a tree, a protobuf library or an allocation.
//
//   SH_RETURN_IF_ERROR(CheckValue(wire));        // Once, where bytes come in.
//   const ValueView view(wire);                  // Then as often as needed.
//   if (view.kind() == ValueKind::kInt) Use(view.AsInt());
//
// Threads: everything here is a function of its arguments and has no state. Bytes that another
// process may change meanwhile must be copied first.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "engine/base/status.h"
#include "engine/value/limits.h"

namespace statehouse {

// What a value is. The same numbers as the fields of statehouse.v1.Value.
enum class ValueKind : uint8_t {
  kInvalid = 0,  // Bytes that are no value.
  kNull = 1,
  kBool = 2,
  kInt = 3,
  kBigInt = 4,
  kFloat = 5,
  kString = 6,
  kBytes = 7,
  kList = 8,
  kMap = 9,
  kTimestamp = 10,
  kTensor = 11,
  kTagged = 12,
};

// "int", "list" and so on, for messages.
std::string_view ValueKindName(ValueKind kind);

// Whether the bytes are one well-formed value within the limits. VALUE_INVALID says what is wrong
// and where, as a byte and as a path. Takes time in proportion to the bytes.
Status CheckValue(std::string_view wire);

// Whether two values mean the same, as Python's == says for values of one kind: maps in any order,
// 0.0 and -0.0 are equal. Different kinds are never equal (1 is not 1.0), equal bytes always are (a
// NaN equals the same NaN). Bytes that are no value are equal to nothing but themselves.
bool ValuesEqual(std::string_view a, std::string_view b);

// What a timestamp holds.
struct TimestampValue {
  int64_t seconds = 0;  // Since 1970-01-01T00:00:00Z.
  int32_t nanos = 0;    // 0 … 999,999,999, counting forwards in time also before 1970.
};
inline constexpr int64_t kTimestampSecondsMin = -62'135'596'800;  // 0001-01-01T00:00:00Z
inline constexpr int64_t kTimestampSecondsMax = 253'402'300'799;  // 9999-12-31T23:59:59Z

// What a tensor holds. The views point into the value.
struct TensorValue {
  std::string_view dtype;
  std::array<uint64_t, kTensorDimensionsMax> shape{};
  size_t dimensions = 0;
  std::string_view data;
};

// The bytes of one number of a tensor's dtype; 0 for a name that is no dtype.
size_t DtypeBytes(std::string_view dtype);
// The bytes that a tensor of this dtype and shape has; false for an unknown dtype, too many
// dimensions, or more bytes than can be counted.
bool TensorBytes(const TensorValue& tensor, uint64_t* bytes);

// What a tagged value holds. The views point into the value.
struct TaggedValue {
  std::string_view tag;
  std::string_view value;  // The wire form of the inner value.
};

// Reads one value without checking what is inside it. Meant for bytes that CheckValue accepted, and
// safe on any: a view reads nothing outside its bytes, and what it cannot make sense of has kind
// kInvalid or makes the call that reads it return false.
//
// A view borrows the bytes: they must outlive it and must not change.
class ValueView final {
 public:
  explicit ValueView(std::string_view wire);

  ValueKind kind() const { return kind_; }

  // REQUIRES: kind() is the one that the name says. (Of another kind: some number, no crash.)
  bool AsBool() const { return bits_ != 0; }
  int64_t AsInt() const { return static_cast<int64_t>(bits_); }
  double AsFloat() const;
  // The bits of a float as stored; tells one NaN from another.
  uint64_t FloatBits() const { return bits_; }

  // What the kinds with bytes hold: the text of a string, the bytes of a big int or of bytes, and
  // what ListReader and MapReader take for a list and a map.
  std::string_view payload() const { return payload_; }

  // False for bytes that are none.
  bool ReadTimestamp(TimestampValue* timestamp) const;
  bool ReadTensor(TensorValue* tensor) const;
  bool ReadTagged(TaggedValue* tagged) const;

 private:
  ValueKind kind_ = ValueKind::kInvalid;
  uint64_t bits_ = 0;
  std::string_view payload_;
};

// Goes through the values of a list: `while (reader.Next(&value))`, then ok() tells whether the end
// was reached or the rest is no list.
class ListReader final {
 public:
  // REQUIRES: the payload of a view of kind kList.
  explicit ListReader(std::string_view payload) : rest_(payload) {}

  bool Next(std::string_view* value);
  bool ok() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// Goes through the entries of a map, in the way of ListReader.
class MapReader final {
 public:
  // REQUIRES: the payload of a view of kind kMap.
  explicit MapReader(std::string_view payload) : rest_(payload) {}

  bool Next(std::string_view* key, std::string_view* value);
  bool ok() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

namespace internal {

// As CheckValue, for a value that will stand inside `levels_above` others.
Status CheckValueBelow(std::string_view wire, size_t levels_above);

// Splits what an entry of a map holds. False for bytes that are none.
bool SplitEntry(std::string_view entry, std::string_view* key, std::string_view* value);

}  // namespace internal
}  // namespace statehouse
