// libFuzzer target: the attach decoder never crashes, and what it takes it gives back unchanged;
// the short ways to read a Call and its reply take what it takes, and nothing else.
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

void CompareShortWays(const std::string& bytes,
                      const statehouse::StatusOr<statehouse::AttachPacket>& decoded) {
  const auto span = std::as_bytes(std::span(bytes.data(), bytes.size()));
  const auto* const call =
      decoded.ok() ? std::get_if<statehouse::AttachCall>(&decoded->message) : nullptr;
  const auto* const reply =
      decoded.ok() ? std::get_if<statehouse::AttachCallReply>(&decoded->message) : nullptr;
  uint64_t id = 0;
  statehouse::AttachCallView call_view;
  statehouse::AttachCallReplyView reply_view;
  if (statehouse::DecodeAttachCall(span, &id, &call_view) != (call != nullptr)) abort();
  if (call != nullptr &&
      (id != decoded->request_id || call_view.method != call->method ||
       call_view.request != call->request || call_view.deadline_ns != call->deadline_ns ||
       call_view.takes_parts != call->takes_parts)) {
    abort();
  }
  if (statehouse::DecodeAttachCallReply(span, &id, &reply_view) != (reply != nullptr)) abort();
  if (reply != nullptr && (id != decoded->request_id || reply_view.response != reply->response))
    abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto decoded = Decode(bytes);
  CompareShortWays(bytes, decoded);
  if (!decoded.ok()) return 0;
  const auto encoded = statehouse::EncodeAttachPacket(*decoded);
  if (!encoded.ok()) abort();
  const auto again = Decode(*encoded);
  if (!again.ok()) abort();
  const auto twice = statehouse::EncodeAttachPacket(*again);
  if (!twice.ok() || *twice != *encoded) abort();
  return 0;
}
