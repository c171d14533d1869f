// OperationIds: names for mutations, so that the service carries each out once however often it is
// sent.
//
// The service answers the mutations of one session one after another, so each call in flight has a
// session of its own.
// Who owns it: a dict's handle of the network door. Threads: any.
// Always true: a session's sequence numbers grow by one, and two calls never have the same name.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/state/dict.h"

namespace statehouse {

class OperationIds final {
 public:
  // A name for one mutation; its session is free for the next one when this goes.
  class Lease final {
   public:
    Lease(OperationIds* ids, DictOperationId id) : ids_(ids), id_(id) {}
    Lease(Lease&& other) noexcept : ids_(std::exchange(other.ids_, nullptr)), id_(other.id_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (ids_ != nullptr) ids_->Return(id_);
    }
    const DictOperationId& id() const { return id_; }

   private:
    OperationIds* ids_;
    DictOperationId id_;
  };

  Lease Take();

 private:
  void Return(const DictOperationId& id);

  std::mutex mutex_;
  std::vector<DictOperationId> free_;  // With the sequence number that was used last.
};

}  // namespace statehouse
