// LocalSession and LocalArea: a process's use of the local door, without gRPC or protobuf.
//
// A session attaches to the daemon over <runtime_dir>/attach.sock: it gets a block of lanes, opens
// areas and makes control calls. An area's operations run the engine on memory that this process
// maps; the daemon has no part in them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "clients/c/src/attach_connection.h"
#include "clients/c/src/fork_registry.h"
#include "clients/c/src/lane_pool.h"
#include "engine/attach/protocol.h"
#include "engine/base/status.h"
#include "engine/state/area.h"

namespace statehouse {

class LocalArea;
class LocalDict;
class LocalLocks;

struct LocalSessionOptions {
  std::string runtime_dir;
  std::string token;
  std::string client_name;                                    // Shown to operators.
  std::chrono::nanoseconds timeout{std::chrono::seconds(5)};  // Of each call, and of attaching.
  Interrupt interrupted;  // Asked during everything that waits; may be empty.
};

struct CallOptions {
  Deadline deadline;
  // The call may be sent again when the connection broke after it was sent.
  bool idempotent = false;
  // Uses a connection of its own, so that it keeps nobody waiting.
  bool long_running = false;
  // Its answer may be taken some milliseconds late, so that it does not slow down other calls.
  bool unhurried = false;
  // It does not share a message with other calls.
  bool alone = false;
  // Where not null: set where the call was sent more than once, so that its answer may be about a
  // sending after the one that was carried out. Never cleared.
  bool* sent_again = nullptr;

  void NoteSentAgain() const {
    if (sent_again != nullptr) *sent_again = true;
  }
};

// Who owns it: shared by the client handle and its areas, because an area needs lanes as long as it
// is operated on. Threads: every method from any thread at once, except Close, which needs all
// other calls to have ended. Always true: nothing is done behind the caller's back; there is no
// thread and no timer. Failure: when the daemon is away, mapped areas go on; calls and Open wait
// for it until the deadline, then fail with
//   UNAVAILABLE. In a forked child the first mutation or call attaches anew.
class LocalSession final : public ForkObserver, public std::enable_shared_from_this<LocalSession> {
 public:
  // Attaches; when nobody listens yet it tries again until the timeout. Errors: UNAVAILABLE,
  // PERMISSION_DENIED, and what the daemon answers: UNAUTHENTICATED, TOKEN_EXPIRED, RATE_LIMITED,
  // LANES_EXHAUSTED, VERSION_MISMATCH, DRAINING.
  static StatusOr<std::shared_ptr<LocalSession>> Attach(LocalSessionOptions options);
  // The same without lanes: for calls only.
  static StatusOr<std::shared_ptr<LocalSession>> Connect(LocalSessionOptions options);
  ~LocalSession() override;
  LocalSession(const LocalSession&) = delete;
  LocalSession& operator=(const LocalSession&) = delete;

  // Gives lanes and connections back. Later operations of the session and its areas fail with
  // CLIENT_CLOSED.
  void Close();

  // Opens an area by name or "#<index>" and maps it. Handles of one segment share a mapping.
  StatusOr<std::shared_ptr<LocalArea>> Open(const std::string& name);
  // The same for a dict (clients/c/src/local_dict.h). Handles of one dict are one.
  StatusOr<std::shared_ptr<LocalDict>> OpenDict(const std::string& name);

  // The locks (clients/c/src/local_locks.h). PERMISSION_DENIED where the token may not lock every
  // name: then locks are taken by calls.
  StatusOr<std::shared_ptr<LocalLocks>> OpenLocks();

  // Connects again where the daemon has gone away meanwhile, if it answers at once: handles learn
  // whether another service took its place. For whoever has to know without a call of its own.
  void LookAfterConnection();

  // One unary call by method path: serialized request in, serialized response out.
  StatusOr<std::string> Call(const std::string& method, const std::string& request,
                             const CallOptions& options);

  // What clients that map no memory send by packet, gRPC taking the rest: requests of so many bytes
  // (a packet's body has the method and their heads, too), while others' calls keep the connection
  // busy no longer.
  static constexpr size_t kSmallRequestBytesMax = kAttachPartBytesMax - kAttachMethodBytesMax - 64;
  static constexpr std::chrono::milliseconds kBusyPatience{2};
  // The same where the connection is free by `free_by`; else false, and nothing was sent.
  bool CallIfFree(const std::string& method, const std::string& request, const CallOptions& options,
                  Deadline free_by, StatusOr<std::string>* response);
  // The descriptor of the follow log with this id, of the dict with that index, over a connection
  // of its own. Asks no interrupt.
  StatusOr<UniqueFd> OpenFollowLog(uint32_t dict_index, uint64_t log_id, Deadline deadline);

  // For LocalArea and LocalDict. The id that a thread's lane must have to be used now.
  uint64_t attachment_id() const { return attachment_id_.load(std::memory_order_relaxed); }
  // Makes `thread_lane` a lane of this session, attaching anew in a forked child.
  Status AcquireLane();

  const LocalSessionOptions& options() const { return options_; }
  Deadline DefaultDeadline() const { return std::chrono::steady_clock::now() + options_.timeout; }

  void LockForFork() override { mutex_.lock(); }
  void UnlockAfterFork() override { mutex_.unlock(); }
  void OnForkedChild() override;

 private:
  friend class LocalDict;
  friend class LocalLocks;

  // The connection for control calls; one call at a time.
  struct Control {
    std::mutex mutex;  // Guards `busy`. Before the session's mutex_.
    std::condition_variable freed;
    bool busy = false;  // The rest belongs to whoever set it.
    AttachConnection connection;
    bool with_lanes = false;
    uint64_t next_request_id = 1;
    std::string packet;    // Of the call that is under way.
    std::string response;  // What has come of its response.
  };

  // A call's turn on the connection; it ends with the object.
  class Turn final {
   public:
    Turn() = default;
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    // False when the connection stayed busy until the deadline.
    bool Take(std::shared_ptr<Control> control, Deadline deadline);
    Control* get() const { return control_.get(); }

   private:
    std::shared_ptr<Control> control_;
  };

  explicit LocalSession(LocalSessionOptions options) : options_(std::move(options)) {}

  // Connects and says Hello, again and again until the deadline while the daemon is away. The
  // answer to a Hello for lanes becomes the session's attachment.
  StatusOr<AttachConnection> Connect(bool want_lanes, Deadline deadline);
  StatusOr<AttachConnection> ConnectOnce(bool want_lanes, Deadline deadline,
                                         const Interrupt& interrupted);
  Status AdoptAttachment(AttachConnection::Received* received);
  // REQUIRES: the caller has the turn on `control`.
  Status EnsureConnected(Control* control, bool want_lanes, Deadline deadline);
  StatusOr<AttachConnection::Received> Exchange(Control* control, bool want_lanes,
                                                const AttachMessage& message,
                                                const CallOptions& options);
  // One call and its response, which may come in parts. REQUIRES: as ReopenDicts.
  StatusOr<std::string> ExchangeCall(Control* control, const AttachCallView& call,
                                     const CallOptions& options);
  // Calls `once(&sent)`, which says what came of one try, again while that is safe and helps.
  template <typename Once>
  Status UntilAnswered(Control* control, bool want_lanes, const CallOptions& options,
                       const Once& once);
  StatusOr<AttachConnection::Received> ExchangeOnce(Control* control, const AttachMessage& message,
                                                    Deadline deadline, bool* sent);
  // *answer is the daemon's: a refusal, or OK with the response in control->response.
  Status CallOnce(Control* control, const AttachCallView& call, Deadline deadline, bool* sent,
                  Status* answer);
  StatusOr<std::shared_ptr<LocalArea>> Adopt(const AttachAreaOpened& opened,
                                             const std::vector<UniqueFd>& descriptors);
  // Asks the daemon for every mapped area again, after lanes of a new lease came: counts this
  // process as attached, touches the lanes' pages, and retires handles whose segment the service no
  // longer has. REQUIRES: the caller has the turn on `control`.
  void ReopenAreas(Control* control, Deadline deadline);
  // The same for dicts, as far as it is theirs. REQUIRES: the caller has the turn on `control`.
  void ReopenDicts(Control* control, Deadline deadline);
  // The same for the locks. REQUIRES: the caller has the turn on `control`.
  void ReopenLocks(Control* control, Deadline deadline);
  // One OpenDict and its answer. REQUIRES: as ReopenDicts.
  StatusOr<AttachConnection::Received> ExchangeOpenDict(Control* control,
                                                        const AttachOpenDict& open,
                                                        Deadline deadline);
  Status TakeTurn(Deadline deadline, Turn* turn);

  // Bookkeeping of open sockets, so that a forked child can close all of them.
  void Track(const AttachConnection& connection);
  void CloseTracked(AttachConnection* connection);
  std::vector<std::shared_ptr<LocalArea>> LivingAreas();
  std::vector<std::shared_ptr<LocalDict>> LivingDicts();
  void CloseDicts();
  void CloseLocks();
  std::shared_ptr<Attachment> CurrentAttachment();

  const LocalSessionOptions options_;
  std::atomic<uint64_t> attachment_id_{kUnattached};

  std::mutex mutex_;  // Guards what follows; held for moments, never while waiting.
  bool closed_ = false;
  std::shared_ptr<Control> control_ = std::make_shared<Control>();
  std::shared_ptr<Attachment> attachment_;
  std::vector<std::weak_ptr<Attachment>> attachments_;  // Also those that threads still hold.
  std::set<int> sockets_;
  std::vector<std::weak_ptr<LocalArea>> areas_;
  std::vector<std::weak_ptr<LocalDict>> dicts_;
  std::weak_ptr<LocalLocks> locks_;
};

// One open area. Positions and lengths are bytes; a word travels as its bits (engine/base/word.h).
//
// Who owns it: shared by handles, buffers exported from it and running operations: whoever holds it
// keeps it mapped. Threads: all methods from any thread at once. Failure: those of
// engine/state/area.h; CLIENT_CLOSED after the session closed; AREA_NOT_FOUND when the service that
// served
//   the segment is gone; UNAVAILABLE where a forked child cannot attach.
class LocalArea final {
 public:
  LocalArea(std::shared_ptr<LocalSession> session, std::unique_ptr<Area> area, uint32_t index,
            dev_t device, ino_t inode)
      : session_(std::move(session)),
        area_(std::move(area)),
        index_(index),
        device_(device),
        inode_(inode) {}

  const std::string& name() const { return area_->name(); }
  uint32_t index() const { return index_; }
  uint64_t size() const { return area_->size(); }
  uint64_t atomic_range_bytes() const { return area_->geometry().atomic_range_bytes; }
  bool writable() const { return area_->writable(); }
  std::byte* data() const { return area_->data(); }
  const std::shared_ptr<LocalSession>& session() const { return session_; }

  Status Load(WordType type, uint64_t pos, uint64_t* bits) const {
    if (!usable()) [[unlikely]]
      return Unusable();
    return area_->Load(type, pos, bits);
  }
  // `fence` of the mutating ones: as in engine/state/area.h.
  Status Store(WordType type, uint64_t pos, uint64_t bits, uint64_t fence = 0) {
    return WithLane([&](const Lane& lane) { return area_->Store(lane, type, pos, bits, fence); });
  }
  Status Add(WordType type, uint64_t pos, uint64_t delta, uint64_t* bits, uint64_t fence = 0) {
    return WithLane(
        [&](const Lane& lane) { return area_->Add(lane, type, pos, delta, bits, fence); });
  }
  Status CompareExchange(WordType type, uint64_t pos, uint64_t expected, uint64_t desired,
                         CompareExchangeResult* result, uint64_t fence = 0) {
    return WithLane([&](const Lane& lane) {
      return area_->CompareExchange(lane, type, pos, expected, desired, result, fence);
    });
  }
  Status Bitwise(BitwiseOperator op, WordType type, uint64_t pos, uint64_t operand, uint64_t* bits,
                 uint64_t fence = 0) {
    return WithLane([&](const Lane& lane) {
      return area_->Bitwise(lane, op, type, pos, operand, bits, fence);
    });
  }
  Status Read(uint64_t pos, std::span<std::byte> out);
  Status Write(uint64_t pos, std::span<const std::byte> bytes, uint64_t fence = 0) {
    return WithLane([&](const Lane& lane) { return area_->Write(lane, pos, bytes, fence); });
  }
  Status Fill(uint64_t pos, uint64_t len, std::byte value, uint64_t fence = 0) {
    return WithLane([&](const Lane& lane) { return area_->Fill(lane, pos, len, value, fence); });
  }
  StatusOr<uint64_t> Updates() const;
  // Whole area, until `deadline`. A handle without the right to write asks the daemon.
  StatusOr<WaitResult> Wait(uint64_t since, Deadline deadline);

 private:
  friend class LocalSession;

  bool usable() const { return usable_.load(std::memory_order_relaxed) == kUsable; }
  Status Unusable() const;

  template <typename Operation>
  Status WithLane(const Operation& operation) {
    if (thread_lane.attachment_id != session_->attachment_id() || !usable()) [[unlikely]] {
      if (!usable()) return Unusable();
      if (Status status = session_->AcquireLane(); !status.ok()) return status;
    }
    if (thread_lane.shared == nullptr) [[likely]]
      return operation(thread_lane.lane);
    const std::lock_guard<std::mutex> lock(*thread_lane.shared);
    return operation(thread_lane.lane);
  }
  StatusOr<WaitResult> WaitThroughDaemon(uint64_t since, Deadline deadline);

  static constexpr uint8_t kUsable = 0;
  static constexpr uint8_t kSessionClosed = 1;
  static constexpr uint8_t kReplaced = 2;

  const std::shared_ptr<LocalSession> session_;
  const std::unique_ptr<Area> area_;
  const uint32_t index_;
  const dev_t device_;  // Of the control segment: tells one segment from another.
  const ino_t inode_;
  std::atomic<uint8_t> usable_{kUsable};
};

}  // namespace statehouse
