#include "clients/c/src/wait_message.h"

#include "clients/c/src/wire_fields.h"

namespace statehouse {

std::string EncodeWaitAreaRequest(std::string_view name, uint64_t since, uint64_t timeout_ns) {
  std::string duration;
  AppendVarintField(1, timeout_ns / 1'000'000'000, &duration);
  AppendVarintField(2, timeout_ns % 1'000'000'000, &duration);
  std::string request;
  AppendBytesField(1, name, &request);
  AppendVarintField(2, since, &request);
  AppendBytesField(3, duration, &request);
  return request;
}

StatusOr<WaitResult> DecodeWaitAreaResponse(std::string_view bytes) {
  WaitResult result;
  while (!bytes.empty()) {
    uint64_t field = 0;
    uint64_t number = 0;
    if (!TakeVarintField(&bytes, &field, &number)) {
      return Status(Reason::kInternal, "the daemon's answer to WaitArea is malformed");
    }
    if (field == 1) result.changed = number != 0;
    if (field == 2) result.updates = number;
  }
  return result;
}

}  // namespace statehouse
