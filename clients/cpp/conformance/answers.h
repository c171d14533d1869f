// The answers of the C++ client's conformance program, as the JSON that
// tests/conformance/README.md describes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <statehouse/client.hpp>
#include <string>
#include <vector>

inline std::string Ok(const std::string& json) { return R"({"ok": )" + json + "}"; }
inline std::string Inexpressible() { return R"({"inexpressible": true})"; }
inline std::string Malformed() { return R"({"malformed": true})"; }
inline std::string Boolean(bool truth) { return truth ? "true" : "false"; }
inline std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + '"';
}
inline std::string Hex(const std::vector<std::byte>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text.push_back(kDigits[static_cast<unsigned>(byte) >> 4]);
    text.push_back(kDigits[static_cast<unsigned>(byte) & 15]);
  }
  return text;
}
inline std::string JsonOf(const statehouse::client::Value& value) {
  return value.ToJson().value_or("\"no value\"");
}

inline std::string Refused(const statehouse::client::Error& error) {
  return R"({"error": ")" + std::string(error.reason_name()) + R"(", "retryable": )" +
         Boolean(error.retryable()) + "}";
}
template <typename T, typename Show>
std::string Answer(const statehouse::client::Result<T>& result, const Show& show) {
  return result.ok() ? Ok(show(result.value())) : Refused(result.error());
}
inline std::string Answer(const statehouse::client::Result<statehouse::client::Done>& result) {
  return Answer(result, [](const statehouse::client::Done&) { return std::string("null"); });
}
inline std::string Answer(const statehouse::client::Result<uint64_t>& result) {
  return Answer(result, [](uint64_t number) { return std::to_string(number); });
}
