// SessionStore: the sessions of the network door's clients, in a memfd that no worker ever gets and
// that the keeper carries from one daemon to the next ("sessions").
//
// Drawing (docs/formats/sessions.md):
//   0        head (4 KiB): magic, version
//   4096     slots: kSessionsMax x 256 bytes, sparse
//
// Crash rule: a slot is filled first and its `state` is stored last, so that a daemon killed
// anywhere leaves a session that either stands or does not.
//
// Who owns it: the composition root. Threads: one at a time, except SetDeadline. Failure:
// LIMIT_EXCEEDED when every slot is taken.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/descriptor_vault.h"

namespace statehouse {

inline constexpr size_t kSessionTokenIdBytesMax = 32;

struct alignas(kCacheLineBytes) SessionSlot {
  std::atomic<uint64_t> state;  // 0 free, 1 used.
  uint64_t id;
  uint64_t ttl_ns;
  uint64_t linger_ns;
  std::atomic<uint64_t> deadline_ns;  // On CLOCK_MONOTONIC.
  uint32_t token_id_bytes;
  uint32_t client_name_bytes;
  char token_id[kSessionTokenIdBytesMax];
  char client_name[kSessionNameBytesMax];
};
static_assert(sizeof(SessionSlot) == 256);

struct SessionRecord {
  uint64_t id = 0;  // Never 0.
  std::string token_id;
  std::string client_name;
  uint64_t ttl_ns = 0;
  uint64_t linger_ns = 0;
  uint64_t deadline_ns = 0;
  uint32_t slot = 0;  // Where it stands.
};

class SessionStore final {
 public:
  // A new, empty one where `kept` is invalid, which goes to the vault; else what an earlier daemon
  // left. `sessions_max`: how many Add allows. Errors: VERSION_MISMATCH, MEMORY_EXHAUSTED.
  static StatusOr<std::unique_ptr<SessionStore>> Start(UniqueFd kept, DescriptorVault* vault,
                                                       uint32_t sessions_max = kSessionsMax);
  ~SessionStore();
  SessionStore(const SessionStore&) = delete;
  SessionStore& operator=(const SessionStore&) = delete;

  // Those that stand, in no order. What contradicts itself is dropped.
  std::vector<SessionRecord> Sessions();
  // Makes up an id and a slot for the record. Texts that are too long are cut.
  Status Add(SessionRecord* record);
  void SetDeadline(uint32_t slot, uint64_t deadline_ns);
  void Remove(uint32_t slot);
  uint32_t sessions_max() const { return sessions_max_; }

 private:
  SessionStore(UniqueFd fd, uint32_t sessions_max)
      : fd_(std::move(fd)), sessions_max_(sessions_max) {}
  Status MapAll();
  SessionSlot& Slot(uint32_t slot) const;

  const UniqueFd fd_;
  const uint32_t sessions_max_;
  std::byte* base_ = nullptr;
  uint32_t used_ = 0;
  uint32_t next_ = 0;  // Where to look for a free slot.
};

}  // namespace statehouse
