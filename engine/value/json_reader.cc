// ValueFromJson: one pass, writing the value as it is read.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/value/encodings.h"
#include "engine/value/json.h"
#include "engine/value/text.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

constexpr uint64_t kNanBits = 0x7ff8000000000000;

// One run of ValueFromJson. Methods that return false have set the problem; `at_` is where.
class JsonReader final {
 public:
  JsonReader(std::string_view text, std::string* wire) : text_(text), writer_(wire) {}

  Status Run() {
    if (!Value(1) || (Peek() != '\0' && !Fail("there is something behind the value"))) {
      return Failure();
    }
    if (at_ != text_.size() && !Fail("a NUL byte is no JSON")) return Failure();
    return writer_.Finish();
  }

 private:
  bool Fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }
  Status Failure() const;

  // The next character behind white space; NUL at the end.
  char Peek() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) && text_[at_] != '\0') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool Take(char c) {
    if (Peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  bool Expect(char c) { return Take(c) || Fail(std::string("a '") + c + "' is missing"); }
  bool Quoted(std::string* text) {
    Peek();
    text->clear();
    const char* const problem = internal::ReadQuoted(text_, &at_, text);
    return problem == nullptr || Fail(problem);
  }

  bool Value(size_t depth);
  bool Word(std::string_view word);
  bool Number();
  bool Integer(std::string_view digits);
  bool List(size_t depth);
  bool Object(size_t depth);
  bool Entries(size_t depth);

  // The objects with one key that begins with '$'.
  bool IsSpecial();
  bool Special(const std::string& name, size_t depth);
  bool SpecialText(const std::string& name);
  bool SpecialFloat(std::string_view text);
  bool Tensor();
  bool Shape(std::vector<uint64_t>* shape);
  bool Tag(size_t depth);

  const std::string_view text_;
  size_t at_ = 0;
  ValueWriter writer_;
  std::string problem_;
};

Status JsonReader::Failure() const {
  const std::string_view before = text_.substr(0, at_);
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t column = at_ - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0.
  return Status(Reason::kValueInvalid, "the JSON is wrong at line " + std::to_string(line) +
                                           ", column " + std::to_string(column) + ": " + problem_);
}

bool JsonReader::Value(size_t depth) {
  if (depth > kValueDepthMax) return Fail("more than 32 values inside each other");
  const char next = Peek();
  if (next == '{') return Object(depth);
  if (next == '[') return List(depth);
  if (next == '-' || (next >= '0' && next <= '9')) return Number();
  if (next == '"') {
    std::string text;
    if (!Quoted(&text)) return false;
    writer_.String(text);
    return true;
  }
  if (Word("null")) {
    writer_.Null();
    return true;
  }
  const bool is_true = Word("true");
  if (is_true || Word("false")) {
    writer_.Bool(is_true);
    return true;
  }
  return Fail("a value is missing: texts need double quotes");
}

bool JsonReader::Word(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) return false;
  at_ += word.size();
  return true;
}

bool JsonReader::Number() {
  const size_t start = at_;
  const auto digits = [&] {
    const size_t from = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    return at_ - from;
  };
  const auto is_next = [&](std::string_view any_of) {
    return at_ < text_.size() && any_of.find(text_[at_]) != std::string_view::npos;
  };
  if (is_next("-")) ++at_;
  const bool begins_with_zero = is_next("0");
  const size_t count = digits();
  if (count == 0) return Fail("a digit is missing");
  if (begins_with_zero && count > 1) return Fail("a number has no leading zeros");
  bool is_float = false;
  if (is_next(".")) {
    is_float = true;
    ++at_;
    if (digits() == 0) return Fail("a digit is missing behind the '.'");
  }
  if (is_next("eE")) {
    is_float = true;
    ++at_;
    if (is_next("+-")) ++at_;
    if (digits() == 0) return Fail("a digit is missing in the exponent");
  }
  const std::string_view number = text_.substr(start, at_ - start);
  if (!is_float) return Integer(number);
  double value = 0;
  const auto result = std::from_chars(number.begin(), number.end(), value);
  if (result.ec != std::errc()) return Fail("a float cannot hold this number");
  writer_.Float(value);
  return true;
}

bool JsonReader::Integer(std::string_view digits) {
  int64_t value = 0;
  const auto result = std::from_chars(digits.begin(), digits.end(), value);
  if (result.ec == std::errc()) {
    writer_.Int(value);
    return true;
  }
  if (digits.size() > kJsonIntDigitsMax) {
    return Fail("an integer of more than 2,500 digits is written as {\"$int\": \"0x…\"}");
  }
  writer_.BigInt(internal::BytesOfDecimal(digits));
  return true;
}

bool JsonReader::List(size_t depth) {
  ++at_;
  writer_.BeginList();
  if (!Take(']')) {
    do {
      if (!Value(depth + 1)) return false;
    } while (Take(','));
    if (!Expect(']')) return false;
  }
  writer_.EndList();
  return true;
}

bool JsonReader::Object(size_t depth) {
  if (!IsSpecial()) return Entries(depth);
  ++at_;
  std::string name;
  return Quoted(&name) && Expect(':') && Special(name, depth) && Expect('}');
}

bool JsonReader::Entries(size_t depth) {
  if (!Expect('{')) return false;
  writer_.BeginMap();
  if (!Take('}')) {
    std::string key;
    do {
      if (!Quoted(&key) || !Expect(':')) return false;
      writer_.Key(key);
      if (!Value(depth + 1)) return false;
    } while (Take(','));
    if (!Expect('}')) return false;
  }
  writer_.EndMap();
  return true;
}

// Whether the object that begins here has one key, and this begins with '$'. Looks ahead over its
// value: brackets and quotes are enough to find the end.
bool JsonReader::IsSpecial() {
  const size_t start = at_++;
  std::string key;
  bool is_special = Peek() == '"' && internal::ReadQuoted(text_, &at_, &key) == nullptr &&
                    key.starts_with('$') && Take(':');
  size_t open = 0;
  while (is_special) {
    const char next = Peek();
    if (next == '"') {
      is_special = internal::ReadQuoted(text_, &at_, &key) == nullptr;
      continue;
    }
    if (open == 0 && next == '}') break;
    if ((open == 0 && next == ',') || at_ == text_.size()) is_special = false;
    if (next == '{' || next == '[') ++open;
    if ((next == '}' || next == ']') && open > 0) --open;
    ++at_;
  }
  at_ = start;
  return is_special;
}

bool JsonReader::Special(const std::string& name, size_t depth) {
  Peek();
  if (name == "$map") return Peek() == '{' ? Entries(depth) : Fail("$map needs an object");
  if (name == "$tensor") return Tensor();
  if (name == "$tag") return Tag(depth);
  if (name == "$bytes" || name == "$timestamp" || name == "$float" || name == "$int") {
    return SpecialText(name);
  }
  return Fail("there is no " + name +
              "; a map whose only key begins with '$' is written as {\"$map\": {…}}");
}

bool JsonReader::SpecialText(const std::string& name) {
  std::string text;
  if (!Quoted(&text)) return false;
  std::string bytes;
  TimestampValue timestamp;
  if (name == "$float") return SpecialFloat(text);
  if (name == "$bytes") {
    if (!internal::ReadBase64(text, &bytes)) return Fail("$bytes needs base64 with padding");
    writer_.Bytes(bytes);
  } else if (name == "$int") {
    if (!internal::ReadHex(text, &bytes)) {
      return Fail("$int needs lower-case hex such as \"0x1f\" or \"-0x1f\"");
    }
    writer_.BigInt(bytes);
  } else {
    if (!internal::ReadTimestampText(text, &timestamp)) {
      return Fail("$timestamp needs a time of the years 1 to 9999 such as 2024-02-29T12:00:00.5Z");
    }
    writer_.Timestamp(timestamp);
  }
  return true;
}

bool JsonReader::SpecialFloat(std::string_view text) {
  uint64_t bits = kNanBits;
  if (text == "inf" || text == "-inf") {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    writer_.Float(text == "inf" ? kInfinity : -kInfinity);
    return true;
  }
  if (text.starts_with("nan:")) {
    const auto result = std::from_chars(text.begin() + 4, text.end(), bits, 16);
    const bool is_nan = (bits << 1) > 0xffe0000000000000;
    if (text.size() != 20 || result.ptr != text.end() || !is_nan) {
      return Fail("\"nan:\" is followed by the 16 hex digits of a NaN");
    }
  } else if (text != "nan") {
    return Fail("$float is \"nan\", \"inf\", \"-inf\" or \"nan:\" and 16 hex digits");
  }
  writer_.FloatBits(bits);
  return true;
}

bool JsonReader::Tensor() {
  if (!Expect('{')) return false;
  std::string dtype;
  std::string data;
  std::vector<uint64_t> shape;
  bool has_dtype = false;
  bool has_shape = false;
  bool has_data = false;
  std::string key;
  do {
    if (!Quoted(&key) || !Expect(':')) return false;
    std::string text;
    bool* const has = key == "dtype"   ? &has_dtype
                      : key == "shape" ? &has_shape
                      : key == "data"  ? &has_data
                                       : nullptr;
    if (has == nullptr || *has) return Fail("$tensor has dtype, shape and data, each once");
    *has = true;
    if (key == "shape") {
      if (!Shape(&shape)) return false;
    } else if (!Quoted(key == "dtype" ? &dtype : &text)) {
      return false;
    } else if (key == "data" && !internal::ReadBase64(text, &data)) {
      return Fail("the data of a tensor is base64 with padding");
    }
  } while (Take(','));
  if (!has_dtype || !has_shape || !has_data) return Fail("$tensor needs dtype, shape and data");
  writer_.Tensor(dtype, shape, data);
  return Expect('}');
}

bool JsonReader::Shape(std::vector<uint64_t>* shape) {
  if (!Expect('[')) return false;
  if (Take(']')) return true;
  do {
    Peek();
    const std::string_view rest = text_.substr(at_);
    uint64_t length = 0;
    const auto result = std::from_chars(rest.begin(), rest.end(), length);
    if (result.ec != std::errc()) return Fail("a length of a shape is a number from 0 on");
    if (shape->size() == kTensorDimensionsMax) return Fail("a shape has at most 32 dimensions");
    shape->push_back(length);
    at_ += static_cast<size_t>(result.ptr - rest.begin());
  } while (Take(','));
  return Expect(']');
}

bool JsonReader::Tag(size_t depth) {
  std::string tag;
  if (!Expect('[') || !Quoted(&tag) || !Expect(',')) return false;
  writer_.BeginTagged(tag);
  if (!Value(depth + 1)) return false;
  writer_.EndTagged();
  return Expect(']');
}

}  // namespace

Status ValueFromJson(std::string_view json, std::string* wire) {
  if (json.size() > kJsonBytesMax) {
    return Status(Reason::kValueInvalid, "the JSON has " + std::to_string(json.size()) +
                                             " bytes; at most 16,777,216 are read");
  }
  std::string made;
  SH_RETURN_IF_ERROR(JsonReader(json, &made).Run());
  SH_RETURN_IF_ERROR(CheckValue(made));
  *wire = std::move(made);
  return Status();
}

}  // namespace statehouse
