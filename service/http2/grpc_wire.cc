#include "service/http2/grpc_wire.h"

#include <openssl/evp.h>

#include <charconv>
#include <utility>

namespace statehouse {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeadBytes = 9;
constexpr size_t kSettingBytes = 6;
constexpr uint8_t kSettingsFrame = 4;
constexpr size_t kTimeoutDigitsMax = 8;

uint32_t BigEndian(std::string_view bytes) {
  uint32_t number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
  return number;
}

}  // namespace

bool SaysOnlyBatches(std::string_view first) {
  if (!first.starts_with(kPreface)) return false;
  first.remove_prefix(kPreface.size());
  if (first.size() < kFrameHeadBytes || first[3] != kSettingsFrame || first[4] != 0) return false;
  const size_t length = BigEndian(first.substr(0, 3));
  first.remove_prefix(kFrameHeadBytes);
  first = first.substr(0, length);
  for (; first.size() >= kSettingBytes; first.remove_prefix(kSettingBytes)) {
    if (BigEndian(first.substr(0, 2)) == kBatchesSetting &&
        BigEndian(first.substr(2, 4)) == kBatchesSettingValue) {
      return true;
    }
  }
  return false;
}

void AppendMessagePrefix(size_t message_bytes, std::string* to) {
  const auto length = static_cast<uint32_t>(message_bytes);
  to->push_back('\0');
  for (int shift = 24; shift >= 0; shift -= 8) to->push_back(static_cast<char>(length >> shift));
}

uint32_t MessageBytesOf(std::string_view prefix) {
  return BigEndian(prefix.substr(1, kMessagePrefixBytes - 1));
}

std::optional<std::chrono::duration<double>> ParseGrpcTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > kTimeoutDigitsMax + 1) return std::nullopt;
  uint32_t count = 0;
  const char* const unit = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), unit, count);
  if (error != std::errc() || end != unit) return std::nullopt;
  constexpr std::pair<char, double> kUnits[] = {{'H', 3600}, {'M', 60},   {'S', 1},
                                                {'m', 1e-3}, {'u', 1e-6}, {'n', 1e-9}};
  for (const auto& [name, seconds] : kUnits) {
    if (name == *unit) return std::chrono::duration<double>(count * seconds);
  }
  return std::nullopt;
}

std::string PercentEncoded(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '%') {
      encoded.push_back(c);
    } else {
      encoded.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
    }
  }
  return encoded;
}

std::string UnpaddedBase64(std::string_view bytes) {
  std::string text(bytes.size() / 3 * 4 + 5, '\0');  // With a NUL.
  const int length = EVP_EncodeBlock(reinterpret_cast<uint8_t*>(text.data()),
                                     reinterpret_cast<const uint8_t*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  while (text.ends_with('=')) text.pop_back();
  return text;
}

}  // namespace statehouse
