#include "service/rpc/grpc_door_test_support.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "service/auth/token_file.h"
#include "statehouse/internal/v1/rpc_status.pb.h"

namespace statehouse {

UniqueFd Listen(int* port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(fd.get(), 128), 0);
  socklen_t length = sizeof(address);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  *port = ntohs(address.sin_port);
  return fd;
}

UniqueFd ListenUnix(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(::listen(fd.get(), 128), 0);
  return fd;
}

v1::ErrorReason ReasonOf(const grpc::Status& status) {
  internal::v1::RpcStatus rpc;
  v1::ErrorDetail detail;
  if (!rpc.ParseFromString(status.error_details()) || rpc.details_size() != 1 ||
      !rpc.details(0).UnpackTo(&detail)) {
    return v1::ERROR_REASON_UNSPECIFIED;
  }
  return detail.reason();
}

GrpcDoorTest::GrpcDoorTest(GrpcDoorOptions options) {
  char pattern[] = "/tmp/sh_door_XXXXXX";
  folder_ = ::mkdtemp(pattern);
  const std::string tokens = folder_ + "/tokens.toml";
  token_ = CreateToken(tokens, {"",
                                0,
                                {ParseGrant("area:*:read,write,create").value(),
                                 ParseGrant("dict:*:read,write,create").value()}})
               .value();
  authenticator_ = NewFileAuthenticator(tokens, 1000).value();
  options.on_auth_failure = [this](Reason reason, const std::string& peer) {
    if (peer.starts_with("ipv4:127.0.0.1:")) auth_failures_.fetch_add(1);
  };
  DispatcherOptions dispatcher_options;
  dispatcher_options.message_bytes_max = options.message_bytes_max;
  service_ = std::make_unique<TestService>(dispatcher_options);
  std::vector<UniqueFd> listeners;
  listeners.push_back(Listen(&port_));
  listeners.push_back(ListenUnix(UnixPath()));
  auto door =
      StartGrpcDoor(options, std::move(listeners), &service_->dispatcher(), authenticator_.get(),
                    service_->engine().DaemonLane(0), service_->engine().DaemonLane(4));
  EXPECT_TRUE(door.ok()) << door.status().ToString();
  door_ = *std::move(door);
}

GrpcDoorTest::~GrpcDoorTest() {
  door_.reset();
  std::filesystem::remove_all(folder_);
}

std::shared_ptr<grpc::Channel> GrpcDoorTest::Channel() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // A connection of its own.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_),
                                   grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<v1::Areas::Stub> GrpcDoorTest::Areas() const {
  return v1::Areas::NewStub(Channel());
}

void GrpcDoorTest::Authorize(grpc::ClientContext* context) const {
  context->AddMetadata("authorization", "Bearer " + token_);
}

v1::AddWordRequest GrpcDoorTest::Add(const std::string& name) {
  v1::AddWordRequest request;
  request.set_name(name);
  request.set_type(v1::WORD_TYPE_U64);
  return request;
}

grpc::Status GrpcDoorTest::AddOnce(v1::Areas::Stub& stub, const std::string& name,
                                   uint64_t* value) {
  grpc::ClientContext context;
  Authorize(&context);
  v1::AddWordResponse response;
  const grpc::Status status = stub.AddWord(&context, Add(name), &response);
  if (value != nullptr) *value = response.value().unsigned_value();
  return status;
}

}  // namespace statehouse
