// gRPC over HTTP/2 as bytes, as far as streams of batches need it (RFC 9113 and gRPC's
// PROTOCOL-HTTP2.md). Functions of values; any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace statehouse {

// "SH" in a client's first SETTINGS, with the value 1: this connection carries only streams of
// batches. Services that do not know it ignore it, as HTTP/2 has it.
inline constexpr uint16_t kBatchesSetting = 0x5348;
inline constexpr uint32_t kBatchesSettingValue = 1;
// Of a first SETTINGS that is looked into; the rest of a longer one is not.
inline constexpr size_t kFirstBytesMax = 512;
// Whether the first bytes that a client has sent say so.
bool SaysOnlyBatches(std::string_view first);

// In front of each message: whether it is compressed, and its length.
inline constexpr size_t kMessagePrefixBytes = 5;
void AppendMessagePrefix(size_t message_bytes, std::string* to);
// The length that a prefix says. REQUIRES: kMessagePrefixBytes.
uint32_t MessageBytesOf(std::string_view prefix);

// Of `grpc-timeout`: up to eight digits and a unit. None where it makes no sense.
std::optional<std::chrono::duration<double>> ParseGrpcTimeout(std::string_view text);
// As `grpc-message` is written: all but printable ASCII, and '%', by its number.
std::string PercentEncoded(std::string_view text);
// As values of `-bin` are written.
std::string UnpaddedBase64(std::string_view bytes);

}  // namespace statehouse
