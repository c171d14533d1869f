// BatchConnections: the connections of clients that have said that they want only streams of
// batches (batch_session.h), served by a thread of their own, below gRPC.
//
//   acceptor --Take--> [new] --> epoll: receive, carry out, and when all that are ready had their
//                                turn, send
//
// A message costs gRPC more than the sixteen operations in it cost the engine; here it costs one
// recv and one send (docs/decisions/0009-batches.md). Connections take turns: as many bytes as took
// kTurnNs the last time, and batches for as long; what is left has another turn behind those that
// are ready by then. Who does not read what was sent is not read from either. Strangers, who have
// no stream of a caller with a token, have few bytes a turn and few in all.
//
// Who owns it: the door. Threads: Take, BeginShutdown and Join any; the rest is its own thread's.
// Always true: while `waiting_bytes_max` wait of all connections together, to be carried out or to
// be read, only those go on that have less than kSmallWaitingBytes of answers. A connection that is
// of no use, is silent for too long or breaks HTTP/2 is closed, by our end first: what was sent
// arrives. A stranger who says too much is closed at once. After Join a batch may still be carried
// out on a thread of the dispatcher; nobody hears of it. Failure: the kernel ends a TCP connection
// whose client is gone or takes nothing (TCP keepalive and TCP_USER_TIMEOUT); whoever takes nothing
// of what waits for it is closed after the same time by a unix socket, too.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "service/rpc/token_cache.h"

namespace statehouse {

inline constexpr int64_t kBatchWaitingBytesMax = 256 << 20;

struct BatchConnectionsOptions {
  bool raise_priority = false;  // Of its thread (door_thread.h).
  uint32_t keepalive_s = 120;   // As GrpcDoorOptions have them.
  uint32_t keepalive_timeout_s = 20;
  uint32_t idle_s = 3600;
  // For the first stream of a caller with a token; as gRPC's for a handshake.
  std::chrono::milliseconds first_stream{10'000};
  int64_t waiting_bytes_max = kBatchWaitingBytesMax;
  // As the door's own. On its thread. Peers as gRPC names them.
  std::function<void(Reason, const std::string& peer)> on_auth_failure;
  std::function<void(const std::string& peer)> on_wasted;
  std::function<void(const std::string& peer)> on_useful;
};

class BatchConnections final {
 public:
  static constexpr uint64_t kTurnNs = 250'000;
  static constexpr size_t kTurnBytesMin = 2 << 10;
  static constexpr size_t kTurnBytesMax = 64 << 10;
  static constexpr size_t kStrangerTurnBytes = 4 << 10;
  // The longest request and then some; for each stream that it has a window more, before a batch.
  static constexpr size_t kStrangerBytesMax = 32 << 10;
  static constexpr size_t kUnsentBytesMax = 64 << 10;  // Of a connection, framed already.
  static constexpr int64_t kSmallWaitingBytes = 64 << 10;
  static constexpr uint64_t kLeaveNs = 1'000'000'000;    // For its client to close, too.
  static constexpr uint64_t kLastLeaveNs = 200'000'000;  // While the service stops.

  static StatusOr<std::unique_ptr<BatchConnections>> Start(BatchConnectionsOptions options,
                                                           Dispatcher* dispatcher,
                                                           Authenticator* authenticator, Lane lane);
  ~BatchConnections();
  BatchConnections(const BatchConnections&) = delete;
  BatchConnections& operator=(const BatchConnections&) = delete;

  // Whether a new connection is one for Take: what its client has sent first is there and says so.
  static bool IsWanted(int fd);
  void Take(UniqueFd connection);
  // Ends every stream, with DRAINING, once what it carries out is answered; nothing new begins.
  void BeginShutdown();
  // Waits until all connections are closed, and closes those that are left at the deadline.
  // REQUIRES: BeginShutdown.
  void Join(std::chrono::steady_clock::time_point deadline);

 private:
  class Connection;
  struct Mailbox;

  BatchConnections(BatchConnectionsOptions options, Dispatcher* dispatcher,
                   Authenticator* authenticator, Lane lane);
  Status Prepare();
  void Run();
  // What came from other threads.
  void ReadMailbox();
  void Open(UniqueFd fd);
  void CloseSilent();
  void EndAll();
  bool Ask(int operation, Connection* connection, uint32_t events);
  Connection* Find(uint64_t id) const;
  // Goes on with it for a turn and sends what there is. It may be gone then.
  void Serve(Connection* connection);
  void ServeAll(const std::vector<uint64_t>& ids);
  // Those that waited for room, where there is some.
  void ServeStarved();
  // Of epoll, what the connection waits for. False: the kernel refuses.
  bool AskFor(Connection* connection);
  // It has nothing more to say.
  void Leave(Connection* connection);

  const BatchConnectionsOptions options_;
  Dispatcher* const dispatcher_;
  const Lane lane_;
  TokenCache tokens_;
  UniqueFd epoll_;
  const std::shared_ptr<Mailbox> mailbox_;  // Also of answers that come when all this is gone.
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  uint64_t last_id_ = 0;
  int64_t waiting_bytes_ = 0;
  std::vector<uint64_t> again_;    // Their turn was too short.
  std::vector<uint64_t> starved_;  // They wait for room.
  size_t streams_ = 0;
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace statehouse
