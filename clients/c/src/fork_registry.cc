#include "clients/c/src/fork_registry.h"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <set>

#include "clients/c/src/lane_pool.h"

namespace statehouse {
namespace {

struct Registry {
  std::mutex mutex;
  std::set<ForkObserver*> observers;
};

// Never destroyed: a fork may come while the process ends.
Registry& TheRegistry() {
  static Registry* const registry = new Registry;
  return *registry;
}

void BeforeFork() {
  TheRegistry().mutex.lock();
  for (ForkObserver* observer : TheRegistry().observers) observer->LockForFork();
}

void AfterForkInParent() {
  for (ForkObserver* observer : TheRegistry().observers) observer->UnlockAfterFork();
  TheRegistry().mutex.unlock();
}

void AfterForkInChild() {
  CountFork();
  for (ForkObserver* observer : TheRegistry().observers) {
    observer->OnForkedChild();
    observer->UnlockAfterFork();
  }
  TheRegistry().mutex.unlock();
}

}  // namespace

void InstallForkHandlers() {
  static const int installed = ::pthread_atfork(&BeforeFork, &AfterForkInParent, &AfterForkInChild);
  if (installed != 0)
    std::abort();  // Without memory for three pointers; a later fork would corrupt state.
}

void AddForkObserver(ForkObserver* observer) {
  InstallForkHandlers();
  const std::lock_guard<std::mutex> lock(TheRegistry().mutex);
  TheRegistry().observers.insert(observer);
}

void RemoveForkObserver(ForkObserver* observer) {
  const std::lock_guard<std::mutex> lock(TheRegistry().mutex);
  TheRegistry().observers.erase(observer);
}

}  // namespace statehouse
