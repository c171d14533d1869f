// The text that /metrics gives, in the format of Prometheus 0.0.4.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace statehouse::cli {

struct MetricSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// The samples in their order. A line that is none is passed over: another release may have more.
std::vector<MetricSample> ParseMetrics(std::string_view text);

}  // namespace statehouse::cli
