// Pages of listings and timestamps: what every catalogue verb needs.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "engine/base/limits.h"
#include "engine/base/status.h"

namespace statehouse {

inline constexpr uint32_t kPageSizeDefault = 100;
inline constexpr uint32_t kPageSizeMax = 1000;

inline uint32_t PageSize(uint32_t asked) {
  return std::min(asked == 0 ? kPageSizeDefault : asked, kPageSizeMax);
}

inline void SetTimestamp(int64_t unix_ns, google::protobuf::Timestamp* time) {
  time->set_seconds(unix_ns / 1'000'000'000);
  time->set_nanos(static_cast<int32_t>(unix_ns % 1'000'000'000));
}

// A page token is bound to its call and its prefix by themselves: "<call>.<next>.<prefix>".
inline std::string PageToken(std::string_view call, uint32_t next, std::string_view prefix) {
  std::string token(call);
  return token.append(std::to_string(next)).append(".").append(prefix);
}

// Where to go on: 0 for an empty token. Errors: INVALID_ARGUMENT for a token of another call,
// NAME_INVALID for a prefix that no name can have.
inline StatusOr<uint32_t> ParsePageToken(std::string_view call, std::string_view token,
                                         std::string_view prefix,
                                         size_t prefix_bytes_max = kNameBytesMax) {
  if (prefix.size() > prefix_bytes_max) {
    return Status(Reason::kNameInvalid,
                  "field prefix: it is longer than " + std::to_string(prefix_bytes_max) + " bytes");
  }
  if (token.empty()) return uint32_t{0};
  uint32_t next = 0;
  if (token.starts_with(call)) {
    const std::string_view rest = token.substr(call.size());
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), next);
    if (error == std::errc() && PageToken(call, next, prefix) == token) return next;
  }
  return Status(
      Reason::kInvalidArgument,
      "field page_token: it does not come from a call with this prefix; begin without one");
}

}  // namespace statehouse
