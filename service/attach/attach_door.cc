#include "service/attach/attach_door.h"

#include <future>
#include <thread>
#include <utility>

#include "service/attach/attach_loop.h"
#include "service/log.h"

namespace statehouse {
namespace {

// Runs an AttachLoop on a thread of its own.
class ThreadedAttachDoor final : public AttachDoor {
 public:
  explicit ThreadedAttachDoor(std::unique_ptr<AttachLoop> loop)
      : loop_(std::move(loop)), thread_([this] { loop_->Run(); }) {}
  ~ThreadedAttachDoor() override { Shutdown(std::chrono::milliseconds(0)); }

  void RecheckIdentities() override { loop_->RequestRecheck(); }
  void Shutdown(std::chrono::milliseconds grace) override {
    if (!thread_.joinable()) return;
    loop_->RequestStop(grace);
    thread_.join();
  }

 private:
  std::unique_ptr<AttachLoop> loop_;
  std::thread thread_;
};

}  // namespace

StatusOr<std::unique_ptr<AttachDoor>> StartAttachDoor(AttachDoorOptions options, UniqueFd listener,
                                                      AttachDoorParts parts) {
  SH_ASSIGN_OR_RETURN(std::unique_ptr<AttachLoop> loop,
                      AttachLoop::Create(std::move(options), std::move(listener), parts));
  return std::unique_ptr<AttachDoor>(std::make_unique<ThreadedAttachDoor>(std::move(loop)));
}

}  // namespace statehouse
