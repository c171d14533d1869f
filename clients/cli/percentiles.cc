#include "clients/cli/percentiles.h"

#include <cstdio>
#include <optional>

namespace statehouse::cli {
namespace {

struct Percent {
  const char* name;
  double percent;
  uint64_t count_min;  // Samples below which it is no more than the maximum.
};
constexpr Percent kPercents[] = {
    {"p50", 50, 2}, {"p90", 90, 10}, {"p99", 99, 100}, {"p99.9", 99.9, 1000}};

double Divided(uint64_t ns, uint64_t divisor) {
  return static_cast<double>(ns) / static_cast<double>(divisor);
}

std::optional<double> ValueOf(const Histogram& histogram, const Percent& percent,
                              uint64_t divisor) {
  if (histogram.count() < percent.count_min) return std::nullopt;
  return Divided(histogram.Percentile(percent.percent), divisor);
}

std::string Cell(std::optional<double> ns, double unit_ns) {
  char text[32];
  if (!ns.has_value()) {
    std::snprintf(text, sizeof text, " %10s", "-");
  } else {
    std::snprintf(text, sizeof text, " %10.2f", *ns / unit_ns);
  }
  return text;
}

}  // namespace

nlohmann::ordered_json PercentilesJson(const Histogram& histogram, uint64_t divisor) {
  nlohmann::ordered_json json = {{"count", histogram.count()}, {"unit", "ns"}};
  if (histogram.count() == 0) return json;
  json["min"] = Divided(histogram.min(), divisor);
  json["mean"] = histogram.mean() / static_cast<double>(divisor);
  for (const Percent& percent : kPercents) {
    const std::optional<double> value = ValueOf(histogram, percent, divisor);
    json[percent.name] = value.has_value() ? nlohmann::ordered_json(*value) : nullptr;
  }
  json["max"] = Divided(histogram.max(), divisor);
  return json;
}

std::string PercentilesTitle() {
  char text[96];
  std::snprintf(text, sizeof text, " %10s %10s %10s %10s %10s %10s", "MIN", "P50", "P90", "P99",
                "P99.9", "MAX");
  return text;
}

std::string PercentilesRow(const Histogram& histogram, uint64_t divisor, double unit_ns) {
  const auto end = [&](uint64_t ns) {
    return histogram.count() == 0 ? std::nullopt : std::optional(Divided(ns, divisor));
  };
  std::string row = Cell(end(histogram.min()), unit_ns);
  for (const Percent& percent : kPercents) {
    row += Cell(ValueOf(histogram, percent, divisor), unit_ns);
  }
  return row + Cell(end(histogram.max()), unit_ns);
}

}  // namespace statehouse::cli
