// Pipelined increments, sets and gets through the network door against redis-benchmark: 50 clients
// with one batch of 16 or 64 operations under way each, keys drawn from 100,000. One thread drives
// all clients, as redis-benchmark's does. What one operation takes, by the clock. Beside them one
// client that runs batches of the C++ client one after another (batch_api_client, found beside this
// program), through each door, against redis-benchmark with one client.
//   batch_bench STATEHOUSED [--rounds N] [--json FILE] [--only TEXT]
// TEXT: only races that have it in their title.
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

constexpr int kClients = 50;
constexpr uint32_t kKeys = 100'000;
constexpr size_t kKeyDigits = 12;
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
};

Service AwaitService(const std::string& dev_file) {
  for (int look = 0; look < 10'000; ++look) {
    std::ifstream file(dev_file);
    const nlohmann::json dev = nlohmann::json::parse(file, nullptr, false);
    if (!dev.is_discarded()) {
      const std::string url = dev.at("tcp_url");
      const std::string token = dev.at("token");
      return {url.substr(url.find("://") + 3), "Bearer " + token, token,
              dev_file.substr(0, dev_file.rfind('/'))};
    }
    SleepNs(kLookNs);
  }
  Die("statehoused did not start");
}

enum class Kind { kIncrement, kSet, kGet };
constexpr std::pair<Kind, const char*> kKinds[] = {
    {Kind::kIncrement, "incr"}, {Kind::kSet, "set"}, {Kind::kGet, "get"}};

std::string KeyOf(uint32_t number) {
  std::string digits = std::to_string(number);
  return "key:" + std::string(kKeyDigits - digits.size(), '0') + digits;
}

v1::RunBatchesRequest BatchOf(Kind kind, int depth) {
  v1::RunBatchesRequest request;
  request.mutable_batch()->add_names(kind == Kind::kIncrement ? "numbers" : "texts");
  for (int i = 0; i < depth; ++i) {
    v1::Operation* const operation = request.mutable_batch()->add_operations();
    switch (kind) {
      case Kind::kIncrement: operation->mutable_increment()->set_key(KeyOf(0)); break;
      case Kind::kGet: operation->mutable_get()->set_key(KeyOf(0)); break;
      case Kind::kSet:
        operation->mutable_set()->set_key(KeyOf(0));
        operation->mutable_set()->mutable_value()->set_string_value("xxx");
        break;
    }
  }
  return request;
}

// One client: a stream with one batch under way. Its messages are made once; only the keys' digits
// change, as in redis-benchmark.
class Client final {
 public:
  Client(std::shared_ptr<grpc::Channel> channel, const Service& service,
         grpc::CompletionQueue* queue)
      : stub_(std::move(channel)) {
    context_.AddMetadata("authorization", service.authorization);
    stream_ = stub_.PrepareCall(&context_, "/statehouse.v1.Batches/RunBatches", queue);
    stream_->StartCall(this);
  }
  void Prepare(Kind kind, int depth) {
    message_ = BatchOf(kind, depth).SerializeAsString();
    digits_.clear();
    for (size_t at = message_.find("key:"); at != std::string::npos;
         at = message_.find("key:", at + 1)) {
      digits_.push_back(at + 4);
    }
    if (digits_.size() != static_cast<size_t>(depth)) Die("a message without its keys");
  }
  void Send(std::minstd_rand* random) {
    for (const size_t at : digits_) {
      uint32_t number = (*random)() % kKeys;
      for (size_t digit = kKeyDigits; number > 0; number /= 10) {
        message_[at + --digit] = static_cast<char>('0' + number % 10);
      }
    }
    const grpc::Slice slice(message_);
    stream_->Write(grpc::ByteBuffer(&slice, 1), this);
    stream_->Read(&answer_, this);
    events_ = 2;
  }
  // True when the answer has come and the message is gone.
  bool OnEvent() { return --events_ <= 0; }
  // Operations that the last message asked for. Every answer is looked through.
  uint64_t TakeAnswer() {
    grpc::Slice slice;
    if (!answer_.DumpToSingleSlice(&slice).ok()) Die("an answer cannot be read");
    const auto* at = slice.begin();
    const auto* const end = slice.end();
    const auto number = [&at, end] {
      size_t value = 0;
      for (int shift = 0; at != end; shift += 7) {
        const auto byte = *at++;
        value |= static_cast<size_t>(byte & 0x7f) << shift;
        if (byte < 0x80) break;
      }
      return value;
    };
    if (at == end || *at++ != 0x0a) Die("a batch was refused");
    if (number() != static_cast<size_t>(end - at)) Die("an answer is cut short");
    uint64_t results = 0;
    while (at < end) {
      if (*at++ != 0x0a) Die("an answer has something else than results");
      const size_t length = number();
      // Fields 1 to 3: the short operations; a failure is field 15.
      if (length == 0 || *at > 0x1a) Die("an operation was refused");
      at += length;
      ++results;
    }
    if (results != digits_.size()) Die("an answer lacks results");
    return results;
  }

 private:
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  std::string message_;
  std::vector<size_t> digits_;
  grpc::ByteBuffer answer_;
  int events_ = 1;
};

// Fifty clients, each with a connection of its own, or all with one.
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

  Work Run(Kind kind, int depth) {
    return [this, kind, depth](uint64_t operations) {
      for (const auto& client : clients_) client->Prepare(kind, depth);
      const uint64_t begin = NowNs();
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
      return static_cast<double>(NowNs() - begin) / static_cast<double>(done);
    };
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

void Fill(const Service& service) {
  const auto channel = grpc::CreateChannel(service.address, grpc::InsecureChannelCredentials());
  const auto dicts = v1::Dicts::NewStub(channel);
  const auto batches = v1::Batches::NewStub(channel);
  for (const char* name : {"numbers", "texts"}) {
    v1::CreateDictRequest create;
    create.set_name(name);
    v1::CreateDictResponse created;
    grpc::ClientContext context;
    context.AddMetadata("authorization", service.authorization);
    if (!dicts->CreateDict(&context, create, &created).ok()) Die("making a dict");
  }
  for (uint32_t first = 0; first < kKeys; first += 2000) {
    v1::RunBatchRequest request;
    request.mutable_batch()->add_names("texts");
    for (uint32_t i = first; i < first + 2000; ++i) {
      auto* const set = request.mutable_batch()->add_operations()->mutable_set();
      set->set_key(KeyOf(i));
      set->mutable_value()->set_string_value("xxx");
    }
    v1::RunBatchResponse response;
    grpc::ClientContext context;
    context.AddMetadata("authorization", service.authorization);
    if (!batches->RunBatch(&context, request, &response).ok()) Die("filling a dict");
  }
}

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

int Run(const std::string& program, const std::string& statehoused, int rounds,
        const std::string& json, const std::string& only) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = AwaitService(runtime + "/dev.json");
  Fill(service);
  Clients apart(service, /*share_connection=*/false);
  Clients together(service, /*share_connection=*/true);
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
  std::vector<Race> races;
  for (const int depth : {64, 16}) {
    for (const auto& [kind, test] : kKinds) {
      Race race{std::string(test) + ", 50 clients, " + std::to_string(depth) + " at a time",
                {{"statehouse, 50 connections", apart.Run(kind, depth), kOperations},
                 {"statehouse, one connection", together.Run(kind, depth), kOperations}},
                {{"statehouse, 50 connections", "redis-benchmark", 1 / 1.5, 0},
                 {"statehouse, one connection", "redis-benchmark", 1 / 1.5, 0}},
                "ns"};
      if (redis != nullptr) {
        race.contenders.push_back(
            {"redis-benchmark", RedisBenchmark(port, test, depth), kOperations});
      }
      races.push_back(std::move(race));
      Race api = ApiRace(program, service, test, depth);
      if (redis != nullptr) {
        api.contenders.push_back(
            {"redis-benchmark -c 1", RedisBenchmark(port, test, depth, 1), kApiOperations});
      }
      races.push_back(std::move(api));
    }
  }
  std::erase_if(races,
                [&](const Race& race) { return race.title.find(only) == std::string::npos; });
  return RunRaces(races, rounds, json);
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) Die("usage: batch_bench STATEHOUSED [--rounds N] [--json FILE] [--only TEXT]");
  int rounds = 5;
  std::string json;
  std::string only;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
    if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
  }
  const std::string self = argv[0];
  const std::string beside = self.substr(0, self.rfind('/') + 1);
  return Run(beside + "batch_api_client", argv[1], rounds, json, only) == 0 ? 0 : 1;
}
