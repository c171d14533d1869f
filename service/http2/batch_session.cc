#include "service/http2/batch_session.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/os/futex.h"
#include "service/api/batch_refusal.h"
#include "service/api/error_detail.h"
#include "service/http2/grpc_wire.h"

namespace statehouse {
namespace {

constexpr std::string_view kMethod = "/statehouse.v1.Batches/RunBatches";
constexpr std::string_view kContentType = "application/grpc";

std::string_view View(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

nghttp2_nv Field(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

// The fields of a stream's end, and the texts that they point to.
class TrailerFields {
 public:
  explicit TrailerFields(const GrpcTrailers& trailers)
      : code_(std::to_string(trailers.code)),
        message_(PercentEncoded(trailers.message)),
        details_(UnpaddedBase64(trailers.details)) {
    // Written the same way each time, so that clients which know no tables can find it.
    fields_.push_back(Field("grpc-status", code_));
    fields_.back().flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    if (!message_.empty()) fields_.push_back(Field("grpc-message", message_));
    if (!details_.empty()) fields_.push_back(Field("grpc-status-details-bin", details_));
  }
  TrailerFields(const TrailerFields&) = delete;
  TrailerFields& operator=(const TrailerFields&) = delete;
  std::vector<nghttp2_nv> With(std::initializer_list<nghttp2_nv> before) const {
    std::vector<nghttp2_nv> all(before);
    all.insert(all.end(), fields_.begin(), fields_.end());
    return all;
  }

 private:
  const std::string code_;
  const std::string message_;
  const std::string details_;
  std::vector<nghttp2_nv> fields_;
};

}  // namespace

// Where the answer of a stream's batch comes, on this thread or another. It outlives a stream that
// is over while its batch is carried out.
class BatchSession::Reply {
 public:
  Reply(WakeSession wake, std::shared_ptr<const std::string> peer)
      : wake_(std::move(wake)), peer_(std::move(peer)) {}

  // Of the caller. Any thread, before Set.
  const std::string& peer() const { return *peer_; }

  void Begin() {
    answer_.reset();
    is_under_way_ = true;
    is_waited_for_ = false;
  }
  // Any thread, once after Begin.
  void Set(StatusOr<std::string> answer) {
    bool is_waited_for = false;
    bool is_abandoned = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      answer_ = std::move(answer);
      is_waited_for = is_waited_for_;
      is_abandoned = is_abandoned_;
      if (is_waited_for && !is_abandoned) wake_();
    }
    if (is_abandoned) delete this;
  }
  // None: it is not there, and once it is the session is woken.
  std::optional<StatusOr<std::string>> Get() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!answer_.has_value()) {
      is_waited_for_ = true;
      return std::nullopt;
    }
    is_under_way_ = false;
    return std::exchange(answer_, std::nullopt);
  }
  // Nobody wants it any more.
  static void Abandon(Reply* reply) {
    {
      const std::lock_guard<std::mutex> lock(reply->mutex_);
      if (reply->is_under_way_ && !reply->answer_.has_value()) {
        reply->is_abandoned_ = true;
        return;
      }
    }
    delete reply;
  }

 private:
  const WakeSession wake_;
  const std::shared_ptr<const std::string> peer_;
  std::mutex mutex_;
  std::optional<StatusOr<std::string>> answer_;
  bool is_under_way_ = false;
  bool is_waited_for_ = false;
  bool is_abandoned_ = false;
};

struct BatchSession::Stream {
  BatchSession* session = nullptr;
  int32_t id = 0;
  // Of the request.
  size_t header_bytes = 0;
  std::string method;
  std::string content_type;
  std::string timeout;
  std::string authorization;
  uint32_t authorizations = 0;

  CallContext context;
  uint64_t generation = 0;  // That its identity is of.
  Reply* reply = nullptr;   // Abandoned with the stream.
  std::string input;        // What was received and not carried out.
  std::string answers;      // Of which `sent` bytes are nghttp2's.
  size_t sent = 0;
  int64_t counted = 0;  // Of both, at the host.
  int64_t counted_answers = 0;
  std::optional<GrpcTrailers> trailers;
  bool is_open = false;         // It was counted at the host, and its response has begun.
  bool is_running = false;      // A batch is carried out elsewhere.
  bool is_held = false;         // It is in held_.
  bool is_deferred = false;     // nghttp2 asks for no more before Resume.
  bool client_is_done = false;  // It sends no more.
  bool MayAnswer() const { return answers.size() - sent < kAnswersAheadBytes; }
  bool was_useful = false;  // A batch was authorised, or its client ended it.
};

struct BatchSession::Callbacks {
  static BatchSession* Session(void* user) { return static_cast<BatchSession*>(user); }
  static Stream* Find(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    BatchSession* const self = Session(user);
    if (self->goes_away_ || self->streams_.size() >= kStreamsMax) {
      // Before the client has heard how many it may have, or that there are none any more. It may
      // try again elsewhere: nothing was done.
      self->CountWaste();
      (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                      NGHTTP2_REFUSED_STREAM);
      return 0;
    }
    auto stream = std::make_unique<Stream>();
    stream->session = self;
    stream->id = frame->hd.stream_id;
    nghttp2_session_set_stream_user_data(session, stream->id, stream.get());
    self->streams_[stream->id] = std::move(stream);
    return 0;
  }
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t, void*) {
    Stream* const stream = Find(session, frame->hd.stream_id);
    if (stream == nullptr || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    stream->header_bytes += name_bytes + value_bytes;
    if (stream->header_bytes > kHeaderBytesMax) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    const std::string_view field = View(name, name_bytes);
    if (field == ":path") stream->method = View(value, value_bytes);
    if (field == "content-type") stream->content_type = View(value, value_bytes);
    if (field == "grpc-timeout") stream->timeout = View(value, value_bytes);
    if (field == "authorization") {
      stream->authorization = View(value, value_bytes);
      ++stream->authorizations;
    }
    return 0;
  }
  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    Stream* const stream = Find(session, frame->hd.stream_id);
    if (stream == nullptr) return 0;
    const bool is_request =
        frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
    if (is_request) Session(user)->OnRequest(stream);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) Session(user)->OnClientDone(stream);
    return 0;
  }
  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data,
                    size_t bytes, void* user) {
    (void)nghttp2_session_consume_connection(session, bytes);
    Stream* const stream = Find(session, id);
    if (stream != nullptr) Session(user)->OnData(stream, View(data, bytes));
    return 0;
  }
  // A stream that has ended says that what its client still sends is not wanted, as gRPC does.
  static int OnSent(nghttp2_session* session, const nghttp2_frame* frame, void*) {
    if (frame->hd.type != NGHTTP2_HEADERS || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
      return 0;
    }
    const Stream* const stream = Find(session, frame->hd.stream_id);
    if (stream != nullptr && !stream->client_is_done) {
      (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
    }
    return 0;
  }
  static int OnClose(nghttp2_session* session, int32_t id, uint32_t, void* user) {
    Stream* const stream = Find(session, id);
    if (stream != nullptr) Session(user)->OnClosed(stream);
    return 0;
  }
  static ssize_t OnRoom(nghttp2_session*, int32_t, uint8_t* room, size_t room_bytes,
                        uint32_t* flags, nghttp2_data_source* source, void* user) {
    return Session(user)->Fill(static_cast<Stream*>(source->ptr), room, room_bytes, flags);
  }

  static nghttp2_session* NewSession(BatchSession* self) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_option* option = nullptr;
    nghttp2_session* session = nullptr;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) return nullptr;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, OnSent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    if (nghttp2_option_new(&option) == 0) {
      nghttp2_option_set_no_auto_window_update(option, 1);
      (void)nghttp2_session_server_new2(&session, callbacks, self, option);
      nghttp2_option_del(option);
    }
    nghttp2_session_callbacks_del(callbacks);
    return session;
  }
};

BatchSession::BatchSession(BatchHost* host, Dispatcher* dispatcher, Lane lane, std::string peer,
                           WakeSession wake)
    : host_(host),
      dispatcher_(dispatcher),
      lane_(lane),
      peer_(std::make_shared<const std::string>(std::move(peer))),
      wake_(std::move(wake)),
      session_(Callbacks::NewSession(this)) {
  constexpr nghttp2_settings_entry kSettings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kStreamsMax},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kHeaderBytesMax}};
  // Of the connection there is room for all streams: each has its own bound.
  constexpr int32_t kAllWindowsBytes = kStreamsMax * kWindowBytes;
  is_broken_ =
      session_ == nullptr ||
      nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, kSettings, std::size(kSettings)) != 0 ||
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kAllWindowsBytes) != 0;
}

BatchSession::~BatchSession() {
  while (!streams_.empty()) OnClosed(streams_.begin()->second.get());
  nghttp2_session_del(session_);
}

void BatchSession::Receive(std::string_view bytes) {
  if (is_broken_) return;
  const ssize_t taken = nghttp2_session_mem_recv(
      session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (taken < 0) is_broken_ = true;
}

bool BatchSession::is_over() const {
  if (is_broken_ || (goes_away_ && streams_.empty())) return true;
  return nghttp2_session_want_read(session_) == 0;
}

void BatchSession::Take(std::string* output, size_t bytes_max) {
  do {
    const uint8_t* bytes = nullptr;
    ssize_t count = 0;
    while (!is_broken_ && output->size() < bytes_max &&
           (count = nghttp2_session_mem_send(session_, &bytes)) > 0) {
      output->append(View(bytes, static_cast<size_t>(count)));
    }
    if (count < 0) is_broken_ = true;
  } while (!is_broken_ && output->size() < bytes_max && GoOnWithHeld());
}

bool BatchSession::MayRun(Stream* stream) {
  if (!stream->MayAnswer() || answers_bytes_ >= kWaitingBytesMax) return false;
  if (MonotonicNs() >= turn_ends_ns_) {
    has_more_ = true;
    return false;
  }
  return host_->HasRoom(answers_bytes_);
}

bool BatchSession::GoOnWithHeld() {
  bool has_gone_on = false;
  has_more_ = false;
  for (const int32_t id : std::exchange(held_, {})) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) continue;
    Stream* const stream = found->second.get();
    if (MayRun(stream)) {
      stream->is_held = false;
      has_gone_on = true;
      GoOn(stream);
    } else {
      held_.push_back(id);
    }
  }
  return has_gone_on;
}

void BatchSession::OnRequest(Stream* stream) {
  const Status checked = CheckRequest(stream);
  stream->authorization.clear();
  if (!checked.ok()) return Refuse(stream, checked);
  stream->is_open = true;
  stream->reply = new Reply(wake_, peer_);
  // Copied for each batch, which costs nothing where it is only a pointer.
  stream->context.peer = [reply = stream->reply] { return reply->peer(); };
  const nghttp2_nv response[] = {Field(":status", "200"), Field("content-type", kContentType)};
  nghttp2_data_provider provider{};
  provider.source.ptr = stream;
  provider.read_callback = Callbacks::OnRoom;
  if (nghttp2_submit_response(session_, stream->id, response, std::size(response), &provider) !=
      0) {
    is_broken_ = true;
  }
}

Status BatchSession::CheckRequest(Stream* stream) {
  const auto refusal = [&](Reason reason, const std::string& why) {
    return Status(reason, PresentableText(stream->method, 256) + ": " + why);
  };
  if (stream->method != kMethod) {
    return refusal(Reason::kUnimplemented,
                   "this connection's client has said that it carries only " +
                       std::string(kMethod) + "; other methods need a connection of their own");
  }
  if (!stream->content_type.starts_with(kContentType)) {
    return refusal(Reason::kInvalidArgument,
                   "the content type has to be " + std::string(kContentType));
  }
  if (!stream->timeout.empty()) {
    const auto timeout = ParseGrpcTimeout(stream->timeout);
    if (!timeout.has_value())
      return refusal(Reason::kInvalidArgument, "grpc-timeout makes no sense");
    // Beyond ten years is the same as never, and cannot overflow.
    if (*timeout < std::chrono::hours(24 * 3660)) {
      using std::chrono::steady_clock;
      stream->context.deadline =
          steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(*timeout);
    }
  }
  // Two: trust neither.
  auto identity =
      host_->Authenticate(stream->authorizations == 1 ? stream->authorization : std::string_view(),
                          &stream->generation);
  if (!identity.ok()) return identity.status();
  SH_RETURN_IF_ERROR(host_->OpenStream());
  stream->context.identity = *std::move(identity);
  stream->context.lane = lane_;
  return Status();
}

void BatchSession::Refuse(Stream* stream, const Status& why) {
  if (!is_useful_) GoAway();  // It has no business here.
  stream->trailers = host_->TrailersOf(why);
  const TrailerFields fields(*stream->trailers);
  const std::vector<nghttp2_nv> all =
      fields.With({Field(":status", "200"), Field("content-type", kContentType)});
  if (nghttp2_submit_response(session_, stream->id, all.data(), all.size(), nullptr) != 0) {
    is_broken_ = true;
  }
}

void BatchSession::OnData(Stream* stream, std::string_view chunk) {
  size_t taken = 0;
  if (stream->trailers.has_value()) {
    taken = chunk.size();
  } else if (stream->input.empty()) {
    // Most often it is a whole message, which needs no copy then.
    size_t message = 0;
    while (RunFirst(stream, chunk.substr(taken), &message)) taken += message;
    if (stream->trailers.has_value()) taken = chunk.size();
  }
  (void)nghttp2_session_consume_stream(session_, stream->id, taken);
  if (taken == chunk.size()) return Recount(stream);
  stream->input.append(chunk.substr(taken));
  GoOn(stream);
}

void BatchSession::OnClientDone(Stream* stream) {
  stream->client_is_done = true;
  GoOn(stream);
}

void BatchSession::GoOn(Stream* stream) {
  size_t taken = 0;
  size_t message = 0;
  while (RunFirst(stream, std::string_view(stream->input).substr(taken), &message)) {
    taken += message;
  }
  if (stream->trailers.has_value()) taken = stream->input.size();
  stream->input.erase(0, taken);
  (void)nghttp2_session_consume_stream(session_, stream->id, taken);
  const bool is_idle = !stream->is_running && !stream->is_held && !stream->trailers.has_value();
  if (is_idle && stream->client_is_done && stream->is_open) {
    if (stream->input.empty()) {
      stream->was_useful = true;
      End(stream, GrpcTrailers());
    } else {
      End(stream,
          host_->TrailersOf(Status(Reason::kInvalidArgument,
                                   std::string(kMethod) + ": the last message is cut off")));
    }
  }
  Recount(stream);
}

bool BatchSession::RunFirst(Stream* stream, std::string_view bytes, size_t* taken) {
  if (stream->is_running || stream->trailers.has_value() || !stream->is_open) return false;
  if (is_over()) return false;  // It could not be answered.
  if (bytes.size() < kMessagePrefixBytes) return false;
  const auto end = [&](Reason reason, const std::string& why) {
    End(stream, host_->TrailersOf(Status(reason, std::string(kMethod) + ": " + why)));
    return false;
  };
  if (bytes[0] != '\0') return end(Reason::kUnimplemented, "a message is compressed");
  const size_t length = MessageBytesOf(bytes);
  if (length > kMessageBytesMax) {
    return end(Reason::kMessageTooLarge, "a message has " + std::to_string(length) +
                                             " bytes; the limit of this connection is " +
                                             std::to_string(kMessageBytesMax) +
                                             ", and larger batches go by RunBatch");
  }
  if (bytes.size() - kMessagePrefixBytes < length) return false;
  if (!MayRun(stream)) {
    if (!std::exchange(stream->is_held, true)) held_.push_back(stream->id);
    return false;
  }
  *taken = kMessagePrefixBytes + length;
  Run(stream, bytes.substr(kMessagePrefixBytes, length));
  return true;
}

void BatchSession::Run(Stream* stream, std::string_view batch) {
  CallContext& context = stream->context;
  using std::chrono::steady_clock;
  if (context.deadline != steady_clock::time_point::max() &&
      context.deadline < steady_clock::now()) {
    return End(stream, host_->TrailersOf(
                           Status(Reason::kTimeout, std::string(kMethod) + ": its time is over")));
  }
  auto identity = host_->Current(context.identity, &stream->generation);
  if (!identity.ok()) return End(stream, host_->TrailersOf(identity.status()));
  context.identity = *std::move(identity);
  host_->CountUseful();
  is_useful_ = stream->was_useful = true;
  Reply* const reply = stream->reply;
  reply->Begin();
  dispatcher_->Dispatch(context, kMethod, batch,
                        [reply](StatusOr<std::string> result) { reply->Set(std::move(result)); });
  std::optional<StatusOr<std::string>> result = reply->Get();
  stream->is_running = !result.has_value();
  if (result.has_value()) Answer(stream, *std::move(result));
}

void BatchSession::Answer(Stream* stream, StatusOr<std::string> result) {
  const std::string answer = result.ok() ? *std::move(result) : EncodeBatchRefusal(result.status());
  AppendMessagePrefix(answer.size(), &stream->answers);
  stream->answers += answer;
  Resume(stream);
}

void BatchSession::Settle() {
  std::vector<Stream*> answered;
  for (const auto& [id, stream] : streams_) {
    if (stream->is_running) answered.push_back(stream.get());
  }
  for (Stream* const stream : answered) {
    std::optional<StatusOr<std::string>> result = stream->reply->Get();
    if (!result.has_value()) continue;
    stream->is_running = false;
    Answer(stream, *std::move(result));
    GoOn(stream);
  }
}

void BatchSession::EndStreams(const Status& why) {
  GoAway();
  const GrpcTrailers trailers = host_->TrailersOf(why);
  for (const auto& [id, stream] : streams_) {
    if (!stream->is_open && !stream->trailers.has_value()) {  // Its request is not all here.
      (void)nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    } else if (!stream->trailers.has_value()) {
      End(stream.get(), trailers);
    }
  }
}

// The answer of a batch that is carried out goes first.
void BatchSession::End(Stream* stream, GrpcTrailers trailers) {
  stream->trailers = std::move(trailers);
  Resume(stream);
}

void BatchSession::Resume(Stream* stream) {
  if (std::exchange(stream->is_deferred, false)) {
    (void)nghttp2_session_resume_data(session_, stream->id);
  }
}

ssize_t BatchSession::Fill(Stream* stream, uint8_t* room, size_t room_bytes, uint32_t* flags) {
  const size_t bytes = std::min(room_bytes, stream->answers.size() - stream->sent);
  std::memcpy(room, stream->answers.data() + stream->sent, bytes);
  stream->sent += bytes;
  // What was sent goes, also where there is always more.
  if (stream->sent < stream->answers.size() && stream->sent >= kAnswersAheadBytes &&
      2 * stream->sent >= stream->answers.size()) {
    stream->answers.erase(0, std::exchange(stream->sent, 0));
    Recount(stream);
  }
  if (stream->sent == stream->answers.size()) {
    stream->answers.clear();
    if (stream->answers.capacity() > kAnswersAheadBytes) stream->answers.shrink_to_fit();
    stream->sent = 0;
    Recount(stream);
    if (stream->trailers.has_value() && !stream->is_running) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      SubmitTrailers(stream);
      return static_cast<ssize_t>(bytes);
    }
  }
  if (bytes > 0) return static_cast<ssize_t>(bytes);
  stream->is_deferred = true;
  return NGHTTP2_ERR_DEFERRED;
}

void BatchSession::SubmitTrailers(Stream* stream) {
  const TrailerFields fields(*stream->trailers);
  const std::vector<nghttp2_nv> all = fields.With({});
  if (nghttp2_submit_trailer(session_, stream->id, all.data(), all.size()) != 0) is_broken_ = true;
}

void BatchSession::Recount(Stream* stream) {
  const auto answers = static_cast<int64_t>(stream->answers.size());
  answers_bytes_ += answers - std::exchange(stream->counted_answers, answers);
  const auto now = static_cast<int64_t>(stream->input.size()) + answers;
  const int64_t more = now - std::exchange(stream->counted, now);
  if (more == 0) return;
  host_->CountBytes(more);
}

void BatchSession::GoAway() {
  if (std::exchange(goes_away_, true) || is_broken_) return;
  if (nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                            nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                            nullptr, 0) != 0) {
    is_broken_ = true;
  }
}

void BatchSession::OnClosed(Stream* stream) {
  answers_bytes_ -= stream->counted_answers;
  if (stream->counted != 0) host_->CountBytes(-stream->counted);
  if (stream->reply != nullptr) Reply::Abandon(stream->reply);
  if (stream->is_open) host_->CloseStream();
  const bool was_wasted = !stream->was_useful;
  streams_.erase(stream->id);
  if (was_wasted) CountWaste();
}

void BatchSession::CountWaste() {
  host_->CountWasted();
  if (++wasted_ > kWastedStreamsMax) {
    is_broken_ =
        is_broken_ || nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM) != 0;
  }
}

}  // namespace statehouse
