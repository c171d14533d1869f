#include "service/api/words.h"

#include <string>

namespace statehouse {
namespace {

Status OutOfRange(WordType type, const std::string& number, std::string_view field) {
  std::string name(1, IsSigned(type) ? 'i' : 'u');
  name.append(std::to_string(8 * WordBytes(type)));
  return Status(Reason::kValueOutOfRange,
                "field " + std::string(field) + ": " + number + " does not fit " + name);
}

}  // namespace

StatusOr<WordType> ToWordType(v1::WordType type) {
  if (!v1::WordType_IsValid(type) || type == v1::WORD_TYPE_UNSPECIFIED) {
    return Status(Reason::kWidthInvalid, "field type: " + std::to_string(static_cast<int>(type)) +
                                             " is no word type; use one of U8 … U64, I8 … I64");
  }
  return static_cast<WordType>(type);
}

StatusOr<uint64_t> ToBits(WordType type, const v1::WordValue& value, std::string_view field) {
  switch (value.kind_case()) {
    case v1::WordValue::kUnsignedValue:
      if (!FitsUnsigned(type, value.unsigned_value())) {
        return OutOfRange(type, std::to_string(value.unsigned_value()), field);
      }
      return value.unsigned_value();
    case v1::WordValue::kSignedValue:
      if (!FitsSigned(type, value.signed_value())) {
        return OutOfRange(type, std::to_string(value.signed_value()), field);
      }
      return static_cast<uint64_t>(value.signed_value()) & WordMask(type);
    case v1::WordValue::KIND_NOT_SET: break;
  }
  return Status(
      Reason::kInvalidArgument,
      "field " + std::string(field) + ": no number is set; set unsigned_value or signed_value");
}

void FromBits(WordType type, uint64_t bits, v1::WordValue* value) {
  if (IsSigned(type)) {
    value->set_signed_value(SignExtend(type, bits));
  } else {
    value->set_unsigned_value(bits & WordMask(type));
  }
}

}  // namespace statehouse
