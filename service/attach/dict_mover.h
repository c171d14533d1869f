// DictMover: moves dicts for workers that found theirs full or damaged, on a thread that may take
// its time.
//
// A move copies every entry, so the attach door's thread must not do it. It gives the wish to this
// object and answers the worker when it is told.
//
// Who owns it: AttachLoop. Threads: Post from any; one thread of its own moves, with a lane of its
// own, one dict after another.
// Always true: `done` of each wish that was taken runs exactly once.
// Failure: a wish beyond kDictWishesMax is answered with LIMIT_EXCEEDED, one that waits when the
// object goes with DRAINING.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/attach/protocol.h"
#include "engine/base/status.h"
#include "engine/state/engine.h"

namespace statehouse {

inline constexpr size_t kDictWishesMax = 4096;

class DictMover final {
 public:
  // OK: the dict may be in another segment now. Else why moving it does not help.
  using Done = std::function<void(Status)>;

  // The engine outlives it.
  DictMover(Engine* engine, Lane lane);
  ~DictMover();
  DictMover(const DictMover&) = delete;
  DictMover& operator=(const DictMover&) = delete;

  // `served` is moved if that meets the need and it is still the current segment then.
  void Post(std::shared_ptr<ServedDict> served, AttachDictNeed need, Done done);

 private:
  struct Wish {
    std::shared_ptr<ServedDict> served;
    AttachDictNeed need = AttachDictNeed::kNothing;
    Done done;
  };
  void Run();
  Status Grant(const Wish& wish);

  Engine* const engine_;
  const Lane lane_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Wish> wishes_;  // Guarded by mutex_.
  bool stopping_ = false;    // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace statehouse
