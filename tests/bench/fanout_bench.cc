// One event to many streams: a watched dict against a bare gRPC server that streams, of the same
// model. Both are processes of their own on TCP; the same client reads from both, in turns.
//   fanout_bench BARE_SERVER STATEHOUSED [--rounds N] [--streams N] [--json FILE]
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "echo.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"

namespace statehouse::bench {
namespace {

constexpr int kConnections = 10;
constexpr char kKey[] = "told";

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void Check(const grpc::Status& status, const char* doing) {
  if (!status.ok()) Die(std::string(doing) + ": " + status.error_message());
}

// The service's side of the race: a watch of one key, told by an increment.
class Watches final {
 public:
  using Message = v1::WatchDictResponse;

  Watches(const std::string& address, const std::string& token)
      : authorization_("Bearer " + token), stub_(v1::Dicts::NewStub(Connect(address))) {
    v1::CreateDictRequest create;
    create.set_name("fanout");
    v1::CreateDictResponse created;
    grpc::ClientContext context;
    Prepare(&context);
    context.set_wait_for_ready(true);
    Check(stub_->CreateDict(&context, create, &created), "creating a dict");
  }
  void Prepare(grpc::ClientContext* context) const {
    context->AddMetadata("authorization", authorization_);
  }
  static std::unique_ptr<grpc::ClientAsyncReader<Message>> Listen(
      const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext* context,
      grpc::CompletionQueue* queue, void* tag) {
    v1::WatchDictRequest request;
    request.set_name("fanout");
    request.set_key(kKey);
    return v1::Dicts::NewStub(channel)->AsyncWatchDict(context, request, queue, tag);
  }
  void Say() {
    v1::IncrementEntryRequest request;
    request.set_name("fanout");
    request.set_key(kKey);
    request.mutable_delta()->set_int_value(1);
    v1::IncrementEntryResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    Check(stub_->IncrementEntry(&context, request, &response), "incrementing");
  }
  // Messages before the first event: the snapshot may be empty, `synced` comes always.
  static bool IsReady(const Message& message) { return message.has_synced(); }
  static bool IsEvent(const Message& message) { return message.changes().changes_size() == 1; }
  // Once: the peer's client does not count either.
  static void Keep(const Message& message, size_t* bytes) {
    if (*bytes == 0 && IsEvent(message)) *bytes = message.ByteSizeLong();
  }

 private:
  const std::string authorization_;
  const std::unique_ptr<v1::Dicts::Stub> stub_;
};

// The peer's: it says as many bytes as an event has.
class Bare final {
 public:
  using Message = EchoResponse;

  Bare(const std::string& address, const size_t* bytes)
      : stub_(FanOut::NewStub(Connect(address))), bytes_(bytes) {}
  void Prepare(grpc::ClientContext* context) const { context->set_wait_for_ready(true); }
  static std::unique_ptr<grpc::ClientAsyncReader<Message>> Listen(
      const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext* context,
      grpc::CompletionQueue* queue, void* tag) {
    return FanOut::NewStub(channel)->AsyncListen(context, EchoRequest(), queue, tag);
  }
  void Say() {
    EchoRequest request;
    constexpr size_t kFraming = 2;  // The field's tag and length.
    request.set_payload(std::string(std::max(*bytes_, kFraming) - kFraming, 'x'));
    EchoResponse response;
    grpc::ClientContext context;
    Check(stub_->Say(&context, request, &response), "saying");
  }
  static bool IsReady(const Message& message) { return message.payload().empty(); }
  static bool IsEvent(const Message& message) { return !message.payload().empty(); }
  static void Keep(const Message&, size_t*) {}

 private:
  const std::unique_ptr<FanOut::Stub> stub_;
  const size_t* const bytes_;
};

// Many streams of one side, all read by the thread that calls.
template <typename Side>
class Audience final {
 public:
  Audience(Side* side, const std::string& address, size_t streams, size_t* bytes)
      : side_(side), bytes_(bytes) {
    std::vector<std::shared_ptr<grpc::Channel>> channels;
    for (int i = 0; i < kConnections; ++i) channels.push_back(Connect(address));
    for (size_t i = 0; i < streams; ++i) {
      streams_.push_back(std::make_unique<Stream>());
      Stream& stream = *streams_.back();
      side_->Prepare(&stream.context);
      stream.reader = Side::Listen(channels[i % kConnections], &stream.context, &queue_, &stream);
    }
    Await([](const typename Side::Message& message) { return Side::IsReady(message); });
  }
  ~Audience() {
    for (const auto& stream : streams_) stream->context.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) continue;
  }

  // One event, until all have it.
  void Tell() {
    side_->Say();
    Await([](const typename Side::Message& message) { return Side::IsEvent(message); });
  }

 private:
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReader<typename Side::Message>> reader;
    typename Side::Message message;
    bool is_reading = false;
  };

  // Until each stream has had a message that `is_it`.
  template <typename IsIt>
  void Await(const IsIt& is_it) {
    for (size_t missing = streams_.size(); missing > 0;) {
      void* tag = nullptr;
      bool ok = false;
      if (!queue_.Next(&tag, &ok) || !ok) Die("a stream ended");
      Stream& stream = *static_cast<Stream*>(tag);
      // The first event tells that the call has begun.
      if (stream.is_reading && is_it(stream.message)) {
        --missing;
        Side::Keep(stream.message, bytes_);
      }
      // Whoever has read a message lets it go, and does not keep it until the next one comes.
      stream.message.Clear();
      stream.is_reading = true;
      stream.reader->Read(&stream.message, tag);
    }
  }

  Side* const side_;
  size_t* const bytes_;
  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

// Microseconds of one delivery.
template <typename Side>
Work Deliveries(Audience<Side>* audience, size_t streams) {
  return [audience, streams](uint64_t events) {
    const uint64_t begin = NowNs();
    for (uint64_t i = 0; i < events; ++i) audience->Tell();
    return static_cast<double>(NowNs() - begin) / 1e3 / static_cast<double>(events * streams);
  };
}

int Run(const std::string& bare_server, const std::string& statehoused, int rounds, size_t streams,
        const std::string& json) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const std::string bare_address = "127.0.0.1:" + std::to_string(FreePort());
  BenchProcess peer({bare_server, bare_address});
  const Service service = ReadDevFile(runtime + "/dev.json");

  size_t bytes = 0;
  Watches watches(service.tcp_address, service.token);
  Audience<Watches> watching(&watches, service.tcp_address, streams, &bytes);
  watching.Tell();  // Now the size of an event is known.
  Bare bare(bare_address, &bytes);
  Audience<Bare> listening(&bare, bare_address, streams, &bytes);
  const std::string title = "one event of " + std::to_string(bytes) + " bytes to " +
                            std::to_string(streams) + " streams over " +
                            std::to_string(kConnections) + " connections, a delivery";
  constexpr uint64_t kEvents = 100;
  // At least 0.8 times its rate.
  return RunRaces({{title,
                    {{"watches", Deliveries(&watching, streams), kEvents},
                     {"bare gRPC streams", Deliveries(&listening, streams), kEvents}},
                    {{"watches", "bare gRPC streams", 1 / 0.8, 0}},
                    "us"}},
                  rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 3) {
    Die("usage: fanout_bench BARE_SERVER STATEHOUSED [--rounds N] [--streams N] [--json FILE]");
  }
  int rounds = 7;
  size_t streams = 1000;
  std::string json;
  for (int i = 3; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--streams") == 0) {
      streams = static_cast<size_t>(std::max(1, std::atoi(argv[i + 1])));
    }
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], argv[2], rounds, streams, json) == 0 ? 0 : 1;
}
