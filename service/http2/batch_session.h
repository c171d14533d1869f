// BatchSession: one HTTP/2 connection that carries nothing but streams of batches, without its
// socket: bytes in, bytes out, and the batches to the dispatcher.
//
//   received bytes --> nghttp2 --> [stream: message after message] --> Dispatcher
//   bytes to send  <-- nghttp2 <-- [stream: answers, then trailers] <--     |
//
// What it speaks is gRPC over HTTP/2 (RFC 9113 and gRPC's PROTOCOL-HTTP2.md): to a client there is
// no difference from a connection of gRPC's own, but that other methods are refused. A client says
// in its first SETTINGS that it wants no others (SaysOnlyBatches).
//
// Each stream has one batch at a time and is answered in order. What a client may have waiting is
// bounded by the windows of its streams, kMessageBytesMax each, and what is answered and not read
// by one batch's answer a stream; all sessions together by their host.
//
// Who owns it: the connection (BatchConnections), or a test. Threads: one at a time; answers may
// come on threads of the dispatcher, which call the host's `Wake`. Always true: a batch that was
// carried out is answered or its stream is over; the host outlives the session, and nothing is
// called on either after the session's end but Wake. Failure: who breaks HTTP/2 is told so and
// is_over; a stream that is refused ends with gRPC's status.
#pragma once

#include <nghttp2/nghttp2.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"

namespace statehouse {

// How a stream ends, as gRPC writes it.
struct GrpcTrailers {
  int code = 0;
  std::string message = {};  // UTF-8.
  std::string details = {};  // A serialized google.rpc.Status; empty: none.
};

// What a session needs of whoever has the connection. Threads: the session's, but for Wake.
class BatchHost {
 public:
  virtual ~BatchHost() = default;
  virtual StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                                 uint64_t* generation) = 0;
  // As TokenCache::Current.
  virtual StatusOr<std::shared_ptr<const Identity>> Current(
      std::shared_ptr<const Identity> identity, uint64_t* generation) = 0;
  virtual GrpcTrailers TrailersOf(const Status& why) = 0;
  // One more stream; REFUSED with the reason when there are too many of all clients.
  virtual Status OpenStream() = 0;
  virtual void CloseStream() = 0;
  // A call that came to nothing, as those of read_gate.h; a batch that was authorised.
  virtual void CountWasted() = 0;
  virtual void CountUseful() = 0;
  // So many more bytes wait here, or fewer. False: there is no room, and nothing was counted.
  virtual bool CountBytes(int64_t more) = 0;
};

// Of answers that come on other threads: says that Settle has something to do. Any thread, also
// when the session is no more.
using WakeSession = std::function<void()>;

class BatchSession final {
 public:
  static constexpr uint32_t kStreamsMax = 100;
  static constexpr uint32_t kMessageBytesMax = 256 << 10;
  static constexpr size_t kHeaderBytesMax = 16 << 10;  // Of one request.
  // Streams of a connection that came to nothing; one more ends the connection.
  static constexpr uint32_t kWastedStreamsMax = 100;
  // Answers that wait to be sent while the stream's next batch is carried out.
  static constexpr size_t kAnswersAheadBytes = 64 << 10;

  // `peer` as the log has it.
  BatchSession(BatchHost* host, Dispatcher* dispatcher, Lane lane, std::string peer,
               WakeSession wake);
  ~BatchSession();
  BatchSession(const BatchSession&) = delete;
  BatchSession& operator=(const BatchSession&) = delete;

  void Receive(std::string_view bytes);
  // Takes the answers that came on other threads.
  void Settle();
  // Appends what is to be sent, until *output has `bytes_max` or there is no more for now.
  void Take(std::string* output, size_t bytes_max);
  // No stream begins any more: those that carry out a batch end when it is answered, the others
  // now.
  void EndStreams(const Status& why);

  // Nothing is received any more, and when Take has nothing, nothing is sent.
  bool is_over() const;
  size_t streams() const { return streams_.size(); }

 private:
  class Reply;
  struct Stream;
  struct Callbacks;

  void OnRequest(Stream* stream);
  Status CheckRequest(Stream* stream);
  void OnData(Stream* stream, std::string_view chunk);
  void OnClientDone(Stream* stream);
  void OnClosed(Stream* stream);
  // Carries out what is there, as far as the stream may go on.
  void GoOn(Stream* stream);
  // True: a message was taken off `bytes` and carried out, or the stream ends.
  bool RunFirst(Stream* stream, std::string_view bytes, size_t* taken);
  void Run(Stream* stream, std::string_view batch);
  void Answer(Stream* stream, StatusOr<std::string> result);
  void Refuse(Stream* stream, const Status& why);  // Before its response has begun.
  void End(Stream* stream, GrpcTrailers trailers);
  void SubmitTrailers(Stream* stream);
  void Resume(Stream* stream);
  void Recount(Stream* stream);
  // False: none may go on.
  bool GoOnWithHeld();
  void GoAway();
  void CountWaste();
  ssize_t Fill(Stream* stream, uint8_t* room, size_t room_bytes, uint32_t* flags);

  BatchHost* const host_;
  Dispatcher* const dispatcher_;
  const Lane lane_;
  const std::shared_ptr<const std::string> peer_;
  const WakeSession wake_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, std::unique_ptr<Stream>> streams_;
  std::vector<int32_t> held_;  // Streams whose next batch waits until answers are taken.
  uint32_t wasted_ = 0;
  bool goes_away_ = false;
  bool is_broken_ = false;
};

}  // namespace statehouse
