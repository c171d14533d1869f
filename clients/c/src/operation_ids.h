// OperationIds: names for mutations, so that the service carries each out once however often it is
// sent.
//
// The service answers the mutations of one session one after another, so each call in flight has a
// session of its own.
// Who owns it: a dict's handle; a client has one for its batches. Threads: any.
// Always true: a session's sequence numbers grow by one, and two calls never have the same name,
// also those of a forked child and its parent.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/state/dict.h"

namespace statehouse {

class OperationIds final {
 public:
  OperationIds() = default;
  ~OperationIds();
  OperationIds(const OperationIds&) = delete;
  OperationIds& operator=(const OperationIds&) = delete;

  // A name for a mutation, or for several: those that follow have the next sequence numbers. The
  // session is free for others when this goes.
  class Lease final {
   public:
    Lease(OperationIds* ids, DictOperationId id, uint64_t count)
        : ids_(ids), id_(id), count_(count) {}
    Lease(Lease&& other) noexcept
        : ids_(std::exchange(other.ids_, nullptr)), id_(other.id_), count_(other.count_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (ids_ != nullptr) ids_->Return({id_.session, id_.sequence + count_ - 1});
    }
    const DictOperationId& id() const { return id_; }

   private:
    OperationIds* ids_;
    DictOperationId id_;
    uint64_t count_;
  };

  // REQUIRES: count > 0.
  Lease Take(uint64_t count = 1);

 private:
  // What a process has; a child begins anew.
  struct OfProcess {
    uint64_t fork_count = 0;
    std::mutex mutex;
    std::vector<DictOperationId> free;  // With the sequence number that was used last.
  };
  OfProcess& Here();
  void Return(const DictOperationId& id);

  std::atomic<OfProcess*> here_{nullptr};  // A child leaves its parent's where it is.
};

}  // namespace statehouse
