// The service's network door over nothing: every call is answered at once with the same word. With
// a tokens file it checks access tokens as the service does; without, everybody is let in. So what
// tokens cost is what the same door costs more. Serves at 127.0.0.1:PORT until it is killed.
//   door_server PORT [TOKENS_FILE]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>

#include "service/rpc/grpc_door.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse::bench {
namespace {

class NullDispatcher final : public Dispatcher {
 public:
  NullDispatcher() {
    v1::AddWordResponse response;
    response.mutable_value()->set_unsigned_value(1);
    answer_ = response.SerializeAsString();
  }
  std::shared_ptr<PendingCall> Dispatch(const CallContext&, std::string_view, std::string_view,
                                        DoneCallback done) override {
    done(answer_);
    return nullptr;
  }
  bool Knows(std::string_view) const override { return true; }
  bool Streams(std::string_view) const override { return false; }
  bool Converses(std::string_view) const override { return false; }
  StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext&, std::string_view,
                                                     std::string_view,
                                                     std::function<void()>) override {
    return Status(Reason::kUnimplemented, "this door has no streams");
  }
  std::vector<std::string> Methods() const override { return {}; }
  uint32_t CallsInFlight() const override { return 0; }
  void RecheckIdentities(Authenticator*) override {}
  void Shutdown() override {}

 private:
  std::string answer_;
};

// Lets everybody in as the same caller.
class OpenAuthenticator final : public Authenticator {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view,
                                                         std::string_view) override {
    return identity_;
  }
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity&) override {
    return identity_;
  }
  uint64_t generation() const override { return 1; }
  bool AnyExpired(int64_t, int64_t) const override { return false; }
  void SetTokenLimits(const CallLimits&) override {}
  Status Reload() override { return Status(); }

 private:
  const std::shared_ptr<const Identity> identity_ =
      std::make_shared<const Identity>("everybody", "", 0, std::vector<Grant>());
};

UniqueFd ListenAt(uint16_t port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0) {
    std::perror("door_server: listening");
    std::exit(2);
  }
  return fd;
}

int Serve(uint16_t port, const char* tokens_file) {
  std::unique_ptr<Authenticator> authenticator = std::make_unique<OpenAuthenticator>();
  if (tokens_file != nullptr) {
    auto opened = NewFileAuthenticator(tokens_file, 0);
    if (!opened.ok()) {
      std::fprintf(stderr, "door_server: %s\n", opened.status().ToString().c_str());
      return 2;
    }
    authenticator = *std::move(opened);
  }
  NullDispatcher dispatcher;
  std::vector<UniqueFd> listeners;
  listeners.push_back(ListenAt(port));
  const auto door =
      StartGrpcDoor({}, std::move(listeners), &dispatcher, authenticator.get(), Lane{}, Lane{});
  if (!door.ok()) return 2;
  for (;;) poll(nullptr, 0, -1);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return 2;
  return statehouse::bench::Serve(static_cast<uint16_t>(std::atoi(argv[1])),
                                  argc == 3 ? argv[2] : nullptr);
}
