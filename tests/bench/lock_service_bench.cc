// Locks of the whole service, through the C library and each door: a pair against etcd's, how soon
// the next one runs when a holder is killed, and what waiting costs.
//   lock_service_bench STATEHOUSED [--rounds N] [--kills N] [--json FILE]
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <statehouse/statehouse.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "echo.grpc.pb.h"
#include "engine/os/futex.h"
#include "etcd_lease.grpc.pb.h"
#include "etcd_lock.grpc.pb.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/lock.grpc.pb.h"
#include "statehouse/v1/session.grpc.pb.h"
#include "tests/bench/harness.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/service_peers.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kTtlMs = 600'000;
constexpr uint64_t kLookNs = 1'000'000;
constexpr int kWaiters = 100;
constexpr uint64_t kWaitingNs = 2'000'000'000;
// "No processor time": of one core.
constexpr double kWaitingPercentMax = 1;

sh_lock* Take(sh_client* client, const char* name) {
  sh_lock_options options{};
  options.ttl_ms = kTtlMs;
  sh_lock* lock = nullptr;
  Require(sh_lock_acquire(client, name, &options, &lock, nullptr), "acquiring");
  return lock;
}

void Release(sh_lock* lock) {
  int held = 0;
  Require(sh_lock_release(lock, &held, nullptr), "releasing");
  if (held != 1) Die("a lock was lost");
}

void AwaitWaiters(sh_client* client, const char* name, uint32_t count) {
  for (uint32_t seen = 0; seen != count;) {
    sh_lock_info* info = nullptr;
    Require(sh_lock_describe(client, name, &info, nullptr), "describing");
    seen = info->waiter_count;
    sh_lock_infos_free(info, 1);
    if (seen != count) SleepNs(kLookNs);
  }
}

// Our pair, through one door.
Work Pairs(sh_client* client) {
  return MedianOf([client] { Release(Take(client, "pair")); });
}

// The same by bare stubs, as etcd is called: without what the C library does around a call.
class Stubs final {
 public:
  explicit Stubs(const Service& service)
      : token_("Bearer " + service.token),
        channel_(grpc::CreateChannel(service.tcp_address, grpc::InsecureChannelCredentials())),
        locks_(v1::Locks::NewStub(channel_)) {
    const auto sessions = v1::Sessions::NewStub(channel_);
    v1::OpenSessionRequest request;
    request.mutable_ttl()->set_seconds(kTtlMs / 1000);
    v1::OpenSessionResponse response;
    Call([&](grpc::ClientContext* context) {
      return sessions->OpenSession(context, request, &response);
    });
    acquire_.set_name("pair");
    acquire_.set_session_id(response.session_id());
    acquire_.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    release_.set_name("pair");
    release_.set_session_id(response.session_id());
  }

  Work Pairs() {
    return MedianOf([this] { Pair(); });
  }

 private:
  template <typename Body>
  void Call(const Body& body) const {
    grpc::ClientContext context;
    context.AddMetadata("authorization", token_);
    const grpc::Status status = body(&context);
    if (!status.ok()) Die("a call: " + status.error_message());
  }
  void Pair() {
    acquire_.set_request_id(acquire_.request_id() + 1);
    v1::AcquireLockResponse acquired;
    Call([&](grpc::ClientContext* context) {
      return locks_->AcquireLock(context, acquire_, &acquired);
    });
    release_.set_token(acquired.token());
    v1::ReleaseLockResponse released;
    Call([&](grpc::ClientContext* context) {
      return locks_->ReleaseLock(context, release_, &released);
    });
    if (!released.held()) Die("a lock was lost");
  }

  const std::string token_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Locks::Stub> locks_;
  v1::AcquireLockRequest acquire_;
  v1::ReleaseLockRequest release_;
};

// The same over a stream of batches, by bare stubs.
class StreamStubs final {
 public:
  explicit StreamStubs(const Service& service)
      : channel_(grpc::CreateChannel(service.tcp_address, grpc::InsecureChannelCredentials())),
        batches_(v1::Batches::NewStub(channel_)) {
    const std::string token = "Bearer " + service.token;
    const auto sessions = v1::Sessions::NewStub(channel_);
    grpc::ClientContext opening;
    opening.AddMetadata("authorization", token);
    v1::OpenSessionRequest request;
    request.mutable_ttl()->set_seconds(kTtlMs / 1000);
    v1::OpenSessionResponse response;
    const grpc::Status opened = sessions->OpenSession(&opening, request, &response);
    if (!opened.ok()) Die("opening a session: " + opened.error_message());
    talking_.AddMetadata("authorization", token);
    talk_ = batches_->RunBatches(&talking_);
    acquire_ = try_.mutable_batch()->add_operations()->mutable_acquire_lock();
    acquire_->set_name("pair of a stream");
    acquire_->set_session_id(response.session_id());
    acquire_->set_mode(v1::LOCK_MODE_EXCLUSIVE);
    acquire_->mutable_timeout();
    release_ = give_back_.mutable_batch()->add_operations()->mutable_release_lock();
    release_->set_name("pair of a stream");
    release_->set_session_id(response.session_id());
  }
  ~StreamStubs() {
    talking_.TryCancel();
    (void)talk_->Finish();
  }

  Work Pairs() {
    return MedianOf([this] {
      acquire_->set_request_id(acquire_->request_id() + 1);
      release_->set_token(Ask(try_).acquire_lock().token());
      if (!Ask(give_back_).release_lock().held()) Die("a lock was lost");
    });
  }

 private:
  v1::OperationResult Ask(const v1::RunBatchesRequest& request) {
    v1::RunBatchesResponse response;
    if (!talk_->Write(request) || !talk_->Read(&response) ||
        response.result().results_size() != 1) {
      Die("a stream of batches");
    }
    return response.result().results(0);
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Batches::Stub> batches_;
  grpc::ClientContext talking_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::RunBatchesRequest, v1::RunBatchesResponse>> talk_;
  v1::RunBatchesRequest try_;
  v1::RunBatchesRequest give_back_;
  v1::AcquireLockRequest* acquire_ = nullptr;  // In try_,
  v1::ReleaseLockRequest* release_ = nullptr;  // and in give_back_.
};

// etcd alone, its data in `folder`, and one lease of it.
class Etcd final {
 public:
  explicit Etcd(const std::string& folder) : process_(folder) {
    const auto channel = process_.Channel();
    locks_ = v3lockpb::Lock::NewStub(channel);
    const auto leases = etcdserverpb::Lease::NewStub(channel);
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(kTtlMs / 1000);
    etcdserverpb::LeaseGrantResponse response;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    const grpc::Status granted = leases->LeaseGrant(&context, request, &response);
    if (!granted.ok()) Die("etcd: " + granted.error_message());
    lease_ = response.id();
  }

  Work Pairs() {
    return MedianOf([this] { Pair(); });
  }

 private:
  void Pair() {
    v3lockpb::LockRequest lock;
    lock.set_name("pair");
    lock.set_lease(lease_);
    v3lockpb::LockResponse locked;
    grpc::ClientContext locking;
    if (!locks_->Lock(&locking, lock, &locked).ok()) Die("etcd: locking");
    v3lockpb::UnlockRequest unlock;
    unlock.set_key(locked.key());
    v3lockpb::UnlockResponse unlocked;
    grpc::ClientContext unlocking;
    if (!locks_->Unlock(&unlocking, unlock, &unlocked).ok()) Die("etcd: unlocking");
  }

  EtcdProcess process_;
  std::unique_ptr<v3lockpb::Lock::Stub> locks_;
  int64_t lease_ = 0;
};

// What two round trips cost by themselves: a bare gRPC server, bare calls.
class Floor final {
 public:
  explicit Floor(const std::string& server)
      : address_("127.0.0.1:" + std::to_string(FreePort())),
        process_({server, address_}),
        stub_(FanOut::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()))) {
    request_.set_payload(std::string(40, 'x'));
    talking_.set_wait_for_ready(true);
    talk_ = stub_->Converse(&talking_);
  }
  ~Floor() {
    talking_.TryCancel();
    (void)talk_->Finish();
  }

  Work Calls() {
    return MedianOf([this] {
      for (int i = 0; i < 2; ++i) {
        grpc::ClientContext context;
        context.set_wait_for_ready(true);
        EchoResponse response;
        if (!stub_->Say(&context, request_, &response).ok()) Die("a bare call");
      }
    });
  }
  Work Messages() {
    return MedianOf([this] {
      for (int i = 0; i < 2; ++i) {
        EchoResponse response;
        if (!talk_->Write(request_) || !talk_->Read(&response)) Die("a bare stream");
      }
    });
  }

 private:
  const std::string address_;
  BenchProcess process_;
  const std::unique_ptr<FanOut::Stub> stub_;
  EchoRequest request_;
  grpc::ClientContext talking_;
  std::unique_ptr<grpc::ClientReaderWriter<EchoRequest, EchoResponse>> talk_;
};

// What a holder's process does: takes the lock, says so, and holds it until it is killed.
[[noreturn]] void HoldForEver(const char* name) {
  const Service service{std::getenv("BENCH_URL"), std::getenv("BENCH_TOKEN"), ""};
  const bool local = std::strcmp(std::getenv("BENCH_DOOR"), "local") == 0;
  Take(service.Connect(local ? SH_TRANSPORT_LOCAL : SH_TRANSPORT_NETWORK), name);
  // The call that holds its session, on a thread of its own, may still be on its way.
  SleepNs(20 * kLookNs);
  if (write(STDOUT_FILENO, "h", 1) != 1) Die("telling that it holds");
  for (;;) pause();
}

pid_t StartHolder(const Service& service, const char* door, const char* name) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Die("pipe");
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(ends[1], STDOUT_FILENO);
    setenv("BENCH_URL", service.url.c_str(), 1);
    setenv("BENCH_TOKEN", service.token.c_str(), 1);
    setenv("BENCH_DOOR", door, 1);
    execl("/proc/self/exe", "lock_service_bench", "--hold", name, nullptr);
    _exit(127);
  }
  close(ends[1]);
  char told = 0;
  if (read(ends[0], &told, 1) != 1) Die("a holder did not start");
  close(ends[0]);
  return pid;
}

double At(const std::vector<double>& sorted, double part) {
  return sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))];
}

void PrintTimes(const char* what, const std::vector<double>& sorted_ms) {
  std::printf("  %-44s %.2f ms p50, %.2f ms p90, %.2f ms p99, %.2f ms at most\n", what,
              At(sorted_ms, 0.5), At(sorted_ms, 0.9), At(sorted_ms, 0.99), sorted_ms.back());
}

// From a holder's SIGKILL, and from the end of its process and so of its connections, until the
// next one, which waits in this process, has the lock.
int ReportKills(const Service& service, const char* door, sh_transport transport, int kills,
                double bar_ms) {
  sh_client* const next = service.Connect(transport);
  sh_client* const looking = service.Connect(SH_TRANSPORT_LOCAL);
  std::vector<double> all_ms;
  std::vector<double> ended_ms;
  for (int i = 0; i < kills; ++i) {
    const pid_t holder = StartHolder(service, door, "mortal");
    uint64_t got_ns = 0;
    std::thread waiter([&] {
      sh_lock* const lock = Take(next, "mortal");
      got_ns = NowNs();
      Release(lock);
    });
    AwaitWaiters(looking, "mortal", 1);
    SleepNs(2 * kLookNs);  // It sleeps by now.
    const uint64_t killed_ns = NowNs();
    kill(holder, SIGKILL);
    waitpid(holder, nullptr, 0);
    const uint64_t end_ns = NowNs();
    waiter.join();
    all_ms.push_back(static_cast<double>(got_ns - killed_ns) / 1e6);
    // The lock may pass on before this process hears of the end.
    ended_ms.push_back(static_cast<double>(got_ns - std::min(got_ns, end_ns)) / 1e6);
  }
  sh_close(next);
  sh_close(looking);
  std::sort(all_ms.begin(), all_ms.end());
  std::sort(ended_ms.begin(), ended_ms.end());
  const bool met = At(ended_ms, 0.99) <= bar_ms;
  std::printf("\nholder killed -> next one runs, %s door, %d kills\n", door, kills);
  PrintTimes("from the signal", all_ms);
  PrintTimes("from the end of the holder's process", ended_ms);
  std::printf("  %s %.2f ms p99 from the end, bar %.0f ms; from the signal %s\n",
              met ? "met   " : "MISSED", At(ended_ms, 0.99), bar_ms,
              At(all_ms, 0.99) <= bar_ms ? "as well" : "more: what the kernel takes to end it");
  std::fflush(stdout);
  return met ? 0 : 1;
}

double SecondsOfThisProcess() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Processor time of a process, all its threads together, by the scheduler's own count.
double SecondsOf(uint32_t pid) {
  double seconds = 0;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::ifstream file(task.path() / "schedstat");
    double ns = 0;
    if (file >> ns) seconds += ns / 1e9;
  }
  return seconds;
}

struct Spent {
  double own = 0;
  double daemon = 0;
};
Spent SpendTime(uint32_t daemon) {
  const Spent before{SecondsOfThisProcess(), SecondsOf(daemon)};
  SleepNs(kWaitingNs);
  return {SecondsOfThisProcess() - before.own, SecondsOf(daemon) - before.daemon};
}

int ReportWaiting(const Service& service, const char* door, sh_transport transport) {
  sh_client* const client = service.Connect(transport);
  sh_status status{};
  Require(sh_get_status(client, &status, nullptr), "asking for the status");
  sh_lock* const lock = Take(client, "crowded");
  const Spent idle = SpendTime(status.daemon_pid);
  std::vector<std::thread> waiters;
  for (int i = 0; i < kWaiters; ++i) {
    waiters.emplace_back([client] { Release(Take(client, "crowded")); });
  }
  AwaitWaiters(client, "crowded", kWaiters);
  const Spent waiting = SpendTime(status.daemon_pid);
  Release(lock);
  for (std::thread& waiter : waiters) waiter.join();
  sh_close(client);
  const double seconds = static_cast<double>(kWaitingNs) / 1e9;
  const double more = waiting.own - idle.own + waiting.daemon - idle.daemon;
  const bool met = 100 * more / seconds <= kWaitingPercentMax;
  std::printf("\n%d threads wait for one lock, %s door, processor time in %.0f s\n", kWaiters, door,
              seconds);
  std::printf(
      "  waiters %.1f ms, daemon %.1f ms; without them %.1f and %.1f ms: %s %.2f %% of a core more "
      "(bar %.0f %%)\n",
      1e3 * waiting.own, 1e3 * waiting.daemon, 1e3 * idle.own, 1e3 * idle.daemon,
      met ? "met" : "MISSED", 100 * more / seconds, kWaitingPercentMax);
  std::fflush(stdout);
  return met ? 0 : 1;
}

int RacePairs(const Service& service, const std::string& memory, const std::string& bare_server,
              int rounds, const std::string& json) {
  sh_client* const local = service.Connect(SH_TRANSPORT_LOCAL);
  Stubs stubs(service);
  StreamStubs stream_stubs(service);
  Race bare{"acquire and release by bare stubs, one client, nobody else, p50",
            {{"statehouse, two calls", stubs.Pairs(), 3'000},
             {"statehouse, two messages of a stream", stream_stubs.Pairs(), 3'000}},
            {},
            "us"};
  Floor floor(bare_server);
  bare.contenders.push_back({"two calls of a bare gRPC server", floor.Calls(), 3'000});
  bare.contenders.push_back(
      {"two messages there and back on a bare stream", floor.Messages(), 3'000});
  int missed = RunRaces({bare}, rounds, "");

  sh_client* const network = service.Connect(SH_TRANSPORT_NETWORK);
  Race race{"acquire and release by the C library, one client, nobody else, p50",
            {{"statehouse over gRPC", Pairs(network), 3'000},
             {"statehouse through the local door", Pairs(local), 200'000}},
            {{"statehouse over gRPC", "etcd", 0.2, 0},
             {"statehouse through the local door", "etcd", 0.2, 0}},
            "us"};
  const DiskFolder disk;
  std::vector<std::unique_ptr<Etcd>> etcds;
  if (EtcdProcess::IsInstalled()) {
    etcds.push_back(std::make_unique<Etcd>(disk.path()));
    race.contenders.push_back({"etcd", etcds.back()->Pairs(), 300});
    etcds.push_back(std::make_unique<Etcd>(memory));
    race.contenders.push_back({"etcd, its data in memory", etcds.back()->Pairs(), 1'000});
  } else {
    std::printf("etcd: skipped: not installed (etcd-server)\n");
  }
  missed += RunRaces({race}, rounds, json);
  etcds.clear();
  sh_close(local);
  sh_close(network);
  return missed;
}

int Run(const std::string& statehoused, int rounds, int kills, const std::string& json) {
  const BenchFolder folder;
  const std::string runtime = folder.path() + "/run";
  BenchProcess daemon({statehoused, "--dev", "--runtime-dir", runtime, "--log-level", "error"});
  const Service service = ReadDevFile(runtime + "/dev.json");
  const std::string bare_server =
      std::filesystem::path(statehoused).replace_filename("bare_server");
  if (access(bare_server.c_str(), X_OK) != 0) Die(bare_server + " is not there; build it");
  int missed = RacePairs(service, folder.path(), bare_server, rounds, json);
  missed += ReportKills(service, "local", SH_TRANSPORT_LOCAL, kills, 5);
  missed += ReportKills(service, "network", SH_TRANSPORT_NETWORK, kills, 20);
  missed += ReportWaiting(service, "local", SH_TRANSPORT_LOCAL);
  missed += ReportWaiting(service, "network", SH_TRANSPORT_NETWORK);
  return missed;
}

}  // namespace
}  // namespace statehouse::bench

int main(int argc, char** argv) {
  using namespace statehouse::bench;
  if (argc == 3 && std::strcmp(argv[1], "--hold") == 0) HoldForEver(argv[2]);
  if (argc < 2) {
    Die("usage: lock_service_bench STATEHOUSED [--rounds N] [--kills N] [--json FILE]");
  }
  int rounds = 7;
  int kills = 300;
  std::string json;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--kills") == 0) kills = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--json") == 0) json = argv[i + 1];
  }
  return Run(argv[1], rounds, kills, json) == 0 ? 0 : 1;
}
