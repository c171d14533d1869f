#include "clients/c/testing/fake_daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace statehouse {
namespace {

// Of the daemon's lanes: one for the test's thread, one for the serving one.
constexpr uint32_t kTestLane = 3;
constexpr uint32_t kServingLane = 4;

// A set-up step of a test must not fail.
void Demand(bool condition, const char* what) {
  if (condition) return;
  std::perror(what);
  std::abort();
}

AttachError ErrorOf(const Status& status) {
  return AttachError{status.reason(), 0, status.message()};
}

void SendPacket(int socket, const AttachPacket& packet, const std::vector<UniqueFd>& descriptors) {
  const StatusOr<std::string> bytes = EncodeAttachPacket(packet);
  Demand(bytes.ok(), "encoding an answer");
  iovec part{const_cast<char*>((*bytes).data()), (*bytes).size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kAttachDescriptorsMax)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty() && descriptors.size() <= kAttachDescriptorsMax) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    for (size_t i = 0; i < descriptors.size(); ++i) {
      const int descriptor = descriptors[i].get();
      std::memcpy(CMSG_DATA(c) + i * sizeof(int), &descriptor, sizeof(int));
    }
  }
  // A client that is gone needs no answer.
  static_cast<void>(::sendmsg(socket, &header, MSG_NOSIGNAL));
}

}  // namespace

Status FakeDaemon::Vault::Store(const std::string& name, int fd) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stored_[name] = UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return Status();
}

Status FakeDaemon::Vault::Remove(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stored_.erase(name);
  return Status();
}

FakeDaemon::FakeDaemon(const EngineOptions& options) {
  const char* const base = std::getenv("TMPDIR");
  runtime_dir_ = std::string(base != nullptr ? base : "/tmp") + "/statehouse-fake-XXXXXX";
  Demand(::mkdtemp(runtime_dir_.data()) != nullptr, "making a temporary folder");
  StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, {}, &vault_);
  Demand(engine.ok(), "starting an engine");
  engine_ = *std::move(engine);
  Serve();
}

FakeDaemon::~FakeDaemon() {
  StopServing();
  engine_.reset();
  static_cast<void>(::rmdir(runtime_dir_.c_str()));
}

void FakeDaemon::CreateArea(const std::string& name, uint64_t size) {
  AreaSpec spec;
  spec.name = name;
  spec.size = size;
  Demand(engine_->CreateArea(std::move(spec)).ok(), "creating an area");
}

std::shared_ptr<ServedDict> FakeDaemon::CreateDict(const std::string& name, uint64_t max_entries) {
  DictSpec spec;
  spec.name = name;
  spec.max_entries = max_entries;
  auto created = engine_->dicts().Create(spec);
  Demand(created.ok(), "creating a dict");
  return created->dict;
}

void FakeDaemon::MoveDict(const std::string& name, DictStore::Move how) {
  const auto served = engine_->dicts().Find(name);
  Demand(served.ok(), "finding a dict");
  Demand(engine_->dicts().MoveDict(engine_->DaemonLane(kTestLane), *served, how).ok(),
         "moving a dict");
}

void FakeDaemon::LoseState() {
  StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(EngineOptions(), {}, &vault_);
  Demand(engine.ok(), "starting an engine");
  engine_ = *std::move(engine);
}

void FakeDaemon::RequireToken(const std::string& token) {
  const std::lock_guard<std::mutex> lock(mutex_);
  token_ = token;
}

void FakeDaemon::HandleCalls(CallHandler handler) {
  const std::lock_guard<std::mutex> lock(mutex_);
  handler_ = std::move(handler);
}

void FakeDaemon::Serve() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = runtime_dir_ + "/attach.sock";
  Demand(path.size() < sizeof(address.sun_path), "the temporary folder's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size());
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  Demand(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
             ::listen(listener_.get(), 16) == 0,
         "listening on attach.sock");
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { Run(); });
}

void FakeDaemon::StopServing() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  Demand(::write(wake_.get(), &one, sizeof(one)) == sizeof(one), "waking the fake daemon");
  thread_.join();
  listener_.Reset();
  connections_.clear();
  static_cast<void>(::unlink((runtime_dir_ + "/attach.sock").c_str()));
}

void FakeDaemon::Run() {
  for (;;) {
    std::vector<pollfd> entries{{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const auto& [socket, connection] : connections_) entries.push_back({socket, POLLIN, 0});
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    if (entries[0].revents != 0) return;
    if (entries[1].revents != 0) Accept();
    for (size_t i = 2; i < entries.size(); ++i) {
      if (entries[i].revents == 0) continue;
      const auto found = connections_.find(entries[i].fd);
      if (HandlePacket(&found->second)) continue;
      const uint32_t block = found->second.block;
      connections_.erase(found);
      if (block != 0) engine_->ReleaseBlock(block);
    }
  }
}

void FakeDaemon::Accept() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.valid()) return;
  const int number = socket.get();
  connections_[number].socket = std::move(socket);
}

bool FakeDaemon::HandlePacket(Connection* connection) {
  std::vector<std::byte> bytes(kAttachHeaderBytes + kAttachBodyBytesMax);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(connection->socket.get(), &header, MSG_CMSG_CLOEXEC);
  if (got <= 0) return false;
  UniqueFd received;
  if (const cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr && c->cmsg_type == SCM_RIGHTS) {
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(c), sizeof(int));
    received.Reset(descriptor);
  }
  const StatusOr<AttachPacket> packet =
      DecodeAttachPacket({bytes.data(), static_cast<size_t>(got)});
  if (!packet.ok()) return false;
  std::vector<UniqueFd> descriptors;
  const AttachMessage answer = Answer(connection, (*packet).message, received.get(), &descriptors);
  if (lose_next_answer_.exchange(false)) return false;
  if (garble_next_answer_.exchange(false)) {
    return ::send(connection->socket.get(), "?", 1, MSG_NOSIGNAL) == 1;
  }
  SendPacket(connection->socket.get(), AttachPacket{(*packet).request_id, answer}, descriptors);
  return connection->greeted;
}

AttachMessage FakeDaemon::Answer(Connection* connection, const AttachMessage& message, int received,
                                 std::vector<UniqueFd>* descriptors) {
  if (const auto* hello = std::get_if<AttachHello>(&message)) {
    return AnswerHello(connection, *hello, received, descriptors);
  }
  if (!connection->greeted) return AttachError{Reason::kInvalidArgument, 0, "Hello comes first"};
  if (const auto* open = std::get_if<AttachOpenArea>(&message)) {
    return AnswerOpen(*connection, *open, descriptors);
  }
  if (const auto* open = std::get_if<AttachOpenDict>(&message)) {
    return AnswerOpenDict(*connection, *open, descriptors);
  }
  if (const auto* call = std::get_if<AttachCall>(&message)) return AnswerCall(*call);
  return AttachError{Reason::kInvalidArgument, 0, "no request"};
}

AttachMessage FakeDaemon::AnswerHello(Connection* connection, const AttachHello& hello, int pidfd,
                                      std::vector<UniqueFd>* descriptors) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (hello.token != token_) return AttachError{Reason::kUnauthenticated, 0, "unknown token"};
  }
  AttachWelcome welcome;
  welcome.operation_timeout_ns = kOperationTimeoutNsDefault;
  welcome.daemon_generation = 1;
  welcome.server_version = "fake";
  if (hello.want_lanes) {
    const Reason refusal = lanes_refusal_;
    if (refusal != Reason::kOk) return AttachError{refusal, 0, "no lanes for this one"};
    if (pidfd < 0) return AttachError{Reason::kInvalidArgument, 0, "the pidfd is missing"};
    const UniqueFd own(::fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
    StatusOr<LaneLease> lease = engine_->LeaseLanes(own);
    if (!lease.ok()) return ErrorOf(lease.status());
    connection->block = lease->block;
    welcome.first_lane = lease->first_lane;
    welcome.lane_count = lease->lane_count;
    descriptors->push_back(std::move(lease->liveness));
    ++hellos_with_lanes_;
  } else {
    ++hellos_without_lanes_;
  }
  connection->greeted = true;
  return welcome;
}

AttachMessage FakeDaemon::AnswerOpen(const Connection& connection, const AttachOpenArea& open,
                                     std::vector<UniqueFd>* descriptors) {
  ++opens_;
  const StatusOr<std::shared_ptr<ServedArea>> area = engine_->FindArea(open.name);
  if (!area.ok()) return ErrorOf(area.status());
  const AreaInfo& info = (*area)->info();
  const Access access = read_only_ ? Access::kReadOnly : Access::kReadWrite;
  StatusOr<AreaDescriptors> opened = engine_->OpenForWorker(**area, connection.block, access);
  if (!opened.ok()) return ErrorOf(opened.status());
  AttachAreaOpened answer;
  answer.area_id = info.id;
  answer.name = info.name;
  answer.index = info.index;
  answer.writable = access == Access::kReadWrite;
  answer.data_is_separate = info.geometry.data_is_separate;
  answer.size = info.geometry.size;
  answer.control_bytes = info.geometry.control_bytes;
  answer.data_offset = info.geometry.data_offset;
  answer.atomic_range_bytes = info.geometry.atomic_range_bytes;
  answer.stripe_shift = info.geometry.stripe_shift;
  answer.stripe_count = info.geometry.stripe_count;
  answer.lane_count = info.geometry.lane_count;
  descriptors->push_back(std::move(opened->control));
  if (opened->data.valid()) descriptors->push_back(std::move(opened->data));
  return answer;
}

AttachMessage FakeDaemon::AnswerOpenDict(const Connection& connection, const AttachOpenDict& open,
                                         std::vector<UniqueFd>* descriptors) {
  ++dict_opens_;
  DictStore& dicts = engine_->dicts();
  StatusOr<std::shared_ptr<ServedDict>> served = dicts.Find(open.name);
  if (!served.ok()) return ErrorOf(served.status());
  if (open.need != AttachDictNeed::kNothing && open.generation == (*served)->record().generation &&
      !read_only_) {
    const auto how =
        open.need == AttachDictNeed::kRepair ? DictStore::Move::kSalvage : DictStore::Move::kGrow;
    const bool backs =
        open.need == AttachDictNeed::kRoomForBytes && (*served)->dict().AwaitsBacking();
    if (!backs && how == DictStore::Move::kGrow && !DictStore::CanGrow(**served)) {
      return AttachError{Reason::kLimitExceeded, 0, "it is as large as it may be"};
    }
    const Status moved = backs ? dicts.BackMore(**served)
                               : dicts.MoveDict(engine_->DaemonLane(kServingLane), *served, how);
    if (!moved.ok()) return ErrorOf(moved);
    served = dicts.Find(open.name);
    if (!served.ok()) return ErrorOf(served.status());
  }
  const Access access = read_only_ ? Access::kReadOnly : Access::kReadWrite;
  StatusOr<UniqueFd> segment = dicts.OpenForWorker(**served, connection.block, access);
  if (!segment.ok()) return ErrorOf(segment.status());
  const DictRecord& record = (*served)->record();
  AttachDictOpened answer;
  answer.dict_id = record.id;
  answer.name = record.name;
  answer.index = record.index;
  answer.generation = record.generation;
  answer.writable = access == Access::kReadWrite;
  answer.data_bytes = record.geometry.data_bytes;
  answer.entries_max = record.geometry.entries_max;
  answer.seed_a = record.geometry.seed.a;
  answer.seed_b = record.geometry.seed.b;
  answer.default_ttl_ms = record.geometry.default_ttl_ms;
  answer.bucket_count = record.geometry.bucket_count;
  answer.lane_count = record.geometry.lane_count;
  answer.evict = record.geometry.evict;
  answer.max_entries = record.max_entries;
  answer.max_bytes = record.max_bytes;
  answer.clock_ns = (*served)->dict().NowNs() + static_cast<uint64_t>(clock_ahead_ns_.load());
  descriptors->push_back(*std::move(segment));
  return answer;
}

AttachMessage FakeDaemon::AnswerCall(const AttachCall& call) {
  ++calls_;
  CallHandler handler;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    handler = handler_;
  }
  if (!handler) return AttachError{Reason::kUnimplemented, 0, "no handler"};
  StatusOr<std::string> response = handler(call.method, call.request);
  if (!response.ok()) return ErrorOf(response.status());
  return AttachCallReply{*std::move(response)};
}

}  // namespace statehouse
