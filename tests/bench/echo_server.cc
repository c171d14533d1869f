// A bare gRPC server of the fastest model that gRPC 1.51 has here (one completion queue, one
// thread): the peer of the unary benchmark. Prints its port, serves until its standard input ends.
//   echo_server [unix:PATH]        default 127.0.0.1:0
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "echo.grpc.pb.h"

namespace {

using statehouse::bench::Echo;
using statehouse::bench::EchoRequest;
using statehouse::bench::EchoResponse;

// One call: waits for a request, answers it, goes.
class Call {
 public:
  Call(Echo::AsyncService* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), responder_(&context_) {
    service_->RequestEcho(&context_, &request_, &responder_, queue_, queue_, this);
  }

  void Proceed(bool ok) {
    if (!ok || finished_) {
      delete this;
      return;
    }
    new Call(service_, queue_);
    response_.set_payload(request_.payload());
    finished_ = true;
    responder_.Finish(response_, grpc::Status::OK, this);
  }

 private:
  Echo::AsyncService* service_;
  grpc::ServerCompletionQueue* queue_;
  grpc::ServerContext context_;
  EchoRequest request_;
  EchoResponse response_;
  grpc::ServerAsyncResponseWriter<EchoResponse> responder_;
  bool finished_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:0";
  Echo::AsyncService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  for (int i = 0; i < 128; ++i) new Call(&service, queue.get());
  std::cout << port << std::endl;

  std::thread stopper([&] {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    server->Shutdown(std::chrono::system_clock::now());
    queue->Shutdown();
  });
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
  stopper.join();
  return 0;
}
