// HTTP/2 by hand, as far as a gRPC call needs it: for clients that gRPC's own would never be, and
// for thousands of connections that cost their owner a descriptor each.
//
// Header only, and free of the test framework: benchmarks use it, too. Threads: one for each
// connection. Failure: functions say false, or give no frame, when the peer is gone or late.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/os/unique_fd.h"

namespace statehouse::testing {

enum class FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kResetStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9
};

inline constexpr uint8_t kEndStream = 1;  // Of DATA and HEADERS.
inline constexpr uint8_t kAck = 1;        // Of SETTINGS and PING.
inline constexpr uint8_t kEndHeaders = 4;
inline constexpr size_t kFrameHeaderBytes = 9;

struct Frame {
  FrameType type = FrameType::kData;
  uint8_t flags = 0;
  uint32_t stream = 0;
  std::string payload;
};

inline std::string BigEndian32(uint32_t number) {
  return {static_cast<char>(number >> 24), static_cast<char>(number >> 16),
          static_cast<char>(number >> 8), static_cast<char>(number)};
}

inline std::string EncodeFrame(FrameType type, uint8_t flags, uint32_t stream,
                               std::string_view payload) {
  std::string frame = BigEndian32(static_cast<uint32_t>(payload.size()) << 8);
  frame.back() = static_cast<char>(type);
  frame.push_back(static_cast<char>(flags));
  return frame.append(BigEndian32(stream)).append(payload);
}

// What a client says first, with settings (pairs of 16 and 32 bits) if any.
inline std::string Preface(std::string_view settings = {}) {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EncodeFrame(FrameType::kSettings, 0, 0, settings);
}

// One setting: 4 is the window of new streams.
inline std::string Setting(uint16_t id, uint32_t value) {
  return std::string{static_cast<char>(id >> 8), static_cast<char>(id)} + BigEndian32(value);
}

// The header block of a gRPC call: literal fields that no table remembers, so that any number of
// them can be sent. Without a token where `token` is empty. Each field is below 127 bytes.
inline std::string CallHeaders(std::string_view path, std::string_view token) {
  const auto text = [](std::string_view field) {
    return std::string(1, static_cast<char>(field.size())).append(field);
  };
  std::string block = "\x83\x86";  // POST, http.
  block += "\x04" + text(path) + "\x01" + text("localhost");
  block += "\x0f\x10" + text("application/grpc");
  block.push_back('\0');
  block += text("te") + text("trailers");
  if (!token.empty()) block += "\x0f\x08" + text("Bearer " + std::string(token));
  return block;
}

// A message as gRPC frames it, and of which it says that it has so many bytes.
inline std::string GrpcMessage(std::string_view bytes, std::optional<uint32_t> said = {}) {
  const std::string length = BigEndian32(said.value_or(static_cast<uint32_t>(bytes.size())));
  return (std::string(1, '\0') + length).append(bytes);
}

// A whole unary call: headers and request.
inline std::string UnaryCall(uint32_t stream, std::string_view path, std::string_view token,
                             std::string_view request) {
  return EncodeFrame(FrameType::kHeaders, kEndHeaders, stream, CallHeaders(path, token)) +
         EncodeFrame(FrameType::kData, kEndStream, stream, GrpcMessage(request));
}

class Http2Connection final {
 public:
  // Connects to "127.0.0.1:port" and sends nothing; not valid() when that fails. `from`: the own
  // address, another one of loopback for another host; empty: as the kernel has it.
  explicit Http2Connection(const std::string& address, const std::string& from = {}) {
    sockaddr_in target{};
    target.sin_family = AF_INET;
    const char* const port = address.c_str() + address.rfind(':') + 1;
    target.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in own{};
    own.sin_family = AF_INET;
    const int late = 1;  // The port is found by connect, which can share those that rest.
    setsockopt(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof(late));
    if (!from.empty() &&
        (inet_pton(AF_INET, from.c_str(), &own.sin_addr) != 1 ||
         bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(own)) != 0)) {
      return;
    }
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&target), sizeof(target)) != 0) return;
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    fd_ = std::move(fd);
  }

  bool valid() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }
  void Close() { fd_.Reset(); }

  // All of it, waiting for room as long as `patience`. False: the peer is gone, or takes nothing.
  bool Send(std::string_view bytes,
            std::chrono::milliseconds patience = std::chrono::milliseconds(10'000)) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
      if (sent >= 0 || errno == EINTR) continue;
      if (errno != EAGAIN || !Await(POLLOUT, patience)) return false;
    }
    return true;
  }

  // The next frame; none when the peer is gone, or silent for `patience`. Settings and pings are
  // answered on the way, and come like all others.
  std::optional<Frame> Receive(
      std::chrono::milliseconds patience = std::chrono::milliseconds(10'000)) {
    for (;;) {
      std::optional<Frame> frame = Cut();
      if (frame.has_value()) return Answered(*std::move(frame));
      if (!Await(POLLIN, patience)) return std::nullopt;
      char buffer[16 << 10];
      const ssize_t got = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (got > 0) input_.append(buffer, static_cast<size_t>(got));
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return std::nullopt;
    }
  }

  // The bytes of the message that answers a unary call; none when it was refused. Frames of other
  // streams are dropped.
  std::optional<std::string> Answer(
      uint32_t stream, std::chrono::milliseconds patience = std::chrono::milliseconds(10'000)) {
    std::string data;
    for (;;) {
      const std::optional<Frame> frame = Receive(patience);
      if (!frame.has_value() || frame->type == FrameType::kGoAway) return std::nullopt;
      if (frame->stream != stream) continue;
      if (frame->type == FrameType::kResetStream) return std::nullopt;
      if (frame->type == FrameType::kData) data += frame->payload;
      if (frame->type == FrameType::kHeaders && (frame->flags & kEndStream) != 0) break;
    }
    if (data.size() < kMessageHeaderBytes) return std::nullopt;
    return data.substr(kMessageHeaderBytes);
  }

 private:
  static constexpr size_t kMessageHeaderBytes = 5;

  bool Await(short events, std::chrono::milliseconds patience) const {
    pollfd ready{fd_.get(), events, 0};
    return poll(&ready, 1, static_cast<int>(patience.count())) == 1;
  }
  uint32_t Number(size_t at, size_t bytes) const {
    uint32_t number = 0;
    for (size_t i = 0; i < bytes; ++i) number = number << 8 | static_cast<uint8_t>(input_[at + i]);
    return number;
  }
  // A whole frame off what was received.
  std::optional<Frame> Cut() {
    if (input_.size() < kFrameHeaderBytes) return std::nullopt;
    const size_t length = Number(0, 3);
    if (input_.size() < kFrameHeaderBytes + length) return std::nullopt;
    Frame frame{static_cast<FrameType>(input_[3]), static_cast<uint8_t>(input_[4]),
                Number(5, 4) & 0x7fffffff, input_.substr(kFrameHeaderBytes, length)};
    input_.erase(0, kFrameHeaderBytes + length);
    return frame;
  }
  Frame Answered(Frame frame) {
    const bool is_asked = frame.flags != kAck;
    if (is_asked && frame.type == FrameType::kSettings) {
      (void)Send(EncodeFrame(FrameType::kSettings, kAck, 0, ""));
    }
    if (is_asked && frame.type == FrameType::kPing) {
      (void)Send(EncodeFrame(FrameType::kPing, kAck, 0, frame.payload));
    }
    return frame;
  }

  UniqueFd fd_;
  std::string input_;
};

}  // namespace statehouse::testing
