// For tests of the attach door: a door in this process, with an engine, a dispatcher that the test
// drives, and one token.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/attach/protocol.h"
#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "service/attach/attach_door.h"
#include "service/keeper/descriptor_message.h"

namespace statehouse {

inline constexpr int kPatienceMs = 60'000;
inline constexpr uint64_t kLookIntervalNs = 2'000'000;

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

// Takes the token "good" until told otherwise.
class OneToken final : public Authenticator {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view token,
                                                         std::string_view peer) override {
    if (token != "good") return Status(Reason::kUnauthenticated, "unknown token");
    if (peer != "unix:uid=" + std::to_string(getuid()))
      return Status(Reason::kInternal, "unexpected peer");
    return std::make_shared<const Identity>("id", "", expires_s, grants);
  }
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) override {
    if (revoked) return Status(Reason::kUnauthenticated, "the token was revoked");
    return std::make_shared<const Identity>(identity);
  }
  uint64_t generation() const override { return generation_now; }
  bool AnyExpired(int64_t, int64_t) const override { return false; }
  void SetTokenLimits(const CallLimits& limits) override {}
  Status Reload() override { return Status(); }

  std::atomic<bool> revoked{false};
  std::atomic<uint64_t> generation_now{1};
  int64_t expires_s = 0;
  std::vector<Grant> grants;  // Set before anybody connects.
};

// Parks every call until the test answers it.
class ParkingDispatcher final : public Dispatcher {
 public:
  struct Parked final : public PendingCall {
    void Cancel() override {
      if (on_cancel) on_cancel();
      cancelled = true;
    }
    std::function<void()> on_cancel;  // Set before anybody cancels; runs on the door's thread.
    std::atomic<bool> cancelled{false};
    DoneCallback done;
  };
  std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view,
                                        std::string_view, DoneCallback done) override {
    auto call = std::make_shared<Parked>();
    call->done = std::move(done);
    const std::lock_guard<std::mutex> lock(mutex_);
    doors_are_local_ = doors_are_local_ && context.door == Door::kLocal;
    response_bytes_max_ = context.response_bytes_max;
    calls_.push_back(call);
    return call;
  }
  bool Knows(std::string_view) const override { return true; }
  bool Streams(std::string_view) const override { return false; }
  bool Converses(std::string_view) const override { return false; }
  StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext&, std::string_view,
                                                     std::string_view,
                                                     std::function<void()>) override {
    return Status(Reason::kUnimplemented, "no streams here");
  }
  std::vector<std::string> Methods() const override { return {"/x"}; }
  uint32_t CallsInFlight() const override { return 0; }
  void RecheckIdentities(Authenticator*) override {}
  void Shutdown() override {}

  std::vector<std::shared_ptr<Parked>> calls() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }
  bool doors_are_local() const { return doors_are_local_; }
  // Of the last call.
  uint64_t response_bytes_max() const { return response_bytes_max_; }

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Parked>> calls_;
  std::atomic<bool> doors_are_local_{true};
  std::atomic<uint64_t> response_bytes_max_{0};
};

inline bool Eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < kPatienceMs / 2; ++i) {
    if (holds()) return true;
    SleepNs(kLookIntervalNs);
  }
  return false;
}

class AttachDoorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    address_.sun_family = AF_UNIX;
    const std::string path = folder_ + "/s";
    path.copy(address_.sun_path, sizeof(address_.sun_path) - 1);
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    metrics_ = NewMetrics(engine_.get(), {"/x"}, "0");
  }
  void TearDown() override {
    door_.reset();
    unlink(address_.sun_path);
    rmdir(folder_.c_str());
  }
  void StartDoor(AttachDoorOptions options = {}) {
    UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)),
              0);
    ASSERT_EQ(listen(listener.get(), 64), 0);
    const AttachDoorParts parts{engine_.get(),   &dispatcher_,           &tokens_,
                                metrics_.get(),  engine_->DaemonLane(2), engine_->DaemonLane(3),
                                open_follow_log_};
    auto door = StartAttachDoor(options, std::move(listener), parts);
    ASSERT_TRUE(door.ok()) << door.status().ToString();
    door_ = *std::move(door);
  }
  UniqueFd Connect() {
    UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    return fd;
  }
  void Send(const UniqueFd& fd, const AttachPacket& packet,
            const std::vector<int>& descriptors = {}) {
    const auto bytes = EncodeAttachPacket(packet);
    ASSERT_TRUE(bytes.ok());
    ASSERT_EQ(SendMessage(fd.get(), *bytes, descriptors), SendResult::kSent);
  }
  // The next packet; UNAVAILABLE when the door closed the connection.
  StatusOr<AttachPacket> Receive(const UniqueFd& fd) {
    pollfd readable{fd.get(), POLLIN, 0};
    if (poll(&readable, 1, kPatienceMs) <= 0) return Status(Reason::kTimeout, "nothing came");
    std::vector<char> buffer(kAttachHeaderBytes + kAttachBodyBytesMax);
    ReceivedMessage received = ReceiveMessage(fd.get(), buffer);
    for (UniqueFd& descriptor : received.descriptors) kept_.push_back(std::move(descriptor));
    if (received.kind != ReceivedMessage::Kind::kMessage)
      return Status(Reason::kUnavailable, "closed");
    return DecodeAttachPacket(std::as_bytes(std::span(buffer).first(received.bytes)));
  }
  UniqueFd Greeted() {
    UniqueFd fd = Connect();
    Send(fd, {1, AttachHello{"good", "test", false}});
    const auto welcome = Receive(fd);
    EXPECT_TRUE(welcome.ok() && std::holds_alternative<AttachWelcome>(welcome->message));
    return fd;
  }
  // Asks for lanes with this process's pidfd, or with another one.
  UniqueFd Attached(int pidfd = -1) {
    UniqueFd fd = Connect();
    const auto own = OpenPidfd(getpid());
    EXPECT_TRUE(own.ok());
    Send(fd, {1, AttachHello{"good", "test", true}}, {pidfd >= 0 ? pidfd : own->get()});
    return fd;
  }
  bool Welcomed(const UniqueFd& fd) {
    const auto packet = Receive(fd);
    return packet.ok() && std::holds_alternative<AttachWelcome>(packet->message);
  }
  void ExpectErrorAndClosure(const UniqueFd& fd, Reason reason) {
    const auto packet = Receive(fd);
    ASSERT_TRUE(packet.ok()) << packet.status().ToString();
    const auto* error = std::get_if<AttachError>(&packet->message);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->reason, reason) << error->message;
    EXPECT_EQ(Receive(fd).status().reason(), Reason::kUnavailable);
  }

  std::vector<UniqueFd> kept_;  // What came beside packets.
  std::function<StatusOr<UniqueFd>(uint64_t, uint64_t)> open_follow_log_;
  std::string folder_ = "/tmp/statehouse-attach-XXXXXX";
  sockaddr_un address_{};
  NoVault vault_;
  OneToken tokens_;
  ParkingDispatcher dispatcher_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<AttachDoor> door_;
};

}  // namespace statehouse
