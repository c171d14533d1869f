// The daemon's log: lines on stderr, text on a terminal and one JSON object each elsewhere, with
// gRPC's own messages in it. Names, ids and numbers are logged; values and access tokens never.
#pragma once

#include <spdlog/formatter.h>

#include <memory>
#include <string>

namespace statehouse {

// Sets spdlog's default logger. `format`: auto, text or json; `level`: trace, debug, info, warn or
// error (checked by Config).
void SetUpLogging(const std::string& format, const std::string& level);

// {"time":"2026-01-31T12:00:00.123Z","level":"info","process":"daemon","pid":4711,"message":"…"},
// and behind the message the fields of a line that has some (service/api/log_fields.h).
std::unique_ptr<spdlog::formatter> NewJsonFormatter();

}  // namespace statehouse
