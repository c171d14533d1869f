// Durations in requests and responses, and texts that somebody else wrote.
#pragma once

#include <google/protobuf/duration.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace statehouse {

inline constexpr int64_t kDurationSecondsMax = int64_t{10} * 366 * 86'400;

// In nanoseconds; UINT64_MAX for ten years or more, which is the same as never. INVALID_ARGUMENT
// where it is negative or malformed.
StatusOr<uint64_t> ToNanoseconds(const google::protobuf::Duration& duration, const char* field);
// The same within bounds; `otherwise` where it is unset.
struct DurationBounds {
  uint64_t min_ns = 0;
  uint64_t max_ns = UINT64_MAX;
  const char* text = "";  // "100 ms to 7 days"
};
StatusOr<uint64_t> ToBounded(bool given, const google::protobuf::Duration& duration,
                             const char* field, uint64_t otherwise_ns,
                             const DurationBounds& bounds);
void SetDuration(uint64_t ns, google::protobuf::Duration* duration);

// The text with '?' for every byte that is no UTF-8, and for control characters: fit for a log line
// and for a string field.
std::string ShownText(std::string_view text);
// Cut to `bytes_max`, between characters.
std::string CutText(std::string text, size_t bytes_max);

}  // namespace statehouse
