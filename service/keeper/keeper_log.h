// The keeper's own log lines: one write to stderr, text on a terminal and JSON elsewhere. It has no
// logger because it must not fail, allocate threads or hold locks.
#pragma once

#include <string>
#include <string_view>

namespace statehouse {

void KeeperLog(const char* level, const std::string& message);

// `text` as the inside of a JSON string.
std::string JsonEscape(std::string_view text);

}  // namespace statehouse
