#include "service/api/durations.h"

namespace statehouse {
namespace {

// How many bytes the character at `at` has; 0 where it is no well-formed UTF-8.
size_t CharacterBytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[i]); };
  const uint32_t first = byte(at);
  if (first < 0x80) return 1;
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + bytes > text.size()) return 0;
  uint32_t code = first & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(at + i) & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < kSmallest[bytes] || code > 0x10ffff || is_surrogate ? 0 : bytes;
}

}  // namespace

StatusOr<uint64_t> ToNanoseconds(const google::protobuf::Duration& duration, const char* field) {
  if (duration.seconds() < 0 || duration.nanos() < 0 || duration.nanos() > 999'999'999) {
    return Status(Reason::kInvalidArgument,
                  "field " + std::string(field) + ": it is negative or malformed");
  }
  if (duration.seconds() >= kDurationSecondsMax) return UINT64_MAX;
  return static_cast<uint64_t>(duration.seconds()) * 1'000'000'000 +
         static_cast<uint64_t>(duration.nanos());
}

StatusOr<uint64_t> ToBounded(bool given, const google::protobuf::Duration& duration,
                             const char* field, uint64_t otherwise_ns,
                             const DurationBounds& bounds) {
  if (!given) return otherwise_ns;
  SH_ASSIGN_OR_RETURN(const uint64_t ns, ToNanoseconds(duration, field));
  if (ns >= bounds.min_ns && ns <= bounds.max_ns) return ns;
  return Status(Reason::kInvalidArgument,
                "field " + std::string(field) + ": " + bounds.text + " are allowed");
}

void SetDuration(uint64_t ns, google::protobuf::Duration* duration) {
  duration->set_seconds(static_cast<int64_t>(ns / 1'000'000'000));
  duration->set_nanos(static_cast<int32_t>(ns % 1'000'000'000));
}

std::string ShownText(std::string_view text) {
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = CharacterBytes(text, at);
    const auto first = static_cast<unsigned char>(text[at]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) {
      shown.push_back('?');
    } else {
      shown.append(text.substr(at, bytes));
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return shown;
}

std::string CutText(std::string text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text;
}

}  // namespace statehouse
