// libFuzzer target: the attach decoder never crashes, and what it takes it gives back unchanged.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "engine/attach/protocol.h"

namespace {

statehouse::StatusOr<statehouse::AttachPacket> Decode(const std::string& bytes) {
  return statehouse::DecodeAttachPacket(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto decoded = Decode(std::string(reinterpret_cast<const char*>(data), size));
  if (!decoded.ok()) return 0;
  const auto encoded = statehouse::EncodeAttachPacket(*decoded);
  if (!encoded.ok()) abort();
  const auto again = Decode(*encoded);
  if (!again.ok()) abort();
  const auto twice = statehouse::EncodeAttachPacket(*again);
  if (!twice.ok() || *twice != *encoded) abort();
  return 0;
}
