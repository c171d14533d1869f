// For tests of the network door: one over a service of its own, and a token for everything in it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "service/api/api_test_support.h"
#include "service/rpc/grpc_door.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "statehouse/v1/error.pb.h"

namespace statehouse {

// A listening socket on a free loopback port.
UniqueFd Listen(int* port);
// A listening unix socket.
UniqueFd ListenUnix(const std::string& path);

v1::ErrorReason ReasonOf(const grpc::Status& status);

class GrpcDoorTest : public ::testing::Test {
 protected:
  explicit GrpcDoorTest(GrpcDoorOptions options = {});
  ~GrpcDoorTest() override;

  std::string UnixPath() const { return folder_ + "/door.sock"; }
  std::shared_ptr<grpc::Channel> Channel() const;
  std::unique_ptr<v1::Areas::Stub> Areas() const;
  void Authorize(grpc::ClientContext* context) const;
  static v1::AddWordRequest Add(const std::string& name);
  grpc::Status AddOnce(v1::Areas::Stub& stub, const std::string& name, uint64_t* value = nullptr);

  std::string folder_;
  std::string token_;
  int port_ = 0;
  std::atomic<int> auth_failures_{0};
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<TestService> service_;
  std::unique_ptr<GrpcDoor> door_;
};

}  // namespace statehouse
