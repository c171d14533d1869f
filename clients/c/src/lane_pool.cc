#include "clients/c/src/lane_pool.h"

#include <algorithm>
#include <utility>

namespace statehouse {
namespace {

std::atomic<uint64_t> next_attachment_id{1};
std::atomic<uint64_t> fork_count{0};

// The lanes that one thread holds, over all sessions of the process.
class HeldLanes final {
 public:
  HeldLanes() = default;
  HeldLanes(const HeldLanes&) = delete;
  HeldLanes& operator=(const HeldLanes&) = delete;
  ~HeldLanes();

  void Use(const std::shared_ptr<Attachment>& attachment);

 private:
  struct Held {
    std::shared_ptr<Attachment> attachment;
    ThreadLane lane;
  };
  std::vector<Held> held_;
};

thread_local constinit bool thread_is_ending = false;
thread_local HeldLanes held_lanes;

HeldLanes::~HeldLanes() {
  thread_is_ending = true;
  thread_lane = ThreadLane();
  for (const Held& held : held_) held.attachment->Return(held.lane.lane);
}

void HeldLanes::Use(const std::shared_ptr<Attachment>& attachment) {
  std::erase_if(held_, [](const Held& held) {
    if (!held.attachment->retired()) return false;
    held.attachment->Return(held.lane.lane);
    return true;
  });
  const auto found = std::find_if(held_.begin(), held_.end(),
                                  [&](const Held& held) { return held.attachment == attachment; });
  if (found != held_.end()) {
    thread_lane = found->lane;
    return;
  }
  ThreadLane fresh;
  fresh.attachment_id = attachment->id();
  fresh.lane = attachment->Take(&fresh.shared);
  held_.push_back(Held{attachment, fresh});
  thread_lane = fresh;
}

}  // namespace

thread_local constinit ThreadLane thread_lane;

uint64_t ForkCount() { return fork_count.load(std::memory_order_relaxed); }
void CountFork() { fork_count.fetch_add(1, std::memory_order_relaxed); }

Attachment::Attachment(UniqueFd liveness_descriptor, uint32_t first_lane, uint32_t lane_count,
                       uint64_t operation_timeout_ns)
    : liveness(std::move(liveness_descriptor)),
      id_(next_attachment_id.fetch_add(1, std::memory_order_relaxed)),
      first_lane_(first_lane),
      lane_count_(lane_count),
      operation_timeout_ns_(operation_timeout_ns),
      fork_count_(ForkCount()) {
  for (uint32_t i = lane_count - 1; i > 0; --i) free_.push_back(first_lane + i - 1);
}

Lane Attachment::SharedLane(std::mutex** shared) {
  *shared = &shared_lane_mutex_;
  return Lane{first_lane_ + lane_count_ - 1, operation_timeout_ns_};
}

Lane Attachment::Take(std::mutex** shared) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.empty()) return SharedLane(shared);
  const Lane lane{free_.back(), operation_timeout_ns_};
  free_.pop_back();
  *shared = nullptr;
  return lane;
}

void Attachment::Return(const Lane& lane) {
  // In a child the lanes belong to the parent, and a thread that is not there may have held the
  // mutex.
  if (fork_count_ != ForkCount()) return;
  if (lane.id == first_lane_ + lane_count_ - 1) return;  // The shared one.
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(lane.id);
}

void UseLaneOf(const std::shared_ptr<Attachment>& attachment) {
  if (!thread_is_ending) {
    held_lanes.Use(attachment);
    return;
  }
  // Destructors of other thread-local objects may still operate: they use the shared lane, which
  // needs no return.
  ThreadLane last;
  last.attachment_id = attachment->id();
  last.lane = attachment->SharedLane(&last.shared);
  thread_lane = last;
}

}  // namespace statehouse
