#include "clients/c/src/batch_stream.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpc/support/time.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <array>
#include <utility>

#include "clients/c/src/grpc_status.h"
#include "clients/c/src/lane_pool.h"
#include "engine/os/futex.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using google::protobuf::io::CodedInputStream;
using std::chrono::steady_clock;

constexpr char kMethod[] = "/statehouse.v1.Batches/RunBatches";
constexpr uint32_t kBytesType = 2;
constexpr char kBatchTag = 1 << 3 | 2;       // RunBatchesRequest.
constexpr char kOperationsTag = 4 << 3 | 2;  // Batch.
// After so long it looks first whether the connection has ended meanwhile.
constexpr uint64_t kIdleNs = 5'000'000;

struct Carried {
  std::string_view method;
  uint32_t field;
};
// Verbs that take microseconds and have small answers.
constexpr std::array kCarried = {
    Carried{"/statehouse.v1.Areas/LoadWord", v1::Operation::kLoadWord},
    Carried{"/statehouse.v1.Areas/StoreWord", v1::Operation::kStoreWord},
    Carried{"/statehouse.v1.Areas/AddWord", v1::Operation::kAddWord},
    Carried{"/statehouse.v1.Areas/CompareExchangeWord", v1::Operation::kCompareExchangeWord},
    Carried{"/statehouse.v1.Areas/BitwiseWord", v1::Operation::kBitwiseWord},
    Carried{"/statehouse.v1.Dicts/GetEntry", v1::Operation::kGetEntry},
    Carried{"/statehouse.v1.Dicts/SetEntry", v1::Operation::kSetEntry},
    Carried{"/statehouse.v1.Dicts/DeleteEntry", v1::Operation::kDeleteEntry},
    Carried{"/statehouse.v1.Dicts/IncrementEntry", v1::Operation::kIncrementEntry},
    Carried{"/statehouse.v1.Dicts/EditEntry", v1::Operation::kEditEntry},
    Carried{"/statehouse.v1.Dicts/TouchEntry", v1::Operation::kTouchEntry},
    Carried{"/statehouse.v1.Locks/AcquireLock", v1::Operation::kAcquireLock},
    Carried{"/statehouse.v1.Locks/RenewLock", v1::Operation::kRenewLock},
    Carried{"/statehouse.v1.Locks/ReleaseLock", v1::Operation::kReleaseLock},
};

void AppendVarint(std::string* to, uint64_t number) {
  for (; number >= 0x80; number >>= 7) to->push_back(static_cast<char>(number | 0x80));
  to->push_back(static_cast<char>(number));
}

void AppendField(std::string* to, uint32_t field, std::string_view bytes) {
  AppendVarint(to, uint64_t{field} << 3 | kBytesType);
  AppendVarint(to, bytes.size());
  to->append(bytes);
}

// Reads a length-delimited field; false at the end and for anything else.
bool ReadField(CodedInputStream* in, std::string_view all, uint32_t* field,
               std::string_view* bytes) {
  const uint32_t tag = in->ReadTag();
  uint32_t length = 0;
  if ((tag & 7) != kBytesType || !in->ReadVarint32(&length)) return false;
  const auto at = static_cast<size_t>(in->CurrentPosition());
  if (length > all.size() - at || !in->Skip(static_cast<int>(length))) return false;
  *field = tag >> 3;
  *bytes = all.substr(at, length);
  return true;
}

CodedInputStream Reader(std::string_view bytes) {
  return CodedInputStream(reinterpret_cast<const uint8_t*>(bytes.data()),
                          static_cast<int>(bytes.size()));
}

Status StatusOf(std::string_view failure) {
  v1::OperationFailure message;
  const bool sound = message.ParseFromArray(failure.data(), static_cast<int>(failure.size())) &&
                     message.detail().reason() > 0 && message.detail().reason() < kReasonCount;
  if (!sound) return Status(Reason::kInternal, "a refusal of the service cannot be read");
  return Status(static_cast<Reason>(message.detail().reason()), message.message());
}

}  // namespace

struct BatchStream::Rpc {
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<grpc::GenericStub> stub;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
  grpc::ByteBuffer answer;
  grpc::Status finished;
  // Events, by the address of their tag.
  char start = 0;
  char write = 0;
  char read = 0;
  char finish = 0;
};

uint32_t BatchStream::FieldOf(std::string_view method) {
  const auto found = std::find_if(kCarried.begin(), kCarried.end(),
                                  [&](const Carried& carried) { return carried.method == method; });
  return found == kCarried.end() ? 0 : found->field;
}

BatchStream::BatchStream(std::shared_ptr<grpc::Channel> channel, const std::string& authorization,
                         std::string target)
    : target_(std::move(target)), fork_count_(ForkCount()), rpc_(new Rpc) {
  if (!authorization.empty()) rpc_->context.AddMetadata("authorization", authorization);
  rpc_->channel = channel;
  rpc_->stub = std::make_unique<grpc::GenericStub>(std::move(channel));
  rpc_->stream = rpc_->stub->PrepareCall(&rpc_->context, kMethod, &rpc_->queue);
  rpc_->stream->StartCall(&rpc_->start);
}

BatchStream::~BatchStream() {
  if (fork_count_ != ForkCount()) return;  // gRPC does not survive a fork: its parts stay.
  rpc_->context.TryCancel();
  void* tag = nullptr;
  bool ok = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (;;) {
      // An idle stream has no event under way that could tell it.
      if (is_open_ && !is_writing_ && under_way_.empty()) End();
      if (is_over_ || !rpc_->queue.Next(&tag, &ok)) break;
      OnEvent(tag, ok);
    }
  }
  rpc_->queue.Shutdown();
  while (rpc_->queue.Next(&tag, &ok)) continue;
  delete rpc_;
}

void BatchStream::Cancel() { rpc_->context.TryCancel(); }

bool BatchStream::IsOver(Reason* why) {
  const std::lock_guard<std::mutex> lock(mutex_);
  *why = end_.reason();
  return is_over_ || is_ending_;
}

bool BatchStream::Call(uint32_t field, const google::protobuf::MessageLite& request,
                       google::protobuf::MessageLite* response, Deadline deadline, Status* status) {
  const auto own = std::make_shared<Operation>();
  own->field = field;
  AppendField(&own->bytes, field, request.SerializeAsString());
  if (!Await(own, deadline, status)) return false;
  if (status->ok() && !response->ParseFromString(own->response)) {
    *status = Status(Reason::kInternal, std::string(kMethod) + " at " + target_ +
                                            ": an answer is no valid message; check that client "
                                            "and service are of the same release");
  }
  return true;
}

bool BatchStream::RunBatch(const std::string& request, std::string* response, Deadline deadline,
                           Status* status) {
  const auto own = std::make_shared<Operation>();
  own->is_whole = true;
  own->bytes = request;
  if (!Await(own, deadline, status)) return false;
  *response = std::move(own->response);
  return true;
}

bool BatchStream::Await(const std::shared_ptr<Operation>& own, Deadline deadline, Status* status) {
  const Deadline taken_back_at = std::min<Deadline>(steady_clock::now() + kPatience, deadline);
  std::unique_lock<std::mutex> lock(mutex_);
  if (is_over_ || is_ending_) return false;
  waiting_.push_back(own);
  while (!own->is_done) {
    const Deadline until = own->is_sent ? deadline : taken_back_at;
    if (steady_clock::now() >= until || is_over_ || (is_ending_ && !own->is_sent)) {
      if (!own->is_sent) {
        TakeBack(own);
        break;
      }
      own->status = Status(Reason::kTimeout, std::string(kMethod) + " at " + target_ +
                                                 ": the deadline passed before the answer; it may "
                                                 "have been carried out");
      break;
    }
    if (is_polled_) {
      ++sleepers_;
      changed_.wait_until(lock, until);
      --sleepers_;
      continue;
    }
    const bool was_idle =
        is_open_ && under_way_.empty() && MonotonicNs() - last_event_ns_ > kIdleNs;
    if (was_idle && !IsAlive()) continue;
    SendIfFree();
    is_polled_ = true;
    lock.unlock();
    void* tag = nullptr;
    bool ok = false;
    const auto wall = std::chrono::system_clock::now() +
                      std::chrono::duration_cast<std::chrono::system_clock::duration>(
                          std::min<std::chrono::nanoseconds>(until - steady_clock::now(),
                                                             std::chrono::hours(24)));
    const bool got = rpc_->queue.AsyncNext(&tag, &ok, wall) == grpc::CompletionQueue::GOT_EVENT;
    lock.lock();
    is_polled_ = false;
    if (!got) continue;
    OnEvent(tag, ok);
    SendIfFree();
  }
  if (sleepers_ > 0) changed_.notify_all();  // One of them polls on.
  if (!own->is_sent) return false;
  *status = std::move(own->status);
  return true;
}

void BatchStream::TakeBack(const std::shared_ptr<Operation>& operation) {
  waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), operation), waiting_.end());
}

// A whole batch, or what is there before the next one.
std::string BatchStream::TakeMessage() {
  std::string batch;
  while (!waiting_.empty() && under_way_.size() < kOperationsMax) {
    std::shared_ptr<Operation> next = waiting_.front();
    if (next->is_whole && !under_way_.empty()) break;
    waiting_.pop_front();
    next->is_sent = true;
    under_way_.push_back(next);
    if (next->is_whole) return next->bytes;
    batch.push_back(kOperationsTag);
    AppendVarint(&batch, next->bytes.size());
    batch.append(next->bytes);
  }
  std::string message(1, kBatchTag);
  AppendVarint(&message, batch.size());
  return message.append(batch);
}

void BatchStream::SendIfFree() {
  if (!is_open_ || is_writing_ || !under_way_.empty() || waiting_.empty() || is_over_) return;
  std::string message = TakeMessage();
  const grpc::Slice slice(message);
  is_writing_ = true;
  rpc_->stream->Write(grpc::ByteBuffer(&slice, 1), &rpc_->write);
  // In this order: the message takes along what gRPC has to say about the room for more answers.
  // Otherwise that would be a packet of its own.
  rpc_->stream->Read(&rpc_->answer, &rpc_->read);
}

// Whether the connection has lived through the time in which nobody looked.
bool BatchStream::IsAlive() {
  void* tag = nullptr;
  bool ok = false;
  // gRPC reads what there is, also the connection's end. Nothing is sent meanwhile: a stream that
  // waits for an answer is ended by its read, and only there.
  while (rpc_->queue.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC)) ==
         grpc::CompletionQueue::GOT_EVENT) {
    OnEvent(tag, ok);
  }
  if (is_over_ || rpc_->channel->GetState(false) == GRPC_CHANNEL_READY) return !is_over_;
  End();
  return false;
}

void BatchStream::End() {
  is_open_ = false;
  is_ending_ = true;
  rpc_->stream->Finish(&rpc_->finished, &rpc_->finish);
}

void BatchStream::OnEvent(void* tag, bool ok) {
  last_event_ns_ = MonotonicNs();
  if (tag == &rpc_->start || tag == &rpc_->read) {
    if (!ok) return End();
    is_open_ = true;
    if (tag == &rpc_->read) {
      has_answered_ = true;
      OnAnswer();
    }
  } else if (tag == &rpc_->write) {
    is_writing_ = false;
  } else if (tag == &rpc_->finish) {
    end_ = rpc_->finished.ok()
               ? Status(Reason::kUnavailable,
                        std::string(kMethod) + " at " + target_ + ": the service ended the stream")
               : FromGrpc(rpc_->finished, kMethod, target_);
    is_over_ = true;
    const bool is_refused = !has_answered_ && (end_.reason() == Reason::kUnimplemented ||
                                               end_.reason() == Reason::kLimitExceeded);
    if (is_refused) {
      // The stream itself: nothing that was sent on it was read.
      for (const auto& operation : under_way_) operation->is_sent = false;
      under_way_.clear();
    }
    FailAll(end_);
  }
  if (sleepers_ > 0) changed_.notify_all();
}

void BatchStream::FailAll(const Status& why) {
  for (const auto& operation : under_way_) {
    operation->status = why;
    operation->is_done = true;
  }
  under_way_.clear();
}

void BatchStream::OnAnswer() {
  grpc::Slice slice;
  const Status broken(Reason::kInternal,
                      std::string(kMethod) + " at " + target_ + ": an answer cannot be read");
  if (!rpc_->answer.DumpToSingleSlice(&slice).ok()) return FailAll(broken);
  const std::string_view answer(reinterpret_cast<const char*>(slice.begin()), slice.size());
  CodedInputStream in = Reader(answer);
  uint32_t field = 0;
  std::string_view bytes;
  if (!ReadField(&in, answer, &field, &bytes)) return FailAll(broken);
  if (field == v1::RunBatchesResponse::kFailureFieldNumber) return FailAll(StatusOf(bytes));
  if (under_way_.size() == 1 && under_way_.front()->is_whole) {
    under_way_.front()->response.assign(answer);
    under_way_.front()->is_done = true;
    under_way_.clear();
    return;
  }
  TakeResults(bytes);
  FailAll(broken);  // What has no result: nothing, unless the answer is broken.
}

void BatchStream::TakeResults(std::string_view result) {
  CodedInputStream in = Reader(result);
  uint32_t field = 0;
  std::string_view bytes;
  Operations answered;
  answered.swap(under_way_);
  size_t next = 0;
  while (next < answered.size() && ReadField(&in, result, &field, &bytes)) {
    CodedInputStream one = Reader(bytes);
    std::string_view message;
    Operation& operation = *answered[next++];
    operation.is_done = true;
    if (!ReadField(&one, bytes, &field, &message)) {
      operation.status = Status(Reason::kInternal, "a result of the service cannot be read");
    } else if (field == v1::OperationResult::kFailure) {
      operation.status = StatusOf(message);
    } else {
      operation.response.assign(message);
    }
  }
  under_way_.assign(answered.begin() + static_cast<std::ptrdiff_t>(next), answered.end());
}

}  // namespace statehouse
