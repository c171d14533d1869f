#include "clients/cli/metrics_text.h"

#include <charconv>
#include <limits>
#include <optional>

namespace statehouse::cli {
namespace {

// Takes a quoted text with its escapes off the front; nothing where there is none.
std::optional<std::string> TakeQuoted(std::string_view* rest) {
  if (rest->empty() || rest->front() != '"') return std::nullopt;
  std::string text;
  for (size_t at = 1; at < rest->size(); ++at) {
    const char c = (*rest)[at];
    if (c == '"') {
      rest->remove_prefix(at + 1);
      return text;
    }
    if (c != '\\') {
      text += c;
      continue;
    }
    if (++at == rest->size()) return std::nullopt;
    text += (*rest)[at] == 'n' ? '\n' : (*rest)[at];
  }
  return std::nullopt;
}

// Takes `{name="text",…}` off the front.
bool TakeLabels(std::string_view* rest, std::map<std::string, std::string>* labels) {
  if (rest->empty() || rest->front() != '{') return true;
  rest->remove_prefix(1);
  while (!rest->empty() && rest->front() != '}') {
    const size_t equals = rest->find('=');
    if (equals == std::string_view::npos) return false;
    const std::string name(rest->substr(0, equals));
    rest->remove_prefix(equals + 1);
    std::optional<std::string> text = TakeQuoted(rest);
    if (!text.has_value()) return false;
    labels->emplace(name, *std::move(text));
    if (!rest->empty() && rest->front() == ',') rest->remove_prefix(1);
  }
  if (rest->empty()) return false;
  rest->remove_prefix(1);
  return true;
}

std::optional<MetricSample> ParseLine(std::string_view line) {
  MetricSample sample;
  const size_t end = line.find_first_of("{ ");
  if (line.empty() || line.front() == '#' || end == std::string_view::npos) return std::nullopt;
  sample.name = line.substr(0, end);
  line.remove_prefix(end);
  if (!TakeLabels(&line, &sample.labels)) return std::nullopt;
  const size_t begin = line.find_first_not_of(' ');
  if (begin == std::string_view::npos) return std::nullopt;
  line.remove_prefix(begin);
  if (line.front() == '+') line.remove_prefix(1);
  const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), sample.value);
  if (error != std::errc()) return std::nullopt;
  return sample;
}

}  // namespace

std::vector<MetricSample> ParseMetrics(std::string_view text) {
  std::vector<MetricSample> samples;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::optional<MetricSample> sample = ParseLine(text.substr(0, end));
    if (sample.has_value()) samples.push_back(*std::move(sample));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return samples;
}

}  // namespace statehouse::cli
