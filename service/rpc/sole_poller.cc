#include "service/rpc/sole_poller.h"

#include <absl/status/status.h>
#include <grpcpp/version_info.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "engine/os/futex.h"

#if GRPC_CPP_VERSION_MAJOR == 1 && GRPC_CPP_VERSION_MINOR == 51

// As gRPC 1.51 has them in src/core/lib/iomgr/pollset.h, which is not installed.
struct grpc_pollset;
struct grpc_pollset_worker;
struct grpc_pollset_vtable {
  void (*global_init)();
  void (*global_shutdown)();
  void (*init)(grpc_pollset* pollset, void** mutex);
  void (*shutdown)(grpc_pollset* pollset, void* closure);
  void (*destroy)(grpc_pollset* pollset);
  absl::Status (*work)(grpc_pollset* pollset, grpc_pollset_worker** worker, int64_t deadline_ms);
  absl::Status (*kick)(grpc_pollset* pollset, grpc_pollset_worker* worker);
  size_t (*pollset_size)();
};
extern grpc_pollset_vtable* grpc_pollset_impl;
void grpc_set_pollset_vtable(grpc_pollset_vtable* vtable);

namespace statehouse {
namespace {

std::atomic<int> sole_pollers{0};
std::atomic<uint64_t> backup_pauses{0};
grpc_pollset_vtable own;     // gRPC's, but for `work`.
grpc_pollset_vtable* grpcs;  // Set before `own` is.

// Only the backup polls on a thread of the executor.
bool IsExecutorThread() {
  std::array<char, 16> name{};
  (void)::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return std::string_view(name.data()) == "default-executo";
}

absl::Status Work(grpc_pollset* pollset, grpc_pollset_worker** worker, int64_t deadline_ms) {
  thread_local const bool is_backup = IsExecutorThread();
  if (!is_backup || sole_pollers.load(std::memory_order_relaxed) == 0) {
    return grpcs->work(pollset, worker, deadline_ms);
  }
  backup_pauses.fetch_add(1, std::memory_order_relaxed);
  // With its pollset's lock, which nobody else wants while the backup is at work.
  SleepNs(kBackupPauseNs);
  return absl::OkStatus();
}

}  // namespace

SolePoller::SolePoller() {
  sole_pollers.fetch_add(1, std::memory_order_relaxed);
  // With others than epoll1 the backup sleeps with a lock that is wanted.
  const char* const strategy = std::getenv("GRPC_POLL_STRATEGY");
  const std::string_view chosen = strategy == nullptr ? "all" : strategy;
  if (chosen != "all" && chosen != "epoll1") return;
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (grpc_pollset_impl == nullptr || grpc_pollset_impl == &own) return;
  grpcs = grpc_pollset_impl;
  own = *grpcs;
  own.work = &Work;
  grpc_set_pollset_vtable(&own);
}

bool SolePoller::IsInForce() {
  return sole_pollers.load(std::memory_order_relaxed) > 0 && grpc_pollset_impl == &own;
}

}  // namespace statehouse

#else

namespace statehouse {
namespace {

std::atomic<int> sole_pollers{0};
std::atomic<uint64_t> backup_pauses{0};

}  // namespace

SolePoller::SolePoller() { sole_pollers.fetch_add(1, std::memory_order_relaxed); }
bool SolePoller::IsInForce() { return false; }

}  // namespace statehouse

#endif

namespace statehouse {

SolePoller::~SolePoller() { sole_pollers.fetch_sub(1, std::memory_order_relaxed); }
uint64_t SolePoller::pauses() { return backup_pauses.load(std::memory_order_relaxed); }

}  // namespace statehouse
