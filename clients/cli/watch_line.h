// One event of a watch, as `watch` and `monitor` print it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "statehouse/statehouse.h"

namespace statehouse::cli {

struct Told {
  std::string dict{};  // Where there are several; else empty.
  std::string kind{};
  std::string key{};
  std::string value{};     // JSON; empty: none.
  std::string previous{};  // As value.
  std::string reason{};
  uint64_t version = 0;
  uint64_t revision = 0;
  bool coalesced = false;
  bool value_gone = false;
  bool previous_gone = false;
  bool has_key = false;

  bool is_change() const { return has_key && kind != "entry"; }
};

// Throws Failed for a value that is no message of this release.
Told ToldOf(const sh_watch_event& event);
// For sh_watch_options, of the names of changes.
uint32_t KindsOf(const std::vector<std::string>& names);

// Without the line's end. Text shows control characters escaped, so that no key or value forges a
// line or commands the terminal; JSON has them as JSON does.
std::string LineOf(const Told& told, bool as_json);

}  // namespace statehouse::cli
