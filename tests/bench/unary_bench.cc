// The network door's unary calls against a bare gRPC server of the same model that does nothing:
// one at a time (latency), 64 outstanding (throughput), what access tokens add, and what TLS adds.
// All servers run as processes of their own, on TCP, and are measured in turns by the same client.
//   unary_bench BARE_SERVER DOOR_SERVER STATEHOUSED [--rounds N] [--json FILE]
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "echo.grpc.pb.h"
#include "service/auth/token_file.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"

namespace statehouse::bench {
namespace {

using Credentials = std::shared_ptr<grpc::ChannelCredentials>;

std::shared_ptr<grpc::Channel> Connect(const std::string& address, const Credentials& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(address, credentials, arguments);
  const auto patience = std::chrono::system_clock::now() + std::chrono::seconds(20);
  if (!channel->WaitForConnected(patience)) Die("nobody answers at " + address);
  return channel;
}

// One kind of call: how to prepare its context, its request, and how to start it on a queue.
struct EchoCalls {
  using Request = EchoRequest;
  using Response = EchoResponse;
  EchoCalls(const std::string& address, const Credentials& credentials)
      : stub(Echo::NewStub(Connect(address, credentials))) {
    request.set_payload(std::string(24, 'x'));
  }
  auto Start(grpc::ClientContext* context, grpc::CompletionQueue* queue) {
    return stub->AsyncEcho(context, request, queue);
  }
  grpc::Status Call(grpc::ClientContext* context, Response* response) {
    return stub->Echo(context, request, response);
  }
  std::unique_ptr<Echo::Stub> stub;
  Request request;
};

struct AddCalls {
  using Request = v1::AddWordRequest;
  using Response = v1::AddWordResponse;
  // Without a token where `access_token` is empty.
  AddCalls(const std::string& address, const std::string& access_token,
           const Credentials& credentials)
      : stub(v1::Areas::NewStub(Connect(address, credentials))),
        token(access_token.empty() ? "" : "Bearer " + access_token) {
    request.set_name("bench");
    request.set_type(v1::WORD_TYPE_U64);
    request.set_delta(1);
  }
  void Authorize(grpc::ClientContext* context) const {
    if (!token.empty()) context->AddMetadata("authorization", token);
  }
  void CreateArea() {
    grpc::ClientContext context;
    Authorize(&context);
    v1::CreateAreaRequest create;
    create.set_name("bench");
    create.set_size(4096);
    v1::CreateAreaResponse created;
    const grpc::Status status = stub->CreateArea(&context, create, &created);
    if (!status.ok()) Die("CreateArea: " + status.error_message());
  }
  auto Start(grpc::ClientContext* context, grpc::CompletionQueue* queue) {
    Authorize(context);
    return stub->AsyncAddWord(context, request, queue);
  }
  grpc::Status Call(grpc::ClientContext* context, Response* response) {
    Authorize(context);
    return stub->AddWord(context, request, response);
  }
  std::unique_ptr<v1::Areas::Stub> stub;
  std::string token;
  Request request;
};

// Nanoseconds of one call.
template <typename Calls>
double TimeOf(Calls& calls) {
  grpc::ClientContext context;
  typename Calls::Response response;
  const uint64_t begin = NowNs();
  const grpc::Status status = calls.Call(&context, &response);
  if (!status.ok()) Die("a call failed: " + status.error_message());
  return static_cast<double>(NowNs() - begin);
}

double Median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// The median of single calls in nanoseconds.
template <typename Calls>
Work OneAtATime(Calls& calls) {
  return [&calls](uint64_t iterations) {
    std::vector<double> times;
    for (uint64_t i = 0; i < iterations; ++i) times.push_back(TimeOf(calls));
    return Median(std::move(times));
  };
}

// How much longer the median of `dear` is than that of `cheap`, in short turns, so that both meet
// the same moods of the machine; call by call each would find the other's caches. Nanoseconds.
template <typename Calls>
Work Difference(Calls& dear, Calls& cheap) {
  return [&dear, &cheap](uint64_t iterations) {
    constexpr uint64_t kTurn = 250;
    std::vector<double> with;
    std::vector<double> without;
    while (with.size() < iterations) {
      for (uint64_t i = 0; i < kTurn; ++i) without.push_back(TimeOf(cheap));
      for (uint64_t i = 0; i < kTurn; ++i) with.push_back(TimeOf(dear));
    }
    return Median(std::move(with)) - Median(std::move(without));
  };
}

// Nanoseconds for one call with 64 outstanding.
template <typename Calls>
Work Outstanding(Calls& calls) {
  return [&calls](uint64_t iterations) {
    constexpr int kWindow = 64;
    struct InFlight {
      std::unique_ptr<grpc::ClientContext> context;
      typename Calls::Response response;
      grpc::Status status;
      std::unique_ptr<grpc::ClientAsyncResponseReader<typename Calls::Response>> reader;
    };
    grpc::CompletionQueue queue;
    std::vector<InFlight> window(kWindow);
    const auto start = [&](InFlight* slot) {
      slot->context = std::make_unique<grpc::ClientContext>();
      slot->reader = calls.Start(slot->context.get(), &queue);
      slot->reader->Finish(&slot->response, &slot->status, slot);
    };
    const uint64_t begin = NowNs();
    for (InFlight& slot : window) start(&slot);
    void* tag = nullptr;
    bool ok = false;
    for (uint64_t done = 0; done < iterations; ++done) {
      if (!queue.Next(&tag, &ok) || !static_cast<InFlight*>(tag)->status.ok()) Die("a call failed");
      if (done + kWindow < iterations) start(static_cast<InFlight*>(tag));
    }
    const double took = static_cast<double>(NowNs() - begin) / static_cast<double>(iterations);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
    return took;
  };
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// A certificate of the bench's own for 127.0.0.1, and its key, as files of `folder`.
struct Certificate {
  explicit Certificate(const std::string& folder)
      : file(folder + "/certificate.pem"), key_file(folder + "/key.pem") {
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
        "/CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout " +
        key_file + " -out " + file + " 2>/dev/null";
    if (std::system(command.c_str()) != 0) Die("openssl made no certificate; is it installed?");
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadText(file);
    trusting = grpc::SslCredentials(options);
  }
  const std::string file;
  const std::string key_file;
  Credentials trusting;
};

std::string NewToken(const std::string& tokens_file) {
  TokenSpec spec;
  auto grant = ParseGrant("area:*:read,write,create");
  if (!grant.ok()) Die(grant.status().ToString());
  spec.grants.push_back(*std::move(grant));
  auto token = CreateToken(tokens_file, spec);
  if (!token.ok()) Die(token.status().ToString());
  return *token;
}

std::string At(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

// 64 calls at once need more of them for a figure that stands.
constexpr uint64_t kCalls = 4000;
constexpr uint64_t kCallsOutstanding = 30'000;

int Run(const std::string& bare_server, const std::string& door_server,
        const std::string& statehoused, int rounds, const std::string& json) {
  const BenchFolder folder;
  const Certificate certificate(folder.path());
  const Credentials plain = grpc::InsecureChannelCredentials();
  const std::string tokens_file = folder.path() + "/tokens.toml";
  const std::string token = NewToken(tokens_file);
  const uint16_t ports[] = {FreePort(), FreePort(), FreePort(), FreePort()};
  const std::string runtime = folder.path() + "/run";
  const std::string tls_runtime = folder.path() + "/tls";
  const auto daemon = [&statehoused](const std::string& folder_of_it) {
    return std::vector<std::string>{statehoused,  "--dev",       "--runtime-dir",
                                    folder_of_it, "--log-level", "error"};
  };
  auto tls_daemon = daemon(tls_runtime);
  tls_daemon.insert(tls_daemon.end(),
                    {"--tls-certificate", certificate.file, "--tls-key", certificate.key_file});
  const BenchProcess processes[] = {
      BenchProcess({bare_server, At(ports[0])}),
      BenchProcess({bare_server, At(ports[1]), certificate.file, certificate.key_file}),
      BenchProcess({door_server, std::to_string(ports[2])}),
      BenchProcess({door_server, std::to_string(ports[3]), tokens_file}),
      BenchProcess(daemon(runtime)),
      BenchProcess(tls_daemon)};
  const Service service = ReadDevFile(runtime + "/dev.json");
  const Service tls_service = ReadDevFile(tls_runtime + "/dev.json");

  EchoCalls echo(At(ports[0]), plain);
  EchoCalls tls_echo(At(ports[1]), certificate.trusting);
  AddCalls open_door(At(ports[2]), "", plain);
  AddCalls token_door(At(ports[3]), token, plain);
  AddCalls add(service.tcp_address, service.token, plain);
  add.CreateArea();
  AddCalls tls_add(tls_service.tcp_address, tls_service.token, certificate.trusting);
  tls_add.CreateArea();
  return RunRaces(
      {Race{"unary, one at a time, p50",
            {{"bare gRPC", OneAtATime(echo), kCalls}, {"AddWord", OneAtATime(add), kCalls}},
            {{"AddWord", "bare gRPC", 1.15, 0}}},
       Race{"unary, 64 outstanding, time for one",
            {{"bare gRPC", Outstanding(echo), kCallsOutstanding},
             {"AddWord", Outstanding(add), kCallsOutstanding}},
            {{"AddWord", "bare gRPC", 1 / 0.85, 0}}},
       Race{"access tokens at a door over nothing, one at a time, p50",
            {{"without", OneAtATime(open_door), kCalls}, {"with", OneAtATime(token_door), kCalls}},
            {{"with", "without", 1.05, 0}}},
       Race{"access tokens at a door over nothing, 64 outstanding, time for one",
            {{"without", Outstanding(open_door), kCallsOutstanding},
             {"with", Outstanding(token_door), kCallsOutstanding}},
            {{"with", "without", 1.05, 0}}},
       Race{"what TLS adds to a call, one at a time, p50",
            {{"bare gRPC", Difference(tls_echo, echo), kCalls},
             {"AddWord", Difference(tls_add, add), kCalls}},
            {{"AddWord", "bare gRPC", 1.0, 0}}}},
      rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 4) {
    Die("usage: unary_bench BARE_SERVER DOOR_SERVER STATEHOUSED [--rounds N] [--json FILE]");
  }
  int rounds = 7;
  std::string json;
  for (int i = 4; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], argv[2], argv[3], rounds, json) == 0 ? 0 : 1;
}
