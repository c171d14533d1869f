// LogFields: what a line of the log says, once more for programs: fields of the JSON object beside
// its message (service/logging.h). A line of text has the message alone.
//
// Threads: one; a value that lives as long as the call that logs it. REQUIRES: a logger that writes
// before it returns, as the service's does.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "service/log.h"

namespace statehouse {

class LogFields final {
 public:
  struct Field {
    std::string_view name;  // A JSON name that needs no escapes.
    std::string value;
    bool is_number = false;
  };

  // Left out where it is empty.
  LogFields& Text(std::string_view name, std::string_view value) {
    if (!value.empty()) fields_.push_back({name, std::string(value), false});
    return *this;
  }
  LogFields& Number(std::string_view name, uint64_t value) {
    fields_.push_back({name, std::to_string(value), true});
    return *this;
  }
  // With three digits behind the point.
  LogFields& Milliseconds(std::string_view name, double value) {
    fields_.push_back({name, fmt::format("{:.3f}", value), true});
    return *this;
  }
  const std::vector<Field>& fields() const { return fields_; }

  // Logs `message` with them. spdlog has no fields: they travel as the place in the source, which
  // no line of ours names.
  void Log(spdlog::logger& to, spdlog::level::level_enum level, std::string_view message) const {
    to.log(spdlog::source_loc(kMark, 0, reinterpret_cast<const char*>(this)), level,
           spdlog::string_view_t(message.data(), message.size()));
  }
  // Those of a line that is written now; null: it has none.
  static const LogFields* Of(const spdlog::source_loc& place) {
    return place.filename == kMark ? reinterpret_cast<const LogFields*>(place.funcname) : nullptr;
  }

 private:
  static constexpr char kMark[] = "fields";
  std::vector<Field> fields_;
};

}  // namespace statehouse
