// The part of the C interface that concerns watches.
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "clients/c/src/area_watch.h"
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
  bool inside = false;  // A thread asks for the next event.
};

namespace statehouse {
namespace {

bool IsForked(const sh_watch& watch) { return watch.fork_count != ForkCount(); }

// The one thread that may ask for the next event.
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

template <typename Event>
Status Look(sh_watch* watch, WatchReaderOf<Event>* reader, Event* event) {
  for (;;) {
    // What was taken apart already is not given either, once it was stopped.
    SH_RETURN_IF_ERROR(watch->stream->StopStatus());
    if (watch->failure.has_value()) return *watch->failure;
    StatusOr<bool> given = reader->Next(event);
    if (!given.ok()) {
      watch->failure = given.status();
      return given.status();
    }
    if (*given) return Status();
    Status end;
    switch (watch->stream->Take(reader, &end)) {
      case WatchStream::Taken::kNothing: return Status();
      case WatchStream::Taken::kSomething: break;
      case WatchStream::Taken::kEnd: return end;
    }
  }
}

// *name: of a failure, whose watch may be gone when this returns: another thread closes it.
template <typename Event>
Status Next(const char* call, sh_watch* watch, uint64_t timeout_ms, Event* event,
            std::string* name) {
  const auto refuse = [call](const char* why) {
    return Status(Reason::kInvalidArgument, std::string(call) + ": " + why);
  };
  if (watch == nullptr || event == nullptr) {
    return refuse("an argument is NULL that must not be");
  }
  if (IsForked(*watch)) {
    *name = watch->name;
    return Status(Reason::kClientForked,
                  "the watch is of the process that this one was forked from, where it goes on");
  }
  const Visit visit(watch);
  if (!visit.entered()) return refuse("another thread is in it");
  auto* const reader = dynamic_cast<WatchReaderOf<Event>*>(watch->reader.get());
  if (reader == nullptr) {
    *name = watch->name;
    return refuse(
        "the watch is of another kind; sh_watch_next is for watches of dicts, sh_area_watch_next "
        "for those of areas");
  }
  const Deadline deadline = DeadlineAfterMs(timeout_ms);
  Event found{};
  constexpr decltype(found.kind) kNone{};
  do {
    if (Status failed = Look(watch, reader, &found); !failed.ok()) {
      *name = watch->name;
      return failed;
    }
  } while (found.kind == kNone && watch->stream->Await(deadline));
  *event = found;
  return Status();
}

Status Begin(std::shared_ptr<const WatchSubject> subject, std::unique_ptr<WatchReader> reader,
             const std::shared_ptr<ClientWatches>& owner, sh_watch** watch) {
  auto handle = std::make_unique<sh_watch>();
  handle->name = subject->name();
  handle->fork_count = ForkCount();
  handle->owner = owner;
  handle->reader = std::move(reader);
  SH_ASSIGN_OR_RETURN(handle->stream, owner->Begin(std::move(subject)));
  *watch = handle.release();
  return Status();
}

Status Open(sh_dict* dict, const sh_watch_options& options, sh_watch** watch) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (watch == nullptr) return Status(Reason::kInvalidArgument, "sh_dict_watch: watch is NULL");
  SH_ASSIGN_OR_RETURN(std::shared_ptr<const DictWatch> subject,
                      DictWatch::Make(dict->name, options, dict->local));
  auto reader = std::make_unique<DictWatchReader>(subject->from());
  return Begin(std::move(subject), std::move(reader), dict->watches, watch);
}

Status Open(sh_area* area, uint64_t pos, uint64_t len, const sh_area_watch_options& options,
            sh_watch** watch) {
  if (area == nullptr || watch == nullptr) {
    return Status(Reason::kInvalidArgument, "sh_area_watch: an argument is NULL that must not be");
  }
  SH_ASSIGN_OR_RETURN(std::shared_ptr<const AreaWatch> subject,
                      AreaWatch::Make({area->name, area->size}, pos, len, options));
  auto reader = std::make_unique<AreaWatchReader>(subject);
  return Begin(std::move(subject), std::move(reader), area->watches, watch);
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

sh_reason sh_area_watch(sh_area* area, uint64_t pos, uint64_t len,
                        const sh_area_watch_options* options, sh_watch** watch, sh_error** error) {
  const sh_area_watch_options chosen = options == nullptr ? sh_area_watch_options{} : *options;
  return Finish(statehouse::Open(area, pos, len, chosen, watch),
                area == nullptr ? "" : area->name.c_str(), error);
}

sh_reason sh_watch_next(sh_watch* watch, uint64_t timeout_ms, sh_watch_event* event,
                        sh_error** error) {
  std::string name;
  const Status status = statehouse::Next("sh_watch_next", watch, timeout_ms, event, &name);
  return Finish(status, name.c_str(), error);
}

sh_reason sh_area_watch_next(sh_watch* watch, uint64_t timeout_ms, sh_area_watch_event* event,
                             sh_error** error) {
  std::string name;
  const Status status = statehouse::Next("sh_area_watch_next", watch, timeout_ms, event, &name);
  return Finish(status, name.c_str(), error);
}

uint64_t sh_watch_revision(const sh_watch* watch) {
  if (watch == nullptr) return 0;
  const auto* const reader = dynamic_cast<const statehouse::DictWatchReader*>(watch->reader.get());
  return reader == nullptr ? 0 : reader->revision();
}

sh_area_point sh_area_watch_point(const sh_watch* watch) {
  // In a forked child the reader may be locked for ever.
  if (watch == nullptr || statehouse::IsForked(*watch)) return {};
  const auto* const reader = dynamic_cast<const statehouse::AreaWatchReader*>(watch->reader.get());
  if (reader == nullptr) return {};
  const statehouse::WatchPoint point = reader->point();
  return {point.counter, point.incarnation, point.is_known ? 1 : 0};
}

int sh_watch_fd(const sh_watch* watch) {
  if (watch == nullptr) return -1;
  return statehouse::IsForked(*watch) ? watch->stream->fd_in_child() : watch->stream->fd();
}

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
