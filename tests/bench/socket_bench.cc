// What a call over the attach socket takes (SH_TRANSPORT_SOCKET), against an echo of as many bytes
// between two processes over a bare unix stream socket, and against gRPC over the unix socket. One
// client, one call at a time; contenders in turns.
//   socket_bench STATEHOUSED [--rounds N]
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/client.hpp"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

namespace sc = statehouse::client;

constexpr int kCalls = 3000;  // Of a contender in a round.
constexpr uint64_t kLookNs = 1'000'000;
// As the packets of an increment are: head, method, deadline, request; and the answer's.
constexpr size_t kRequestBytes = 144;
constexpr size_t kAnswerBytes = 56;
constexpr double kBar = 1.5;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "socket_bench: %s\n", what.c_str());
  std::exit(2);
}

// A process that answers each kRequestBytes with kAnswerBytes, until the other end closes.
class Echo final {
 public:
  Echo() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) Die("socketpair");
    child_ = fork();
    if (child_ < 0) Die("fork");
    if (child_ == 0) {
      close(ends[0]);
      Serve(ends[1]);
    }
    close(ends[1]);
    end_ = ends[0];
  }
  Echo(const Echo&) = delete;
  Echo& operator=(const Echo&) = delete;
  ~Echo() {
    close(end_);
    (void)waitpid(child_, nullptr, 0);
  }
  void Call() const {
    char bytes[kRequestBytes] = {};
    if (write(end_, bytes, kRequestBytes) != static_cast<ssize_t>(kRequestBytes)) Die("echo");
    if (recv(end_, bytes, kAnswerBytes, MSG_WAITALL) != static_cast<ssize_t>(kAnswerBytes)) {
      Die("echo");
    }
  }

 private:
  [[noreturn]] static void Serve(int end) {
    char bytes[kRequestBytes] = {};
    while (recv(end, bytes, kRequestBytes, MSG_WAITALL) == static_cast<ssize_t>(kRequestBytes)) {
      if (write(end, bytes, kAnswerBytes) < 0) break;
    }
    _exit(0);
  }
  int end_ = -1;
  pid_t child_ = -1;
};

struct Contender {
  std::string name;
  std::function<void()> call;
  std::vector<double> p50;  // Of each round, in us.
  std::vector<double> p99;
};

void MeasureRound(Contender* contender) {
  std::vector<double> took;
  for (int i = 0; i < kCalls; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    contender->call();
    took.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  std::sort(took.begin(), took.end());
  contender->p50.push_back(took[took.size() / 2]);
  contender->p99.push_back(took[took.size() * 99 / 100]);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Service {
  std::string url;
  std::string token;
};

Service AwaitService(const std::string& runtime) {
  for (int look = 0; look < 10'000; ++look) {
    std::ifstream file(runtime + "/dev.json");
    const nlohmann::json dev = nlohmann::json::parse(file, nullptr, false);
    if (!dev.is_discarded()) return {"statehouse+unix://" + runtime, dev.at("token")};
    SleepNs(kLookNs);
  }
  Die("statehoused did not start");
}

sc::Client Connect(const Service& service, sh_transport transport) {
  sc::Options options;
  options.token = service.token;
  options.transport = transport;
  auto client = sc::Client::Connect(service.url, options);
  if (!client.ok()) Die(client.error().message());
  return *std::move(client);
}

template <typename T>
void Need(const sc::Result<T>& result) {
  if (!result.ok()) Die(result.error().message());
}

int Run(const std::string& statehoused, int rounds) {
  const Echo echo;  // Before there are threads.
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = AwaitService(runtime);
  sc::Client by_socket = Connect(service, SH_TRANSPORT_SOCKET);
  sc::Client by_grpc = Connect(service, SH_TRANSPORT_NETWORK);
  sc::Dict socket_dict = by_socket.OpenDict("numbers").value();
  sc::Dict grpc_dict = by_grpc.OpenDict("numbers").value();
  Need(socket_dict.Set("hits", 0));
  std::vector<Contender> contenders = {
      {"echo", [&] { echo.Call(); }, {}, {}},
      {"get, socket", [&] { Need(socket_dict.Get<int64_t>("hits")); }, {}, {}},
      {"increment, socket", [&] { Need(socket_dict.Increment("hits")); }, {}, {}},
      {"get, gRPC", [&] { Need(grpc_dict.Get<int64_t>("hits")); }, {}, {}},
      {"increment, gRPC", [&] { Need(grpc_dict.Increment("hits")); }, {}, {}}};
  for (Contender& each : contenders) {
    for (int i = 0; i < 200; ++i) each.call();
  }
  for (int round = 0; round < rounds; ++round) {
    for (Contender& each : contenders) MeasureRound(&each);
  }
  const double floor_p50 = Median(contenders[0].p50);
  const double floor_p99 = Median(contenders[0].p99);
  for (const Contender& each : contenders) {
    std::printf("%-18s p50 %6.1f us (%.2f x), p99 %6.1f us (%.2f x)\n", each.name.c_str(),
                Median(each.p50), Median(each.p50) / floor_p50, Median(each.p99),
                Median(each.p99) / floor_p99);
  }
  const double worst = std::max(Median(contenders[1].p50), Median(contenders[2].p50)) / floor_p50;
  std::printf("bar %.1f x of the echo's p50: %s (%.2f x)\n", kBar, worst <= kBar ? "met" : "missed",
              worst);
  return worst <= kBar ? 0 : 1;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) Die("usage: socket_bench STATEHOUSED [--rounds N]");
  int rounds = 9;
  if (argc == 4 && std::strcmp(argv[2], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[3]));
  return Run(argv[1], rounds);
}
