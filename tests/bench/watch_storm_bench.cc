// A storm of changes: four workers of the host set a million entries a second between them. What
// that costs each of them, in processor time, while nobody watches and while somebody does; and one
// change told to one of 10,000 watches, each of a key of its own.
//   watch_storm_bench STATEHOUSED [--rounds N] [--json FILE]
#include <grpcpp/grpcpp.h>
#include <statehouse/dict.h>
#include <statehouse/statehouse.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kWriters = 4;
constexpr uint64_t kSetsPerSecond = 1'000'000;  // Of all of them.
constexpr uint64_t kBurstNs = 1'000'000;
constexpr uint64_t kBurst = kSetsPerSecond / kWriters * kBurstNs / 1'000'000'000;
constexpr uint64_t kKeysEach = 1'000;
constexpr double kSlowerMax = 1.10;
constexpr int kManyKeys = 10'000;
constexpr int kConnections = 10;

sh_bytes Bytes(const std::string& text) { return {text.data(), text.size()}; }

sh_dict* OpenDict(sh_client* client, const char* name) {
  sh_dict_spec spec{};
  sh_dict* dict = nullptr;
  Require(sh_dict_open(client, name, &spec, &dict, nullptr), "opening a dict");
  return dict;
}

int64_t Add(sh_dict* dict, const std::string& key, int64_t delta) {
  sh_number sum{};
  Require(sh_dict_increment(dict, Bytes(key), sh_int(delta), nullptr, &sum, nullptr, nullptr),
          "incrementing");
  return sum.integer;
}

uint64_t ThreadCpuNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// A worker, in a process of its own: waits until all are there, sets `sets` entries at its share of
// the rate, and adds the processor time of these to `cpu_ns` of the dict "control".
int RunWriter(char** argv) {
  const std::string name = argv[2];
  const std::string writer = argv[3];
  const uint64_t sets = std::strtoull(argv[4], nullptr, 10);
  const auto everybody = static_cast<int64_t>(std::strtoull(argv[5], nullptr, 10));
  const Service service{argv[6], argv[7], ""};
  sh_client* const client = service.Connect(SH_TRANSPORT_LOCAL);
  sh_dict* const dict = OpenDict(client, name.c_str());
  sh_dict* const control = OpenDict(client, "control");
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < kKeysEach; ++i) keys.push_back(writer + "/" + std::to_string(i));
  const std::string value(16, 'v');
  const auto burst = [&](uint64_t first) {
    for (uint64_t i = first; i < first + kBurst; ++i) {
      Require(sh_dict_set_string(dict, Bytes(keys[i % kKeysEach]), Bytes(value), nullptr, nullptr),
              "setting");
    }
  };
  for (uint64_t i = 0; i < kKeysEach; i += kBurst) burst(i);
  Add(control, "ready", 1);
  while (Add(control, "ready", 0) < everybody) SleepNs(100'000);
  uint64_t cpu_ns = 0;
  const uint64_t begin = NowNs();
  for (uint64_t done = 0; done < sets; done += kBurst) {
    const uint64_t due = begin + done / kBurst * kBurstNs;
    const uint64_t now = NowNs();
    if (now < due) SleepNs(due - now);
    const uint64_t before = ThreadCpuNs();
    burst(done);
    cpu_ns += ThreadCpuNs() - before;
  }
  Add(control, "wall_ns", static_cast<int64_t>(NowNs() - begin));
  Add(control, "cpu_ns", static_cast<int64_t>(cpu_ns));
  Add(control, "done", 1);
  sh_dict_close(control);
  sh_dict_close(dict);
  sh_close(client);
  return 0;
}

// Processor nanoseconds of a set.
class Storm final {
 public:
  Storm(std::string self, const Service& service, sh_dict* control)
      : self_(std::move(self)), service_(service), control_(control) {}

  Work In(const std::string& dict) {
    return [this, dict](uint64_t sets) {
      const int64_t cpu = Add(control_, "cpu_ns", 0);
      const int64_t wall = Add(control_, "wall_ns", 0);
      writers_ += kWriters;
      std::vector<std::unique_ptr<BenchProcess>> processes;
      for (uint64_t writer = 0; writer < kWriters; ++writer) {
        processes.push_back(std::make_unique<BenchProcess>(std::vector<std::string>{
            self_, "--writer", dict, "w" + std::to_string(writer), std::to_string(sets),
            std::to_string(writers_), service_.url, service_.token}));
      }
      while (Add(control_, "done", 0) < static_cast<int64_t>(writers_)) {
        for (const auto& process : processes) {
          if (!process->alive() && Add(control_, "done", 0) + 3 < static_cast<int64_t>(writers_)) {
            Die("a writer ended early");
          }
        }
        SleepNs(10'000'000);
      }
      const auto all = static_cast<double>(sets * kWriters);
      rate_ = all / (static_cast<double>(Add(control_, "wall_ns", 0) - wall) / kWriters / 1e9);
      return static_cast<double>(Add(control_, "cpu_ns", 0) - cpu) / all;
    };
  }
  // Of the last storm.
  double sets_per_second() const { return rate_; }

 private:
  const std::string self_;
  const Service service_;
  sh_dict* const control_;
  uint64_t writers_ = 0;
  double rate_ = 0;
};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Reads what a dict's watch tells and counts it.
class CountingWatch final {
 public:
  CountingWatch(const Service& service, const char* dict, v1::SlowPolicy policy,
                const std::string& key = "")
      : stub_(v1::Dicts::NewStub(Connect(service.tcp_address))) {
    context_.AddMetadata("authorization", "Bearer " + service.token);
    v1::WatchDictRequest request;
    request.set_name(dict);
    request.set_slow_policy(policy);
    if (!key.empty()) request.set_key(key);
    reader_ = stub_->WatchDict(&context_, request);
    v1::WatchDictResponse message;
    do {
      if (!reader_->Read(&message)) Die("the watch ended: " + reader_->Finish().error_message());
    } while (!message.has_synced());
    thread_ = std::thread([this] {
      v1::WatchDictResponse next;
      while (reader_->Read(&next)) {
        changes += static_cast<uint64_t>(next.changes().changes_size());
        resyncs += next.has_resync() ? 1 : 0;
      }
    });
  }
  ~CountingWatch() {
    context_.TryCancel();
    thread_.join();
    (void)reader_->Finish();
  }

  std::atomic<uint64_t> changes{0};
  std::atomic<uint64_t> resyncs{0};

 private:
  const std::unique_ptr<v1::Dicts::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchDictResponse>> reader_;
  std::thread thread_;
};

// Many watches over some connections, read by the thread that calls.
class ManyWatches final {
 public:
  explicit ManyWatches(const Service& service) {
    for (int i = 0; i < kConnections; ++i) {
      stubs_.push_back(v1::Dicts::NewStub(Connect(service.tcp_address)));
    }
    for (int i = 0; i < kManyKeys; ++i) {
      Stream& stream = *streams_.emplace_back(std::make_unique<Stream>());
      stream.context.AddMetadata("authorization", "Bearer " + service.token);
      v1::WatchDictRequest request;
      request.set_name("many");
      request.set_key(Key(i));
      stream.reader = stubs_[static_cast<size_t>(i % kConnections)]->AsyncWatchDict(
          &stream.context, request, &queue_, &stream);
    }
    for (int missing = kManyKeys; missing > 0;) missing -= Next()->has_synced() ? 1 : 0;
  }
  ~ManyWatches() {
    for (const auto& stream : streams_) stream->context.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) continue;
  }
  static std::string Key(int i) { return "key/" + std::to_string(i); }
  // Until the next change is told, whichever it is.
  void AwaitChange() {
    while (Next()->changes().changes_size() == 0) continue;
  }

 private:
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReader<v1::WatchDictResponse>> reader;
    v1::WatchDictResponse message;
    v1::WatchDictResponse last;
    bool is_reading = false;
  };

  // The next message of any of them. Valid until the next call.
  const v1::WatchDictResponse* Next() {
    for (;;) {
      void* tag = nullptr;
      bool ok = false;
      if (!queue_.Next(&tag, &ok) || !ok) Die("a watch ended");
      Stream& stream = *static_cast<Stream*>(tag);
      const bool has_message = std::exchange(stream.is_reading, true);
      if (has_message) stream.last.Swap(&stream.message);
      stream.reader->Read(&stream.message, tag);
      if (has_message) return &stream.last;
    }
  }

  std::vector<std::unique_ptr<v1::Dicts::Stub>> stubs_;
  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

int RaceStorms(const std::string& self, const Service& service, sh_client* client, int rounds,
               const std::string& json) {
  sh_dict* const control = OpenDict(client, "control");
  for (const char* const name : {"quiet", "one", "stream"}) sh_dict_close(OpenDict(client, name));
  Storm storm(self, service, control);
  const CountingWatch one(service, "one", v1::SLOW_POLICY_RESYNC, "w0/0");
  const CountingWatch stream(service, "stream", v1::SLOW_POLICY_LATEST);
  constexpr uint64_t kSets = kSetsPerSecond / kWriters * 2;
  double rate = 0;
  const auto noting = [&](Work work) {
    return [&rate, &storm, work = std::move(work)](uint64_t sets) {
      const double result = work(sets);
      rate = rate == 0 ? storm.sets_per_second() : std::min(rate, storm.sets_per_second());
      return result;
    };
  };
  const int missed =
      RunRaces({{"a set of four workers that make a million a second, processor time",
                 {{"nobody watches", noting(storm.In("quiet")), kSets},
                  {"one of their keys is watched", noting(storm.In("one")), kSets},
                  {"all is watched, newest values", noting(storm.In("stream")), kSets}},
                 {{"one of their keys is watched", "nobody watches", kSlowerMax, 0},
                  {"all is watched, newest values", "nobody watches", kSlowerMax, 0}}}},
               rounds, json);
  std::printf(
      "  at least %.0f sets a second; told %.0f changes (%.0f resyncs) of one key, "
      "%.0f (%.0f) of all\n",
      rate, static_cast<double>(one.changes), static_cast<double>(one.resyncs),
      static_cast<double>(stream.changes), static_cast<double>(stream.resyncs));
  sh_dict_close(control);
  return missed;
}

int RaceManyKeys(const Service& service, sh_client* client, int rounds) {
  sh_dict* const dict = OpenDict(client, "many");
  sh_dict* const lonely = OpenDict(client, "lonely");
  const uint64_t begin = NowNs();
  ManyWatches watches(service);
  std::printf("\n%d watches of a key each over %d connections: open after %.2f s\n", kManyKeys,
              kConnections, static_cast<double>(NowNs() - begin) / 1e9);
  std::mt19937 random(1);
  uint64_t told = 0;
  const CountingWatch alone(service, "lonely", v1::SLOW_POLICY_RESYNC, "key");
  const int missed =
      RunRaces({{"from a set in mapped memory to its event over gRPC",
                 {{"one of 10,000 watched keys", MedianOf([&] {
                     Add(dict, ManyWatches::Key(static_cast<int>(random() % kManyKeys)), 1);
                     watches.AwaitChange();
                   }),
                   1'000},
                  {"one watched key", MedianOf([&] {
                     Add(lonely, "key", 1);
                     ++told;
                     while (alone.changes < told) SleepNs(0);
                   }),
                   1'000}},
                 {},
                 "us"}},
               rounds, "");
  sh_dict_close(lonely);
  sh_dict_close(dict);
  return missed;
}

int Run(const std::string& self, const std::string& statehoused, int rounds,
        const std::string& json) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = ReadDevFile(runtime + "/dev.json");
  sh_client* const client = service.Connect(SH_TRANSPORT_LOCAL);
  int missed = RaceStorms(self, service, client, rounds, json);
  missed += RaceManyKeys(service, client, rounds);
  sh_close(client);
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc == 8 && std::strcmp(argv[1], "--writer") == 0) return RunWriter(argv);
  if (argc < 2) Die("usage: watch_storm_bench STATEHOUSED [--rounds N] [--json FILE]");
  int rounds = 5;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run("/proc/self/exe", argv[1], rounds, json) == 0 ? 0 : 1;
}
