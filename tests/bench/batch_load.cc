#include "tests/bench/batch_load.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "service/http2/grpc_wire.h"

namespace statehouse::bench {
namespace {

constexpr int kWindowBytes = 1 << 24;  // For answers: nothing waits for window updates.
constexpr size_t kHeadBytes = 5;       // In front of a message: not compressed, and its length.
constexpr size_t kReceivedBytes = 64 << 10;
constexpr int kEventsMax = 64;
constexpr char kMethod[] = "/statehouse.v1.Batches/RunBatches";

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "batch_bench: the load generator: %s\n", what.c_str());
  std::exit(2);
}

void Check(int result, const char* what) {
  if (result < 0) Die(std::string(what) + ": " + nghttp2_strerror(result));
}

int ConnectTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr) != 1 ||
      connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 ||
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
    Die("connecting to " + address + ": " + std::strerror(errno));
  }
  return fd;
}

nghttp2_nv Header(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

// A client: a stream with one batch under way.
struct BatchLoad::Stream {
  BatchLoad* load = nullptr;
  Connection* connection = nullptr;
  int32_t id = 0;
  BatchMessage message;
  std::string to_send;  // With its head.
  size_t sent = 0;
  std::string answer;  // Of which so much is here, with its head.
};

class BatchLoad::Connection final {
 public:
  Connection(const std::string& address, int epoll, bool says_only_batches)
      : epoll_(epoll), fd_(ConnectTcp(address)) {
    nghttp2_session_callbacks* callbacks = nullptr;
    Check(nghttp2_session_callbacks_new(&callbacks), "callbacks");
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    Check(nghttp2_session_client_new(&session_, callbacks, this), "a session");
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
                                               {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {kBatchesSetting, kBatchesSettingValue}};
    const size_t count = std::size(settings) - (says_only_batches ? 0 : 1);
    Check(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, count), "settings");
    Check(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes),
          "the window");
    Ask(EPOLL_CTL_ADD, EPOLLIN);
  }
  ~Connection() {
    nghttp2_session_del(session_);
    close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Open(Stream* stream, const std::string& authorization) {
    const nghttp2_nv headers[] = {Header(":method", "POST"),
                                  Header(":scheme", "http"),
                                  Header(":path", kMethod),
                                  Header(":authority", "statehouse"),
                                  Header("te", "trailers"),
                                  Header("content-type", "application/grpc"),
                                  Header("authorization", authorization)};
    nghttp2_data_provider provider{};
    provider.source.ptr = stream;
    provider.read_callback = OnRoom;
    stream->id =
        nghttp2_submit_request(session_, nullptr, headers, std::size(headers), &provider, stream);
    Check(stream->id, "a stream");
    stream->connection = this;
  }
  // There is something to send on that stream, with the next Flush.
  void Resume(const Stream& stream) {
    // That it was not deferred: it has not begun, and will ask by itself.
    (void)nghttp2_session_resume_data(session_, stream.id);
  }
  void Receive() {
    static std::array<uint8_t, kReceivedBytes> bytes;
    const ssize_t got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) Die("the service closed a connection");
    const ssize_t read = nghttp2_session_mem_recv(session_, bytes.data(), static_cast<size_t>(got));
    if (read != got) Die(nghttp2_strerror(static_cast<int>(read)));
  }
  // Sends all there is, or what the kernel takes now and the rest later.
  void Flush() {
    const uint8_t* data = nullptr;
    ssize_t bytes = 0;
    while ((bytes = nghttp2_session_mem_send(session_, &data)) > 0) {
      output_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(bytes));
    }
    Check(static_cast<int>(bytes), "framing");
    if (output_.empty()) return;
    const ssize_t sent = send(fd_, output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) Die("the service closed a connection");
    output_.erase(0, static_cast<size_t>(std::max<ssize_t>(sent, 0)));
    if (output_.empty() == !waits_for_room_) return;
    waits_for_room_ = !output_.empty();
    Ask(EPOLL_CTL_MOD, waits_for_room_ ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }

 private:
  void Ask(int operation, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = this;
    if (epoll_ctl(epoll_, operation, fd_, &event) != 0) Die("epoll_ctl");
  }

  static ssize_t OnRoom(nghttp2_session*, int32_t, uint8_t* room, size_t room_bytes, uint32_t*,
                        nghttp2_data_source* source, void*) {
    auto* const stream = static_cast<Stream*>(source->ptr);
    const size_t bytes = std::min(room_bytes, stream->to_send.size() - stream->sent);
    if (bytes == 0) return NGHTTP2_ERR_DEFERRED;
    std::memcpy(room, stream->to_send.data() + stream->sent, bytes);
    stream->sent += bytes;
    return static_cast<ssize_t>(bytes);
  }
  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data,
                    size_t bytes, void*) {
    auto* const stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
    stream->answer.append(reinterpret_cast<const char*>(data), bytes);
    stream->load->OnAnswer(stream);
    return 0;
  }
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name,
                      size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t, void*) {
    const std::string_view header(reinterpret_cast<const char*>(name), name_bytes);
    const std::string text(reinterpret_cast<const char*>(value), value_bytes);
    if (header == "grpc-status") Die("a stream was ended with status " + text);
    if (header == ":status" && text != "200") Die("a stream was refused with status " + text);
    return 0;
  }
  static int OnClose(nghttp2_session*, int32_t, uint32_t code, void*) {
    Die("a stream was closed with code " + std::to_string(code));
  }

  const int epoll_;
  const int fd_;
  nghttp2_session* session_ = nullptr;
  std::string output_;
  bool waits_for_room_ = false;
};

BatchLoad::BatchLoad(const Options& options) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  for (int i = 0; i < options.clients; ++i) {
    if (connections_.empty() || !options.share_connection) {
      connections_.push_back(
          std::make_unique<Connection>(options.address, epoll_, options.says_only_batches));
    }
    streams_.push_back(std::make_unique<Stream>());
    streams_.back()->load = this;
    connections_.back()->Open(streams_.back().get(), options.authorization);
  }
}

BatchLoad::~BatchLoad() {
  connections_.clear();
  close(epoll_);
}

uint64_t BatchLoad::Run(BatchKind kind, int depth, uint64_t operations) {
  depth_ = static_cast<uint64_t>(depth);
  left_ = operations;
  done_ = 0;
  for (const auto& stream : streams_) {
    stream->message = BatchMessage(kind, depth);
    SendNext(stream.get());
  }
  for (const auto& connection : connections_) connection->Flush();
  while (under_way_ > 0) RunOnce();
  return done_;
}

void BatchLoad::RunOnce() {
  std::array<epoll_event, kEventsMax> events;
  const int count = epoll_wait(epoll_, events.data(), kEventsMax, -1);
  for (int i = 0; i < count; ++i) {
    auto* const connection = static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
    connection->Receive();
    connection->Flush();
  }
}

void BatchLoad::SendNext(Stream* stream) {
  if (left_ == 0) return;
  left_ -= std::min(left_, depth_);
  stream->message.DrawKeys(&random_);
  const std::string_view bytes = stream->message.bytes();
  const uint32_t length = htonl(static_cast<uint32_t>(bytes.size()));
  stream->to_send.assign(1, '\0');
  stream->to_send.append(reinterpret_cast<const char*>(&length), sizeof(length));
  stream->to_send.append(bytes);
  stream->sent = 0;
  ++under_way_;
  stream->connection->Resume(*stream);
}

void BatchLoad::OnAnswer(Stream* stream) {
  if (stream->answer.size() < kHeadBytes) return;
  uint32_t length = 0;
  std::memcpy(&length, stream->answer.data() + 1, sizeof(length));
  const size_t whole = kHeadBytes + ntohl(length);
  if (stream->answer.size() < whole) return;
  if (stream->answer.size() > whole || stream->answer[0] != 0) Die("an answer nobody asked for");
  const char* why = nullptr;
  done_ += stream->message.Check(std::string_view(stream->answer).substr(kHeadBytes), &why);
  if (why != nullptr) Die(why);
  stream->answer.clear();
  --under_way_;
  SendNext(stream);
}

}  // namespace statehouse::bench
