// Pipelined increments, sets and gets through the network door against redis-benchmark: 50 clients
// with one batch of 16 or 64 operations under way each, keys drawn from 100,000. One thread drives
// all clients, as redis-benchmark's does: once with libnghttp2 on bare sockets (batch_load.h), and
// once with gRPC's C++ client. What one operation takes, by the clock; and how much processor time
// of it the service and the generator had. After the increments all counters are read: their sum is
// what the answers said. Beside them one client that runs batches of the C++ client one after
// another (batch_api_client, found beside this program), through each door, against redis-benchmark
// with one client.
//   batch_bench STATEHOUSED [--rounds N] [--json FILE] [--only TEXT] [--contender NAME]...
// TEXT: only races that have it in their title. NAME: only these contenders.
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/bench/batch_messages.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#ifdef SH_BENCH_NGHTTP2
#include "tests/bench/batch_load.h"
#endif

namespace statehouse::bench {
namespace {

constexpr int kClients = 50;
constexpr uint32_t kKeys = kBatchKeys;
constexpr uint32_t kFilledAtOnce = 2000;
constexpr uint64_t kLookNs = 1'000'000;
constexpr uint64_t kOperations = 2'000'000;
constexpr uint64_t kApiOperations = 300'000;
constexpr char kRedis[] = "/usr/bin/redis-server";
constexpr char kRedisBenchmark[] = "/usr/bin/redis-benchmark";

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "batch_bench: %s\n", what.c_str());
  std::exit(2);
}

struct Service {
  std::string address;
  std::string authorization;
  std::string token;
  std::string runtime_dir;
  pid_t pid = 0;
};

Service AwaitService(const std::string& dev_file) {
  for (int look = 0; look < 10'000; ++look) {
    std::ifstream file(dev_file);
    const nlohmann::json dev = nlohmann::json::parse(file, nullptr, false);
    if (!dev.is_discarded()) {
      const std::string url = dev.at("tcp_url");
      const std::string token = dev.at("token");
      return {url.substr(url.find("://") + 3), "Bearer " + token, token,
              dev_file.substr(0, dev_file.rfind('/')), 0};
    }
    SleepNs(kLookNs);
  }
  Die("statehoused did not start");
}

// With --dev the program watches over a child, which is the service.
pid_t ChildOf(pid_t pid) {
  const std::string process = std::to_string(pid);
  std::ifstream children("/proc/" + process + "/task/" + process + "/children");
  pid_t child = 0;
  if (!(children >> child)) Die("statehoused has no child");
  return child;
}

// One client of gRPC's: a stream with one batch under way.
class Client final {
 public:
  Client(std::shared_ptr<grpc::Channel> channel, const Service& service,
         grpc::CompletionQueue* queue)
      : stub_(std::move(channel)) {
    context_.AddMetadata("authorization", service.authorization);
    stream_ = stub_.PrepareCall(&context_, "/statehouse.v1.Batches/RunBatches", queue);
    stream_->StartCall(this);
  }
  void Prepare(BatchKind kind, int depth) { message_ = BatchMessage(kind, depth); }
  void Send(std::minstd_rand* random) {
    message_.DrawKeys(random);
    const grpc::Slice slice(message_.bytes().data(), message_.bytes().size());
    stream_->Write(grpc::ByteBuffer(&slice, 1), this);
    stream_->Read(&answer_, this);
    events_ = 2;
  }
  // True when the answer has come and the message is gone.
  bool OnEvent() { return --events_ <= 0; }
  // Operations that the answer says were done.
  uint64_t TakeAnswer() {
    grpc::Slice slice;
    if (!answer_.DumpToSingleSlice(&slice).ok()) Die("an answer cannot be read");
    const char* why = nullptr;
    const uint64_t done =
        message_.Check({reinterpret_cast<const char*>(slice.begin()), slice.size()}, &why);
    if (why != nullptr) Die(why);
    return done;
  }

 private:
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  BatchMessage message_;
  grpc::ByteBuffer answer_;
  int events_ = 1;
};

// Fifty clients of gRPC's, each with a connection of its own, or all with one.
class Clients final {
 public:
  Clients(const Service& service, bool share_connection) {
    std::shared_ptr<grpc::Channel> channel;
    for (int i = 0; i < kClients; ++i) {
      if (channel == nullptr || !share_connection) {
        grpc::ChannelArguments arguments;
        arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
        channel = grpc::CreateCustomChannel(service.address, grpc::InsecureChannelCredentials(),
                                            arguments);
      }
      clients_.push_back(std::make_unique<Client>(channel, service, &queue_));
    }
    for (int i = 0; i < kClients; ++i) (void)Next();
  }

  // Each sends one batch after another until so many operations are asked for and answered. Returns
  // how many the answers say were done.
  uint64_t Run(BatchKind kind, int depth, uint64_t operations) {
    for (const auto& client : clients_) client->Prepare(kind, depth);
    uint64_t sent = 0;
    uint64_t done = 0;
    const auto send = [&](Client* client) {
      if (sent >= operations) return;
      client->Send(&random_);
      sent += static_cast<uint64_t>(depth);
    };
    for (const auto& client : clients_) send(client.get());
    while (done < sent) {
      Client* const client = Next();
      if (!client->OnEvent()) continue;
      done += client->TakeAnswer();
      send(client);
    }
    return done;
  }

 private:
  Client* Next() {
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok) || !ok) Die("a stream broke");
    return static_cast<Client*>(tag);
  }

  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::minstd_rand random_{7};
};

// The service's two dicts, by calls.
class Dicts final {
 public:
  explicit Dicts(const Service& service)
      : authorization_(service.authorization),
        channel_(grpc::CreateChannel(service.address, grpc::InsecureChannelCredentials())),
        batches_(v1::Batches::NewStub(channel_)) {}

  void Fill() {
    const auto dicts = v1::Dicts::NewStub(channel_);
    for (const char* name : {"numbers", "texts"}) {
      v1::CreateDictRequest create;
      create.set_name(name);
      v1::CreateDictResponse created;
      grpc::ClientContext context;
      context.AddMetadata("authorization", authorization_);
      if (!dicts->CreateDict(&context, create, &created).ok()) Die("making a dict");
    }
    (void)Each("texts", [](v1::Operation* operation, const std::string& key) {
      operation->mutable_set()->set_key(key);
      operation->mutable_set()->mutable_value()->set_string_value(kBatchValue);
    });
  }
  // Of all counters; how many increments were ever done.
  uint64_t Sum() {
    return Each("numbers", [](v1::Operation* operation, const std::string& key) {
      operation->mutable_get()->set_key(key);
    });
  }

 private:
  // An operation for each key. Returns the sum of what whole numbers were got.
  template <typename Make>
  uint64_t Each(const char* dict, const Make& make) {
    uint64_t sum = 0;
    for (uint32_t first = 0; first < kKeys; first += kFilledAtOnce) {
      v1::RunBatchRequest request;
      request.mutable_batch()->add_names(dict);
      for (uint32_t i = first; i < first + kFilledAtOnce; ++i) {
        make(request.mutable_batch()->add_operations(), BatchKeyOf(i));
      }
      v1::RunBatchResponse response;
      grpc::ClientContext context;
      context.AddMetadata("authorization", authorization_);
      if (!batches_->RunBatch(&context, request, &response).ok()) Die("a batch of all keys");
      for (const v1::OperationResult& result : response.result().results()) {
        if (result.has_failure()) Die("an operation on all keys");
        sum += static_cast<uint64_t>(result.get().value().int_value());
      }
    }
    return sum;
  }

  const std::string authorization_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Batches::Stub> batches_;
};

uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd, any, bytes) != 0 || getsockname(fd, any, &bytes) != 0) Die("finding a free port");
  close(fd);
  return ntohs(address.sin_port);
}

// Until somebody listens there.
void AwaitListener(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  for (int look = 0; look < 10'000; ++look) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool listens = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (listens) return;
    SleepNs(kLookNs);
  }
  Die("redis-server did not start");
}

// What redis-benchmark says that one operation took, in ns.
Work RedisBenchmark(uint16_t port, const std::string& test, int depth, int clients = kClients) {
  return [port, test, depth, clients](uint64_t operations) {
    const std::string command = std::string(kRedisBenchmark) + " -h 127.0.0.1 -p " +
                                std::to_string(port) + " -c " + std::to_string(clients) + " -P " +
                                std::to_string(depth) + " -n " + std::to_string(operations) +
                                " -r " + std::to_string(kKeys) + " -t " + test + " --csv";
    FILE* const output = popen(command.c_str(), "r");
    if (output == nullptr) Die("redis-benchmark");
    char line[512];
    double per_second = 0;
    while (std::fgets(line, sizeof(line), output) != nullptr) {
      // "INCR","1234567.00",…
      const char* const rate = std::strstr(line, "\",\"");
      if (rate != nullptr) per_second = std::max(per_second, std::atof(rate + 3));
    }
    if (pclose(output) != 0 || per_second <= 0) Die("redis-benchmark has no figures");
    return 1e9 / per_second;
  };
}

// What batch_api_client says that one operation took, in ns.
Work ApiClient(const std::string& program, const Service& service, const std::string& door,
               const std::string& test, int depth) {
  return [=](uint64_t operations) {
    const std::string url = door == "network" ? "statehouse://" + service.address
                                              : "statehouse+unix://" + service.runtime_dir;
    const std::string command = program + " " + url + " " + service.token + " " + door + " " +
                                test + " " + std::to_string(depth) + " " +
                                std::to_string(operations) + " " + std::to_string(kKeys);
    FILE* const output = popen(command.c_str(), "r");
    if (output == nullptr) Die("batch_api_client");
    char line[64] = {};
    const bool has_line = std::fgets(line, sizeof(line), output) != nullptr;
    const double ns = std::atof(line);
    if (pclose(output) != 0 || !has_line || ns <= 0) Die("batch_api_client has no figure");
    return ns;
  };
}

// One client, one batch of the C++ client after another.
Race ApiRace(const std::string& program, const Service& service, const std::string& test,
             int depth) {
  return {
      std::string(test) + ", one client of the C++ library, " + std::to_string(depth) +
          " at a time",
      {{"statehouse, network", ApiClient(program, service, "network", test, depth), kApiOperations},
       {"statehouse, socket", ApiClient(program, service, "socket", test, depth), kApiOperations},
       {"statehouse, local", ApiClient(program, service, "local", test, depth), kApiOperations}},
      {{"statehouse, network", "redis-benchmark -c 1", 1 / 1.5, 0},
       {"statehouse, socket", "redis-benchmark -c 1", 1 / 1.5, 0},
       {"statehouse, local", "redis-benchmark -c 1", 1 / 1.5, 0}},
      "ns"};
}

// How much processor time an operation had, of its service's and of the generator's.
class ProcessorTimes final {
 public:
  // The same work; it is noted under its race's and its contender's name.
  Work Metered(const std::string& race, const std::string& contender, pid_t service, Work work) {
    return [this, name = race + ": " + contender, service, work = std::move(work)](uint64_t count) {
      const double service_before = OfProcess(service);
      const double generator_before = OfGenerator();
      const double took = work(count);
      const auto operations = static_cast<double>(count);
      noted_[name] = {(OfProcess(service) - service_before) / operations,
                      (OfGenerator() - generator_before) / operations};
      return took;
    };
  }
  void Print() const {
    std::printf("\nprocessor time of an operation in the last round, service and generator\n");
    for (const auto& [name, times] : noted_) {
      std::printf("  %-64s %7.0f ns %7.0f ns\n", name.c_str(), times.first, times.second);
    }
  }

 private:
  static double ToNs(const timespec& time) {
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
  }
  static double OfProcess(pid_t pid) {
    clockid_t clock = 0;
    timespec time{};
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
    return ToNs(time);
  }
  // Of this process and the children that it has waited for.
  static double OfGenerator() {
    timespec own{};
    rusage children{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    double ns = ToNs(own);
    for (const timeval& time : {children.ru_utime, children.ru_stime}) {
      ns += static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_usec) * 1e3;
    }
    return ns;
  }

  std::map<std::string, std::pair<double, double>> noted_;
};

// A generator's batches, by the clock. What they have done is what the service has counted.
template <typename Generator>
Work Timed(Generator* generator, BatchKind kind, int depth, Dicts* dicts) {
  return [=](uint64_t operations) {
    const bool counts = kind == BatchKind::kIncrement;
    const uint64_t sum_before = counts ? dicts->Sum() : 0;
    const uint64_t begin = NowNs();
    const uint64_t done = generator->Run(kind, depth, operations);
    const uint64_t took = NowNs() - begin;
    if (done < operations) Die("not all operations were done");
    if (counts && dicts->Sum() - sum_before != done) Die("the counters are not what was answered");
    return static_cast<double>(took) / static_cast<double>(done);
  };
}

// Fifty clients against redis-benchmark's.
class FiftyClients final {
 public:
  FiftyClients(const Service& service, uint16_t redis_port, const BenchProcess* redis)
      : daemon_(service.pid),
        redis_port_(redis_port),
        redis_(redis),
        dicts_(service),
#ifdef SH_BENCH_NGHTTP2
        lean_apart_({service.address, service.authorization, kClients, false}),
        lean_together_({service.address, service.authorization, kClients, true}),
        plain_apart_({service.address, service.authorization, kClients, false, false}),
        plain_together_({service.address, service.authorization, kClients, true, false}),
#endif
        apart_(service, /*share_connection=*/false),
        together_(service, /*share_connection=*/true) {
    dicts_.Fill();
  }

  Race Of(BatchKind kind, const char* test, int depth) {
    Race race;
    race.title = std::string(test) + ", 50 clients, " + std::to_string(depth) + " at a time";
    const auto add = [&](const char* name, auto* generator) {
      race.contenders.push_back(
          {name, times_.Metered(race.title, name, daemon_, Timed(generator, kind, depth, &dicts_)),
           kOperations});
      race.bars.push_back({name, "redis-benchmark", 1 / 1.5, 0});
    };
#ifdef SH_BENCH_NGHTTP2
    add("statehouse, 50 connections", &lean_apart_);
    add("statehouse, one connection", &lean_together_);
    add("statehouse, 50 connections by gRPC", &plain_apart_);
    add("statehouse, one connection by gRPC", &plain_together_);
#endif
    add("statehouse, 50 connections, gRPC client", &apart_);
    add("statehouse, one connection, gRPC client", &together_);
    if (redis_ == nullptr) return race;
    race.contenders.push_back({"redis-benchmark",
                               times_.Metered(race.title, "redis-benchmark", redis_->pid(),
                                              RedisBenchmark(redis_port_, test, depth)),
                               kOperations});
    return race;
  }
  void PrintTimes() const { times_.Print(); }

 private:
  const pid_t daemon_;
  const uint16_t redis_port_;
  const BenchProcess* const redis_;  // Null: it is not installed.
  Dicts dicts_;
#ifdef SH_BENCH_NGHTTP2
  BatchLoad lean_apart_;
  BatchLoad lean_together_;
  BatchLoad plain_apart_;  // They have not said that they carry only batches.
  BatchLoad plain_together_;
#endif
  Clients apart_;
  Clients together_;
  ProcessorTimes times_;
};

struct Arguments {
  std::string program;  // batch_api_client.
  std::string statehoused;
  int rounds = 5;
  std::string json;
  std::string only;
  std::vector<std::string> contenders;  // None: all.
};

// Leaves what was asked for.
void Select(const Arguments& arguments, std::vector<Race>* races) {
  const auto is_left_out = [&](const std::string& contender) {
    return !arguments.contenders.empty() &&
           std::ranges::count(arguments.contenders, contender) == 0;
  };
  std::erase_if(*races, [&](Race& race) {
    std::erase_if(race.contenders,
                  [&](const Contender& contender) { return is_left_out(contender.name); });
    std::erase_if(race.bars, [&](const Bar& bar) { return is_left_out(bar.contender); });
    return race.contenders.empty() || race.title.find(arguments.only) == std::string::npos;
  });
}

int Run(const Arguments& arguments) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon(
      {arguments.statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  Service service = AwaitService(runtime + "/dev.json");
  service.pid = ChildOf(daemon.pid());
  std::unique_ptr<BenchProcess> redis;
  const uint16_t port = FreePort();
  if (access(kRedis, X_OK) == 0 && access(kRedisBenchmark, X_OK) == 0) {
    redis = std::make_unique<BenchProcess>(std::vector<std::string>{
        kRedis, "--port", std::to_string(port), "--save", "", "--appendonly", "no", "--dir",
        folder.path(), "--loglevel", "warning"});
    AwaitListener(port);
    // The keys that gets find.
    (void)RedisBenchmark(port, "set", 64)(1'000'000);
  } else {
    std::printf("Redis: skipped: not installed (redis-server)\n");
  }
#ifndef SH_BENCH_NGHTTP2
  std::printf("the lean generator: skipped: not built (libnghttp2-dev)\n");
#endif
  FiftyClients fifty(service, port, redis.get());
  std::vector<Race> races;
  for (const int depth : {64, 16}) {
    for (const auto& [kind, test] : kBatchKinds) {
      races.push_back(fifty.Of(kind, test, depth));
      Race api = ApiRace(arguments.program, service, test, depth);
      if (redis != nullptr) {
        api.contenders.push_back(
            {"redis-benchmark -c 1", RedisBenchmark(port, test, depth, 1), kApiOperations});
      }
      races.push_back(std::move(api));
    }
  }
  Select(arguments, &races);
  const int missed = RunRaces(races, arguments.rounds, arguments.json);
  fifty.PrintTimes();
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) {
    Die("usage: batch_bench STATEHOUSED [--rounds N] [--json FILE] [--only TEXT] "
        "[--contender NAME]...");
  }
  Arguments arguments;
  const std::string self = argv[0];
  arguments.program = self.substr(0, self.rfind('/') + 1) + "batch_api_client";
  arguments.statehoused = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--rounds") arguments.rounds = std::max(1, std::atoi(argv[i + 1]));
    if (name == "--json") arguments.json = argv[i + 1];
    if (name == "--only") arguments.only = argv[i + 1];
    if (name == "--contender") arguments.contenders.emplace_back(argv[i + 1]);
  }
  return Run(arguments) == 0 ? 0 : 1;
}
