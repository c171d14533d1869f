// What stands behind sh_client, sh_area and sh_error (dict_handle.h has sh_dict), and the parts
// that the files of the C interface share.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "clients/c/include/statehouse/statehouse.h"
#include "clients/c/src/caller.h"
#include "clients/c/src/client_locks.h"
#include "clients/c/src/client_watches.h"
#include "clients/c/src/local_session.h"
#include "clients/c/src/network_session.h"
#include "clients/c/src/operation_ids.h"
#include "clients/c/src/socket_caller.h"
#include "engine/base/status.h"
#include "statehouse/v1/area.pb.h"

struct sh_error {
  sh_reason reason;
  std::string message;
  std::string name;
  uint32_t retry_after_ms;
};

// Exactly one of `local` and `network` is set.
struct sh_client {
  std::shared_ptr<statehouse::LocalSession> local;
  std::shared_ptr<statehouse::Caller> network;
  // Set in both cases: the local door carries no streams. Nothing is connected before the first
  // one.
  std::shared_ptr<statehouse::NetworkSession> streams;
  std::unique_ptr<statehouse::Caller> local_caller;
  std::shared_ptr<statehouse::SocketCaller> socket;  // Then it is `network`, too.
  std::chrono::nanoseconds timeout{};
  std::shared_ptr<statehouse::ClientLocks> locks;
  std::shared_ptr<statehouse::ClientWatches> watches;
  // Names of the mutations of batches.
  std::shared_ptr<statehouse::OperationIds> batch_ids =
      std::make_shared<statehouse::OperationIds>();

  statehouse::Caller& caller() const { return network != nullptr ? *network : *local_caller; }
};

// Exactly one of `local` and `network` is set.
struct sh_area {
  std::string name;
  uint64_t size = 0;
  std::shared_ptr<statehouse::LocalArea> local;
  std::shared_ptr<statehouse::Caller> network;
  std::chrono::nanoseconds timeout{};
  std::shared_ptr<statehouse::ClientWatches> watches;
};

namespace statehouse {

// The result of a call: SH_OK, or the status' reason with *error filled in where the caller wants
// it.
sh_reason Finish(const Status& status, const char* name, sh_error** error);

inline CallOptions OptionsFor(std::chrono::nanoseconds timeout, bool idempotent) {
  CallOptions options;
  options.deadline = std::chrono::steady_clock::now() + timeout;
  options.idempotent = idempotent;
  return options;
}

// The name as a string; INVALID_ARGUMENT for NULL.
StatusOr<std::string> NameOf(const char* name);

// Anything beyond a century is for ever, and still a number that clocks can add.
inline Deadline DeadlineAfterMs(uint64_t timeout_ms) {
  constexpr uint64_t kMillisecondsMax = 100ull * 365 * 24 * 60 * 60 * 1000;
  return std::chrono::steady_clock::now() +
         std::chrono::milliseconds(std::min(timeout_ms, kMillisecondsMax));
}

template <size_t kBytes>
void CopyText(const std::string& text, char (&out)[kBytes]) {
  const size_t length = std::min(text.size(), kBytes - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

// The verbs of an area over the network door; results as those of engine/state/area.h.
Status NetworkLoad(const sh_area& area, WordType type, uint64_t pos, uint64_t* bits);
Status NetworkStore(const sh_area& area, WordType type, uint64_t pos, uint64_t bits,
                    uint64_t fence);
Status NetworkAdd(const sh_area& area, WordType type, uint64_t pos, int64_t delta, uint64_t fence,
                  uint64_t* bits);
Status NetworkCompareExchange(const sh_area& area, WordType type, uint64_t pos, uint64_t expected,
                              uint64_t desired, uint64_t fence, CompareExchangeResult* result);
Status NetworkBitwise(const sh_area& area, BitwiseOperator op, WordType type, uint64_t pos,
                      uint64_t operand, uint64_t fence, uint64_t* bits);
Status NetworkRead(const sh_area& area, uint64_t pos, std::byte* out, uint64_t len);
Status NetworkWrite(const sh_area& area, uint64_t pos, const std::byte* bytes, uint64_t len,
                    uint64_t fence);
Status NetworkFill(const sh_area& area, uint64_t pos, uint64_t len, uint8_t value, uint64_t fence);
StatusOr<uint64_t> NetworkUpdates(const sh_area& area);
StatusOr<WaitResult> NetworkWait(const sh_area& area, uint64_t since, Deadline deadline);

}  // namespace statehouse
