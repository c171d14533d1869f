// What a client that behaves notices of floods: the p99 of its calls beside each, against its calls
// before. The client and the flood have the machine's processors in common with the service, so
// there is a control: its calls while the same flood goes to somebody else, who takes everything
// and answers nothing. What is missing between the two is the service's doing.
//   flood_bench STATEHOUSED [--rounds N] [--json FILE] [--from ADDRESS] [--only WORD] [--calls N]
//               [--nice N] [--client-nice N]
// ADDRESS: the flood's own, 127.0.0.2 for another host than the client's. WORD: of the flood's
// name. --nice N: the flood's threads stand back; --client-nice N: the client goes first. Together
// they come as near as one machine can to a client and a flood that have hosts of their own.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <statehouse/statehouse.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/unique_fd.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"
#include "tests/support/floods.h"

namespace statehouse::bench {
namespace {

using testing::Flood;
using testing::FloodTarget;

constexpr double kBar = 2;
// A call that had no answer counts as long as it was waited for.
constexpr std::chrono::milliseconds kPatience(2000);

struct Arguments {
  std::string statehoused;
  int rounds = 3;
  uint64_t calls = 500;
  std::string json;
  std::string from;
  std::string only;
  int nice = 0;         // Of the flood.
  int client_nice = 0;  // While it calls.
};

// Of this thread, until the scope ends.
class Niceness final {
 public:
  explicit Niceness(int nice) : before_(getpriority(PRIO_PROCESS, 0)) { Set(nice); }
  ~Niceness() { Set(before_); }

 private:
  static void Set(int nice) {
    if (setpriority(PRIO_PROCESS, 0, nice) != 0) Die("setting the client's priority");
  }
  const int before_;
};

// Milliseconds.
double P99(const FloodTarget& target, size_t calls, int nice = 0) {
  std::optional<Niceness> niceness;
  if (nice != 0) niceness.emplace(nice);
  const std::vector<uint64_t> times = testing::MeasureCalls(target, calls, kPatience);
  if (times.size() < calls) return static_cast<double>(kPatience.count());
  return static_cast<double>(times[times.size() * 99 / 100]) / 1e6;
}

// What the flood before has left is dealt with, and connections are taken again.
void AwaitCalm(const FloodTarget& target) {
  for (int look = 0; look < 100; ++look) {
    if (!testing::MeasureCalls(target, 50, kPatience).empty() && P99(target, 50) < 10) return;
  }
  Die("the service does not come to rest");
}

// A service of its own, so that none bears what another flood left.
struct Flooded {
  explicit Flooded(const Arguments& arguments)
      : process({arguments.statehoused, "--dev", "--runtime-dir", folder.path() + "/run",
                 "--log-level", "error"}) {
    const Service service = ReadDevFile(folder.path() + "/run/dev.json");
    sh_client* const client = service.Connect(SH_TRANSPORT_NETWORK);
    sh_area* area = nullptr;
    Require(sh_area_open(client, "flooded", 4096, &area, nullptr), "opening an area");
    sh_dict_spec spec{};
    sh_dict* dict = nullptr;
    Require(sh_dict_open(client, "flooded", &spec, &dict, nullptr), "opening a dict");
    sh_dict_close(dict);
    sh_area_close(area);
    sh_close(client);
    target = {service.tcp_address, service.token, "flooded", "flooded", 1,
              arguments.from,      arguments.nice};
  }
  BenchFolder folder;
  BenchProcess process;
  FloodTarget target;
};

// Takes every connection and every byte, on a thread of its own.
class Sink final {
 public:
  Sink() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_.get(), any, length) != 0 || listen(listener_.get(), SOMAXCONN) != 0 ||
        getsockname(listener_.get(), any, &length) != 0) {
      Die("opening a listening socket");
    }
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
    Watch(listener_.get());
    thread_ = std::thread([this] { Run(); });
  }
  ~Sink() {
    stop_ = true;
    thread_.join();
  }
  const std::string& address() const { return address_; }

 private:
  void Watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
  void Run() {
    std::map<int, UniqueFd> open;
    std::vector<char> bytes(64 << 10);
    std::array<epoll_event, 64> events{};
    while (!stop_) {
      const int count = epoll_wait(epoll_.get(), events.data(), events.size(), 10);
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        if (fd == listener_.get()) {
          const int taken = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
          if (taken < 0) continue;
          open.insert_or_assign(taken, UniqueFd(taken));
          Watch(taken);
        } else if (recv(fd, bytes.data(), bytes.size(), 0) <= 0) {
          open.erase(fd);
        }
      }
    }
  }

  UniqueFd listener_;
  UniqueFd epoll_;
  std::string address_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

Race RaceOf(const testing::NamedFlood& named, const Arguments& arguments) {
  const auto service = std::make_shared<Flooded>(arguments);
  const testing::FloodKind kind = named.kind;
  const int nice = arguments.client_nice;
  const auto undisturbed = [service, nice](uint64_t calls) {
    AwaitCalm(service->target);
    return P99(service->target, calls, nice);
  };
  const auto control = [service, kind, nice](uint64_t calls) {
    const Sink sink;
    FloodTarget elsewhere = service->target;
    elsewhere.address = sink.address();
    const Flood flood(kind, elsewhere);
    return P99(service->target, calls, nice);
  };
  const auto beside = [service, kind, nice](uint64_t calls) {
    const Flood flood(kind, service->target);
    return P99(service->target, calls, nice);
  };
  return {std::string("calls beside ") + named.name + ", p99",
          {{"undisturbed", undisturbed, arguments.calls},
           {"the flood goes elsewhere", control, arguments.calls},
           {"beside the flood", beside, arguments.calls}},
          {{"beside the flood", "undisturbed", kBar, 0},
           {"beside the flood", "the flood goes elsewhere", kBar, 0}},
          "ms"};
}

int Run(const Arguments& arguments) {
  std::vector<Race> races;
  for (const testing::NamedFlood& named : testing::AllFloods()) {
    if (std::string(named.name).find(arguments.only) == std::string::npos) continue;
    races.push_back(RaceOf(named, arguments));
  }
  return RunRaces(races, arguments.rounds, arguments.json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) {
    Die("usage: flood_bench STATEHOUSED [--rounds N] [--json FILE] [--from ADDRESS] "
        "[--only WORD] [--calls N] [--nice N] [--client-nice N]");
  }
  setenv(kRaisePriority, "true", 1);  // As it is without a benchmark.
  Arguments arguments;
  arguments.statehoused = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) {
      arguments.rounds = std::max(1, std::atoi(argv[i + 1]));
    }
    if (std::strcmp(argv[i], "--calls") == 0) {
      arguments.calls = static_cast<uint64_t>(std::max(1, std::atoi(argv[i + 1])));
    }
    if (std::strcmp(argv[i], "--json") == 0) arguments.json = argv[i + 1];
    if (std::strcmp(argv[i], "--from") == 0) arguments.from = argv[i + 1];
    if (std::strcmp(argv[i], "--only") == 0) arguments.only = argv[i + 1];
    if (std::strcmp(argv[i], "--nice") == 0) arguments.nice = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--client-nice") == 0) arguments.client_nice = std::atoi(argv[i + 1]);
  }
  return Run(arguments) == 0 ? 0 : 1;
}
