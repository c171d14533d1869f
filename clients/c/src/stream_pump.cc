#include "clients/c/src/stream_pump.h"

#include <pthread.h>

#include <mutex>
#include <string>
#include <system_error>

namespace statehouse {
namespace {

struct Shared {
  std::mutex mutex;
  std::weak_ptr<StreamPump> pump;
};

// Never destroyed: watches may be closed while the process ends.
Shared& TheShared() {
  static Shared* const shared = new Shared;
  return *shared;
}

}  // namespace

StatusOr<std::shared_ptr<StreamPump>> StreamPump::OfThisProcess() {
  Shared& shared = TheShared();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  if (std::shared_ptr<StreamPump> pump = shared.pump.lock()) return pump;
  std::shared_ptr<StreamPump> pump(new StreamPump());
  try {
    pump->thread_ = std::thread([raw = pump.get()] { raw->Run(); });
  } catch (const std::system_error& failed) {
    return Status(Reason::kLimitExceeded,
                  std::string("no thread to read watches could be started: ") + failed.what());
  }
  ::pthread_setname_np(pump->thread_.native_handle(), "statehouse-read");
  shared.pump = pump;
  return pump;
}

StreamPump::~StreamPump() {
  queue_.Shutdown();
  if (thread_.joinable()) {
    thread_.join();
    return;
  }
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void StreamPump::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) static_cast<Handler*>(tag)->Handle(ok);
}

}  // namespace statehouse
