#include "clients/c/src/wait_message.h"

#include "clients/c/src/wire_fields.h"

namespace statehouse {

namespace {

std::string Duration(uint64_t ns) {
  std::string duration;
  AppendVarintField(1, ns / 1'000'000'000, &duration);
  AppendVarintField(2, ns % 1'000'000'000, &duration);
  return duration;
}

}  // namespace

std::string EncodeWaitEntryRequest(std::string_view name, std::string_view key,
                                   const EntryWait& wait, uint64_t timeout_ns) {
  std::string request;
  AppendBytesField(1, name, &request);
  AppendBytesField(2, key, &request);
  switch (wait.kind) {
    case EntryWait::Kind::kPresent: AppendVarintField(3, 1, &request); break;
    case EntryWait::Kind::kAbsent: AppendVarintField(4, 1, &request); break;
    case EntryWait::Kind::kVersionAbove: AppendVarintField(5, wait.version, &request); break;
    case EntryWait::Kind::kVersionDiffers: AppendVarintField(6, wait.version, &request); break;
    case EntryWait::Kind::kValue: AppendBytesField(7, wait.value, &request); break;
  }
  for (const PathStep& step : wait.path) {
    std::string bytes;
    if (step.kind == PathStep::Kind::kKey) {
      AppendBytesField(1, step.key, &bytes);
    } else {
      AppendVarintField(2, static_cast<uint64_t>(step.index), &bytes);
    }
    AppendBytesField(8, bytes, &request);
  }
  AppendBytesField(9, Duration(timeout_ns), &request);
  return request;
}

std::string EncodeWaitAreaRequest(std::string_view name, uint64_t since, uint64_t timeout_ns) {
  std::string request;
  AppendBytesField(1, name, &request);
  AppendVarintField(2, since, &request);
  AppendBytesField(3, Duration(timeout_ns), &request);
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
