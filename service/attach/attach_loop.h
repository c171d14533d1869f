// AttachLoop: the attach door's epoll loop. See attach_door.h.
//
// Threads: Run on one; RequestStop, RequestRecheck and the answers of the dispatcher (Mailbox) from
// any.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "service/attach/attach_door.h"
#include "service/attach/connection.h"
#include "service/attach/descriptor_closer.h"
#include "service/attach/dict_mover.h"
#include "service/attach/lease_table.h"
#include "service/keeper/descriptor_message.h"

namespace statehouse {

class AttachLoop final {
 public:
  static StatusOr<std::unique_ptr<AttachLoop>> Create(AttachDoorOptions options, UniqueFd listener,
                                                      AttachDoorParts parts);
  // Serves until RequestStop.
  void Run();
  void RequestStop(std::chrono::milliseconds grace);
  void RequestRecheck();

 private:
  using Clock = std::chrono::steady_clock;

  // A call from its packet to its answer, which mostly comes while it is dispatched.
  class UnderWay;
  // Where the dispatcher's later answers wait for the loop. Shared with the callbacks, which may
  // outlive the loop.
  struct Mailbox {
    struct Answer {
      uint64_t connection = 0;
      uint64_t request_id = 0;
      StatusOr<std::string> response;           // Of a call; empty of a move.
      std::optional<AttachOpenDict> open_dict;  // A move for this request is over.
      bool takes_parts = false;
    };
    UniqueFd event;  // eventfd: the loop should look.
    // The loop's thread, which looks anyway before it sleeps.
    std::atomic<std::thread::id> loop_thread{};
    std::mutex mutex;
    std::vector<Answer> answers;
    std::atomic<bool> has_answers{false};
    void Post(Answer answer);
    void Wake() const;
  };

  AttachLoop(AttachDoorOptions options, UniqueFd listener, AttachDoorParts parts);
  Status Prepare();
  bool WatchFd(int fd, uint64_t tag, uint32_t events);
  int TimeoutMs(std::optional<Clock::time_point> probe_at) const;
  void Dispatch(uint64_t tag, uint32_t events);

  void Accept();
  void Serve(Connection& connection, uint32_t events);
  bool ReadOne(Connection& connection);  // False: nothing is left to read.
  bool OnMessage(Connection& connection, ReceivedMessage* message);
  // Whether a packet that is no Hello is to be served; else it was refused.
  bool MayAsk(Connection& connection, uint64_t request_id,
              const std::vector<UniqueFd>& descriptors);
  // These take out of `descriptors` what they keep.
  void OnPacket(Connection& connection, AttachPacket packet, std::vector<UniqueFd>* descriptors);
  void OnHello(Connection& connection, uint64_t request_id, const AttachHello& hello,
               std::vector<UniqueFd>* descriptors);
  void CountAuthFailure(const Connection& connection, Reason reason);
  Status LeaseFor(Connection& connection, std::vector<UniqueFd>* descriptors, LaneLease* lease);
  void OnOpenArea(Connection& connection, uint64_t request_id, const AttachOpenArea& open);
  StatusOr<std::shared_ptr<ServedArea>> FindReadable(const Connection& connection,
                                                     const std::string& name) const;
  void OnOpenDict(Connection& connection, uint64_t request_id, const AttachOpenDict& open);
  // Sends the segment that the dict is in now.
  void OnOpenLocks(Connection& connection, uint64_t request_id);
  void OnOpenFollowLog(Connection& connection, uint64_t request_id,
                       const AttachOpenFollowLog& open);
  void SendDict(Connection& connection, uint64_t request_id, const AttachOpenDict& open);
  StatusOr<std::shared_ptr<ServedDict>> FindReadableDict(const Connection& connection,
                                                         const std::string& name) const;
  // The block whose lanes this connection's worker writes with, if it has any.
  std::optional<uint32_t> BlockOf(const Connection& connection) const;
  // Whether a request that is answered later may be taken; else it was refused.
  bool Admit(Connection& connection, uint64_t request_id);
  void OnCall(Connection& connection, uint64_t request_id, const AttachCallView& call);
  void AnswerCall(Connection& connection, uint64_t request_id,
                  const StatusOr<std::string>& response, bool takes_parts);
  void SendResponse(Connection& connection, uint64_t request_id, std::string_view response,
                    bool takes_parts);
  Status CheckIdentity(Connection& connection);
  void TakeAnswers();
  void Recheck();
  void PauseAccepting();
  // What is due by time: greetings that did not come, packets that the kernel was too short for.
  void LookAtTimed();
  void DropFinished();
  void Drop(Connection& connection);
  // After anything that may have changed a connection: what epoll and the loop have to look at.
  void Settle(Connection& connection);

  const AttachDoorOptions options_;
  const AttachDoorParts parts_;
  const uint64_t generation_;  // Of the engine's state: the same as long as this daemon runs.
  UniqueFd listener_;
  UniqueFd epoll_;
  std::shared_ptr<Mailbox> mailbox_;
  std::optional<LeaseTable> leases_;
  DescriptorCloser closer_;
  DictMover mover_;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::set<uint64_t> timed_;        // Those that is_timed_.
  std::vector<uint64_t> finished_;  // They may have finished().
  uint64_t next_connection_ = 1;
  std::vector<char> packet_buffer_;
  std::string reply_buffer_;
  bool accepting_ = true;
  Clock::time_point accept_again_at_;  // When not accepting: no descriptor, or no room to close.
  std::atomic<bool> stop_requested_{false};
  std::atomic<int64_t> grace_ms_{0};
  std::atomic<bool> recheck_requested_{false};
  std::optional<Clock::time_point> stop_at_;
};

}  // namespace statehouse
