// DoorCore: what the calls of one network door share. Calls see the door through it.
//
// Threads: Post, Wake, OnPollingThread and what is atomic from any; everything else on the polling
// thread.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include "engine/state/area.h"
#include "service/api/dispatcher.h"
#include "service/rpc/byte_buffers.h"
#include "service/rpc/grpc_door.h"
#include "service/rpc/joint_sends.h"
#include "service/rpc/read_gate.h"
#include "service/rpc/token_cache.h"

namespace statehouse {

class Acceptor;

// So many messages of other threads than the polling one may be under way. Each wakes it, to hear
// that it was sent: for few streams that is the shortest way, for many it is a waste. One to a
// client that does not read stays under way; with so many of those the polling thread sends all.
inline constexpr uint32_t kForeignWritesMax = 4;
// Streams that are woken by them at such intervals are an audience, of which they send to so many.
inline constexpr uint64_t kAudienceGapNs = 50'000;
// For so long the streams of an audience are sent to before others have their turn, and for so long
// others have theirs while more of an audience waits.
inline constexpr uint64_t kWakesTurnNs = 100'000;
inline constexpr size_t kOpenStreamsMax =
    1024;  // Health watches and reflection streams, which need no token.

// Answers that wait for each other, and how long the first one does; longer where one event takes
// longer.
inline constexpr size_t kKeptAnswersMax = 32;
inline constexpr uint64_t kKeptAnswersNs = 200'000;

inline constexpr size_t kBatchStreamsMax = 16'384;  // Of all clients together.

// What a completion-queue tag points to.
class Event {
 public:
  virtual ~Event() = default;
  virtual void OnEvent(bool ok) = 0;
};

// A call of a stream kind (health watch, reflection, served, batches), as the door sees it.
class OpenStream {
 public:
  virtual ~OpenStream() = default;
  // The service's health changed.
  virtual void OnHealthChange() = 0;
  // There may be something to send. Any thread, also while the polling thread works on the call.
  virtual void OnReady() = 0;
  // Its answer that was kept back (DoorCore::Keep) goes out now. Polling thread.
  virtual void SendKept() = 0;
  // The door shuts down: the stream ends now.
  virtual void OnShutdown() = 0;
};

// Lets any thread wake a streaming call that may be over by then.
class StreamWaker {
 public:
  explicit StreamWaker(OpenStream* stream) : stream_(stream) {}
  void Wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stream_ != nullptr) stream_->OnReady();
  }
  // Nobody is in OnReady, or comes there, when this has returned.
  void Forget() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stream_ = nullptr;
  }

 private:
  std::mutex mutex_;  // Taken before the call's own.
  OpenStream* stream_;
};

class DoorCore final {
 public:
  DoorCore(const GrpcDoorOptions& options, Dispatcher* dispatcher, Authenticator* authenticator,
           Lane lane)
      : options_(options), dispatcher_(dispatcher), lane_(lane), tokens_(authenticator) {}

  const GrpcDoorOptions& options() const { return options_; }
  Dispatcher& dispatcher() { return *dispatcher_; }
  const Lane& lane() const { return lane_; }
  TokenCache& tokens() { return tokens_; }
  grpc::AsyncGenericService& service() { return service_; }
  grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  void set_queue(std::unique_ptr<grpc::ServerCompletionQueue> queue) { queue_ = std::move(queue); }
  std::unordered_set<OpenStream*>& streams() { return streams_; }
  std::unordered_set<OpenStream*>& batch_streams() { return batch_streams_; }

  // A call of `peer` was wasted (host_debts.h).
  void CountWasted(const std::string& peer);
  // The caller of a call is known, or it was of use (read_gate.h).
  void Raise(const grpc::ServerContext& context, ReadGate::Standing standing);
  // The same for who asks often: `peer` is context.peer(), of which gRPC makes a string each time.
  void Raise(std::string_view peer, ReadGate::Standing standing);
  // Who is told of them; from then on.
  void set_acceptor(Acceptor* acceptor) {
    acceptor_.store(acceptor, std::memory_order_release);  // SYNC: door.acceptor.
  }

  bool serving() const { return serving_.load(std::memory_order_relaxed); }
  void set_serving(bool serving) { serving_.store(serving, std::memory_order_relaxed); }
  bool stopping() const { return stopping_; }
  void set_stopping() { stopping_ = true; }
  // The calling thread is the polling thread from now on.
  void BeginPolling() { poller_.store(std::this_thread::get_id(), std::memory_order_relaxed); }
  bool OnPollingThread() const {
    return poller_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  // Those of streams that the polling thread sends.
  RepeatedMessages& messages() { return messages_; }
  // Of the polling thread, which has a scope of it for each event.
  JointSends* sends() { return &sends_; }
  // Messages that other threads sent and the polling thread has not heard of.
  std::atomic<uint32_t>& foreign_writes() { return foreign_writes_; }

  // Runs `work` on the polling thread soon; not at all after ClosePosting.
  void Post(std::function<void()> work);
  // Calls waker->Wake(): at once, or soon on the polling thread, where messages of other threads
  // are under way already, or where kWakesTurnNs have gone into such calls since the connections
  // were looked at. Any thread.
  void Wake(const std::shared_ptr<StreamWaker>& waker);
  // The next event; the wakes that were put off have their turns meanwhile, and what is kept back
  // goes out. False: there will be none any more. On the polling thread.
  bool NextEvent(void** tag, bool* ok);
  void ClosePosting();

  // Whether an answer of a batch may wait for a moment: while more is to be done at once, answers
  // go out together. What follows one another is in the processor's caches then, and a client that
  // drives many streams is woken once for many answers. Polling thread, as all of these.
  bool MayKeep() const { return OnPollingThread() && kept_.size() < kKeptAnswersMax; }
  // stream->SendKept() is called soon.
  void Keep(OpenStream* stream);
  bool keeps() const { return !kept_.empty(); }
  // True: those that are kept back have waited long enough.
  bool KeepsEnough() const;
  void SendKept();

  // Started calls that are not deleted yet.
  void CallBegins();
  void CallEnds();
  void WaitUntilNoCalls();

 private:
  class Posted;
  // Whether the calling thread, which is not the polling one, may wake one more stream by itself.
  bool MayWakeHere();
  void WakeSome();
  // On the polling thread: whether its turn leaves time for one more.
  bool MayWakeNow();

  const GrpcDoorOptions options_;
  Dispatcher* const dispatcher_;
  const Lane lane_;
  TokenCache tokens_;
  std::atomic<Acceptor*> acceptor_{nullptr};
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unordered_set<OpenStream*> streams_;
  std::unordered_set<OpenStream*> batch_streams_;
  std::vector<OpenStream*> kept_;
  std::vector<OpenStream*> sending_;  // Were kept back; empty but in SendKept.
  uint64_t kept_until_ns_ = 0;
  std::atomic<bool> serving_{true};
  bool stopping_ = false;
  RepeatedMessages messages_;
  JointSends sends_;
  std::atomic<std::thread::id> poller_{};
  std::atomic<uint32_t> foreign_writes_{0};
  // Of other threads than the polling one; where several wake streams they count together.
  std::atomic<uint64_t> last_wake_ns_{0};
  std::atomic<uint32_t> wakes_in_a_row_{0};
  // Of the polling thread.
  uint64_t wakes_round_ = 0;     // Of the read gate, that the next is of.
  uint64_t wakes_until_ns_ = 0;  // Wakes are done at once; 0: that is over.
  uint64_t others_until_ns_ = 0;

  std::mutex mutex_;
  std::condition_variable no_calls_;
  uint64_t calls_ = 0;                               // Guarded by mutex_.
  std::vector<std::shared_ptr<StreamWaker>> wakes_;  // Guarded by mutex_.
  std::atomic<bool> has_wakes_{false};               // Set under mutex_: they are not empty.
  bool posting_is_closed_ = false;                   // Guarded by mutex_.
};

}  // namespace statehouse
