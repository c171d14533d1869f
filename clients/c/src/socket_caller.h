// SocketCaller: calls of a client of this host that maps no memory: small ones over the attach
// socket, which takes a third of what a call over gRPC does, and all others over gRPC.
//
// Who owns it: shared by the client handle and its areas and dicts. Threads: any at once; what
// finds the socket busy for kBusyPatience goes over gRPC, and in a forked child of a process that
// used gRPC, which has none, waits for the socket. Waits go over gRPC, and in such a child by a
// connection of their own. Always true: a call goes one way only, so it
// is carried out once as over either. Failure: as LocalSession's calls and NetworkSession's.
#pragma once

#include <memory>
#include <string>

#include "clients/c/src/local_session.h"
#include "clients/c/src/network_session.h"

namespace statehouse {

class SocketCaller final : public Caller {
 public:
  SocketCaller(std::shared_ptr<LocalSession> session, std::shared_ptr<NetworkSession> network)
      : session_(std::move(session)), network_(std::move(network)) {}

  Status Call(const std::string& method, const google::protobuf::MessageLite& request,
              google::protobuf::MessageLite* response, const CallOptions& options) override;
  Status RunBatch(const std::string& request, std::string* response,
                  const CallOptions& options) override;
  // Later calls fail with CLIENT_CLOSED.
  void Close() { session_->Close(); }

 private:
  // False where the call is to go over gRPC.
  bool CallBySocket(const std::string& method, const std::string& request,
                    const CallOptions& options, StatusOr<std::string>* response);

  const std::shared_ptr<LocalSession> session_;
  const std::shared_ptr<NetworkSession> network_;
};

}  // namespace statehouse
