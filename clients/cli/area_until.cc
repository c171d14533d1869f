#include "clients/cli/area_until.h"

#include <array>
#include <charconv>
#include <cstring>
#include <utility>

namespace statehouse::cli {
namespace {

constexpr std::array<std::string_view, 9> kTypes = {"",   "u8",  "u16", "u32", "u64",
                                                    "i8", "i16", "i32", "i64"};

Status Refuse(std::string_view text, const char* why) {
  return Status(Reason::kInvalidArgument,
                "--until \"" + std::string(text) + "\": " + why + "; write it as u32@16>=10");
}

// The whole text is a number of this type.
template <typename Number>
bool ParseWhole(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

StatusOr<AreaUntil> AreaUntil::Parse(std::string_view text) {
  AreaUntil until;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    size_t type = 1;
    while (type < kTypes.size() && kTypes[type] != rest.substr(0, at)) ++type;
    if (type == kTypes.size()) return Refuse(text, "what stands before the @ is no type of word");
    until.type_ = static_cast<WordType>(type);
    rest.remove_prefix(at + 1);
  }
  const size_t sign = rest.find_first_of("=!<>");
  if (sign == std::string_view::npos) return Refuse(text, "it compares nothing");
  if (!ParseWhole(rest.substr(0, sign), &until.pos_)) return Refuse(text, "it names no position");
  rest.remove_prefix(sign);
  constexpr std::array<std::pair<std::string_view, Comparison>, 6> kSigns = {
      {{"!=", Comparison::kUnequal},
       {"<=", Comparison::kLessOrEqual},
       {">=", Comparison::kGreaterOrEqual},
       {"=", Comparison::kEqual},
       {"<", Comparison::kLess},
       {">", Comparison::kGreater}}};
  bool found = false;
  for (const auto& [spelling, comparison] : kSigns) {
    if (!rest.starts_with(spelling)) continue;
    until.comparison_ = comparison;
    rest.remove_prefix(spelling.size());
    found = true;
    break;
  }
  if (!found) return Refuse(text, "it compares nothing");
  bool fits = false;
  if (IsSigned(until.type_)) {
    int64_t number = 0;
    fits = ParseWhole(rest, &number) && FitsSigned(until.type_, number);
    until.bits_ = static_cast<uint64_t>(number);
  } else {
    fits = ParseWhole(rest, &until.bits_) && FitsUnsigned(until.type_, until.bits_);
  }
  if (!fits) return Refuse(text, "it ends with no number that the word can hold");
  return until;
}

void AreaUntil::Take(uint64_t pos, std::string_view bytes) {
  for (uint64_t i = 0; i < len(); ++i) {
    if (pos_ + i < pos || pos_ + i - pos >= bytes.size()) continue;
    bytes_[i] = bytes[pos_ + i - pos];
    known_ |= 1u << i;
  }
}

bool AreaUntil::IsMet() const {
  if (known_ != (1u << len()) - 1) return false;
  uint64_t bits = 0;
  std::memcpy(&bits, bytes_, len());
  bool is_less = bits < bits_;
  if (IsSigned(type_)) {
    const int64_t number = SignExtend(type_, bits);
    is_less = number < static_cast<int64_t>(bits_);
    bits = static_cast<uint64_t>(number);
  }
  const bool is_equal = bits == bits_;
  switch (comparison_) {
    case Comparison::kEqual: return is_equal;
    case Comparison::kUnequal: return !is_equal;
    case Comparison::kLess: return is_less;
    case Comparison::kLessOrEqual: return is_less || is_equal;
    case Comparison::kGreater: return !is_less && !is_equal;
    case Comparison::kGreaterOrEqual: return !is_less;
  }
  return false;
}

}  // namespace statehouse::cli
