// Watches of the whole service: from a set to its event, against etcd's; on one host, against the
// futexes that it is made of; what a watcher costs who writes; what an idle watch costs in memory.
//   watch_bench STATEHOUSED [--rounds N] [--json FILE]
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <statehouse/dict.h>
#include <statehouse/statehouse.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "etcd_watch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/on_core.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"

namespace statehouse::bench {
namespace {

constexpr int kIdleWatches = 1000;
constexpr int kChannels = 10;
constexpr double kIdleKibMax = 32;
// A set waits that long for the event before it, so that the daemon sleeps when it comes.
constexpr uint64_t kPauseNs = 300'000;
constexpr uint64_t kSets = 1'000;  // Of a contender in a round.
// A service that polls for longer than that does not sleep.
constexpr const char* kPollingConfig = "[watches]\npoll_us = 10000\n";
constexpr double kAboveFutexMaxUs = 5;

sh_bytes Bytes(const std::string& text) { return {text.data(), text.size()}; }

// A number that an event brings to whoever waits for it, with the moment in which it came.
class Arrival final {
 public:
  void Came(uint64_t number) {
    came_ns_.store(NowNs(), std::memory_order_relaxed);
    number_.store(number, std::memory_order_release);
  }
  uint64_t AwaitNs(uint64_t number) const {
    while (number_.load(std::memory_order_acquire) < number) CpuRelaxed();
    return came_ns_.load(std::memory_order_relaxed);
  }

 private:
  // The other side needs the core as well.
  static void CpuRelaxed() { SleepNs(0); }
  std::atomic<uint64_t> number_{0};
  std::atomic<uint64_t> came_ns_{0};
};

// Medians of the microseconds from before a set to its event in another thread.
template <typename Set>
Work Latency(Arrival* arrival, uint64_t* number, Set set) {
  return [=](uint64_t iterations) {
    std::vector<double> times;
    for (uint64_t i = 0; i < iterations; ++i) {
      SleepNs(kPauseNs);
      const uint64_t begin = NowNs();
      set(++*number);
      times.push_back(static_cast<double>(arrival->AwaitNs(*number) - begin) / 1e3);
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  };
}

// A stream of one key, read by a thread of its own.
class OwnWatch final {
 public:
  OwnWatch(const Service& service, std::shared_ptr<grpc::Channel> channel, const std::string& key,
           Arrival* arrival)
      : stub_(v1::Dicts::NewStub(std::move(channel))) {
    context_.AddMetadata("authorization", "Bearer " + service.token);
    v1::WatchDictRequest request;
    request.set_name("bench");
    request.set_key(key);
    reader_ = stub_->WatchDict(&context_, request);
    v1::WatchDictResponse message;
    do {
      if (!reader_->Read(&message)) Die("the watch ended: " + reader_->Finish().error_message());
    } while (!message.has_synced());
    if (arrival == nullptr) return;
    thread_ = std::thread([this, arrival] {
      v1::WatchDictResponse next;
      while (reader_->Read(&next)) {
        for (const v1::DictChange& change : next.changes().changes()) {
          arrival->Came(static_cast<uint64_t>(change.value().int_value()));
        }
      }
    });
  }
  ~OwnWatch() {
    context_.TryCancel();
    if (thread_.joinable()) thread_.join();
    v1::WatchDictResponse rest;
    while (reader_->Read(&rest)) continue;
    (void)reader_->Finish();
  }

 private:
  const std::unique_ptr<v1::Dicts::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchDictResponse>> reader_;
  std::thread thread_;
};

sh_dict* OpenDict(sh_client* client, const char* name) {
  sh_dict_spec spec{};
  sh_dict* dict = nullptr;
  Require(sh_dict_open(client, name, &spec, &dict, nullptr), "opening a dict");
  return dict;
}

// A watch of one key by the C library, read by a thread of its own.
class LibraryWatch final {
 public:
  enum class How { kBlocks, kPolls };

  LibraryWatch(sh_dict* dict, const std::string& key, const sh_watch_options& options, How how,
               Arrival* arrival)
      : arrival_(arrival) {
    sh_watch_options chosen = options;
    chosen.key = Bytes(key);
    Require(sh_dict_watch(dict, &chosen, &watch_, nullptr), "watching");
    sh_watch_event event{};
    while (event.kind != SH_WATCH_SYNCED) {
      Require(sh_watch_next(watch_, 60'000, &event, nullptr), "awaiting synced");
    }
    thread_ = std::thread([this, how] { how == How::kPolls ? Poll() : Block(); });
  }
  ~LibraryWatch() {
    sh_watch_cancel(watch_);
    thread_.join();
    sh_watch_close(watch_);
  }

 private:
  void Tell(const sh_watch_event& event) {
    v1::Value value;
    if (event.kind != SH_WATCH_PUT) return;
    if (!value.ParseFromArray(event.value.data, static_cast<int>(event.value.size))) Die("a value");
    arrival_->Came(static_cast<uint64_t>(value.int_value()));
  }
  void Block() {
    sh_watch_event event{};
    while (sh_watch_next(watch_, 1'000, &event, nullptr) == SH_OK) Tell(event);
  }
  void Poll() {
    pollfd waits{sh_watch_fd(watch_), POLLIN, 0};
    for (;;) {
      ::poll(&waits, 1, 1'000);
      sh_watch_event event{};
      do {
        if (sh_watch_next(watch_, 0, &event, nullptr) != SH_OK) return;
        Tell(event);
      } while (event.kind != SH_WATCH_NONE);
    }
  }

  Arrival* const arrival_;
  sh_watch* watch_ = nullptr;
  std::thread thread_;
};

// Threads in a row, each of which wakes the next one by its futex; the last one tells of it.
class FutexChain final {
 public:
  FutexChain(size_t hops, Arrival* arrival) : words_(hops) {
    for (size_t i = 0; i < hops; ++i) {
      threads_.emplace_back([this, i, arrival] {
        for (uint32_t seen = 0;;) {
          while (words_[i].load(std::memory_order_acquire) == seen) {
            FutexWait(words_[i], seen, 1'000'000'000);
          }
          seen = words_[i].load(std::memory_order_acquire);
          if (i + 1 < words_.size()) {
            Wake(i + 1, seen);
          } else if (seen != kEnd) {
            arrival->Came(seen);
          }
          if (seen == kEnd) return;
        }
      });
    }
  }
  ~FutexChain() {
    Send(kEnd);
    for (std::thread& thread : threads_) thread.join();
  }
  void Send(uint32_t number) { Wake(0, number); }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  void Wake(size_t at, uint32_t number) {
    words_[at].store(number, std::memory_order_release);
    FutexWakeAll(words_[at]);
  }

  std::vector<std::atomic<uint32_t>> words_;
  std::vector<std::thread> threads_;
};

class EtcdWatch final {
 public:
  EtcdWatch(const std::string& folder, Arrival* arrival)
      : process_(folder), channel_(process_.Channel()), kv_(etcdserverpb::KV::NewStub(channel_)) {
    Put(0);
    stub_ = etcdserverpb::Watch::NewStub(channel_);
    stream_ = stub_->Watch(&context_);
    etcdserverpb::WatchRequest request;
    request.mutable_create_request()->set_key("key");
    etcdserverpb::WatchResponse response;
    if (!stream_->Write(request) || !stream_->Read(&response)) Die("etcd: watching");
    thread_ = std::thread([this, arrival] {
      etcdserverpb::WatchResponse next;
      while (stream_->Read(&next)) {
        for (const etcdserverpb::Event& event : next.events()) {
          arrival->Came(std::strtoull(event.kv().value().c_str(), nullptr, 10));
        }
      }
    });
  }
  ~EtcdWatch() {
    context_.TryCancel();
    thread_.join();
  }
  void Put(uint64_t number) {
    etcdserverpb::PutRequest request;
    request.set_key("key");
    request.set_value(std::to_string(number));
    etcdserverpb::PutResponse response;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    const grpc::Status put = kv_->Put(&context, request, &response);
    if (!put.ok()) Die("etcd: " + put.error_message());
  }

 private:
  EtcdProcess process_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  std::unique_ptr<etcdserverpb::Watch::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>>
      stream_;
  std::thread thread_;
};

void Increment(sh_dict* dict, const std::string& key, int64_t delta) {
  sh_number sum{};
  Require(sh_dict_increment(dict, Bytes(key), sh_int(delta), nullptr, &sum, nullptr, nullptr),
          "incrementing");
}

// Nanoseconds of an increment of a hot key through the local door.
Work Increments(sh_dict* dict, std::string key) {
  return TimedLoop([dict, key](uint64_t iterations) {
    for (uint64_t i = 0; i < iterations; ++i) Increment(dict, key, 1);
  });
}

double ResidentKib(uint32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  double all = 0;
  double resident = 0;
  if (!(file >> all >> resident)) Die("reading the daemon's memory");
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1024;
}

// Memory of idle watches.
int ReportIdle(const Service& service, sh_client* client, sh_dict* dict) {
  sh_status status{};
  Require(sh_get_status(client, &status, nullptr), "asking for the status");
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < kChannels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channels.push_back(grpc::CreateCustomChannel(service.tcp_address,
                                                 grpc::InsecureChannelCredentials(), arguments));
  }
  Increment(dict, "many", 1);
  std::vector<std::unique_ptr<OwnWatch>> watches;
  // The first ones pay for what all share.
  for (int i = 0; i < kChannels; ++i) {
    watches.push_back(std::make_unique<OwnWatch>(service, channels[i], "many", nullptr));
  }
  const double before = ResidentKib(status.daemon_pid);
  for (int i = 0; i < kIdleWatches; ++i) {
    watches.push_back(
        std::make_unique<OwnWatch>(service, channels[i % kChannels], "many", nullptr));
  }
  const double kib = (ResidentKib(status.daemon_pid) - before) / kIdleWatches;
  const bool met = kib <= kIdleKibMax;
  std::printf(
      "\nan idle watch, %d of them over %d connections\n  %s %.1f KiB of the daemon's memory, "
      "bar %.0f KiB\n",
      kIdleWatches, kChannels, met ? "met   " : "MISSED", kib, kIdleKibMax);
  std::fflush(stdout);
  return met ? 0 : 1;
}

// From a set through the local door to its event through the local door.
int RaceOnOneHost(const Service& service, int rounds) {
  sh_client* const setter = service.Connect(SH_TRANSPORT_LOCAL);
  sh_client* const watcher = service.Connect(SH_TRANSPORT_LOCAL);
  sh_dict* const set = OpenDict(setter, "near");
  sh_dict* const watched = OpenDict(watcher, "near");
  Arrival arrivals[4];
  uint64_t numbers[4] = {};
  const auto sets = [set](std::string key) {
    return [set, key](uint64_t) { Increment(set, key, 1); };
  };
  sh_watch_options latest{};
  latest.slow = SH_SLOW_LATEST;  // Stays with its stream.
  Race race{"on one host, from a set to its event in another client, p50", {}, {}, "us"};
  const auto add = [&](const char* name, size_t i, auto send) {
    race.contenders.push_back({name, Latency(&arrivals[i], &numbers[i], std::move(send)), 1'000});
  };
  // One after the other: each has the dict for itself.
  int missed = 0;
  const auto run = [&] {
    missed += RunRaces({race}, rounds, "");
    race.contenders.clear();
  };
  {
    FutexChain one(1, &arrivals[0]);
    FutexChain two(2, &arrivals[1]);
    add("one futex wake-up", 0, [&one](uint64_t number) { one.Send(uint32_t(number)); });
    add("two futex wake-ups, one after the other", 1,
        [&two](uint64_t number) { two.Send(uint32_t(number)); });
    run();
  }
  {
    LibraryWatch polls(watched, "polls", {}, LibraryWatch::How::kPolls, &arrivals[2]);
    add("the watcher follows and polls its descriptor", 2, sets("polls"));
    run();
  }
  {
    LibraryWatch streams(watched, "streams", latest, LibraryWatch::How::kBlocks, &arrivals[3]);
    add("the watcher has a stream", 3, sets("streams"));
    run();
  }
  for (sh_dict* const dict : {set, watched}) sh_dict_close(dict);
  sh_close(watcher);
  sh_close(setter);
  return missed;
}

// Where the three sleep that a set wakes one after the other.
struct Placement {
  const char* where;
  int writer;
  int daemon;
  int watcher;
};
constexpr int kAny = OnCore::kAny;
constexpr Placement kPlacements[] = {
    {"all on one processor", 0, 0, 0},
    {"the writer on one, service and watcher on another", 0, 1, 1},
    {"writer and service on one, the watcher on another", 0, 0, 1},
    {"writer and watcher on one, the service on another", 0, 1, 0},
    {"where the scheduler likes", kAny, kAny, kAny},
};
constexpr Placement kPollingPlacements[] = {
    {"the service polls on one processor, writer and watcher on another", 0, 1, 0},
    {"the service polls, where the scheduler likes", kAny, kAny, kAny},
};

// Each set beside a futex wake-up of a thread where the watcher is, in turns, so that both meet the
// same machine. With `config` the service has that.
int RaceBesideFutex(const std::string& statehoused, const Placement& place, const char* config,
                    int rounds) {
  if (!OnCore(place.daemon).is_there() || !OnCore(place.watcher).is_there()) {
    std::printf("%s: skipped: there is one processor\n", place.where);
    return 0;
  }
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  std::ofstream(folder.path() + "/config.toml") << config;
  std::unique_ptr<BenchProcess> daemon;
  {
    const OnCore there(place.daemon);
    daemon = std::make_unique<BenchProcess>(
        std::vector<std::string>{statehoused, "--dev", "--runtime-dir", runtime, "--log-level",
                                 "error", "--config", folder.path() + "/config.toml"});
  }
  const Service service = ReadDevFile(runtime + "/dev.json");
  const OnCore here(place.writer);
  sh_client* const setter = service.Connect(SH_TRANSPORT_LOCAL);
  sh_client* const watcher = service.Connect(SH_TRANSPORT_LOCAL);
  sh_dict* const set = OpenDict(setter, "near");
  sh_dict* const watched = OpenDict(watcher, "near");
  Arrival wakes;
  Arrival events;
  uint64_t sent = 0;
  uint64_t changes = 0;
  std::optional<FutexChain> chain;
  std::optional<LibraryWatch> blocks;
  {
    const OnCore there(place.watcher);
    chain.emplace(1, &wakes);
    blocks.emplace(watched, "key", sh_watch_options{}, LibraryWatch::How::kBlocks, &events);
  }
  Race race{std::string("from a set to its event, p50: ") + place.where, {}, {}, "us"};
  race.contenders = {
      {"one futex wake-up",
       Latency(&wakes, &sent, [&chain](uint64_t number) { chain->Send(uint32_t(number)); }), kSets},
      {"the watcher follows and waits in sh_watch_next",
       Latency(&events, &changes, [set](uint64_t) { Increment(set, "key", 1); }), kSets}};
  race.bars = {{race.contenders[1].name, race.contenders[0].name, 0, kAboveFutexMaxUs}};
  const int missed = RunRaces({race}, rounds, "");
  blocks.reset();
  chain.reset();
  for (sh_dict* const dict : {set, watched}) sh_dict_close(dict);
  sh_close(watcher);
  sh_close(setter);
  return missed;
}

int Run(const std::string& statehoused, int rounds, const std::string& json) {
  int missed = 0;
  for (const Placement& place : kPlacements) {
    missed += RaceBesideFutex(statehoused, place, "", rounds);
  }
  for (const Placement& place : kPollingPlacements) {
    missed += RaceBesideFutex(statehoused, place, kPollingConfig, rounds);
  }
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = ReadDevFile(runtime + "/dev.json");
  sh_client* const local = service.Connect(SH_TRANSPORT_LOCAL);
  sh_client* const network = service.Connect(SH_TRANSPORT_NETWORK);
  sh_dict* const mapped = OpenDict(local, "bench");
  sh_dict* const called = OpenDict(network, "bench");
  sh_dict* const unwatched = OpenDict(local, "unwatched");

  missed += RaceOnOneHost(service, rounds);
  Arrival local_arrival;
  Arrival network_arrival;
  uint64_t local_number = 0;
  uint64_t network_number = 0;
  auto watch_local = std::make_unique<OwnWatch>(
      service, grpc::CreateChannel(service.tcp_address, grpc::InsecureChannelCredentials()),
      "local", &local_arrival);
  auto watch_network = std::make_unique<OwnWatch>(
      service, grpc::CreateChannel(service.tcp_address, grpc::InsecureChannelCredentials()),
      "network", &network_arrival);
  Race latency{"from a set to its event in another connection, p50",
               {{"set by call, event over gRPC",
                 Latency(&network_arrival, &network_number,
                         [called](uint64_t) { Increment(called, "network", 1); }),
                 1'000},
                {"set in mapped memory, event over gRPC",
                 Latency(&local_arrival, &local_number,
                         [mapped](uint64_t) { Increment(mapped, "local", 1); }),
                 1'000}},
               {{"set by call, event over gRPC", "etcd", 0.5, 0}},
               "us"};
  const DiskFolder disk;
  Arrival etcd_arrival;
  uint64_t etcd_number = 0;
  std::unique_ptr<EtcdWatch> etcd;
  if (EtcdProcess::IsInstalled()) {
    etcd = std::make_unique<EtcdWatch>(disk.path(), &etcd_arrival);
    latency.contenders.push_back(
        {"etcd",
         Latency(&etcd_arrival, &etcd_number, [&etcd](uint64_t number) { etcd->Put(number); }),
         300});
  } else {
    std::printf("etcd: skipped: not installed (etcd-server)\n");
  }
  missed += RunRaces({latency}, rounds, json);
  etcd.reset();
  missed +=
      RunRaces({{"increment of a hot key through the local door",
                 {{"nobody watches", Increments(unwatched, "hot"), 1'000'000},
                  {"another key of the dict is watched", Increments(mapped, "hot"), 1'000'000}},
                 {}}},
               rounds, "");
  watch_local.reset();
  watch_network.reset();
  missed += ReportIdle(service, local, mapped);
  for (sh_dict* const dict : {mapped, called, unwatched}) sh_dict_close(dict);
  sh_close(network);
  sh_close(local);
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc < 2) Die("usage: watch_bench STATEHOUSED [--rounds N] [--json FILE]");
  int rounds = 7;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], rounds, json) == 0 ? 0 : 1;
}
