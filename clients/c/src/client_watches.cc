#include "clients/c/src/client_watches.h"

#include <utility>

namespace statehouse {
namespace {

Status Closed() {
  return Status(Reason::kClientClosed, "the client was closed, which ends its watches");
}

}  // namespace

ClientWatches::ClientWatches(std::shared_ptr<NetworkSession> session)
    : session_(std::move(session)) {
  AddForkObserver(this);
}

ClientWatches::~ClientWatches() { RemoveForkObserver(this); }

StatusOr<std::unique_ptr<WatchStream>> ClientWatches::Begin(
    std::shared_ptr<const WatchSubject> subject) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Closed();
  SH_ASSIGN_OR_RETURN(std::unique_ptr<WatchStream> stream,
                      WatchStream::Begin(session_, std::move(subject)));
  streams_.insert(stream.get());
  return stream;
}

void ClientWatches::Forget(WatchStream* stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(stream);
}

void ClientWatches::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  for (WatchStream* stream : streams_) stream->Stop(Closed());
}

}  // namespace statehouse
