// NotedBatch: what stands behind sh_batch: operations that were noted, and what they gave.
//
// Who owns it: the caller of the C interface. Threads: one at a time.
// Always true: an operation that is over has a result or an error. What goes over the network is
// noted as bytes; through the local door an operation is a call of its own that is made later, so
// both give what that call would.
// Failure: an operation's own, with its result; as a whole only where it may not be used.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clients/c/src/batch_answer.h"
#include "clients/c/src/batch_tape.h"
#include "clients/c/src/client_handle.h"
#include "clients/c/src/dict_handle.h"
#include "statehouse/batch.h"

namespace statehouse {

// Of one message; what a service takes (service/api/batch_plan.h).
inline constexpr size_t kBatchMessageOperationsMax = 4096;
inline constexpr size_t kBatchMessageBytesMax = kMessageBytesMax - (64 << 10);
inline constexpr size_t kBatchNamesMax = 64;
// Of a batch that is sent again: as many as a dict remembers of a session.
inline constexpr size_t kBatchNamedMax = 64;

// What an operation gives, so that nobody reads what it does not.
enum BatchShows : uint16_t {
  kShowsNothing = 0,
  kShowsEntry = 1,
  kShowsEntries = 1 << 1,
  kShowsOutcome = 1 << 2,
  kShowsNumber = 1 << 3,
  kShowsCount = 1 << 4,
  kShowsVersions = 1 << 5,
  kShowsWord = 1 << 6,
  kShowsExchange = 1 << 7,
  kShowsBytes = 1 << 8,
  kShowsLock = 1 << 9,
  kShowsReleased = 1 << 10,
};

struct BatchResult {
  BatchResult() = default;
  BatchResult(BatchResult&& other) noexcept
      : entry(std::exchange(other.entry, {})),
        outcome(other.outcome),
        number(other.number),
        count(other.count),
        flag(other.flag),
        large(std::move(other.large)) {}
  BatchResult& operator=(BatchResult&&) = delete;
  ~BatchResult() { sh_entry_free(&entry); }

  // Of few operations.
  struct Large {
    Large() = default;
    Large(const Large&) = delete;
    Large& operator=(const Large&) = delete;
    ~Large();
    sh_entries entries{};
    std::string bytes;
    std::vector<uint64_t> versions;
    std::string name;         // Of the lock that is tried for or given back.
    sh_lock* lock = nullptr;  // That was had, or is to be given back.
  };
  Large& Room() {
    if (large == nullptr) large = std::make_unique<Large>();
    return *large;
  }

  sh_entry entry{};
  sh_outcome outcome{};
  sh_number number{};
  uint64_t count = 0;  // Or a word.
  int flag = 0;        // Exchanged; released.
  std::unique_ptr<Large> large;
};

// Where an action goes: the tape in the service's place, or the client's door.
enum class BatchTarget : uint8_t { kTape, kDoor };
// Carries an operation out as a call of its own, and fills its result in.
using BatchAction = std::function<sh_reason(BatchTarget, BatchResult*, sh_error**)>;

struct ErrorFree {
  void operator()(sh_error* error) const { sh_error_free(error); }
};

struct BatchOperation {
  uint32_t field = 0;  // Of Operation.kind.
  uint16_t shows = kShowsNothing;
  bool is_short = false;
  bool is_over = false;
  bool is_late = false;   // What is asked is known when the batch is run.
  bool is_asked = false;  // Late: it is known, and part of a message.
  BatchRetry retry = BatchRetry::kSafe;
  uint32_t id_field = 0;
  // Short: an Operation inside short_bytes_, as a field of Batch.
  size_t begin = 0;
  size_t end = 0;
  std::string request;  // Longer ones over the network.
  BatchAction action;   // None of a short one over the network.
  BatchResult result;
  std::unique_ptr<sh_error, ErrorFree> error;
};

class NotedBatch {
 public:
  NotedBatch(const sh_client& client, bool stop_at_failure);
  ~NotedBatch();
  NotedBatch(const NotedBatch&) = delete;
  NotedBatch& operator=(const NotedBatch&) = delete;

  size_t count() const { return operations_.size(); }
  bool is_local() const { return is_local_; }
  const std::shared_ptr<ClientLocks>& locks() const { return locks_; }
  BatchTape& tape() { return tape_; }

  // The handles that actions go through; they stay until Clear, and noting after a run begins with
  // one. INVALID_ARGUMENT for NULL, and where another client opened it.
  struct Dicts {
    sh_dict taped;
    sh_dict direct;
    sh_dict* at(BatchTarget target) { return target == BatchTarget::kTape ? &taped : &direct; }
  };
  struct AreasOf {
    sh_area taped;
    sh_area direct;
    sh_area* at(BatchTarget target) { return target == BatchTarget::kTape ? &taped : &direct; }
  };
  StatusOr<Dicts*> Use(const sh_dict* dict);
  StatusOr<AreasOf*> Use(const sh_area* area);
  Status CheckOwn(const sh_dict* dict) const;
  Status CheckOwn(const sh_area* area) const;

  // Each notes an operation, after asking whether there is room.
  Status Note(uint16_t shows, BatchAction action, size_t* index);
  // What is asked is known when the batch is run. `name` is the lock's; `lock` (may be null) is to
  // be given back, and the batch's when this is OK.
  Status NoteLate(uint16_t shows, uint32_t field, const std::string& name, BatchAction action,
                  sh_lock* lock, size_t* index);
  // A short operation whose `action` is known to take its arguments. The message's fields after the
  // object's place are `tail`.
  Status NoteShort(uint16_t shows, uint32_t field, const std::string& name, std::string_view tail,
                   const std::function<BatchAction()>& action, size_t* index);

  // OK, or why it may not be run. *failed: the first operation that was refused, or count().
  Status Run(size_t* failed);
  void Clear();

  // The operation whose result is asked for. INVALID_ARGUMENT; see batch.h.
  StatusOr<const BatchOperation*> Find(size_t index, uint16_t shows, const char* what) const;
  StatusOr<BatchOperation*> Find(size_t index, uint16_t shows, const char* what);

 private:
  // What is sent together.
  struct Message {
    std::vector<size_t> left;  // Operations that have no answer yet.
    bool repeatable = true;
    bool sent_again = false;  // It, or a part of it.
    bool is_cut = false;
  };

  // Begins anew after a run; refuses what has no room.
  Status PrepareToNote(size_t request_bytes);
  void Keep(BatchOperation&& operation, size_t request_bytes, size_t* index);
  // The place of a name in the message's list; names_.size() where it has no room for it.
  uint32_t PlaceOf(const std::string& name);
  // Asks the action what it wants; without a field it wants nothing any more.
  Status TapeRequest(BatchOperation* operation, BatchResult* result);
  void RunDirectly();
  void RunByMessages();
  // Sends operations [begin, end) of which some may be over. Why nothing after it may be sent, or
  // nothing.
  std::string SendMessage(size_t begin, size_t end);
  size_t MessageEnd(size_t begin) const;
  Message Gather(size_t begin, size_t end);
  Status Ask(Message* message, Deadline deadline, std::string* answer);
  Status TakeAnswer(std::string_view answer, Message* message);
  std::string Encode(std::span<const size_t> which, const DictOperationId& id) const;
  void Take(BatchOperation* operation, const BatchAnswered& answered, bool sent_again);
  void TakeShort(BatchOperation* operation, std::string_view message);
  void Fail(BatchOperation* operation, const Status& why, const char* name = nullptr,
            bool in_doubt = false);
  size_t FirstFailed(size_t begin, size_t end) const;

  const bool is_local_;
  const bool stop_at_failure_;
  const std::shared_ptr<LocalSession> local_;
  const std::shared_ptr<Caller> caller_;  // Null through the local door.
  const std::shared_ptr<ClientLocks> locks_;
  const std::shared_ptr<ClientWatches> watches_;
  const std::shared_ptr<OperationIds> ids_;
  const std::chrono::nanoseconds timeout_;

  BatchTape tape_;
  std::shared_ptr<Caller> tape_caller_;  // tape_, as handles take it.
  bool was_run_ = false;
  bool is_named_ = false;  // While it is run.
  size_t noted_bytes_ = 0;
  std::vector<std::string> names_;
  std::string short_bytes_;
  std::vector<BatchOperation> operations_;
  std::map<std::pair<std::string, const void*>, Dicts> dicts_;
  std::map<std::pair<std::string, const void*>, AreasOf> areas_;
  std::deque<std::string> answers_;  // What entries of results point to.
};

}  // namespace statehouse

struct sh_batch final : statehouse::NotedBatch {
  using NotedBatch::NotedBatch;
};
