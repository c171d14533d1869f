// The texts around a token that need no file: the token itself, grants, timestamps.
#include <openssl/sha.h>

#include <cstdio>
#include <ctime>
#include <optional>

#include "engine/base/limits.h"
#include "service/auth/token_file.h"

namespace statehouse {
namespace {

constexpr std::string_view kPrefix = "sh1_";
constexpr Verb kVerbs[] = {Verb::kRead,  Verb::kWrite, Verb::kCreate,
                           Verb::kWatch, Verb::kLock,  Verb::kAdmin};

Status BadGrant(std::string_view text, std::string_view why) {
  return Status(Reason::kConfigInvalid,
                "grant \"" + std::string(text) + "\": " + std::string(why) +
                    "; write it as \"area:web/*:read,write\" or \"service:*:admin\"");
}

// The digits at `pos`, `count` of them.
std::optional<int> Digits(std::string_view text, size_t pos, size_t count) {
  if (pos + count > text.size()) return std::nullopt;
  int number = 0;
  for (size_t i = pos; i < pos + count; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    number = number * 10 + (text[i] - '0');
  }
  return number;
}

bool IsLeap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

int DaysOf(int year, int month) {
  static constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && IsLeap(year) ? 29 : kDays[month - 1];
}

// Seconds that the offset at the end of a timestamp ("Z", "+02:00") stands for.
std::optional<int> OffsetSeconds(std::string_view text) {
  if (text == "Z" || text == "z") return 0;
  if (text.size() != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':') return std::nullopt;
  const auto hours = Digits(text, 1, 2);
  const auto minutes = Digits(text, 4, 2);
  if (!hours || !minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  const int seconds = *hours * 3600 + *minutes * 60;
  return text[0] == '-' ? -seconds : seconds;
}

}  // namespace

bool SplitToken(std::string_view text, TokenParts* parts) {
  if (text.size() != kTokenTextBytes || !text.starts_with(kPrefix)) return false;
  const size_t separator = kPrefix.size() + kTokenIdBytes;
  if (text[separator] != '_') return false;
  parts->id = text.substr(kPrefix.size(), kTokenIdBytes);
  parts->secret = text.substr(separator + 1);
  return true;
}

TokenHash HashSecret(std::string_view secret) {
  TokenHash hash;
  SHA256(reinterpret_cast<const unsigned char*>(secret.data()), secret.size(), hash.data());
  return hash;
}

StatusOr<Grant> ParseGrant(std::string_view text) {
  const size_t first = text.find(':');
  const size_t last = text.rfind(':');
  if (first == std::string_view::npos || first == last) {
    return BadGrant(text, "it needs kind, pattern and verbs");
  }
  Grant grant;
  const std::string_view kind = text.substr(0, first);
  if (kind == "area") {
    grant.kind = ObjectKind::kArea;
  } else if (kind == "dict") {
    grant.kind = ObjectKind::kDict;
  } else if (kind == "lock") {
    grant.kind = ObjectKind::kLock;
  } else if (kind == "service") {
    grant.kind = ObjectKind::kService;
  } else {
    return BadGrant(text, "the kind is none of \"area\", \"dict\", \"lock\" and \"service\"");
  }
  grant.pattern = std::string(text.substr(first + 1, last - first - 1));
  if (grant.pattern.empty() || grant.pattern.size() > kNameBytesMax) {
    return BadGrant(text, "the pattern must have 1 to 255 bytes");
  }
  for (std::string_view rest = text.substr(last + 1);;) {
    const size_t comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    bool known = false;
    for (const Verb verb : kVerbs) {
      if (word != VerbName(verb)) continue;
      grant.verbs |= static_cast<uint8_t>(verb);
      known = true;
    }
    if (!known) {
      return BadGrant(text, "the verb \"" + std::string(word) +
                                "\" is none of read, write, create, watch, lock, admin");
    }
    if (comma == std::string_view::npos) return grant;
    rest.remove_prefix(comma + 1);
  }
}

std::string FormatGrant(const Grant& grant) {
  std::string text(ObjectKindName(grant.kind));
  text.append(":").append(grant.pattern);
  char separator = ':';
  for (const Verb verb : kVerbs) {
    if ((grant.verbs & static_cast<uint8_t>(verb)) == 0) continue;
    text.append(1, separator).append(VerbName(verb));
    separator = ',';
  }
  return text;
}

StatusOr<int64_t> ParseTimestamp(std::string_view text) {
  const auto refuse = [text] {
    return Status(Reason::kConfigInvalid, "time \"" + std::string(text.substr(0, 64)) +
                                              "\": write it as \"2027-01-31T12:00:00Z\"");
  };
  const auto year = Digits(text, 0, 4);
  const auto month = Digits(text, 5, 2);
  const auto day = Digits(text, 8, 2);
  const auto hour = Digits(text, 11, 2);
  const auto minute = Digits(text, 14, 2);
  const auto second = Digits(text, 17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return refuse();
  if (text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':') return refuse();
  if (text[10] != 'T' && text[10] != 't' && text[10] != ' ') return refuse();
  if (*year < 1970 || *month < 1 || *month > 12 || *day < 1 || *day > DaysOf(*year, *month) ||
      *hour > 23 || *minute > 59 || *second > 59) {
    return refuse();
  }
  std::string_view rest = text.substr(19);
  if (rest.starts_with('.')) {
    const size_t end = rest.find_first_not_of("0123456789", 1);
    if (end == std::string_view::npos || end == 1) return refuse();
    rest.remove_prefix(end);  // Tokens expire on whole seconds.
  }
  const auto offset = OffsetSeconds(rest);
  if (!offset) return refuse();
  std::tm parts = {};
  parts.tm_year = *year - 1900;
  parts.tm_mon = *month - 1;
  parts.tm_mday = *day;
  parts.tm_hour = *hour;
  parts.tm_min = *minute;
  parts.tm_sec = *second;
  return static_cast<int64_t>(timegm(&parts)) - *offset;
}

std::string FormatTimestamp(int64_t unix_s) {
  const std::time_t time = static_cast<std::time_t>(unix_s);
  std::tm parts = {};
  gmtime_r(&time, &parts);
  char text[64];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return text;
}

}  // namespace statehouse
