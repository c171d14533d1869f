// BatchStream: small calls over one stream of batches, those of concurrent threads together. A
// message there and back costs half of what a call of its own does.
//
// Drawing:
//   threads --> waiting_ --(one message at a time)--> service --> answers in order --> threads
//
// Nothing waits for company: what is there when the stream is free goes at once, and what comes
// meanwhile goes together in the next message. One of the waiting threads polls for all.
//
// Who owns it: shared by the network session and its calls. Threads: any at once. Always true: an
// operation is sent at most once; one that was not sent within kPatience, because an operation
// before it takes long, is taken back, and its caller makes a call of its own.
// Failure: where the stream ends, operations under way fail with the reason; it is over then. Where
// the service has no such stream, or no more of them, they count as not sent.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "clients/c/src/local_session.h"
#include "engine/base/status.h"

namespace statehouse {

class BatchStream final {
 public:
  static constexpr std::chrono::milliseconds kPatience{2};
  // Larger requests are calls of their own: they would hold up the others.
  static constexpr size_t kRequestBytesMax = 16 << 10;
  static constexpr size_t kOperationsMax = 256;       // Of one message.
  static constexpr size_t kBatchBytesMax = 64 << 10;  // The same of whole batches.

  // The field of Operation.kind of a method that goes over the stream; 0: it does not.
  static uint32_t FieldOf(std::string_view method);

  BatchStream(std::shared_ptr<grpc::Channel> channel, const std::string& authorization,
              std::string target);
  // REQUIRES: no call is under way.
  ~BatchStream();
  BatchStream(const BatchStream&) = delete;
  BatchStream& operator=(const BatchStream&) = delete;

  // Carries out one operation. False: it was not sent.
  bool Call(uint32_t field, const google::protobuf::MessageLite& request,
            google::protobuf::MessageLite* response, Deadline deadline, Status* status);
  // Carries out a batch of the caller's own, a serialized RunBatchesRequest, in a message of its
  // own; *response is a RunBatchResponse. False: it was not sent.
  bool RunBatch(const std::string& request, std::string* response, Deadline deadline,
                Status* status);
  // Whether it takes no more operations; then why, kOk where that is not known yet.
  bool IsOver(Reason* why);
  // Ends it; calls under way fail with CANCELLED. Any thread.
  void Cancel();

 private:
  struct Rpc;  // What belongs to gRPC.
  struct Operation {
    std::string bytes;      // An Operation message, or a RunBatchesRequest.
    bool is_whole = false;  // The latter.
    uint32_t field = 0;
    bool is_sent = false;
    bool is_done = false;
    Status status;
    std::string response;
  };
  using Operations = std::vector<std::shared_ptr<Operation>>;

  // False: it was not sent.
  bool Await(const std::shared_ptr<Operation>& own, Deadline deadline, Status* status);

  // All below REQUIRE mutex_ held.
  void SendIfFree();
  std::string TakeMessage();
  bool IsAlive();
  void End();
  void OnEvent(void* tag, bool ok);
  void OnAnswer();
  void TakeResults(std::string_view result);
  void FailAll(const Status& why);
  void TakeBack(const std::shared_ptr<Operation>& operation);

  const std::string target_;
  const uint64_t fork_count_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Rpc* const rpc_;  // A forked child leaves it alone.
  std::deque<std::shared_ptr<Operation>> waiting_;
  Operations under_way_;
  bool is_open_ = false;
  bool has_answered_ = false;
  bool is_writing_ = false;
  bool is_polled_ = false;  // A thread is in gRPC for all.
  bool is_ending_ = false;  // Finish was called.
  bool is_over_ = false;
  uint32_t sleepers_ = 0;
  uint64_t last_event_ns_ = 0;
  Status end_;
};

}  // namespace statehouse
