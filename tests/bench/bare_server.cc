// A bare gRPC server of the model that the service has (one completion queue, one thread, the same
// libraries and channel arguments), which does nothing: the floor of a call's time, and the peer of
// the fan-out benchmark. Serves at ADDRESS until it is killed.
//   bare_server ADDRESS [CERTIFICATE_FILE KEY_FILE]        the files: TLS
#include <absl/synchronization/mutex.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <unordered_set>

#include "echo.grpc.pb.h"

namespace {

using statehouse::bench::Echo;
using statehouse::bench::EchoRequest;
using statehouse::bench::EchoResponse;
using statehouse::bench::FanOut;

class Call {
 public:
  virtual ~Call() = default;
  // An event of the queue; false when it goes.
  virtual void Proceed(bool ok) = 0;
};

class Listener;

struct Server {
  Echo::AsyncService echo;
  FanOut::AsyncService service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unordered_set<Listener*> listeners;
};

// One stream, for as long as its messages can be written.
class Listener final : public Call {
 public:
  explicit Listener(Server* server) : server_(server), writer_(&context_) {
    server_->service.RequestListen(&context_, &request_, &writer_, server_->queue.get(),
                                   server_->queue.get(), this);
  }
  ~Listener() override { server_->listeners.erase(this); }

  void Proceed(bool ok) override {
    if (!ok) {
      delete this;
    } else if (!is_open_) {
      new Listener(server_);
      is_open_ = true;
      server_->listeners.insert(this);
      // Says that it listens.
      Tell(EchoResponse());
    } else {
      is_writing_ = false;
    }
  }
  void Tell(const EchoResponse& message) {
    if (is_writing_) return;
    is_writing_ = true;
    writer_.Write(message, this);
  }

 private:
  Server* const server_;
  grpc::ServerContext context_;
  EchoRequest request_;
  grpc::ServerAsyncWriter<EchoResponse> writer_;
  bool is_open_ = false;
  bool is_writing_ = false;
};

class Speaker final : public Call {
 public:
  explicit Speaker(Server* server) : server_(server), responder_(&context_) {
    server_->service.RequestSay(&context_, &request_, &responder_, server_->queue.get(),
                                server_->queue.get(), this);
  }

  void Proceed(bool ok) override {
    if (!ok || is_finished_) {
      delete this;
      return;
    }
    new Speaker(server_);
    is_finished_ = true;
    responder_.Finish(response_, grpc::Status::OK, this);
    EchoResponse message;
    message.set_payload(request_.payload());
    for (Listener* const listener : server_->listeners) listener->Tell(message);
  }

 private:
  Server* const server_;
  grpc::ServerContext context_;
  EchoRequest request_;
  EchoResponse response_;
  grpc::ServerAsyncResponseWriter<EchoResponse> responder_;
  bool is_finished_ = false;
};

// One call that is answered at once.
class Echoer final : public Call {
 public:
  explicit Echoer(Server* server) : server_(server), responder_(&context_) {
    server_->echo.RequestEcho(&context_, &request_, &responder_, server_->queue.get(),
                              server_->queue.get(), this);
  }

  void Proceed(bool ok) override {
    if (!ok || is_finished_) {
      delete this;
      return;
    }
    new Echoer(server_);
    is_finished_ = true;
    response_.set_payload(request_.payload());
    responder_.Finish(response_, grpc::Status::OK, this);
  }

 private:
  Server* const server_;
  grpc::ServerContext context_;
  EchoRequest request_;
  EchoResponse response_;
  grpc::ServerAsyncResponseWriter<EchoResponse> responder_;
  bool is_finished_ = false;
};

// A conversation: one request, one answer, and so on.
class Converser final : public Call {
 public:
  explicit Converser(Server* server) : server_(server), stream_(&context_) {
    server_->service.RequestConverse(&context_, &stream_, server_->queue.get(),
                                     server_->queue.get(), this);
  }

  void Proceed(bool ok) override {
    if (!ok) {
      delete this;
    } else if (step_ == Step::kOpen) {
      new Converser(server_);
      Read();
    } else if (step_ == Step::kRead) {
      step_ = Step::kWritten;
      stream_.Write(response_, this);
    } else {
      Read();
    }
  }

 private:
  enum class Step { kOpen, kRead, kWritten };
  void Read() {
    step_ = Step::kRead;
    stream_.Read(&request_, this);
  }

  Server* const server_;
  grpc::ServerContext context_;
  EchoRequest request_;
  EchoResponse response_;
  grpc::ServerAsyncReaderWriter<EchoResponse, EchoRequest> stream_;
  Step step_ = Step::kOpen;
};

// Calls that gRPC may hand over before the thread comes round to ask for more, as in the service.
constexpr int kRequestedCalls = 128;

std::string ReadText(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

std::shared_ptr<grpc::ServerCredentials> Credentials(int argc, char** argv) {
  if (argc != 4) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({ReadText(argv[3]), ReadText(argv[2])});
  return grpc::SslServerCredentials(options);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4) return 2;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  Server all;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
  builder.AddListeningPort(argv[1], Credentials(argc, argv));
  builder.RegisterService(&all.echo);
  builder.RegisterService(&all.service);
  all.queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  for (int i = 0; i < kRequestedCalls; ++i) new Echoer(&all);
  new Listener(&all);
  new Speaker(&all);
  new Converser(&all);
  void* tag = nullptr;
  bool ok = false;
  while (all.queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
  return 0;
}
