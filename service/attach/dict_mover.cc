#include "service/attach/dict_mover.h"

#include <utility>

#include "service/api/dict_fields.h"

namespace statehouse {
namespace {

// The failure that an operation of the daemon's own would have met.
Status FailureOf(AttachDictNeed need, const std::string& name) {
  const std::string dict = "dict \"" + name + "\": ";
  switch (need) {
    case AttachDictNeed::kNothing: break;
    case AttachDictNeed::kRoomForEntries:
      return Status(Reason::kLimitExceeded, dict + "it holds its limit of entries (max_entries)");
    case AttachDictNeed::kRoomForBytes:
      return Status(Reason::kMemoryExhausted, dict + "it holds its limit of bytes (max_bytes)");
    case AttachDictNeed::kRepair:
      return Status(Reason::kDataLoss,
                    dict + "it is damaged, and was left behind as damaged less than a second ago");
  }
  return Status(Reason::kDictMoved, dict + "open it again");
}

}  // namespace

DictMover::DictMover(Engine* engine, Lane lane)
    : engine_(engine), lane_(lane), thread_([this] { Run(); }) {}

DictMover::~DictMover() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
  for (Wish& wish : wishes_) wish.done(Status(Reason::kDraining, "the service is stopping"));
}

void DictMover::Post(std::shared_ptr<ServedDict> served, AttachDictNeed need, Done done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (wishes_.size() < kDictWishesMax) {
      wishes_.push_back({std::move(served), need, std::move(done)});
      changed_.notify_one();
      return;
    }
  }
  done(Status(Reason::kLimitExceeded, "the service has its limit of " +
                                          std::to_string(kDictWishesMax) +
                                          " workers that wait for a dict to move; try again"));
}

void DictMover::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !wishes_.empty(); });
    if (stopping_) return;
    const Wish wish = std::move(wishes_.front());
    wishes_.pop_front();
    lock.unlock();
    wish.done(Grant(wish));
    lock.lock();
  }
}

Status DictMover::Grant(const Wish& wish) {
  VerbContext context{
      .engine = engine_, .lane = lane_, .lane_use = engine_->UseDaemonLane(lane_), .fast = false};
  return MoveIfItHelps(context, wish.served, FailureOf(wish.need, wish.served->record().name));
}

}  // namespace statehouse
