#include "service/http/http_door.h"

#include <sys/socket.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "service/log.h"

namespace statehouse {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Response = http::response<http::string_body>;

constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // When no descriptor is left.

// What the sessions need of the door.
struct Shared {
  std::function<std::string()> scrape;
  std::atomic<bool> ready{false};
};

Response Answer(const http::request<http::empty_body>& request, Shared& shared) {
  Response response;
  response.version(request.version());
  response.keep_alive(request.keep_alive());
  response.set(http::field::cache_control, "no-store");
  const auto say = [&response](http::status status, const char* type, std::string text) {
    response.result(status);
    response.set(http::field::content_type, type);
    response.body() = std::move(text);
  };
  constexpr const char* kPlain = "text/plain; charset=utf-8";
  const std::string path = std::string(request.target()).substr(0, request.target().find('?'));
  const bool known = path == "/metrics" || path == "/healthz" || path == "/readyz";
  if (!known) {
    say(http::status::not_found, kPlain, "not found; there are /metrics, /healthz and /readyz\n");
  } else if (request.method() != http::verb::get && request.method() != http::verb::head) {
    say(http::status::method_not_allowed, kPlain, "only GET and HEAD are served\n");
    response.set(http::field::allow, "GET, HEAD");
  } else if (path == "/metrics") {
    say(http::status::ok, "text/plain; version=0.0.4; charset=utf-8", shared.scrape());
  } else if (path == "/healthz") {
    say(http::status::ok, kPlain, "alive\n");
  } else if (shared.ready) {
    say(http::status::ok, kPlain, "ready\n");
  } else {
    say(http::status::service_unavailable, kPlain, "draining\n");
  }
  response.prepare_payload();
  return response;
}

// One connection. Kept alive by its own pending operations.
class Session final : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, Shared& shared, std::function<void(Session*)> ended)
      : stream_(std::move(socket)), shared_(shared), ended_(std::move(ended)) {}
  ~Session() { ended_(this); }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kHttpRequestBytesMax);
    parser_->body_limit(0);  // A body is an error: nothing here takes one.
    stream_.expires_after(kHttpIdleTimeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](ErrorCode error, size_t) { self->OnRead(error); });
  }
  void Close() { stream_.close(); }

 private:
  void OnRead(ErrorCode error) {
    if (error == http::error::end_of_stream) return Finish();
    if (error == http::error::body_limit || error == http::error::header_limit ||
        (error && error.category() == http::make_error_code(http::error::bad_method).category())) {
      return Refuse(error);
    }
    if (error) return;  // The peer is gone, or was idle for too long.
    request_ = parser_->release();
    Write(Answer(request_, shared_));
  }
  void Refuse(ErrorCode error) {
    Response response;
    response.version(11);
    response.keep_alive(false);
    const bool large = error == http::error::body_limit || error == http::error::header_limit;
    response.result(large ? http::status::payload_too_large : http::status::bad_request);
    response.set(http::field::content_type, "text/plain; charset=utf-8");
    response.body() = large ? "the request is too large\n" : "the request is malformed\n";
    response.prepare_payload();
    request_ = {};
    Write(std::move(response));
  }
  void Write(Response response) {
    response_ = std::move(response);
    const auto written = [self = shared_from_this()](ErrorCode error, size_t) {
      if (error) return;
      if (!self->response_.keep_alive()) return self->Finish();
      self->Read();
    };
    stream_.expires_after(kHttpIdleTimeout);
    if (request_.method() != http::verb::head)
      return http::async_write(stream_, response_, written);
    // The header of the full answer, and no body.
    serializer_.emplace(response_);
    http::async_write_header(stream_, *serializer_, written);
  }
  void Finish() {
    ErrorCode ignored;  // The peer may have closed first.
    stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
  }

  beast::tcp_stream stream_;
  Shared& shared_;
  std::function<void(Session*)> ended_;
  beast::flat_buffer buffer_{kHttpRequestBytesMax * 2};
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::request<http::empty_body> request_;
  Response response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
};

class BeastHttpDoor final : public HttpDoor {
 public:
  explicit BeastHttpDoor(std::function<std::string()> scrape)
      : acceptor_(context_), pause_(context_) {
    shared_.scrape = std::move(scrape);
  }
  ~BeastHttpDoor() override { Shutdown(); }

  Status Start(UniqueFd listener);
  void SetReady(bool ready) override { shared_.ready = ready; }
  void Shutdown() override;

 private:
  void Accept();
  void OnAccept(ErrorCode error, Tcp::socket socket);

  Shared shared_;
  asio::io_context context_{1};
  Tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::set<Session*> sessions_;  // The thread's.
  bool accepting_ = false;       // The thread's: an accept is under way.
  bool stopped_ = false;         // The thread's.
  std::thread thread_;
};

Status BeastHttpDoor::Start(UniqueFd listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return Status(Reason::kInternal, "the HTTP door's listener is no socket");
  }
  ErrorCode error;
  acceptor_.assign(address.ss_family == AF_INET6 ? Tcp::v6() : Tcp::v4(), listener.get(), error);
  if (error)
    return Status(Reason::kInternal,
                  "taking over the HTTP door's listener failed: " + error.message());
  listener.Release();
  Accept();
  thread_ = std::thread([this] { context_.run(); });
  return Status();
}

void BeastHttpDoor::Accept() {
  if (stopped_ || accepting_ || sessions_.size() >= kHttpConnectionsMax) return;
  accepting_ = true;
  acceptor_.async_accept(
      [this](ErrorCode error, Tcp::socket socket) { OnAccept(error, std::move(socket)); });
}

void BeastHttpDoor::OnAccept(ErrorCode error, Tcp::socket socket) {
  accepting_ = false;
  if (stopped_ || error == asio::error::operation_aborted) return;
  if (error) {
    spdlog::error("http: accepting a connection failed: {}; trying again soon", error.message());
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](ErrorCode ended) {
      if (!ended) Accept();
    });
    return;
  }
  auto session = std::make_shared<Session>(std::move(socket), shared_, [this](Session* ended) {
    sessions_.erase(ended);
    Accept();
  });
  sessions_.insert(session.get());
  session->Read();
  Accept();
}

void BeastHttpDoor::Shutdown() {
  if (!thread_.joinable()) return;
  asio::post(context_, [this] {
    stopped_ = true;
    ErrorCode ignored;  // Closing ends the pending accept, which is all that is wanted.
    acceptor_.close(ignored);
    pause_.cancel();
    for (Session* session : sessions_) session->Close();
  });
  thread_.join();  // run() returns when the last operation has ended.
}

}  // namespace

StatusOr<std::unique_ptr<HttpDoor>> StartHttpDoor(UniqueFd listener,
                                                  std::function<std::string()> scrape) {
  auto door = std::make_unique<BeastHttpDoor>(std::move(scrape));
  SH_RETURN_IF_ERROR(door->Start(std::move(listener)));
  return std::unique_ptr<HttpDoor>(std::move(door));
}

}  // namespace statehouse
