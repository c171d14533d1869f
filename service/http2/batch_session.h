// BatchSession: one HTTP/2 connection that carries nothing but streams of batches, without its
// socket: bytes in, bytes out, and the batches to the dispatcher.
//
//   received bytes --> nghttp2 --> [stream: message after message] --> Dispatcher
//   bytes to send  <-- nghttp2 <-- [stream: answers, then trailers] <--     |
//
// What it speaks is gRPC over HTTP/2 (RFC 9113 and gRPC's PROTOCOL-HTTP2.md): to a client there is
// no difference from a connection of gRPC's own, but that other methods are refused. A client says
// in its first SETTINGS that it wants no others (grpc_wire.h).
//
// Each stream has one batch at a time and is answered in order. What a client may have waiting is
// bounded by the windows of its streams, kWindowBytes each. Answers wait until they are read: the
// next batch is carried out only while a stream has less than kAnswersAheadBytes and its session
// less than kWaitingBytesMax of them, and while the host has room; else it waits, too.
//
// Who owns it: the connection (BatchConnections), or a test. Threads: one at a time; answers may
// come on threads of the dispatcher, which call its WakeSession. Always true: a batch that was
// carried out is answered or its stream is over; the host outlives the session, and nothing is
// called after the session's end but WakeSession. Failure: who breaks HTTP/2 is told so and
// is_over; a stream that is refused ends with gRPC's status.
#pragma once

#include <nghttp2/nghttp2.h>

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

// What a session needs of whoever has the connection. Threads: the session's.
class BatchHost {
 public:
  virtual ~BatchHost() = default;
  virtual StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                                 uint64_t* generation) = 0;
  // As TokenCache::Current.
  virtual StatusOr<std::shared_ptr<const Identity>> Current(
      std::shared_ptr<const Identity> identity, uint64_t* generation) = 0;
  virtual GrpcTrailers TrailersOf(const Status& why) = 0;
  // One more stream. LIMIT_EXCEEDED: too many of all clients; DRAINING.
  virtual Status OpenStream() = 0;
  virtual void CloseStream() = 0;
  // A call that came to nothing, as those of read_gate.h; a batch that was authorised.
  virtual void CountWasted() = 0;
  virtual void CountUseful() = 0;
  // So many more bytes wait here, or fewer.
  virtual void CountBytes(int64_t more) = 0;
  // Whether one that has so many bytes of answers waiting may carry out a batch. False: it is tried
  // again with the next Take. What waits to be carried out does not count: only that makes it less.
  virtual bool HasRoom(int64_t answers) = 0;
};

// Of answers that come on other threads: says that Settle has something to do. Any thread, also
// when the session is no more.
using WakeSession = std::function<void()>;

class BatchSession final {
 public:
  static constexpr uint32_t kStreamsMax = 100;
  static constexpr uint32_t kMessageBytesMax = 64 << 10;
  // Two messages: less than half of it may be read and not given back, and one must fit all the
  // same.
  static constexpr uint32_t kWindowBytes = 2 * (kMessageBytesMax + 5);
  static constexpr int64_t kWaitingBytesMax = 32 << 20;
  static constexpr size_t kHeaderBytesMax = 16 << 10;  // Of one request.
  // Streams that came to nothing on a connection that has been of use; one more ends it. Of one
  // that has not, the first does.
  static constexpr uint32_t kWastedStreamsMax = 100;
  // Answers that wait to be sent while the stream's next batch is carried out.
  static constexpr size_t kAnswersAheadBytes = 64 << 10;

  // `peer` as the log has it.
  BatchSession(BatchHost* host, Dispatcher* dispatcher, Lane lane, std::string peer,
               WakeSession wake);
  ~BatchSession();
  BatchSession(const BatchSession&) = delete;
  BatchSession& operator=(const BatchSession&) = delete;

  // From now on batches are carried out until then, by MonotonicNs; without it for ever.
  void BeginTurn(uint64_t until_ns) { turn_ends_ns_ = until_ns; }
  // Batches are here that only the end of the turn has held back: Take goes on with them.
  bool has_more() const { return has_more_ && !is_over(); }
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
  bool MayRun(Stream* stream);
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
  std::vector<int32_t> held_;  // Streams whose next batch waits, for room or time.
  int64_t answers_bytes_ = 0;
  uint64_t turn_ends_ns_ = UINT64_MAX;
  bool has_more_ = false;
  uint32_t wasted_ = 0;
  bool is_useful_ = false;  // A batch was authorised.
  bool goes_away_ = false;
  bool is_broken_ = false;
};

}  // namespace statehouse
