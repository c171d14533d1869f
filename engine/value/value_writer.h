// ValueWriter: makes the bytes of a value, front to back.
//
//   std::string wire;
//   ValueWriter writer(&wire);
//   writer.BeginMap();
//   writer.Key("ports");
//   writer.BeginList();
//   writer.Int(80);
//   writer.EndList();
//   writer.EndMap();
//   SH_RETURN_IF_ERROR(writer.Finish());
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/value/value.h"

namespace statehouse {

// Appends one value to a string that the caller owns; nothing else may change the string meanwhile.
// A stack object of one thread.
//
// Always true: after Finish has returned OK, the appended bytes are one value in the form that
// CheckValue asks for, except for what only a look at the contents can tell (texts that are not
// UTF-8, repeated keys, tensor data of a wrong length, depth, size): whoever writes what somebody
// else sent calls CheckValue afterwards.
// On failure: calls in an order that makes no value (a key in a list, two values at the top) are
// remembered, the rest is ignored, and Finish returns INTERNAL; the string then holds a part.
class ValueWriter final {
 public:
  explicit ValueWriter(std::string* out) : out_(out) {}
  ValueWriter(const ValueWriter&) = delete;
  ValueWriter& operator=(const ValueWriter&) = delete;

  void Null();
  void Bool(bool value);
  void Int(int64_t value);
  // Big-endian two's complement of any length: becomes an int where it fits one.
  void BigInt(std::string_view bytes);
  void Float(double value);
  void FloatBits(uint64_t bits);
  void String(std::string_view text);
  void Bytes(std::string_view bytes);
  void Timestamp(const TimestampValue& timestamp);
  void Tensor(std::string_view dtype, std::span<const uint64_t> shape, std::string_view data);
  // A value that exists as bytes.
  void Wire(std::string_view value);

  void BeginList();
  void EndList();
  void BeginMap();
  // What follows is the value of this key.
  void Key(std::string_view key);
  void EndMap();
  // What follows, one value, is inside the tag.
  void BeginTagged(std::string_view tag);
  void EndTagged();

  Status Finish();

 private:
  enum class Container : uint8_t { kTop, kList, kMap, kTagged };
  // An open container. Lengths that are not known yet stand in the output as one byte, and are
  // patched, inner ones first, when what they measure ends.
  struct Frame {
    Container container = Container::kTop;
    bool takes_value = true;     // Top and tagged: before their one value; a map: behind a key.
    size_t value_length_at = 0;  // Of the container as a value; not for the one at the top.
    size_t payload_length_at = 0;
    size_t entry_length_at = 0;  // Of the entry that a map is in.
  };

  // Writes what stands before a value in its container; false where none may stand. After the value
  // comes EndValue.
  bool BeginValue(size_t wire_bytes);
  bool TakesValue();
  char ValueTag() const;
  void EndValue();

  void Open(Container container, char tag);
  void Close(Container container);
  size_t Placeholder();
  void PatchLength(size_t at);

  void Varint(char tag, uint64_t number);
  void Payload(char tag, std::string_view bytes);
  void Field(char tag, std::string_view bytes);

  std::string* const out_;
  std::vector<Frame> frames_ = {Frame()};
  bool is_misused_ = false;
};

}  // namespace statehouse
