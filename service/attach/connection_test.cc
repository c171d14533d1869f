// What a connection does when the kernel takes no more descriptors of this user.
#include "service/attach/connection.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>

#include "service/keeper/descriptor_message.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr uid_t kNobody = 65'534;
constexpr rlim_t kInFlightMax = 32;  // RLIMIT_NOFILE is also the limit of descriptors in flight.

struct Pair {
  UniqueFd one;
  UniqueFd two;
};
Pair NewPair() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Runs `test` in a child that the limit binds: it is not root. 0: it returned 0.
int RunUnprivileged(const std::function<int()>& test) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{kInFlightMax, kInFlightMax};
    if (getuid() == 0 && setresuid(kNobody, kNobody, kNobody) != 0) _exit(101);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(102);
    _exit(test());
  }
  int state = -1;
  EXPECT_EQ(waitpid(child, &state, 0), child);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

// Sends descriptors until the kernel takes no more. The result of the last attempt.
SendResult Saturate(int socket) {
  const std::array<int, 4> some = {0, 0, 0, 0};
  for (int i = 0; i < 10'000; ++i) {
    const SendResult result = SendMessage(socket, "x", some);
    if (result != SendResult::kSent) return result;
  }
  return SendResult::kSent;
}

AttachPacket Opened() { return {42, AttachAreaOpened{}}; }

StatusOr<AttachPacket> Take(int socket, size_t* descriptors) {
  std::array<char, 8192> buffer;
  const ReceivedMessage received = ReceiveMessage(socket, buffer);
  if (received.kind != ReceivedMessage::Kind::kMessage)
    return Status(Reason::kUnavailable, "nothing is there");
  *descriptors = received.descriptors.size();
  return DecodeAttachPacket(std::as_bytes(std::span(buffer).first(received.bytes)));
}

TEST(ConnectionTest, APacketWaitsWhileTooManyDescriptorsAreInFlightAndThenGoesOut) {
  const int code = RunUnprivileged([] {
    Pair other = NewPair();
    Pair pair = NewPair();
    const UniqueFd worker = std::move(pair.two);
    Connection connection(1, std::move(pair.one), steady_clock::now());
    if (Saturate(other.one.get()) != SendResult::kBusy) return 1;
    std::vector<UniqueFd> sent;
    sent.emplace_back(dup(0));

    connection.Send(Opened(), std::move(sent));

    size_t descriptors = 0;
    if (!connection.retry_at().has_value() || connection.finished()) return 2;
    // No poll announces it, so the socket must not be watched for room.
    if (!connection.owes() || connection.wants_write() || connection.reads()) return 3;
    if (Take(worker.get(), &descriptors).ok()) return 4;
    connection.Flush(*connection.retry_at() - milliseconds(1));
    if (!connection.owes()) return 5;
    other = NewPair();  // What was in flight is closed.
    connection.Flush(*connection.retry_at());
    if (connection.owes() || connection.retry_at().has_value()) return 6;
    const auto packet = Take(worker.get(), &descriptors);
    return packet.ok() && packet->request_id == 42 && descriptors == 1 ? 0 : 7;
  });

  EXPECT_EQ(code, 0);
}

TEST(ConnectionTest, APacketThatTheKernelNeverTakesBecomesAnErrorThatSaysWhatToDo) {
  const int code = RunUnprivileged([] {
    const Pair other = NewPair();
    Pair pair = NewPair();
    const UniqueFd worker = std::move(pair.two);
    Connection connection(1, std::move(pair.one), steady_clock::now());
    if (Saturate(other.one.get()) != SendResult::kBusy) return 1;
    std::vector<UniqueFd> sent;
    sent.emplace_back(dup(0));

    connection.Send(Opened(), std::move(sent));
    int tries = 0;
    while (connection.retry_at().has_value()) {
      connection.Flush(*connection.retry_at());  // Time passes for it alone.
      if (++tries > 1'000) return 2;
    }

    if (!connection.finished() || tries < 10) return 3;
    size_t descriptors = 0;
    const auto packet = Take(worker.get(), &descriptors);
    if (!packet.ok() || packet->request_id != 42 || descriptors != 0) return 4;
    const auto* error = std::get_if<AttachError>(&packet->message);
    if (error == nullptr || error->reason != Reason::kLimitExceeded) return 5;
    return error->message.find("LimitNOFILE") != std::string::npos ? 0 : 6;
  });

  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace statehouse
