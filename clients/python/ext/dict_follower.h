// DictFollower: a watch of a dict that reads the dict's follow log by itself, for one who waits in
// a thread of his own or for an event loop. Knows nothing of Python.
//
// Who owns it: one watch. Threads: any; Read and Sleep one at a time. Nothing here needs the GIL,
// and nothing waits for long but Sleep. In a forked child nothing of a parent's may be called, the
// destructor included.
// Always true: what Read gave is what Stop tells, and Read gives each change once. The log is let
// go of by Stop, and once all was given that EndHere left. fd() is readable while Read may have
// something to give that was not looked for.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "clients/c/src/follow_thread.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/selected_changes.h"

namespace statehouse::python {

class DictFollower final : private FollowThread::Follower {
 public:
  enum class Found : uint8_t {
    kNothing,  // Yet.
    kMore,     // Nothing that was asked for so far; there is more to read.
    kChanges,
    kProgress,
    kFallBack,  // The stream has to go on, for a while …
    kBroken,    // … or for good.
    kOver,      // After Stop, or all that EndHere left was given.
  };
  struct Portion {
    std::vector<DictChange> changes;
    uint64_t revision = 0;  // Everything up to it was given.
  };

  // `progress_ns`: 0 is none.
  DictFollower(SelectedChanges changes, uint64_t progress_ns);
  ~DictFollower();
  DictFollower(const DictFollower&) = delete;
  DictFollower& operator=(const DictFollower&) = delete;

  // What there is now.
  Found Read(Portion* portion);
  // Until Read may give something, at most so long; may return early.
  void Sleep(uint64_t ns_max);
  // From now on Read gives nothing. Up to where it gave everything. Waits for a turn of
  // FollowThread.
  uint64_t Stop();
  // What is committed later is not given.
  void EndHere();

  // For an event loop: from now on FollowThread looks for it. LIMIT_EXCEEDED. Once it is readable,
  // ClearReady and then Read until kNothing. Not while another thread calls Stop.
  StatusOr<int> ReadyFd();
  void ClearReady();

 private:
  FollowThread::Sleep Turn(bool may_wait) override;
  // With mutex_ held.
  void Wake();
  void Signal();
  void LetGo();
  uint64_t progress_due_ns() const;

  std::mutex mutex_;  // Guards what follows.
  // Empty after Stop, or once all was given that EndHere left.
  std::optional<SelectedChanges> changes_;
  uint64_t revision_ = 0;  // What it had come to then.
  uint64_t progress_ns_;
  uint64_t told_ns_;
  bool ends_ = false;       // EndHere
  FollowEvents events_;     // Of changes_, before it was read last.
  bool signalled_ = false;  // Whoever has ready_ was told to read.
  UniqueFd ready_;          // eventfd.
  std::shared_ptr<FollowThread> thread_;
  std::atomic<uint32_t> poke_{0};
};

}  // namespace statehouse::python
