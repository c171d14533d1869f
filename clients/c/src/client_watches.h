// ClientWatches: the watches of one client, so that closing it ends them.
//
// Who owns it: the client handle, its dicts and its watches. Threads: any. Always true: a stream is
// known from its beginning until Forget. In a forked child it knows none: they are the parent's.
#pragma once

#include <memory>
#include <mutex>
#include <set>

#include "clients/c/src/fork_registry.h"
#include "clients/c/src/watch_stream.h"

namespace statehouse {

class ClientWatches final : private ForkObserver {
 public:
  explicit ClientWatches(std::shared_ptr<NetworkSession> session);
  ~ClientWatches() override;
  ClientWatches(const ClientWatches&) = delete;
  ClientWatches& operator=(const ClientWatches&) = delete;

  // As WatchStream::Begin.
  StatusOr<std::unique_ptr<WatchStream>> Begin(std::shared_ptr<const WatchSubject> subject);
  // REQUIRES: before the stream is destroyed.
  void Forget(WatchStream* stream);
  // Every watch ends with CLIENT_CLOSED.
  void Close();

 private:
  void LockForFork() override { mutex_.lock(); }
  void UnlockAfterFork() override { mutex_.unlock(); }
  void OnForkedChild() override { streams_.clear(); }

  const std::shared_ptr<NetworkSession> session_;
  std::mutex mutex_;  // Guards what follows; before a stream's.
  bool closed_ = false;
  std::set<WatchStream*> streams_;
};

}  // namespace statehouse
