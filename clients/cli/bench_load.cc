#include "clients/cli/bench_load.h"

#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include "clients/cli/exit_codes.h"
#include "statehouse/v1/value.pb.h"

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStartUp = std::chrono::milliseconds(20);   // Until every thread is there.
constexpr auto kStopLook = std::chrono::milliseconds(50);  // While nothing is due.
constexpr unsigned long kTimerSlackNs = 1000;  // A wait ends so much too late, no 50 us.

struct DictCloser {
  void operator()(sh_dict* dict) const { sh_dict_close(dict); }
};
using OpenDict = std::unique_ptr<sh_dict, DictCloser>;

uint64_t Nanoseconds(Clock::duration duration) {
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  return ns < 0 ? 0 : static_cast<uint64_t>(ns);
}

// In slices: signals are blocked, and the next operation may be due in an hour. False when it was
// stopped before.
bool SleepUntil(Clock::time_point time, const std::atomic<bool>& stopped) {
  for (;;) {
    if (stopped.load(std::memory_order_relaxed)) return false;
    const auto now = Clock::now();
    if (now >= time) return true;
    std::this_thread::sleep_until(std::min(time, now + kStopLook));
  }
}

// One connection's work.
class Worker final {
 public:
  Worker(const BenchPlan& plan, sh_client* client, uint32_t number)
      : plan_(plan), client_(client), number_(number), random_(number + 1) {
    sh_error* error = nullptr;
    sh_dict* dict = nullptr;
    Check(sh_dict_open(client, plan.dict.c_str(), nullptr, &dict, &error), error);
    dict_.reset(dict);
    v1::Value value;
    value.set_bytes_value(std::string(plan.value_bytes, 'x'));
    value_ = value.SerializeAsString();
    // Connects, maps and faults in; what it says is said again by those that count.
    (void)Do(&error);
    sh_error_free(error);
  }

  void Run(Clock::time_point begin, uint32_t connections, const std::atomic<bool>& stopped) {
    prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
    const Clock::time_point end = begin + plan_.duration;
    std::this_thread::sleep_until(begin);
    if (plan_.rate == 0) {
      for (auto now = begin; now < end && !stopped.load(std::memory_order_relaxed);) {
        now = Once(Clock::now());
      }
      return;
    }
    BenchSchedule schedule(begin, plan_.rate, number_, connections);
    for (auto due = schedule.Next(); due < end; due = schedule.Next()) {
      if (stopped.load(std::memory_order_relaxed)) return;
      // What was due and has no time left has waited so long at least.
      if (const auto now = Clock::now(); now >= end) {
        result_.latencies.Record(Nanoseconds(now - due));
        ++result_.unsent;
        continue;
      }
      if (!SleepUntil(due, stopped)) return;
      Once(due);
    }
  }

  const BenchResult& result() const { return result_; }

 private:
  // Counts from `since`. The time when it was done.
  Clock::time_point Once(Clock::time_point since) {
    sh_error* error = nullptr;
    const sh_reason reason = Do(&error);
    const Clock::time_point done = Clock::now();
    if (reason == SH_OK) {
      result_.latencies.Record(Nanoseconds(done - since));
      ++result_.completed;
    } else {
      const std::string name = sh_reason_name(reason);
      auto [at, is_new] = result_.errors.try_emplace(name, 0);
      ++at->second;
      if (is_new && result_.errors.size() == 1 && error != nullptr) {
        std::fprintf(stderr, "statehouse: %s: %s\n", name.c_str(), sh_error_message(error));
      }
    }
    sh_error_free(error);
    return done;
  }

  sh_reason Do(sh_error** error) {
    const std::string key = BenchKey(plan_, random_() % plan_.keys);
    const sh_bytes name{key.data(), key.size()};
    switch (plan_.operation) {
      case BenchOperation::kGet: return sh_dict_get(dict_.get(), name, nullptr, 0, &entry_, error);
      case BenchOperation::kSet:
        return sh_dict_set(dict_.get(), name, {value_.data(), value_.size()}, nullptr, nullptr,
                           nullptr, error);
      case BenchOperation::kIncrement:
        return sh_dict_increment(dict_.get(), name, sh_int(1), nullptr, nullptr, nullptr, error);
      case BenchOperation::kLock: break;
    }
    sh_lock_options options{};
    options.owner = "statehouse bench";
    sh_lock* lock = nullptr;
    const sh_reason reason = sh_lock_acquire(client_, key.c_str(), &options, &lock, error);
    return reason != SH_OK ? reason : sh_lock_release(lock, nullptr, error);
  }

  const BenchPlan& plan_;
  sh_client* const client_;
  const uint32_t number_;
  std::minstd_rand random_;
  OpenDict dict_;
  std::string value_;
  struct Entry : sh_entry {
    Entry() : sh_entry{} {}
    ~Entry() { sh_entry_free(this); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
  } entry_;
  BenchResult result_;
};

}  // namespace

std::string BenchKey(const BenchPlan& plan, uint64_t number) {
  // A number and a value of bytes are different entries.
  return plan.prefix + (plan.operation == BenchOperation::kIncrement ? "n" : "k") +
         std::to_string(number);
}

BenchResult RunBench(const BenchPlan& plan, const std::vector<Client>& clients, StopSignal* stop) {
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint32_t i = 0; i < clients.size(); ++i) {
    workers.push_back(std::make_unique<Worker>(plan, clients[i].get(), i));
  }
  std::atomic<bool> stopped{false};
  const Clock::time_point begin = Clock::now() + kStartUp;
  std::vector<std::thread> threads;
  for (const auto& worker : workers) {
    threads.emplace_back([&worker, &stopped, begin, count = clients.size()] {
      worker->Run(begin, static_cast<uint32_t>(count), stopped);
    });
  }
  if (stop->WaitUntil(begin + plan.duration)) stopped = true;
  for (std::thread& thread : threads) thread.join();
  BenchResult all;
  all.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  for (const auto& worker : workers) {
    const BenchResult& one = worker->result();
    all.latencies.Add(one.latencies);
    all.completed += one.completed;
    all.unsent += one.unsent;
    for (const auto& [reason, count] : one.errors) all.errors[reason] += count;
  }
  return all;
}

}  // namespace statehouse::cli
