// What `statehouse top` shows: two looks at the service and what happened between them.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "clients/cli/metrics_text.h"
#include "statehouse/statehouse.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse::cli {

struct LockUse {
  std::string name;
  uint32_t limit = 0;
  uint32_t holders = 0;
  uint32_t waiters = 0;
  std::string owner;  // Of the first holder.
};

// One look.
struct TopLook {
  std::chrono::steady_clock::time_point time;
  v1::GetStatusResponse status;
  std::vector<v1::Dict> dicts;
  std::vector<sh_area_info> areas;
  std::vector<LockUse> locks;
  std::optional<std::vector<MetricSample>> metrics;  // Where they could be read.
};

struct DictRow {
  std::string name;
  uint64_t entries = 0;
  uint64_t bytes = 0;
  uint32_t processes = 0;
  std::optional<double> changes;  // A second; nothing for one that is new, or was made anew.
};
struct AreaRow {
  std::string name;
  uint64_t size = 0;
  uint32_t processes = 0;
  std::optional<double> updates;  // The same.
};
struct MethodRow {
  std::string door;
  std::string method;
  double calls = 0;   // A second.
  double errors = 0;  // The same: those with another reason than OK.
};

// Rows in the order in which they are shown: the busiest first, then the largest.
struct TopView {
  double seconds = 0;  // Between the looks.
  v1::GetStatusResponse status;
  std::vector<DictRow> dicts;
  std::vector<AreaRow> areas;
  std::vector<LockUse> locks;  // Those with the most waiters first.
  std::optional<std::vector<MethodRow>> methods;
};

TopView Compare(const TopLook& before, const TopLook& now);

nlohmann::ordered_json ToJson(const TopView& view);
// Lines of at most `columns` bytes and whole characters, control characters escaped; with
// `lines_max` the tables are cut to fit, and what was cut is counted. 0: no bound.
std::vector<std::string> ToLines(const TopView& view, size_t lines_max, size_t columns);

}  // namespace statehouse::cli
