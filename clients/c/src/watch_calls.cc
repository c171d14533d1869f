// The part of the C interface that concerns watches.
#include <poll.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "clients/c/src/client_watches.h"
#include "clients/c/src/dict_handle.h"
#include "clients/c/src/dict_watch.h"
#include "clients/c/src/lane_pool.h"

struct sh_watch {
  std::string name;
  uint64_t fork_count = 0;
  std::shared_ptr<statehouse::ClientWatches> owner;
  std::unique_ptr<statehouse::WatchStream> stream;
  std::unique_ptr<statehouse::WatchReader> reader;  // Of the thread that is inside.
  std::optional<statehouse::Status> failure;        // The same.
  std::mutex mutex;                                 // Guards what follows.
  std::condition_variable left;
  bool inside = false;  // A thread is in sh_watch_next.
};

namespace statehouse {
namespace {

using Kind = WatchStream::Taken::Kind;

bool IsForked(const sh_watch& watch) { return watch.fork_count != ForkCount(); }

// The one thread that may be in sh_watch_next.
class Visit final {
 public:
  explicit Visit(sh_watch* watch) : watch_(watch) {
    const std::lock_guard<std::mutex> lock(watch_->mutex);
    entered_ = !std::exchange(watch_->inside, true);
  }
  ~Visit() {
    if (!entered_) return;
    const std::lock_guard<std::mutex> lock(watch_->mutex);
    watch_->inside = false;
    watch_->left.notify_all();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  bool entered() const { return entered_; }

 private:
  sh_watch* const watch_;
  bool entered_ = false;
};

// False when the time is over.
bool AwaitReady(int fd, Deadline deadline) {
  constexpr int64_t kPollMsMax = 3'600'000;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (left.count() <= 0) return false;
  pollfd waits{fd, POLLIN, 0};
  ::poll(&waits, 1, static_cast<int>(std::min<int64_t>(left.count(), kPollMsMax)));
  return true;  // Or a signal came; whoever asks looks again.
}

Status Look(sh_watch* watch, sh_watch_event* event) {
  for (;;) {
    // What was taken apart already is not given either, once it was stopped.
    SH_RETURN_IF_ERROR(watch->stream->StopStatus());
    if (watch->failure.has_value()) return *watch->failure;
    StatusOr<bool> given = watch->reader->Next(event);
    if (!given.ok()) {
      watch->failure = given.status();
      return given.status();
    }
    if (*given) return Status();
    WatchStream::Taken taken = watch->stream->Take();
    switch (taken.kind) {
      case Kind::kNothing: return Status();
      case Kind::kMessage: watch->reader->Take(std::move(taken.message)); break;
      case Kind::kBreak: watch->reader->TakeBreak(); break;
      case Kind::kEnd: return taken.end;
    }
  }
}

// *name: of a failure, whose watch may be gone when this returns: another thread closes it.
Status Next(sh_watch* watch, uint64_t timeout_ms, sh_watch_event* event, std::string* name) {
  if (watch == nullptr || event == nullptr) {
    return Status(Reason::kInvalidArgument, "sh_watch_next: an argument is NULL that must not be");
  }
  if (IsForked(*watch)) {
    *name = watch->name;
    return Status(Reason::kClientForked,
                  "the watch is of the process that this one was forked from, where it goes on");
  }
  const Visit visit(watch);
  if (!visit.entered()) {
    return Status(Reason::kInvalidArgument, "sh_watch_next: another thread is in it");
  }
  const Deadline deadline = DeadlineAfterMs(timeout_ms);
  sh_watch_event found{};
  do {
    if (Status failed = Look(watch, &found); !failed.ok()) {
      *name = watch->name;
      return failed;
    }
  } while (found.kind == SH_WATCH_NONE && AwaitReady(watch->stream->fd(), deadline));
  *event = found;
  return Status();
}

Status Open(sh_dict* dict, const sh_watch_options& options, sh_watch** watch) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (watch == nullptr) return Status(Reason::kInvalidArgument, "sh_dict_watch: watch is NULL");
  SH_ASSIGN_OR_RETURN(std::shared_ptr<const DictWatch> subject,
                      DictWatch::Make(dict->name, options));
  auto handle = std::make_unique<sh_watch>();
  handle->name = dict->name;
  handle->fork_count = ForkCount();
  handle->owner = dict->watches;
  handle->reader = std::make_unique<DictWatchReader>(subject->from_revision());
  SH_ASSIGN_OR_RETURN(handle->stream, dict->watches->Begin(std::move(subject)));
  *watch = handle.release();
  return Status();
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;
using statehouse::Reason;
using statehouse::Status;

const char* sh_resync_reason_text(sh_resync_reason reason) {
  switch (reason) {
    case SH_RESYNC_UNSPECIFIED: break;
    case SH_RESYNC_HISTORY_GONE: return "history gone";
    case SH_RESYNC_REVISION_UNKNOWN: return "revision unknown";
    case SH_RESYNC_SLOW_WATCHER: return "slow watcher";
    case SH_RESYNC_OVERRUN: return "overrun";
    case SH_RESYNC_REPLACED: return "replaced";
    case SH_RESYNC_DAMAGED: return "damaged";
    case SH_RESYNC_CONNECTION_LOST: return "connection lost";
  }
  return "unspecified";
}

sh_reason sh_dict_watch(sh_dict* dict, const sh_watch_options* options, sh_watch** watch,
                        sh_error** error) {
  return Finish(statehouse::Open(dict, options == nullptr ? sh_watch_options{} : *options, watch),
                statehouse::NameOf(dict), error);
}

sh_reason sh_watch_next(sh_watch* watch, uint64_t timeout_ms, sh_watch_event* event,
                        sh_error** error) {
  std::string name;
  const Status status = statehouse::Next(watch, timeout_ms, event, &name);
  return Finish(status, name.c_str(), error);
}

uint64_t sh_watch_revision(const sh_watch* watch) {
  return watch == nullptr ? 0 : watch->reader->revision();
}

int sh_watch_fd(const sh_watch* watch) { return watch == nullptr ? -1 : watch->stream->fd(); }

void sh_watch_cancel(sh_watch* watch) {
  if (watch == nullptr || statehouse::IsForked(*watch)) return;
  watch->stream->Stop(Status(Reason::kCancelled, "the watch was cancelled"));
}

void sh_watch_close(sh_watch* watch) {
  if (watch == nullptr) return;
  if (statehouse::IsForked(*watch)) {
    // gRPC does not survive fork, and the parent's thread is not here: all else is left as it is.
    watch->stream->CloseInChild();
    return;
  }
  watch->stream->Stop(Status(Reason::kClientClosed, "the watch was closed"));
  {
    std::unique_lock<std::mutex> lock(watch->mutex);
    watch->left.wait(lock, [watch] { return !watch->inside; });
  }
  watch->owner->Forget(watch->stream.get());
  delete watch;
}
