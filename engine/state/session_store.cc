#include "engine/state/session_store.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"

namespace statehouse {
namespace {

constexpr char kVaultName[] = "sessions";
constexpr uint64_t kMagic = 0x3130535345534853;  // "SHSESS01"
constexpr uint64_t kVersion = 1;
constexpr uint64_t kBytes = kPageBytes + kSessionsMax * sizeof(SessionSlot);

struct Head {
  uint64_t magic;
  uint64_t version;
};

}  // namespace

SessionStore::~SessionStore() {
  if (base_ != nullptr) Unmap(base_, kBytes);
}

SessionSlot& SessionStore::Slot(uint32_t slot) const {
  return *reinterpret_cast<SessionSlot*>(base_ + kPageBytes + slot * sizeof(SessionSlot));
}

Status SessionStore::MapAll() {
  SH_ASSIGN_OR_RETURN(base_, MapShared(fd_.get(), 0, kBytes, true));
  return Status();
}

StatusOr<std::unique_ptr<SessionStore>> SessionStore::Start(UniqueFd kept, DescriptorVault* vault,
                                                            uint32_t sessions_max) {
  const bool is_new = !kept.valid();
  if (is_new) {
    SH_ASSIGN_OR_RETURN(kept, CreateSealedMemory("statehouse-sessions", kBytes));
  } else {
    SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(kept.get()));
    if (bytes != kBytes) {
      return Status(Reason::kVersionMismatch, "the kept sessions have " + std::to_string(bytes) +
                                                  " bytes, this release uses " +
                                                  std::to_string(kBytes) +
                                                  "; stop the old release first");
    }
  }
  std::unique_ptr<SessionStore> store(
      new SessionStore(std::move(kept), std::min(sessions_max, kSessionsMax)));
  SH_RETURN_IF_ERROR(store->MapAll());
  Head& head = *reinterpret_cast<Head*>(store->base_);
  if (is_new) {
    head.version = kVersion;
    CrashFence();
    head.magic = kMagic;
    SH_RETURN_IF_ERROR(vault->Store(kVaultName, store->fd_.get()));
  } else if (head.magic != kMagic || head.version != kVersion) {
    return Status(Reason::kVersionMismatch,
                  "the kept sessions have another format; stop the old release first");
  }
  (void)store->Sessions();  // Counts them.
  return store;
}

std::vector<SessionRecord> SessionStore::Sessions() {
  std::vector<SessionRecord> records;
  for (uint32_t number = 0; number < kSessionsMax; ++number) {
    SessionSlot& slot = Slot(number);
    if (slot.state.load(std::memory_order_acquire) == 0) continue;
    if (slot.id == 0 || slot.token_id_bytes > kSessionTokenIdBytesMax ||
        slot.client_name_bytes > kSessionNameBytesMax) {
      slot.state.store(0, std::memory_order_release);
      continue;
    }
    SessionRecord record;
    record.id = slot.id;
    record.token_id.assign(slot.token_id, slot.token_id_bytes);
    record.client_name.assign(slot.client_name, slot.client_name_bytes);
    record.ttl_ns = slot.ttl_ns;
    record.linger_ns = slot.linger_ns;
    record.deadline_ns = slot.deadline_ns.load(std::memory_order_relaxed);
    record.slot = number;
    records.push_back(std::move(record));
  }
  used_ = static_cast<uint32_t>(records.size());
  return records;
}

Status SessionStore::Add(SessionRecord* record) {
  if (used_ >= sessions_max_) {
    return Status(Reason::kLimitExceeded, "opening a session: " + std::to_string(used_) +
                                              " are open, which is the limit (sessions.count_max)");
  }
  do {
    if (getrandom(&record->id, sizeof(record->id), 0) != static_cast<ssize_t>(sizeof(record->id))) {
      return ErrnoStatus("reading random bytes");
    }
  } while (record->id == 0 || record->id == UINT64_MAX);  // The lock space has a use for both.
  while (Slot(next_).state.load(std::memory_order_relaxed) != 0) next_ = (next_ + 1) % kSessionsMax;
  SessionSlot& slot = Slot(next_);
  record->slot = next_;
  record->token_id.resize(std::min(record->token_id.size(), kSessionTokenIdBytesMax));
  record->client_name.resize(std::min(record->client_name.size(), kSessionNameBytesMax));
  slot.id = record->id;
  slot.ttl_ns = record->ttl_ns;
  slot.linger_ns = record->linger_ns;
  slot.deadline_ns.store(record->deadline_ns, std::memory_order_relaxed);
  slot.token_id_bytes = static_cast<uint32_t>(record->token_id.size());
  slot.client_name_bytes = static_cast<uint32_t>(record->client_name.size());
  std::memcpy(slot.token_id, record->token_id.data(), record->token_id.size());
  std::memcpy(slot.client_name, record->client_name.data(), record->client_name.size());
  CrashFence();
  slot.state.store(1, std::memory_order_release);
  ++used_;
  return Status();
}

void SessionStore::SetDeadline(uint32_t slot, uint64_t deadline_ns) {
  Slot(slot).deadline_ns.store(deadline_ns, std::memory_order_relaxed);
}

void SessionStore::Remove(uint32_t slot) {
  if (Slot(slot).state.exchange(0, std::memory_order_release) != 0) --used_;
  next_ = slot;
}

}  // namespace statehouse
