// The network door against a bare gRPC echo: one call at a time (latency), then 64 outstanding
// (throughput). Both servers run as processes of their own, on TCP, and are measured in turns.
//   unary_bench ECHO_SERVER STATEHOUSED [--rounds N] [--json FILE]
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "echo.grpc.pb.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "tests/bench/harness.h"

namespace statehouse::bench {
namespace {

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "unary_bench: %s\n", what.c_str());
  std::exit(2);
}

// A child process whose standard input we hold; closing it ends the echo server, SIGTERM ends the
// daemon.
struct Child {
  pid_t pid = -1;
  int input = -1;
  FILE* output = nullptr;

  Child(const std::vector<std::string>& command) {
    int in[2];
    int out[2];
    if (pipe(in) != 0 || pipe(out) != 0) Die("pipe");
    pid = fork();
    if (pid == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      std::vector<char*> argv;
      for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    input = in[1];
    output = fdopen(out[0], "r");
  }
  void Stop() {
    close(input);
    kill(pid, SIGTERM);
    waitpid(pid, nullptr, 0);
    std::fclose(output);
  }
};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// One kind of call: how to prepare its context, its request, and how to start it on a queue.
struct EchoCalls {
  using Request = EchoRequest;
  using Response = EchoResponse;
  explicit EchoCalls(const std::string& address) : stub(Echo::NewStub(Connect(address))) {
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
  AddCalls(const std::string& address, const std::string& access_token)
      : stub(v1::Areas::NewStub(Connect(address))), token("Bearer " + access_token) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", token);
    v1::CreateAreaRequest create;
    create.set_name("bench");
    create.set_size(4096);
    v1::CreateAreaResponse created;
    const grpc::Status status = stub->CreateArea(&context, create, &created);
    if (!status.ok()) Die("CreateArea: " + status.error_message());
    request.set_name("bench");
    request.set_type(v1::WORD_TYPE_U64);
    request.set_delta(1);
  }
  auto Start(grpc::ClientContext* context, grpc::CompletionQueue* queue) {
    context->AddMetadata("authorization", token);
    return stub->AsyncAddWord(context, request, queue);
  }
  grpc::Status Call(grpc::ClientContext* context, Response* response) {
    context->AddMetadata("authorization", token);
    return stub->AddWord(context, request, response);
  }
  std::unique_ptr<v1::Areas::Stub> stub;
  std::string token;
  Request request;
};

// The median of single calls in nanoseconds.
template <typename Calls>
Work OneAtATime(Calls& calls) {
  return [&calls](uint64_t iterations) {
    std::vector<double> times;
    for (uint64_t i = 0; i < iterations; ++i) {
      grpc::ClientContext context;
      typename Calls::Response response;
      const uint64_t begin = NowNs();
      if (!calls.Call(&context, &response).ok()) Die("a call failed");
      times.push_back(static_cast<double>(NowNs() - begin));
    }
    std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2),
                     times.end());
    return times[times.size() / 2];
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

nlohmann::json ReadDevFile(const std::filesystem::path& path) {
  for (int i = 0; i < 1000; ++i) {
    std::ifstream file(path);
    if (file) {
      nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
      if (!json.is_discarded()) return json;
    }
    poll(nullptr, 0, 10);
  }
  Die("statehoused wrote no " + path.string());
}

int Run(const std::string& echo_server, const std::string& statehoused, int rounds,
        const std::string& json) {
  char folder[] = "/tmp/statehouse-bench-XXXXXX";
  if (mkdtemp(folder) == nullptr) Die("mkdtemp");
  const std::string runtime = std::string(folder) + "/run";
  Child echo({echo_server});
  Child daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "warn"});
  char line[64] = "";
  if (std::fgets(line, sizeof line, echo.output) == nullptr) Die("the echo server did not start");
  const nlohmann::json dev = ReadDevFile(runtime + "/dev.json");
  const std::string url = dev.at("tcp_url");

  EchoCalls echo_calls("127.0.0.1:" + std::to_string(std::atoi(line)));
  AddCalls add_calls(url.substr(url.find("://") + 3), dev.at("token"));
  const std::vector<Race> races = {
      Race{"unary, one at a time, p50",
           {{"bare gRPC echo", OneAtATime(echo_calls), 4000},
            {"AddWord", OneAtATime(add_calls), 4000}},
           {{"AddWord", "bare gRPC echo", 1.15, 0}}},
      Race{"unary, 64 outstanding, time for one",
           {{"bare gRPC echo", Outstanding(echo_calls), 30'000},
            {"AddWord", Outstanding(add_calls), 30'000}},
           {{"AddWord", "bare gRPC echo", 1 / 0.85, 0}}},
  };
  const int missed = RunRaces(races, rounds, json);
  echo.Stop();
  daemon.Stop();
  std::filesystem::remove_all(folder);
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  if (argc < 3) {
    statehouse::bench::Die("usage: unary_bench ECHO_SERVER STATEHOUSED [--rounds N] [--json FILE]");
  }
  int rounds = 7;
  std::string json;
  for (int i = 3; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return statehouse::bench::Run(argv[1], argv[2], rounds, json) == 0 ? 0 : 1;
}
