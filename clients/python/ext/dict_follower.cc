#include "clients/python/ext/dict_follower.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "engine/os/futex.h"

namespace statehouse::python {
namespace {

// As the service's messages.
constexpr size_t kChangesPerPortion = 512;
constexpr size_t kBytesPerPortion = 64 << 10;
// What is none of the watcher's business is passed by in portions, with the lock held; of those
// that the thread reads for an event loop's watch, the loop may have to wait for one.
constexpr int kReadsAtOnce = 4096;
constexpr int kReadsPerTurn = 512;

}  // namespace

DictFollower::DictFollower(SelectedChanges changes, uint64_t progress_ns)
    : changes_(std::move(changes)), progress_ns_(progress_ns), told_ns_(MonotonicNs()) {}

DictFollower::~DictFollower() { Stop(); }

DictFollower::Found DictFollower::Read(Portion* portion) {
  const std::lock_guard<std::mutex> lock(mutex_);
  portion->changes.clear();
  if (!changes_.has_value()) return Found::kOver;
  events_ = changes_->events();
  int reads_left = kReadsAtOnce;
  size_t bytes = 0;
  using Next = SelectedChanges::Found;
  Next next = Next::kChange;
  for (DictChange change; portion->changes.size() < kChangesPerPortion && bytes < kBytesPerPortion;
       bytes +=
       sizeof change + portion->changes.back().key.size() + portion->changes.back().bytes.size()) {
    next = changes_->Next(&reads_left, &change);
    if (next != Next::kChange) break;
    portion->changes.push_back(std::move(change));
  }
  portion->revision = changes_->revision();
  const uint64_t now_ns = MonotonicNs();
  // What was read before is given first.
  if (!portion->changes.empty()) {
    told_ns_ = now_ns;
    return Found::kChanges;
  }
  if (next == Next::kMore) return Found::kMore;
  if (next == Next::kFallBack) return Found::kFallBack;
  if (next == Next::kBroken) return Found::kBroken;
  if (ends_) {
    LetGo();
    return Found::kOver;
  }
  if (now_ns >= progress_due_ns()) {
    told_ns_ = now_ns;
    return Found::kProgress;
  }
  signalled_ = false;
  // The thread that sleeps in the reader's stead does not know of it.
  if (thread_ != nullptr && changes_->is_pausing()) thread_->Ring();
  return Found::kNothing;
}

// The only place that sleeps.
void DictFollower::Sleep(uint64_t ns_max) {
  FollowEvents events;  // Stay mapped.
  const std::atomic<uint32_t>* words[3] = {&poke_};
  uint32_t seen[3] = {};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!changes_.has_value() || ends_) return;
    const uint64_t now_ns = MonotonicNs();
    const uint64_t due_ns = std::min(progress_due_ns(), changes_->due_ns());
    if (due_ns <= now_ns) return;
    ns_max = std::min(ns_max, due_ns - now_ns);
    events = events_;
    seen[0] = poke_.load(std::memory_order_relaxed);
    for (size_t i = 0; i < events.count; ++i) {
      words[1 + i] = events.words[i].get();
      seen[1 + i] = events.seen[i];
    }
  }
  FutexWaitAny(std::span(words, 1 + events.count), std::span(seen, 1 + events.count), ns_max);
}

uint64_t DictFollower::Stop() {
  std::shared_ptr<FollowThread> thread;
  uint64_t revision = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    LetGo();
    Wake();
    thread = std::move(thread_);
    revision = revision_;
  }
  if (thread != nullptr) thread->Remove(this);  // Its turn may want the lock.
  return revision;
}

void DictFollower::LetGo() {
  if (changes_.has_value()) revision_ = changes_->revision();
  changes_.reset();
  events_ = {};  // They hold what was mapped.
}

void DictFollower::EndHere() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!std::exchange(ends_, true) && changes_.has_value()) changes_->EndHere();
  progress_ns_ = 0;  // The end is told next.
  Wake();
}

void DictFollower::Wake() {
  poke_.fetch_add(1, std::memory_order_relaxed);
  FutexWakeAll(poke_);
  Signal();
}

void DictFollower::Signal() {
  if (ready_.valid() && !std::exchange(signalled_, true)) ::eventfd_write(ready_.get(), 1);
}

uint64_t DictFollower::progress_due_ns() const {
  return progress_ns_ == 0 ? UINT64_MAX : told_ns_ + progress_ns_;
}

StatusOr<int> DictFollower::ReadyFd() {
  if (ready_.valid()) return ready_.get();
  UniqueFd ready(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!ready.valid()) {
    return Status(Reason::kLimitExceeded,
                  std::string("watching a dict: no descriptor to tell of its events: ") +
                      std::strerror(errno));
  }
  SH_ASSIGN_OR_RETURN(std::shared_ptr<FollowThread> thread, FollowThread::OfThisProcess());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ready_ = std::move(ready);
    if (changes_.has_value()) thread_ = thread;
  }
  if (thread_ != nullptr) thread->Add(this);
  return ready_.get();
}

void DictFollower::ClearReady() {
  eventfd_t count = 0;
  ::eventfd_read(ready_.get(), &count);
}

// Looks for the first change that was asked for, and leaves it to Read. Once that was told to read,
// nothing is looked for until it gave everything that there was.
FollowThread::Sleep DictFollower::Turn(bool /*may_wait*/) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!changes_.has_value()) return {};
  const FollowEvents events = changes_->events();
  const uint64_t now_ns = MonotonicNs();
  if (!signalled_) {
    int reads_left = kReadsPerTurn;
    DictChange change;
    const SelectedChanges::Found next = changes_->Next(&reads_left, &change);
    if (next == SelectedChanges::Found::kMore) return {{}, 0};
    if (next == SelectedChanges::Found::kChange) changes_->GiveAgain(std::move(change));
    if (next != SelectedChanges::Found::kNothing || ends_ || now_ns >= progress_due_ns()) Signal();
  }
  // Read may have told of progress meanwhile: looks again when the next one is due.
  const uint64_t progress_ns = progress_due_ns();
  const uint64_t due_ns =
      progress_ns > now_ns || progress_ns_ == 0 ? progress_ns : now_ns + progress_ns_;
  return {events, std::min(due_ns, changes_->due_ns())};
}

}  // namespace statehouse::python
