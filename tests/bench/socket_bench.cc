// What a call over the attach socket takes (SH_TRANSPORT_SOCKET), against an echo of as many bytes
// between two processes over a bare unix stream socket, and against gRPC over the unix socket. One
// client, one call at a time; contenders in turns.
//   socket_bench STATEHOUSED [--rounds N] [--json FILE]
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/client.hpp"
#include "tests/bench/harness.h"
#include "tests/bench/on_core.h"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

namespace sc = statehouse::client;

constexpr uint64_t kCalls = 3000;  // Of a contender in a round.
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

// Microseconds of so many calls, one after the other, at a share of their order.
Work Percentile(double share, std::function<void()> call) {
  return [share, call = std::move(call)](uint64_t calls) {
    std::vector<double> took;
    for (uint64_t i = 0; i < calls; ++i) {
      const uint64_t begin = NowNs();
      call();
      took.push_back(static_cast<double>(NowNs() - begin) / 1e3);
    }
    std::sort(took.begin(), took.end());
    return took[static_cast<size_t>(share * static_cast<double>(took.size() - 1))];
  };
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

// Where client and server are.
struct Placement {
  const char* where;
  int client;
  int server;
};
constexpr Placement kPlacements[] = {{"both on one processor", 0, 0},
                                     {"on two processors", 0, 1},
                                     {"where the scheduler likes", OnCore::kAny, OnCore::kAny}};

int RaceAt(const Placement& place, const std::string& statehoused, int rounds,
           const std::string& json) {
  if (!OnCore(place.server).is_there()) {
    std::printf("%s: skipped: there is one processor\n", place.where);
    return 0;
  }
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  std::optional<Echo> echo;
  std::optional<BenchProcess> daemon;
  {
    const OnCore there(place.server);
    echo.emplace();  // Before there are threads.
    daemon.emplace(std::vector<std::string>{statehoused, "--dev", "--runtime-dir", runtime,
                                            "--log-level", "error"});
  }
  const OnCore here(place.client);
  const Service service = AwaitService(runtime);
  sc::Client by_socket = Connect(service, SH_TRANSPORT_SOCKET);
  sc::Client by_grpc = Connect(service, SH_TRANSPORT_NETWORK);
  sc::Dict socket_dict = by_socket.OpenDict("numbers").value();
  sc::Dict grpc_dict = by_grpc.OpenDict("numbers").value();
  Need(socket_dict.Set("hits", 0));
  const std::string floor = "echo over a bare unix socket";
  const std::vector<std::pair<std::string, std::function<void()>>> calls = {
      {floor, [&] { echo->Call(); }},
      {"get, socket", [&] { Need(socket_dict.Get<int64_t>("hits")); }},
      {"increment, socket", [&] { Need(socket_dict.Increment("hits")); }},
      {"get, gRPC over a unix socket", [&] { Need(grpc_dict.Get<int64_t>("hits")); }},
      {"increment, gRPC over a unix socket", [&] { Need(grpc_dict.Increment("hits")); }}};
  std::vector<Race> races;
  for (const auto& [name, share] : {std::pair("p50", 0.5), std::pair("p99", 0.99)}) {
    Race& race = races.emplace_back();
    race.title = std::string("one small call at a time, ") + place.where + ", " + name;
    race.unit = "us";
    for (const auto& [call_name, call] : calls) {
      race.contenders.push_back({call_name, Percentile(share, call), kCalls});
    }
  }
  // Where the scheduler puts them, one pair may be on one processor and the next one on two.
  if (place.client != OnCore::kAny) {
    races[0].bars = {{"get, socket", floor, kBar, 0}, {"increment, socket", floor, kBar, 0}};
  }
  return RunRaces(races, rounds, json);
}

int Run(const std::string& statehoused, int rounds, const std::string& json) {
  int missed = 0;
  for (const Placement& place : kPlacements) {
    // The file has what an unpinned service takes.
    const bool is_last = place.client == OnCore::kAny;
    missed += RaceAt(place, statehoused, rounds, is_last ? json : "");
  }
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) Die("usage: socket_bench STATEHOUSED [--rounds N] [--json FILE]");
  int rounds = 9;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], rounds, json) == 0 ? 0 : 1;
}
