// What the attach door does for each packet of a worker: the verbs of AttachLoop.
#include <unistd.h>

#include <ctime>
#include <utility>

#include "service/attach/attach_loop.h"
#include "service/attach/pidfd_info.h"
#include "service/log.h"

namespace statehouse {
namespace {

int64_t UnixSeconds() { return static_cast<int64_t>(time(nullptr)); }

bool IsAuthFailure(Reason reason) {
  return reason == Reason::kUnauthenticated || reason == Reason::kTokenExpired ||
         reason == Reason::kRateLimited;
}

// For logs: a name from outside must not fake or break a line.
std::string Printable(std::string name) {
  for (char& c : name) {
    if (c < ' ' || c > '~') c = '?';
  }
  return name;
}

AttachAreaOpened Describe(const AreaInfo& info, bool writable) {
  AttachAreaOpened opened;
  opened.area_id = info.id;
  opened.name = info.name;
  opened.index = info.index;
  opened.writable = writable;
  opened.data_is_separate = info.geometry.data_is_separate;
  opened.size = info.geometry.size;
  opened.control_bytes = info.geometry.control_bytes;
  opened.data_offset = info.geometry.data_offset;
  opened.atomic_range_bytes = info.geometry.atomic_range_bytes;
  opened.stripe_shift = info.geometry.stripe_shift;
  opened.stripe_count = info.geometry.stripe_count;
  opened.lane_count = info.geometry.lane_count;
  return opened;
}

uint64_t MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

AttachDictOpened Describe(const DictRecord& record, bool writable) {
  AttachDictOpened opened;
  opened.dict_id = record.id;
  opened.name = record.name;
  opened.index = record.index;
  opened.generation = record.generation;
  opened.writable = writable;
  opened.data_bytes = record.geometry.data_bytes;
  opened.entries_max = record.geometry.entries_max;
  opened.seed_a = record.geometry.seed.a;
  opened.seed_b = record.geometry.seed.b;
  opened.default_ttl_ms = record.geometry.default_ttl_ms;
  opened.bucket_count = record.geometry.bucket_count;
  opened.lane_count = record.geometry.lane_count;
  opened.evict = record.geometry.evict;
  opened.max_entries = record.max_entries;
  opened.max_bytes = record.max_bytes;
  opened.clock_ns = MonotonicNow();
  return opened;
}

}  // namespace

void AttachLoop::CountAuthFailure(const Connection& connection, Reason reason) {
  parts_.metrics->OnAuthFailure(Door::kLocal, reason);
  if (parts_.on_auth_failure) parts_.on_auth_failure(reason, connection.peer_name().ToString());
}

void AttachLoop::OnHello(Connection& connection, uint64_t request_id, const AttachHello& hello,
                         std::vector<UniqueFd>* descriptors) {
  if (connection.greeted()) {
    return connection.SendErrorAndClose(
        request_id,
        Status(Reason::kInvalidArgument, "Hello came twice; a connection is greeted once"));
  }
  if (stop_requested_) {
    return connection.SendErrorAndClose(request_id,
                                        Status(Reason::kDraining, "the service is stopping"));
  }
  connection.client_name_ = Printable(hello.client_name);
  const uint64_t generation = parts_.authenticator->generation();
  auto identity = parts_.authenticator->Authenticate(
      hello.token, "unix:uid=" + std::to_string(connection.peer().uid));
  if (!identity.ok()) {
    if (IsAuthFailure(identity.status().reason())) {
      CountAuthFailure(connection, identity.status().reason());
    }
    return connection.SendErrorAndClose(request_id, identity.status());
  }
  LaneLease lease;
  if (hello.want_lanes) {
    const Status leased = LeaseFor(connection, descriptors, &lease);
    if (!leased.ok()) return connection.SendErrorAndClose(request_id, leased);
  }
  connection.identity_ = *std::move(identity);
  connection.identity_generation_ = generation;
  AttachWelcome welcome;
  welcome.first_lane = lease.first_lane;
  welcome.lane_count = lease.lane_count;
  welcome.operation_timeout_ns = parts_.engine->options().operation_timeout_ns;
  welcome.daemon_generation = generation_;
  welcome.server_version = options_.server_version;
  std::vector<UniqueFd> liveness;
  if (lease.liveness.valid()) liveness.push_back(std::move(lease.liveness));
  connection.Send({request_id, std::move(welcome)}, std::move(liveness));
}

Status AttachLoop::LeaseFor(Connection& connection, std::vector<UniqueFd>* descriptors,
                            LaneLease* lease) {
  const auto refuse = [](const char* what) { return Status(Reason::kInvalidArgument, what); };
  if (descriptors->size() != 1)
    return refuse("Hello that wants lanes needs one descriptor: the worker's own pidfd");
  UniqueFd& pidfd = descriptors->front();
  const std::optional<int32_t> pid = PidOfPidfd(pidfd.get());
  if (!pid.has_value())
    return refuse("the descriptor beside Hello is no pidfd; make it with pidfd_open(getpid(), 0)");
  if (*pid < 0) return refuse("the pidfd beside Hello stands for a process that has ended");
  // 0 on either side: another PID namespace, where the two cannot be compared.
  if (*pid > 0 && connection.peer().pid > 0 && *pid != connection.peer().pid) {
    return refuse(
        "the pidfd beside Hello stands for another process; after a fork, connect again in the "
        "child");
  }
  const std::optional<uint64_t> process = ProcessKeyOf(pidfd.get());
  if (process.has_value() && leases_->CountOf(*process) >= options_.leases_per_process_max) {
    return Status(Reason::kLanesExhausted,
                  "attaching: process " + std::to_string(*pid) + " has its limit of " +
                      std::to_string(options_.leases_per_process_max) +
                      " leases (attach.leases_per_process_max); share one client between its "
                      "threads, or close one");
  }
  SH_ASSIGN_OR_RETURN(*lease, parts_.engine->LeaseLanes(pidfd));
  const Status watched = leases_->Add(lease->block, std::move(pidfd));
  if (!watched.ok()) {
    lease->liveness.Reset();  // Then the block is free again.
    parts_.engine->ReleaseBlock(lease->block);
    return watched;
  }
  connection.block_ = lease->block;
  return Status();
}

// A name that the caller may not read is refused the same way whether the area exists or not.
StatusOr<std::shared_ptr<ServedArea>> AttachLoop::FindReadable(const Connection& connection,
                                                               const std::string& name) const {
  const bool by_index = !name.empty() && name[0] == '#';
  if (!by_index)
    SH_RETURN_IF_ERROR(connection.identity_->Require(ObjectKind::kArea, name, Verb::kRead));
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedArea> area, parts_.engine->FindArea(name));
  if (by_index &&
      !connection.identity_->Allows(ObjectKind::kArea, area->info().name, Verb::kRead)) {
    return Status(Reason::kAreaNotFound, "no area that this token may read has index " + name);
  }
  return area;
}

// Only a worker with lanes can mutate. One that reconnects after a restart of the daemon kept its
// own.
std::optional<uint32_t> AttachLoop::BlockOf(const Connection& connection) const {
  return connection.block_.has_value() ? connection.block_
                                       : leases_->AttachmentOf(connection.peer().pid);
}

void AttachLoop::OnOpenArea(Connection& connection, uint64_t request_id,
                            const AttachOpenArea& open) {
  auto found = FindReadable(connection, open.name);
  if (!found.ok()) return connection.SendError(request_id, found.status());
  const ServedArea& area = **found;
  const AreaInfo& info = area.info();
  const std::optional<uint32_t> block = BlockOf(connection);
  const bool writable =
      block.has_value() && connection.identity_->Allows(ObjectKind::kArea, info.name, Verb::kWrite);
  auto descriptors = parts_.engine->OpenForWorker(
      area, block.value_or(0), writable ? Access::kReadWrite : Access::kReadOnly);
  if (!descriptors.ok()) return connection.SendError(request_id, descriptors.status());
  std::vector<UniqueFd> sent;
  sent.push_back(std::move(descriptors->control));
  if (info.geometry.data_is_separate) sent.push_back(std::move(descriptors->data));
  connection.Send({request_id, Describe(info, writable)}, std::move(sent));
}

// As FindReadable.
StatusOr<std::shared_ptr<ServedDict>> AttachLoop::FindReadableDict(const Connection& connection,
                                                                   const std::string& name) const {
  const bool by_index = !name.empty() && name[0] == '#';
  if (!by_index)
    SH_RETURN_IF_ERROR(connection.identity_->Require(ObjectKind::kDict, name, Verb::kRead));
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedDict> dict, parts_.engine->dicts().Find(name));
  if (by_index &&
      !connection.identity_->Allows(ObjectKind::kDict, dict->record().name, Verb::kRead)) {
    return Status(Reason::kDictNotFound, "no dict that this token may read has index " + name);
  }
  return dict;
}

void AttachLoop::OnOpenDict(Connection& connection, uint64_t request_id,
                            const AttachOpenDict& open) {
  if (open.need == AttachDictNeed::kNothing) return SendDict(connection, request_id, open);
  auto found = FindReadableDict(connection, open.name);
  if (!found.ok()) return connection.SendError(request_id, found.status());
  const DictRecord& record = (*found)->record();
  // Who may not write is not believed; and a need of a segment that is history is met already.
  if (record.generation != open.generation || !BlockOf(connection).has_value() ||
      !connection.identity_->Allows(ObjectKind::kDict, record.name, Verb::kWrite)) {
    return SendDict(connection, request_id, open);
  }
  if (!Admit(connection, request_id)) return;
  connection.calls_[request_id] = nullptr;
  mover_.Post(*std::move(found), open.need,
              [mailbox = mailbox_, id = connection.id(), request_id, open](Status moved) {
                StatusOr<std::string> response = std::string();
                if (!moved.ok()) response = std::move(moved);
                mailbox->Post({id, request_id, std::move(response), open});
              });
}

void AttachLoop::SendDict(Connection& connection, uint64_t request_id, const AttachOpenDict& open) {
  auto found = FindReadableDict(connection, open.name);
  if (!found.ok()) return connection.SendError(request_id, found.status());
  const ServedDict& dict = **found;
  const std::optional<uint32_t> block = BlockOf(connection);
  const bool writable =
      block.has_value() &&
      connection.identity_->Allows(ObjectKind::kDict, dict.record().name, Verb::kWrite);
  auto segment = parts_.engine->dicts().OpenForWorker(
      dict, block.value_or(0), writable ? Access::kReadWrite : Access::kReadOnly);
  if (!segment.ok()) return connection.SendError(request_id, segment.status());
  std::vector<UniqueFd> sent;
  sent.push_back(*std::move(segment));
  connection.Send({request_id, Describe(dict.record(), writable)}, std::move(sent));
}

void AttachLoop::OnOpenLocks(Connection& connection, uint64_t request_id) {
  if (!BlockOf(connection).has_value() ||
      !connection.identity_->AllowsEvery(ObjectKind::kLock, Verb::kLock)) {
    return connection.SendError(
        request_id,
        Status(Reason::kPermissionDenied,
               "the locks are mapped only by a worker whose access token may lock every "
               "name (a grant for lock \"*\"); others lock by calls"));
  }
  auto segment = parts_.engine->OpenLocksForWorker();
  if (!segment.ok()) return connection.SendError(request_id, segment.status());
  const LockGeometry& geometry = parts_.engine->locks().geometry();
  AttachLocksOpened opened;
  opened.seed_a = geometry.seed.a;
  opened.seed_b = geometry.seed.b;
  opened.bucket_count = geometry.bucket_count;
  opened.locks_max = geometry.locks_max;
  opened.requests_max = geometry.requests_max;
  opened.lane_count = geometry.lane_count;
  opened.clock_ns = MonotonicNow();
  std::vector<UniqueFd> sent;
  sent.push_back(*std::move(segment));
  connection.Send({request_id, opened}, std::move(sent));
}

void AttachLoop::OnOpenFollowLog(Connection& connection, uint64_t request_id,
                                 const AttachOpenFollowLog& open) {
  auto found = FindReadableDict(connection, open.name);
  if (!found.ok()) return connection.SendError(request_id, found.status());
  const uint64_t dict_id = (*found)->record().id;
  if (!parts_.open_follow_log) {
    return connection.SendError(request_id,
                                Status(Reason::kUnimplemented, "this service has no follow logs"));
  }
  StatusOr<UniqueFd> log = parts_.open_follow_log(dict_id, open.log_id);
  if (!log.ok()) return connection.SendError(request_id, log.status());
  std::vector<UniqueFd> sent;
  sent.push_back(*std::move(log));
  connection.Send({request_id, AttachFollowLogOpened{dict_id}}, std::move(sent));
}

bool AttachLoop::Admit(Connection& connection, uint64_t request_id) {
  if (connection.calls_.count(request_id) != 0) {
    connection.SendErrorAndClose(
        request_id, Status(Reason::kInvalidArgument,
                           "request id " + std::to_string(request_id) + " is in flight"));
    return false;
  }
  if (connection.calls_.size() < kAttachCallsInFlightMax) return true;
  connection.SendError(request_id,
                       Status(Reason::kLimitExceeded, "this connection has its limit of " +
                                                          std::to_string(kAttachCallsInFlightMax) +
                                                          " calls in flight; wait for an answer"));
  return false;
}

// Owned by itself until it is answered and the loop has left it. The connection may be gone by
// then.
class AttachLoop::UnderWay {
 public:
  UnderWay(std::shared_ptr<Mailbox> mailbox, const Connection& connection, uint64_t request_id,
           bool takes_parts)
      : mailbox_(std::move(mailbox)),
        connection_(connection.id()),
        request_id_(request_id),
        takes_parts_(takes_parts),
        peer_(connection.peer_name()) {}

  const UnixPeer& peer() const { return peer_; }
  // Once, on any thread: to the loop if it is still there, else by the mailbox.
  static void Answer(UnderWay* call, StatusOr<std::string> response) {
    call->response_.emplace(std::move(response));
    if (call->meeting_.fetch_add(1, std::memory_order_acq_rel) == 0) return;
    const std::unique_ptr<UnderWay> last(call);
    call->mailbox_->Post({call->connection_, call->request_id_, *std::move(call->response_),
                          std::nullopt, call->takes_parts_});
  }
  // The loop has dispatched it. Empty: its answer comes by the mailbox.
  static std::optional<StatusOr<std::string>> Leave(UnderWay* call) {
    if (call->meeting_.fetch_add(1, std::memory_order_acq_rel) == 0) return std::nullopt;
    const std::unique_ptr<UnderWay> last(call);
    return std::move(call->response_);
  }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const uint64_t connection_;
  const uint64_t request_id_;
  const bool takes_parts_;
  const UnixPeer peer_;
  std::optional<StatusOr<std::string>> response_;
  std::atomic<uint32_t> meeting_{0};  // Of the answer and the loop: the second one deletes it.
};

void AttachLoop::OnCall(Connection& connection, uint64_t request_id, const AttachCallView& call) {
  if (!Admit(connection, request_id)) return;
  if (call.takes_parts && connection.parted_calls_ >= kAttachPartedCallsInFlightMax) {
    return connection.SendError(
        request_id,
        Status(Reason::kLimitExceeded,
               "this connection has its limit of " + std::to_string(kAttachPartedCallsInFlightMax) +
                   " calls in flight whose responses may come in parts; wait for an answer"));
  }
  CallContext context;
  context.door = Door::kLocal;
  context.identity = connection.identity_;
  context.lane = parts_.lane;
  constexpr uint64_t kFarNs = uint64_t{1} << 60;  // A deadline that far away is none.
  if (call.deadline_ns != 0 && call.deadline_ns < kFarNs) {
    context.deadline = Clock::now() + std::chrono::nanoseconds(call.deadline_ns);
  }
  // What has no room is better refused before than after it was done.
  if (!call.takes_parts) context.response_bytes_max = kAttachPartBytesMax;
  auto* const under_way = new UnderWay(mailbox_, connection, request_id, call.takes_parts);
  context.peer = [under_way] { return under_way->peer().ToString(); };
  auto pending = parts_.dispatcher->Dispatch(context, call.method, call.request,
                                             [under_way](StatusOr<std::string> response) {
                                               UnderWay::Answer(under_way, std::move(response));
                                             });
  if (auto response = UnderWay::Leave(under_way)) {
    return AnswerCall(connection, request_id, *response, call.takes_parts);
  }
  connection.calls_[request_id] = std::move(pending);
  connection.parted_calls_ += call.takes_parts ? 1 : 0;
}

Status AttachLoop::CheckIdentity(Connection& connection) {
  const uint64_t generation = parts_.authenticator->generation();
  if (generation != connection.identity_generation_) {
    auto identity = parts_.authenticator->Revalidate(*connection.identity_);
    if (!identity.ok()) {
      CountAuthFailure(connection, identity.status().reason());
      return identity.status();
    }
    connection.identity_ = *std::move(identity);
    connection.identity_generation_ = generation;
  }
  if (connection.identity_->ExpiredAt(UnixSeconds())) {
    CountAuthFailure(connection, Reason::kTokenExpired);
    return Status(Reason::kTokenExpired, "the access token " + connection.identity_->token_id() +
                                             " has expired; make a new one");
  }
  return Status();
}

}  // namespace statehouse
