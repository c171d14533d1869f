// Paths as text: a.b[1]."odd key"
#include <charconv>
#include <string>
#include <utility>

#include "engine/value/path.h"
#include "engine/value/text.h"
#include "engine/value/wire.h"

namespace statehouse {
namespace {

constexpr size_t kMessageBytesMax = 200;

bool IsBare(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

void AppendStep(std::string* text, const PathStep& step) {
  if (step.kind == PathStep::Kind::kIndex) {
    text->append("[" + std::to_string(step.index) + "]");
    return;
  }
  if (!text->empty()) text->push_back('.');
  bool is_bare = !step.key.empty();
  for (const char c : step.key) is_bare = is_bare && IsBare(c);
  if (is_bare) {
    text->append(step.key);
  } else {
    internal::AppendQuoted(text, step.key);
  }
}

Status Wrong(size_t at, const std::string& what) {
  return Status(Reason::kInvalidArgument, "the path is wrong at byte " + std::to_string(at) + ": " +
                                              what + "; a path looks like a.b[1].\"odd key\"");
}

// Reads "[number]" at `*at`.
Status ReadIndex(std::string_view text, size_t* at, int64_t* index) {
  const size_t close = text.find(']', *at);
  if (close == std::string_view::npos) return Wrong(*at, "the ']' is missing");
  const std::string_view digits = text.substr(*at + 1, close - *at - 1);
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), *index);
  // What it reads must be what it would write: no "007", no "-0".
  if (error != std::errc() || end != digits.end() || std::to_string(*index) != digits) {
    return Wrong(*at + 1, "a position is a number such as 0, 12 or -1");
  }
  *at = close + 1;
  return Status();
}

}  // namespace

StatusOr<Path> ParsePath(std::string_view text) {
  if (text.size() > kPathTextBytesMax) {
    return Status(Reason::kInvalidArgument, "the path has " + std::to_string(text.size()) +
                                                " bytes; as text it has at most 262,144");
  }
  Path path;
  path.keys_.reserve(text.size());  // No key is longer than its text.
  std::string key;
  for (size_t at = 0; at < text.size();) {
    if (path.steps_.size() == kPathStepsMax) return Wrong(at, "this is step 33 of at most 32");
    if (text[at] == '[') {
      int64_t index = 0;
      SH_RETURN_IF_ERROR(ReadIndex(text, &at, &index));
      path.steps_.push_back(PathStep::Index(index));
      continue;
    }
    if (!path.steps_.empty()) {
      if (text[at] != '.') return Wrong(at, "a '.' or a '[' is missing");
      ++at;
    }
    key.clear();
    if (at < text.size() && text[at] == '"') {
      if (const char* problem = internal::ReadQuoted(text, &at, &key)) return Wrong(at, problem);
    } else {
      while (at < text.size() && IsBare(text[at])) key.push_back(text[at++]);
      if (key.empty()) return Wrong(at, "a key is missing; odd ones and empty ones need quotes");
    }
    if (key.size() > kMapKeyBytesMax) return Wrong(at, "the key is longer than 1,024 bytes");
    const char* const start = path.keys_.data() + path.keys_.size();
    path.keys_.insert(path.keys_.end(), key.begin(), key.end());
    path.steps_.push_back(PathStep::Key({start, key.size()}));
  }
  return path;
}

std::string PathText(std::span<const PathStep> path) {
  std::string text;
  for (const PathStep& step : path) AppendStep(&text, step);
  return text;
}

std::string internal::PathForMessage(std::span<const PathStep> path) {
  if (path.empty()) return "the value";
  std::string text;
  for (const PathStep& step : path) {
    AppendStep(&text, step);
    if (text.size() <= kMessageBytesMax) continue;
    text.resize(kMessageBytesMax);
    while (!IsUtf8(text)) text.pop_back();
    text.append("…");
    break;
  }
  return text;
}

}  // namespace statehouse
