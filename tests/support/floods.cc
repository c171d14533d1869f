#include "tests/support/floods.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "engine/os/futex.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/watch.pb.h"
#include "tests/support/http2.h"

namespace statehouse::testing {
namespace {

constexpr char kAddWord[] = "/statehouse.v1.Areas/AddWord";
constexpr char kWatchDict[] = "/statehouse.v1.Dicts/WatchDict";
constexpr char kSetEntry[] = "/statehouse.v1.Dicts/SetEntry";
constexpr uint32_t kStreamsOfConnection = 100'000;  // Then a new one: stream numbers are not free.
constexpr size_t kReaders = 50;                     // Of each thread.
constexpr size_t kHalfOpenOnes = 200;
constexpr size_t kOversizeBytes = 18 << 20;
constexpr size_t kSlowValueBytes = 32 << 10;
constexpr int kBurst = 100;
constexpr uint64_t kPauseNs = 1'000'000;
constexpr std::chrono::milliseconds kSoon(200);
constexpr uint32_t kLargestWindow = 0x7fffffff;
constexpr uint32_t kFirstWindow = 65'535;
constexpr uint32_t kCancel = 8;

std::string AddRequest(const FloodTarget& target) {
  v1::AddWordRequest request;
  request.set_name(target.area);
  request.set_type(v1::WORD_TYPE_U64);
  return request.SerializeAsString();
}

// What there is to read, without waiting for more. False: the connection is over.
bool Drain(Http2Connection* connection) {
  char buffer[16 << 10];
  for (;;) {
    const ssize_t got = recv(connection->fd(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
  }
}

std::string RandomBytes(std::mt19937* random, size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>((*random)());
  return bytes;
}

}  // namespace

const std::vector<NamedFlood>& AllFloods() {
  static const std::vector<NamedFlood> kAll = {
      {FloodKind::kSlowReaders, "slow readers"},  {FloodKind::kHalfOpen, "half-open connections"},
      {FloodKind::kBadTokens, "bad tokens"},      {FloodKind::kOversize, "oversize messages"},
      {FloodKind::kMalformed, "malformed input"}, {FloodKind::kRapidResets, "rapid resets"},
      {FloodKind::kUnreadPings, "pings, unread"}};
  return kAll;
}

Flood::Flood(FloodKind kind, FloodTarget target) : target_(std::move(target)) {
  switch (kind) {
    case FloodKind::kSlowReaders:
      Start(1, &Flood::ReadNothing);
      Start(1, &Flood::Write);
      break;
    case FloodKind::kHalfOpen: Start(1, &Flood::StopHalfway); break;
    case FloodKind::kBadTokens: Start(2, &Flood::TryTokens); break;
    case FloodKind::kOversize: Start(2, &Flood::SendTooMuch); break;
    case FloodKind::kMalformed: Start(2, &Flood::SendNonsense); break;
    case FloodKind::kRapidResets: Start(2, &Flood::TakeBack); break;
    case FloodKind::kUnreadPings: Start(2, &Flood::Ping); break;
  }
}

Flood::~Flood() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

void Flood::Start(int threads, Body body) {
  for (int i = 0; i < threads; ++i) {
    const auto number = static_cast<uint32_t>(threads_.size());
    threads_.emplace_back([this, body, number] {
      // Of this thread alone. Whoever is not allowed to has the flood as it is.
      if (target_.nice != 0) (void)::setpriority(PRIO_PROCESS, 0, target_.nice);
      (this->*body)(number);
    });
  }
}

void Flood::ReadNothing(uint32_t) {
  v1::WatchDictRequest request;
  request.set_name(target_.dict);
  const std::string bytes = request.SerializeAsString();
  // As much room as there can be, so that only the socket's own holds the service back.
  const std::string opening =
      Preface(Setting(4, kLargestWindow)) +
      EncodeFrame(FrameType::kWindowUpdate, 0, 0, BigEndian32(kLargestWindow - kFirstWindow)) +
      UnaryCall(1, kWatchDict, target_.token, bytes);
  std::vector<std::unique_ptr<Http2Connection>> readers;
  while (!stop_) {
    if (readers.size() == kReaders) {
      SleepNs(kPauseNs);
      continue;
    }
    readers.push_back(std::make_unique<Http2Connection>(target_.address, target_.from));
    if (readers.back()->Send(opening, kSoon)) ++sent_;
  }
}

void Flood::Write(uint32_t) {
  v1::SetEntryRequest request;
  request.set_name(target_.dict);
  request.mutable_value()->set_bytes_value(std::string(kSlowValueBytes, 'x'));
  Http2Connection connection(target_.address, target_.from);
  connection.Send(Preface());
  uint32_t stream = 1;
  for (uint32_t number = 0; !stop_; ++number, stream += 2) {
    request.set_key("slow" + std::to_string(number % 100));
    const std::string bytes = request.SerializeAsString();
    std::string call = EncodeFrame(FrameType::kHeaders, kEndHeaders, stream,
                                   CallHeaders(kSetEntry, target_.token));
    const std::string message = GrpcMessage(bytes);
    for (size_t at = 0; at < message.size(); at += 16 << 10) {
      const std::string part = message.substr(at, 16 << 10);
      const bool is_last = at + part.size() == message.size();
      call += EncodeFrame(FrameType::kData, is_last ? kEndStream : 0, stream, part);
    }
    if (connection.Send(call, kSoon) && connection.Answer(stream, kSoon).has_value()) continue;
    ++reconnects_;
    connection = Http2Connection(target_.address, target_.from);
    connection.Send(Preface());
    stream = static_cast<uint32_t>(-1);  // The next one is the first.
  }
}

void Flood::StopHalfway(uint32_t) {
  const std::string whole = Preface() + UnaryCall(1, kAddWord, target_.token, AddRequest(target_));
  std::mt19937 random(target_.seed);
  std::vector<std::unique_ptr<Http2Connection>> open;
  while (!stop_) {
    auto connection = std::make_unique<Http2Connection>(target_.address, target_.from);
    connection->Send(whole.substr(0, random() % whole.size()), kSoon);
    ++sent_;
    if (open.size() < kHalfOpenOnes) {
      open.push_back(std::move(connection));
    } else {
      open[random() % open.size()] = std::move(connection);
    }
  }
}

void Flood::TryTokens(uint32_t number) {
  const std::string request = AddRequest(target_);
  std::mt19937 random(target_.seed + number);
  while (!stop_) {
    Http2Connection connection(target_.address, target_.from);
    bool is_open = connection.Send(Preface(), kSoon);
    for (uint32_t stream = 1; is_open && !stop_ && stream < kStreamsOfConnection;) {
      std::string calls;
      for (int i = 0; i < kBurst; ++i, stream += 2) {
        std::string token = "sh1_";
        for (int j = 0; j < 52; ++j) token.push_back(j == 8 ? '_' : 'a' + random() % 26);
        calls += UnaryCall(stream, kAddWord, token, request);
      }
      is_open = connection.Send(calls, kSoon) && Drain(&connection);
      sent_ += kBurst;
    }
    ++reconnects_;
  }
}

void Flood::SendTooMuch(uint32_t number) {
  std::mt19937 random(target_.seed + number);
  const std::string block = CallHeaders(kAddWord, target_.token);
  const std::string part(16 << 10, 'x');
  while (!stop_) {
    Http2Connection connection(target_.address, target_.from);
    std::string opening = Preface() + EncodeFrame(FrameType::kHeaders, kEndHeaders, 1, block);
    // It says how long it is, or far more than what comes.
    const auto said = random() % 2 == 0 ? static_cast<uint32_t>(kOversizeBytes) : 0xffffffffu;
    opening += EncodeFrame(FrameType::kData, 0, 1, GrpcMessage("x", said));
    bool is_open = connection.Send(opening, kSoon);
    for (size_t at = 0; is_open && !stop_ && at < kOversizeBytes; at += part.size()) {
      is_open =
          connection.Send(EncodeFrame(FrameType::kData, 0, 1, part), kSoon) && Drain(&connection);
    }
    ++sent_;
    ++reconnects_;
  }
}

void Flood::SendNonsense(uint32_t number) {
  std::mt19937 random(target_.seed + number);
  const std::string block = CallHeaders(kAddWord, target_.token);
  const auto header = [&block](uint32_t stream) {
    return EncodeFrame(FrameType::kHeaders, kEndHeaders, stream, block);
  };
  while (!stop_) {
    Http2Connection connection(target_.address, target_.from);
    bool is_open = connection.Send(random() % 8 == 0 ? RandomBytes(&random, 64) : Preface(), kSoon);
    for (uint32_t stream = 1; is_open && !stop_ && stream < kStreamsOfConnection; stream += 2) {
      const std::string noise = RandomBytes(&random, random() % 300);
      std::string bytes;
      switch (random() % 12) {
        case 0:  // A frame of any type.
          bytes = EncodeFrame(static_cast<FrameType>(random() % 256),
                              static_cast<uint8_t>(random()), random() % 20, noise);
          break;
        case 1:  // A header block.
          bytes = EncodeFrame(FrameType::kHeaders, kEndHeaders, stream, noise);
          break;
        case 2:  // No frame at all.
          bytes = noise;
          break;
        case 3:  // A message that says to be compressed.
          bytes = header(stream) + EncodeFrame(FrameType::kData, kEndStream, stream,
                                               "\x01" + GrpcMessage(noise).substr(1));
          break;
        case 4:  // Less than the message says.
          bytes = header(stream) + EncodeFrame(FrameType::kData, kEndStream, stream,
                                               GrpcMessage(noise, noise.size() + 1));
          break;
        default:  // A request that is none.
          bytes = header(stream) +
                  EncodeFrame(FrameType::kData, kEndStream, stream, GrpcMessage(noise));
      }
      is_open = connection.Send(bytes, kSoon) && Drain(&connection);
      ++sent_;
    }
    ++reconnects_;
  }
}

void Flood::TakeBack(uint32_t) {
  const std::string request = AddRequest(target_);
  const std::string block = CallHeaders(kAddWord, target_.token);
  while (!stop_) {
    Http2Connection connection(target_.address, target_.from);
    bool is_open = connection.Send(Preface(), kSoon);
    for (uint32_t stream = 1; is_open && !stop_ && stream < kStreamsOfConnection;) {
      std::string calls;
      for (int i = 0; i < kBurst; ++i, stream += 2) {
        calls += EncodeFrame(FrameType::kHeaders, kEndHeaders, stream, block);
        calls += EncodeFrame(FrameType::kResetStream, 0, stream, BigEndian32(kCancel));
      }
      is_open = connection.Send(calls, kSoon) && Drain(&connection);
      sent_ += kBurst;
    }
    ++reconnects_;
  }
}

void Flood::Ping(uint32_t) {
  std::string pings;
  for (int i = 0; i < kBurst; ++i) {
    pings += EncodeFrame(FrameType::kPing, 0, 0, "12345678");
    pings += EncodeFrame(FrameType::kSettings, 0, 0, Setting(4, kFirstWindow));
  }
  while (!stop_) {
    Http2Connection connection(target_.address, target_.from);
    bool is_open = connection.Send(Preface(), kSoon);
    while (is_open && !stop_) {
      is_open = connection.Send(pings, kSoon);
      sent_ += 2 * kBurst;
    }
    ++reconnects_;
  }
}

std::vector<uint64_t> MeasureCalls(const FloodTarget& target, size_t calls,
                                   std::chrono::milliseconds patience) {
  const std::string request = AddRequest(target);
  Http2Connection connection(target.address);
  std::vector<uint64_t> times;
  if (!connection.valid() || !connection.Send(Preface())) return times;
  for (size_t i = 0; i < calls; ++i) {
    const auto stream = static_cast<uint32_t>(2 * i + 1);
    const uint64_t begin = MonotonicNs();
    if (!connection.Send(UnaryCall(stream, kAddWord, target.token, request)) ||
        !connection.Answer(stream, patience).has_value()) {
      break;
    }
    times.push_back(MonotonicNs() - begin);
    SleepNs(kPauseNs);
  }
  std::sort(times.begin(), times.end());
  return times;
}

}  // namespace statehouse::testing
