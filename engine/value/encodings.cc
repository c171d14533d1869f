#include "engine/value/encodings.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <vector>

namespace statehouse::internal {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr char kHexDigits[] = "0123456789abcdef";

// Turns two's complement into what it would be with the other sign. Needs a byte to spare.
void Negate(std::string* bytes) {
  unsigned carry = 1;
  for (size_t i = bytes->size(); i-- > 0;) {
    const unsigned byte = (~static_cast<unsigned char>((*bytes)[i]) & 0xff) + carry;
    (*bytes)[i] = static_cast<char>(byte);
    carry = byte >> 8;
  }
}

// The bytes without their sign, and with a byte to spare in front.
std::string Magnitude(std::string_view bytes, bool* is_negative) {
  *is_negative = !bytes.empty() && (bytes[0] & 0x80) != 0;
  std::string result(1, *is_negative ? '\xff' : '\0');
  result.append(bytes);
  if (*is_negative) Negate(&result);
  return result;
}

bool ReadDigits(std::string_view* text, size_t count, int* number) {
  if (text->size() < count) return false;
  for (const char c : text->substr(0, count)) {
    if (c < '0' || c > '9') return false;
  }
  std::from_chars(text->data(), text->data() + count, *number);
  text->remove_prefix(count);
  return true;
}

bool TakeCharacter(std::string_view* text, std::string_view any_of) {
  if (text->empty() || any_of.find(text->front()) == std::string_view::npos) return false;
  text->remove_prefix(1);
  return true;
}

// "12:34" behind a sign, in seconds; or "Z".
bool ReadOffset(std::string_view* text, int64_t* seconds) {
  *seconds = 0;
  if (TakeCharacter(text, "Zz")) return true;
  const bool is_behind = !text->empty() && text->front() == '-';
  int hours = 0;
  int minutes = 0;
  if (!TakeCharacter(text, "+-") || !ReadDigits(text, 2, &hours) || !TakeCharacter(text, ":") ||
      !ReadDigits(text, 2, &minutes) || hours > 23 || minutes > 59) {
    return false;
  }
  *seconds = (is_behind ? -1 : 1) * (hours * 3600 + minutes * 60);
  return true;
}

// ".5" and so on, one to nine digits, or nothing.
bool ReadFraction(std::string_view* text, int32_t* nanos) {
  *nanos = 0;
  if (!TakeCharacter(text, ".")) return true;
  int32_t weight = 100'000'000;
  size_t digits = 0;
  for (; !text->empty() && text->front() >= '0' && text->front() <= '9'; ++digits) {
    *nanos += (text->front() - '0') * weight;
    weight /= 10;
    text->remove_prefix(1);
  }
  return digits >= 1 && digits <= 9;
}

void AppendPadded(std::string* out, int64_t number, size_t digits) {
  const std::string text = std::to_string(number);
  out->append(digits - std::min(digits, text.size()), '0');
  out->append(text);
}

}  // namespace

void AppendBase64(std::string* out, std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](size_t at) -> uint32_t {
      return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0;
    };
    const uint32_t group = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out->push_back(kBase64[group >> 18]);
    out->push_back(kBase64[group >> 12 & 63]);
    out->push_back(i + 1 < bytes.size() ? kBase64[group >> 6 & 63] : '=');
    out->push_back(i + 2 < bytes.size() ? kBase64[group & 63] : '=');
  }
}

bool ReadBase64(std::string_view text, std::string* bytes) {
  if (text.size() % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  uint32_t group = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_padding = i >= text.size() - padding;
    const size_t digit = is_padding ? 0 : kBase64.find(text[i]);
    if (digit == std::string_view::npos) return false;
    group = group << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0; shift -= 8)
      bytes->push_back(static_cast<char>(group >> shift));
    group = 0;
  }
  // What the padding cut off must have been zero, so that each text has one reading and back.
  for (size_t i = 0; i < padding; ++i) {
    if (bytes->back() != '\0') return false;
    bytes->pop_back();
  }
  return true;
}

void AppendDecimal(std::string* out, std::string_view bytes) {
  constexpr uint32_t kGroup = 1'000'000'000;
  bool is_negative = false;
  const std::string magnitude = Magnitude(bytes, &is_negative);
  std::vector<uint32_t> groups;  // Of nine digits, low ones first.
  for (const char byte : magnitude) {
    uint64_t carry = static_cast<unsigned char>(byte);
    for (uint32_t& group : groups) {
      carry += uint64_t{group} << 8;
      group = static_cast<uint32_t>(carry % kGroup);
      carry /= kGroup;
    }
    if (carry > 0) groups.push_back(static_cast<uint32_t>(carry));
  }
  if (is_negative) out->push_back('-');
  out->append(std::to_string(groups.empty() ? 0 : groups.back()));
  for (size_t i = groups.size(); i-- > 1;) AppendPadded(out, groups[i - 1], 9);
}

std::string BytesOfDecimal(std::string_view text) {
  const bool is_negative = TakeCharacter(&text, "-");
  std::vector<uint32_t> limbs;  // Low ones first.
  for (const char digit : text) {
    uint64_t carry = static_cast<uint64_t>(digit - '0');
    for (uint32_t& limb : limbs) {
      carry += uint64_t{limb} * 10;
      limb = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry > 0) limbs.push_back(static_cast<uint32_t>(carry));
  }
  std::string bytes(1, '\0');
  for (size_t i = limbs.size(); i-- > 0;) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<char>(limbs[i] >> shift));
    }
  }
  if (is_negative) Negate(&bytes);
  return bytes;
}

void AppendHex(std::string* out, std::string_view bytes) {
  bool is_negative = false;
  const std::string magnitude = Magnitude(bytes, &is_negative);
  out->append(is_negative ? "-0x" : "0x");
  for (const char byte : magnitude) {
    out->push_back(kHexDigits[static_cast<unsigned char>(byte) >> 4]);
    out->push_back(kHexDigits[byte & 15]);
  }
}

bool ReadHex(std::string_view text, std::string* bytes) {
  const bool is_negative = TakeCharacter(&text, "-");
  if (!TakeCharacter(&text, "0") || !TakeCharacter(&text, "x") || text.empty()) return false;
  bytes->assign(1, '\0');
  unsigned byte = 0;
  size_t left = text.size();
  for (const char c : text) {
    const size_t digit = std::string_view(kHexDigits).find(c);
    if (digit == std::string_view::npos) return false;
    byte = (byte << 4 | static_cast<unsigned>(digit)) & 0xff;
    if (--left % 2 == 0) bytes->push_back(static_cast<char>(byte));
  }
  if (is_negative) Negate(bytes);
  return true;
}

void AppendTimestamp(std::string* out, const TimestampValue& timestamp) {
  using std::chrono::days;
  const std::chrono::sys_seconds time{std::chrono::seconds(timestamp.seconds)};
  const std::chrono::sys_days day = std::chrono::floor<days>(time);
  const std::chrono::year_month_day date(day);
  const int64_t seconds = (time - day).count();
  AppendPadded(out, static_cast<int>(date.year()), 4);
  out->push_back('-');
  AppendPadded(out, static_cast<unsigned>(date.month()), 2);
  out->push_back('-');
  AppendPadded(out, static_cast<unsigned>(date.day()), 2);
  out->push_back('T');
  AppendPadded(out, seconds / 3600, 2);
  out->push_back(':');
  AppendPadded(out, seconds / 60 % 60, 2);
  out->push_back(':');
  AppendPadded(out, seconds % 60, 2);
  if (timestamp.nanos != 0) {
    out->push_back('.');
    AppendPadded(out, timestamp.nanos, 9);
    while (out->back() == '0') out->pop_back();
  }
  out->push_back('Z');
}

bool ReadTimestampText(std::string_view text, TimestampValue* timestamp) {
  int year = 0;
  int month = 0;
  int day = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
  int64_t offset = 0;
  const bool is_read =
      ReadDigits(&text, 4, &year) && TakeCharacter(&text, "-") && ReadDigits(&text, 2, &month) &&
      TakeCharacter(&text, "-") && ReadDigits(&text, 2, &day) && TakeCharacter(&text, "Tt ") &&
      ReadDigits(&text, 2, &hour) && TakeCharacter(&text, ":") && ReadDigits(&text, 2, &minute) &&
      TakeCharacter(&text, ":") && ReadDigits(&text, 2, &second) &&
      ReadFraction(&text, &timestamp->nanos) && ReadOffset(&text, &offset) && text.empty();
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!is_read || !date.ok() || hour > 23 || minute > 59 || second > 59) return false;
  const std::chrono::sys_seconds midnight = std::chrono::sys_days(date);
  timestamp->seconds =
      midnight.time_since_epoch().count() + hour * 3600 + minute * 60 + second - offset;
  return timestamp->seconds >= kTimestampSecondsMin && timestamp->seconds <= kTimestampSecondsMax;
}

}  // namespace statehouse::internal
