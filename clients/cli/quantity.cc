#include "clients/cli/quantity.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>

namespace statehouse::cli {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

// The number before one of the units; nothing where the text is something else or does not fit.
template <size_t kUnits>
std::optional<uint64_t> Parse(std::string_view text, const Unit (&units)[kUnits]) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  // Written so that what is no number is refused too.
  if (error != std::errc() || !(number >= 0 && number < 1e300)) return std::nullopt;
  const std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit& unit : units) {
    if (rest != unit.name) continue;
    const double scaled = number * unit.factor;
    if (scaled >= 9e15) return std::nullopt;  // Beyond it a double skips numbers.
    return static_cast<uint64_t>(std::llround(scaled));
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> ParseMilliseconds(std::string_view text) {
  static constexpr Unit kUnits[] = {{"ms", 1},     {"s", 1e3},       {"", 1e3},
                                    {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
  const std::optional<uint64_t> ms = Parse(text, kUnits);
  return ms == uint64_t{0} ? std::nullopt : ms;
}

std::optional<uint64_t> ParseByteCount(std::string_view text) {
  static constexpr double kKibi = 1024;
  static constexpr Unit kUnits[] = {{"", 1},
                                    {"k", kKibi},
                                    {"K", kKibi},
                                    {"m", kKibi * kKibi},
                                    {"M", kKibi * kKibi},
                                    {"g", kKibi * kKibi * kKibi},
                                    {"G", kKibi * kKibi * kKibi}};
  return Parse(text, kUnits);
}

std::string FormatByteCount(uint64_t bytes) {
  static constexpr const char* kNames[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double number = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // What would be written as 1024.0 is one of the next unit.
  for (; number >= 1023.95; ++unit) number /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", number, kNames[unit]);
  return text;
}

}  // namespace statehouse::cli
