#include "tests/support/attach_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/os/errno_status.h"
#include "engine/os/process.h"
#include "service/keeper/descriptor_message.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

Status Gone(const char* what) { return Status(Reason::kUnavailable, what); }

int PatienceMs() { return static_cast<int>(std::chrono::milliseconds(kPatience).count()); }

}  // namespace

Status AttachClient::Connect(const std::string& attach_socket) {
  sockaddr_un target{};
  target.sun_family = AF_UNIX;
  if (attach_socket.size() >= sizeof(target.sun_path)) return Gone("the socket's path is too long");
  std::memcpy(target.sun_path, attach_socket.c_str(), attach_socket.size());
  socket_.Reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) return ErrnoStatus("making a socket");
  if (connect(socket_.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)) != 0) {
    return ErrnoStatus("connecting to " + attach_socket, Reason::kUnavailable);
  }
  return Status();
}

Status AttachClient::SendBytes(const std::string& bytes) {
  if (SendMessage(socket_.get(), bytes, {}) != SendResult::kSent) return Gone("sending failed");
  return Status();
}

Status AttachClient::Send(const AttachPacket& packet, const std::vector<int>& descriptors) {
  SH_ASSIGN_OR_RETURN(const std::string bytes, EncodeAttachPacket(packet));
  if (SendMessage(socket_.get(), bytes, descriptors) != SendResult::kSent)
    return Gone("sending failed");
  return Status();
}

StatusOr<AttachClient::Received> AttachClient::Receive() {
  pollfd readable{socket_.get(), POLLIN, 0};
  if (poll(&readable, 1, PatienceMs()) <= 0) return Gone("no answer came");
  std::vector<char> buffer(kAttachHeaderBytes + kAttachBodyBytesMax + 1);
  ReceivedMessage message = ReceiveMessage(socket_.get(), buffer);
  if (message.kind != ReceivedMessage::Kind::kMessage)
    return Gone("the daemon closed the connection");
  SH_ASSIGN_OR_RETURN(AttachPacket packet,
                      DecodeAttachPacket(std::as_bytes(std::span(buffer).first(message.bytes))));
  return Received{std::move(packet), std::move(message.descriptors)};
}

StatusOr<AttachClient::Received> AttachClient::Ask(const AttachPacket& packet,
                                                   const std::vector<int>& descriptors) {
  SH_RETURN_IF_ERROR(Send(packet, descriptors));
  SH_ASSIGN_OR_RETURN(Received received, Receive());
  if (const auto* error = std::get_if<AttachError>(&received.packet.message)) {
    return Status(error->reason, error->message);
  }
  if (received.packet.request_id != packet.request_id)
    return Gone("the answer belongs to another request");
  return received;
}

StatusOr<AttachWelcome> AttachClient::Hello(const std::string& token, bool want_lanes, int pidfd) {
  UniqueFd own;
  if (want_lanes && pidfd < 0) {
    SH_ASSIGN_OR_RETURN(own, OpenPidfd(getpid()));
    pidfd = own.get();
  }
  const AttachHello hello{token, "test pid " + std::to_string(getpid()), want_lanes};
  const std::vector<int> descriptors = pidfd >= 0 ? std::vector<int>{pidfd} : std::vector<int>{};
  SH_ASSIGN_OR_RETURN(Received received, Ask({next_request_++, hello}, descriptors));
  const auto* welcome = std::get_if<AttachWelcome>(&received.packet.message);
  if (welcome == nullptr) return Gone("the answer to Hello is no Welcome");
  first_lane_ = welcome->first_lane;
  if (!received.descriptors.empty()) liveness_ = std::move(received.descriptors[0]);
  if (want_lanes && !liveness_.valid()) return Gone("no liveness descriptor came");
  return *welcome;
}

StatusOr<std::unique_ptr<Area>> AttachClient::OpenArea(const std::string& name) {
  SH_ASSIGN_OR_RETURN(Received received, Ask({next_request_++, AttachOpenArea{name}}));
  const auto* opened = std::get_if<AttachAreaOpened>(&received.packet.message);
  if (opened == nullptr) return Gone("the answer to OpenArea is no AreaOpened");
  AreaGeometry geometry;
  geometry.size = opened->size;
  geometry.control_bytes = opened->control_bytes;
  geometry.data_offset = opened->data_offset;
  geometry.atomic_range_bytes = opened->atomic_range_bytes;
  geometry.stripe_shift = opened->stripe_shift;
  geometry.stripe_count = opened->stripe_count;
  geometry.lane_count = opened->lane_count;
  geometry.data_is_separate = opened->data_is_separate;
  if (received.descriptors.size() != (opened->data_is_separate ? 2u : 1u))
    return Gone("descriptors are missing");
  const int data = opened->data_is_separate ? received.descriptors[1].get() : -1;
  return Area::Map(opened->name, geometry, received.descriptors[0].get(), data,
                   opened->writable ? Access::kReadWrite : Access::kReadOnly);
}

StatusOr<std::string> AttachClient::Call(const std::string& method, const std::string& request,
                                         uint64_t deadline_ns) {
  SH_ASSIGN_OR_RETURN(Received received,
                      Ask({next_request_++, AttachCall{method, deadline_ns, request}}));
  auto* reply = std::get_if<AttachCallReply>(&received.packet.message);
  if (reply == nullptr) return Gone("the answer to Call is no CallReply");
  return std::move(reply->response);
}

bool AttachClient::EventuallyClosed() {
  for (;;) {
    pollfd readable{socket_.get(), POLLIN, 0};
    if (poll(&readable, 1, PatienceMs()) <= 0) return false;
    std::vector<char> buffer(kAttachHeaderBytes + kAttachBodyBytesMax + 1);
    if (ReceiveMessage(socket_.get(), buffer).kind == ReceivedMessage::Kind::kClosed) return true;
  }
}

}  // namespace statehouse::testing
