// How latency and bench show a histogram.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "clients/cli/histogram.h"

namespace statehouse::cli {

// "p50" and so on with nanoseconds, each recorded duration divided by `divisor`. A percentile that
// fewer samples than its tail has cannot tell (p99 of less than 100) is null.
nlohmann::ordered_json PercentilesJson(const Histogram& histogram, uint64_t divisor);

// MIN P50 P90 P99 P99.9 MAX in columns of their own: the title, and a row in units of `unit_ns`.
std::string PercentilesTitle();
std::string PercentilesRow(const Histogram& histogram, uint64_t divisor, double unit_ns);

}  // namespace statehouse::cli
