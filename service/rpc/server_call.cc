#include "service/rpc/server_call.h"

#include <algorithm>
#include <utility>

#include "grpc/health/v1/health.pb.h"
#include "service/api/error_detail.h"
#include "service/rpc/byte_buffers.h"
#include "service/rpc/reason_map.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr std::string_view kHealthCheck = "/grpc.health.v1.Health/Check";
constexpr std::string_view kHealthWatch = "/grpc.health.v1.Health/Watch";
constexpr std::string_view kReflection =
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
constexpr std::string_view kReflectionAlpha =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

template <typename Message>
bool Decode(std::string_view bytes, Message* message) {
  return bytes.size() <= INT32_MAX &&
         message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

HealthCheckResponse::ServingStatus HealthOf(const std::string& service, bool serving) {
  const std::vector<std::string> known = ServedServices();
  if (!service.empty() && std::find(known.begin(), known.end(), service) == known.end()) {
    return HealthCheckResponse::SERVICE_UNKNOWN;
  }
  return serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

std::string EncodeHealth(HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse response;
  response.set_status(status);
  return response.SerializeAsString();
}

// As gRPC has it; of a unix socket the address that its client bound it to says nothing.
std::string PeerName(const grpc::ServerContext& context) {
  std::string peer = context.peer();
  return peer.starts_with("unix:") ? "unix:" : peer;
}

Status Undecodable(const std::string& method) {
  return Status(Reason::kInvalidArgument,
                method + ": the request is not a valid message of this method");
}

}  // namespace

ServerCall::ServerCall(DoorCore* core)
    : core_(core),
      stream_(&context_),
      started_(this, &ServerCall::OnStarted),
      read_(this, &ServerCall::OnRead),
      written_(this, &ServerCall::OnWritten),
      finished_(this, &ServerCall::OnFinished),
      over_(this, &ServerCall::OnOver),
      exchanged_(this, &ServerCall::OnExchanged),
      exchange_(&exchanged_) {}

ServerCall::~ServerCall() {
  if (waker_ != nullptr) waker_->Forget();
}

void ServerCall::Request(DoorCore* core) {
  auto* const call = new ServerCall(core);  // Deletes itself.
  call->context_.AsyncNotifyWhenDone(static_cast<Event*>(&call->over_));
  core->service().RequestCall(&call->context_, &call->stream_, core->queue(), core->queue(),
                              static_cast<Event*>(&call->started_));
}

void ServerCall::OnStarted(bool ok) {
  if (!ok) {
    delete this;  // The server shuts down; gRPC sends no further event for a call that never was.
    return;
  }
  core_->CallBegins();
  Request(core_);
  Route();
}

// Decides by the method alone, before a byte of the request is read.
void ServerCall::Route() {
  const std::string& method = context_.method();
  if (method == kHealthCheck) {
    kind_ = Kind::kHealthCheck;
    return StartRead();
  }
  if (method == kHealthWatch || method == kReflection || method == kReflectionAlpha) {
    kind_ = method == kHealthWatch ? Kind::kHealthWatch : Kind::kReflection;
    if (OpenAsStream()) StartRead();
    return;
  }
  if (core_->dispatcher().Streams(method)) {
    kind_ = Kind::kServed;
  } else if (core_->dispatcher().Converses(method)) {
    kind_ = Kind::kBatches;
  } else if (!core_->dispatcher().Knows(method)) {
    return Finish(ToGrpcStatus(
        Status(Reason::kUnimplemented,
               "method \"" + PresentableText(method, 256) + "\": this service does not know it"),
        ""));
  }
  auto identity = Authenticate();
  if (!identity.ok()) {
    const Reason reason = identity.status().reason();
    const auto& on_auth_failure = core_->options().on_auth_failure;
    if (on_auth_failure) on_auth_failure(reason, PeerName(context_));
    CountWasted();
    return Finish(ToGrpcStatus(identity.status(), ""));
  }
  core_->Raise(context_, ReadGate::Standing::kKnown);
  identity_ = *std::move(identity);
  if (kind_ == Kind::kBatches && !OpenBatches()) return;
  StartRead();
}

bool ServerCall::OpenAsStream() {
  if (core_->stopping()) {
    Finish(ToGrpcStatus(Status(Reason::kDraining, context_.method() + ": the service stops"), ""));
    return false;
  }
  if (core_->streams().size() >= kOpenStreamsMax) {
    Finish(ToGrpcStatus(Status(Reason::kLimitExceeded,
                               context_.method() + ": " + std::to_string(kOpenStreamsMax) +
                                   " health and reflection streams are open, which is the limit"),
                        ""));
    return false;
  }
  core_->streams().insert(this);
  return true;
}

StatusOr<std::shared_ptr<const Identity>> ServerCall::Authenticate() {
  const auto [first, last] = context_.client_metadata().equal_range("authorization");
  std::string_view authorization;
  if (first != last) authorization = {first->second.data(), first->second.size()};
  if (first != last && std::next(first) != last) authorization = {};  // Two: trust neither.
  return core_->tokens().Authenticate(authorization, [this] { return context_.peer(); });
}

std::chrono::steady_clock::time_point ServerCall::Deadline() const {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  const system_clock::time_point deadline = context_.deadline();
  const system_clock::time_point now = system_clock::now();
  // Beyond ten years is the same as never, and cannot overflow.
  if (deadline - now > std::chrono::hours(24 * 3660)) return steady_clock::time_point::max();
  return steady_clock::now() + (deadline - now);
}

void ServerCall::CountWasted() {
  if (!std::exchange(was_wasted_, true)) core_->CountWasted(context_.peer());
}

void ServerCall::StartRead() {
  is_reading_ = true;
  stream_.Read(&message_, static_cast<Event*>(&read_));
}

void ServerCall::StartWrite(std::string bytes) { StartWrite(ToByteBuffer(std::move(bytes))); }

void ServerCall::StartWrite(const grpc::ByteBuffer& message) {
  is_writing_ = true;
  stream_.Write(message, static_cast<Event*>(&written_));
}

void ServerCall::OnRead(bool ok) {
  if (kind_ == Kind::kBatches) return OnBatchRead(ok);
  is_reading_ = false;
  has_read_ = has_read_ || ok;
  if (finish_was_called_.load(std::memory_order_relaxed)) return DeleteIfOver();
  if (!ok) {
    if (kind_ == Kind::kReflection) return Finish(grpc::Status::OK);  // The client asks no more.
    CountWasted();
    return Finish(ToGrpcStatus(
        Status(Reason::kInvalidArgument,
               context_.method() + ": the call carried no request, or one beyond the limit"),
        ""));
  }
  ContiguousBytes bytes;
  if (!bytes.Read(message_)) {
    return Finish(ToGrpcStatus(Undecodable(context_.method()), ""));
  }
  switch (kind_) {
    case Kind::kUnary: return DispatchUnary(bytes.view());
    case Kind::kHealthCheck: return AnswerHealthCheck(bytes.view());
    case Kind::kHealthWatch: return BeginHealthWatch(bytes.view());
    case Kind::kReflection: return AnswerReflection(bytes.view());
    case Kind::kServed: return BeginServed(bytes.view());
    case Kind::kBatches: return;  // Has its own way.
  }
}

CallContext ServerCall::MakeContext() {
  CallContext call;
  call.door = Door::kNetwork;
  call.identity = kind_ == Kind::kBatches ? identity_ : std::move(identity_);
  call.deadline = Deadline();
  call.lane = core_->lane();
  call.peer = [this] { return ShownPeer(PeerName(context_)); };
  return call;
}

void ServerCall::BeginServed(std::string_view request) {
  waker_ = std::make_shared<StreamWaker>(this);
  CallContext call = MakeContext();
  call.is_same_host = !ParsePeer(context_.peer()).has_value();
  auto opened = core_->dispatcher().OpenStream(
      call, context_.method(), request, [core = core_, waker = waker_] { core->Wake(waker); });
  if (!opened.ok()) {
    return Finish(ToGrpcStatus(opened.status(), ObjectNameOf(context_.method(), request)));
  }
  core_->Raise(context_, ReadGate::Standing::kUseful);
  const std::lock_guard<std::mutex> lock(mutex_);
  served_ = *std::move(opened);
  Serve();
}

void ServerCall::OnReady() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Serve();
}

// One message is under way at a time, so a slow reader costs that one.
void ServerCall::Serve() {
  has_more_ = true;
  if (served_ == nullptr || is_writing_ || finish_was_called_.load(std::memory_order_relaxed)) {
    return;
  }
  if (was_cancelled_) return FinishHeld(grpc::Status::CANCELLED);
  std::string message;
  Status status;
  const ServedStream::Found found = served_->Poll(&message, &status);
  has_more_ = found == ServedStream::Found::kMessage;
  switch (found) {
    case ServedStream::Found::kMessage:
    case ServedStream::Found::kLastMessage:
      is_foreign_write_ = !core_->OnPollingThread();
      if (!is_foreign_write_) return StartWrite(core_->messages().Buffer(std::move(message)));
      core_->foreign_writes().fetch_add(1, std::memory_order_relaxed);
      return StartWrite(std::move(message));
    case ServedStream::Found::kNothing: return;
    case ServedStream::Found::kEnd: break;
  }
  std::string name;
  ContiguousBytes request;
  if (request.Read(message_)) name = ObjectNameOf(context_.method(), request.view());
  FinishHeld(ToGrpcStatus(status, name));
}

void ServerCall::OnServedWritten(bool ok) {
  std::shared_ptr<StreamWaker> waker;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_writing_ = false;
    if (is_foreign_write_) core_->foreign_writes().fetch_sub(1, std::memory_order_relaxed);
    if (!finish_was_called_.load(std::memory_order_relaxed)) {
      if (!ok) return FinishHeld(grpc::Status::CANCELLED);
      if (!has_more_ && !was_cancelled_) return;
      waker = waker_;
    }
  }
  // In turns with others.
  if (waker != nullptr) return core_->Wake(waker);
  DeleteIfOver();
}

void ServerCall::DispatchUnary(std::string_view request) {
  const CallContext call = MakeContext();
  // The call stays until this thread has seen its events, so the answer may come before Dispatch
  // returns.
  pending_ = core_->dispatcher().Dispatch(
      call, context_.method(), request,
      [this](StatusOr<std::string> result) { Answer(std::move(result)); });
}

void ServerCall::Answer(StatusOr<std::string> result) {
  const std::lock_guard<std::mutex> lock(mutex_);
  finish_was_called_.store(true, std::memory_order_relaxed);
  if (result.ok()) {
    was_useful_.store(kind_ == Kind::kUnary, std::memory_order_relaxed);
    stream_.WriteAndFinish(ToByteBuffer(*std::move(result)), grpc::WriteOptions(), grpc::Status::OK,
                           static_cast<Event*>(&finished_));
    return;
  }
  std::string name;
  ContiguousBytes request;
  if (request.Read(message_)) name = ObjectNameOf(context_.method(), request.view());
  stream_.Finish(ToGrpcStatus(result.status(), name), static_cast<Event*>(&finished_));
}

void ServerCall::AnswerHealthCheck(std::string_view request) {
  HealthCheckRequest check;
  if (!Decode(request, &check)) return Answer(Undecodable(context_.method()));
  const auto health = HealthOf(check.service(), core_->serving());
  if (health != HealthCheckResponse::SERVICE_UNKNOWN) return Answer(EncodeHealth(health));
  Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no service of this name is served here"));
}

void ServerCall::BeginHealthWatch(std::string_view request) {
  HealthCheckRequest watch;
  if (!Decode(request, &watch)) {
    return Finish(ToGrpcStatus(Undecodable(context_.method()), ""));
  }
  watched_service_ = watch.service();
  is_watching_ = true;
  SendHealth();
}

void ServerCall::OnHealthChange() {
  // While a message is under way, OnWritten looks again: in between only the last state counts.
  if (is_watching_ && !is_writing_) SendHealth();
}

void ServerCall::SendHealth() {
  if (finish_was_called_.load(std::memory_order_relaxed)) return;
  if (was_cancelled_) return Finish(grpc::Status::CANCELLED);
  const auto health = HealthOf(watched_service_, core_->serving());
  if (health == status_sent_) return;
  status_sent_ = health;
  StartWrite(EncodeHealth(health));
}

void ServerCall::AnswerReflection(std::string_view request) {
  grpc::reflection::v1::ServerReflectionRequest question;
  if (!Decode(request, &question)) {
    return Finish(ToGrpcStatus(Undecodable(context_.method()), ""));
  }
  StartWrite(reflection_.Answer(question).SerializeAsString());
}

void ServerCall::OnWritten(bool ok) {
  if (kind_ == Kind::kServed) return OnServedWritten(ok);
  if (kind_ == Kind::kBatches) return OnBatchWritten(ok);
  is_writing_ = false;
  if (finish_was_called_.load(std::memory_order_relaxed)) return DeleteIfOver();
  if (!ok) return Finish(grpc::Status::CANCELLED);
  if (ends_now_) return OnShutdown();
  if (kind_ == Kind::kHealthWatch) {
    SendHealth();
  } else {
    StartRead();
  }
}

void ServerCall::OnShutdown() {
  {
    // A message or a batch under way goes first; its end comes back here.
    const std::lock_guard<std::mutex> lock(mutex_);
    ends_now_ = true;
    if (finish_was_called_.load(std::memory_order_relaxed) || !IsIdleHeld()) return;
  }
  Finish(ToGrpcStatus(Status(Reason::kDraining, context_.method() + ": the service stops"), ""));
}

void ServerCall::Finish(const grpc::Status& status) {
  core_->streams().erase(this);
  core_->batch_streams().erase(this);
  const std::lock_guard<std::mutex> lock(mutex_);
  FinishHeld(status);
}

void ServerCall::FinishHeld(const grpc::Status& status) {
  finish_was_called_.store(true, std::memory_order_relaxed);
  stream_.Finish(status, static_cast<Event*>(&finished_));
}

void ServerCall::OnFinished(bool ok) {
  finish_was_delivered_ = true;
  std::unique_ptr<ServedStream> ended;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended = std::move(served_);
  }
  ended.reset();
  DeleteIfOver();
}

void ServerCall::OnOver(bool ok) {
  is_over_ = true;
  const bool was_cancelled = context_.IsCancelled();
  if (was_cancelled && pending_ != nullptr) pending_->Cancel();
  // Waits and streams that end this way have done their work.
  const bool is_unary = kind_ == Kind::kUnary || kind_ == Kind::kHealthCheck;
  if (was_cancelled && pending_ == nullptr && (is_unary || !has_read_)) {
    CountWasted();
  } else if (was_useful_.load(std::memory_order_relaxed)) {
    core_->Raise(context_, ReadGate::Standing::kUseful);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    was_cancelled_ = was_cancelled;
    // An idle stream has no event under way that could tell it.
    const bool idles = is_watching_ || served_ != nullptr || kind_ == Kind::kBatches;
    if (idles && IsIdleHeld() && !finish_was_called_.load(std::memory_order_relaxed)) {
      FinishHeld(grpc::Status::CANCELLED);
    }
  }
  DeleteIfOver();
}

void ServerCall::DeleteIfOver() {
  if (!finish_was_delivered_ || !is_over_) return;
  {
    // Whoever finished the call or served it has left it when this lock is free.
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_reading_ || !IsIdleHeld()) return;
  }
  DoorCore* const core = core_;
  core->streams().erase(this);
  core->batch_streams().erase(this);
  delete this;
  core->CallEnds();
}

}  // namespace statehouse
