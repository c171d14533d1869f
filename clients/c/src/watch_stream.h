// WatchStream: what a watch is sent, over one stream after another, with what was read ahead.
//
// It goes on by itself after a stream that broke, from the point of its last message. Where the
// service hands over (watch_follow.h), it reads on there and the stream brings nothing but its end:
//
//   stream --handed over--> follow --cannot go on, or the stream broke--> stream
//
// Whoever takes messages reads in his own thread what is followed, and sleeps on its futex; only
// once fd() was asked for does FollowThread read ahead, so that there is something to poll for.
// Who owns it: the handle sh_watch. Threads: Take: one at a time; the other methods: any; Handle:
// the pump's; Turn: FollowThread's. Always true: at most one event of the pump's queue is
// outstanding. fd() is readable while Take has something to give. At most as many messages are kept
// as the subject reads ahead, and none is read while they have kWatchReadAheadBytes or more. mutex_
// is let go after kReadsAtOnce reads of what is followed.
// Failure: what cannot be resumed ends it; Take gives that after everything that came before, what
// is followed included.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/alarm.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "clients/c/src/attach_connection.h"
#include "clients/c/src/follow_thread.h"
#include "clients/c/src/network_session.h"
#include "clients/c/src/retry_pause.h"
#include "clients/c/src/stream_pump.h"
#include "clients/c/src/watch_subject.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

inline constexpr size_t kWatchReadAheadBytes = SH_WATCH_READ_AHEAD_BYTES;
// How long a stream that goes on after following is refused before that ends the watch: the service
// may count the stream before it, which was cancelled, as one of too many.
inline constexpr std::chrono::seconds kReturnPatience{10};

class WatchStream final : private StreamPump::Handler, private FollowThread::Follower {
 public:
  using Message = WatchSubject::Message;

  // Begins; waits for nothing. CLIENT_CLOSED, CLIENT_FORKED, LIMIT_EXCEEDED.
  static StatusOr<std::unique_ptr<WatchStream>> Begin(std::shared_ptr<NetworkSession> session,
                                                      std::shared_ptr<const WatchSubject> subject);
  // Ends the stream and waits until the pump is done with it. Not in a forked child: CloseInChild
  // and leave the rest to the parent.
  ~WatchStream();
  WatchStream(const WatchStream&) = delete;
  WatchStream& operator=(const WatchStream&) = delete;

  enum class Taken : uint8_t { kNothing, kSomething, kEnd };
  // The reader takes what is next: a message, a followed event, or that the stream broke there.
  // kEnd: why it ended, again and again. kNothing makes fd() wait for more; whoever waits then asks
  // Await. REQUIRES: the reader gave all that it took.
  Taken Take(WatchReader* reader, Status* end);
  // Sleeps until Take may have something. False when the time is over.
  bool Await(Deadline deadline);
  // To poll.
  int fd();
  int fd_in_child() const { return ready_.get(); }
  // From now on Take gives `why` and nothing else. The first time counts.
  void Stop(Status why);
  // OK until Stop.
  Status StopStatus() const;
  void CloseInChild() { ready_.Reset(); }

 private:
  enum class Step : uint8_t {
    kBeginning,  // These four have an event outstanding:
    kReading,
    kFinishing,
    kPausing,
    kHeld,  // The stream is open and nothing is read.
    kOver
  };
  struct Item {
    std::unique_ptr<Message> message;  // Null: the stream broke.
    size_t bytes = 0;
  };

  WatchStream(std::shared_ptr<NetworkSession> session, std::shared_ptr<const WatchSubject> subject)
      : session_(std::move(session)), subject_(std::move(subject)), point_(subject_->from()) {}
  void Handle(bool ok) override;
  // All with mutex_ held.
  void BeginStream();
  void ReadOrHold();
  void Keep();
  void Finish();
  void AfterEnd(const Status& status);
  bool IsRefusedReturn(const Status& end) const;
  void Pause();
  void End(Status why);
  void SignalReady();
  void WakeAwaiting();
  // Following; all with mutex_ held but Turn.
  FollowThread::Sleep Turn(bool may_wait) override;
  // False: it is not followed any more.
  bool OpenFollow(std::unique_lock<std::mutex>* lock);
  void BeginFollow(const Message& handed_over);
  template <typename Read>
  WatchFollow::Found ReadFollow(const Read& read);
  bool TakeFollowed(WatchReader* reader);
  void LeaveFollow();
  void FallBack(LocalFollow how);
  void EndFollow(const Status& why);
  bool IsFollowing() const { return follow_ != nullptr && is_open_; }
  bool PollReady(Deadline deadline) const;
  bool IsFull() const {
    return items_.size() >= subject_->read_ahead() || bytes_ >= kWatchReadAheadBytes;
  }

  const std::shared_ptr<NetworkSession> session_;
  const std::shared_ptr<const WatchSubject> subject_;
  std::shared_ptr<StreamPump> pump_;
  std::shared_ptr<FollowThread> thread_;  // Null before the first handing over; set once.
  UniqueFd ready_;                        // eventfd.

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable over_;
  Step step_ = Step::kOver;
  std::unique_ptr<QueuedStream> stream_;
  std::unique_ptr<Message> reading_;  // What the outstanding read fills.
  grpc::Alarm alarm_;                 // Ends a pause.
  RetryPause pause_;
  WatchPoint point_;       // To go on from; of the last message that was read.
  WatchPoint began_from_;  // The same when this stream began.
  std::deque<Item> items_;
  size_t bytes_ = 0;                  // Of all items.
  bool signalled_ = false;            // ready_ is readable.
  std::atomic<bool> stopped_{false};  // Never unset.
  std::optional<Status> end_;
  std::shared_ptr<WatchFollow> follow_;  // Null: the stream brings what comes.
  bool is_open_ = false;                 // follow_ is.
  std::optional<Status> follow_end_;     // The stream's; it is given once follow_ is read.
  bool has_more_ = false;                // Reading follow_ was put off.
  int failed_opens_ = 0;                 // Of follow_ and those before it, in a row.
  bool is_polled_ = false;               // fd() was asked for: FollowThread reads ahead.
  bool is_held_ = false;                 // It does not, until something is taken.
  bool falls_back_ = false;              // The stream was cancelled to go on with another one.
  bool is_synced_ = false;               // What comes next needs no `synced` to be told again.
  // Until then a refused return is tried again; none: something came since.
  std::optional<Deadline> returning_until_;
  LocalFollow offer_ = LocalFollow::kNone;
  FollowEvents follow_events_;         // follow_'s, before it was read last.
  std::atomic<uint32_t> awaiting_{0};  // Threads that sleep on poke_. Without mutex_ it shrinks.
  std::atomic<uint32_t> poke_{0};
};

}  // namespace statehouse
