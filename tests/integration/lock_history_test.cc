// Clients of the network door whose connections are cut at random moments. Each writes down what it
// was granted and until when it took that for its own; the whole history is checked at the end.
#include <gtest/gtest.h>
#include <statehouse/statehouse.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/daemon.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

constexpr uint32_t kClients = 8;
constexpr uint32_t kLifeMsMax = 300;  // Of a connection.
constexpr uint64_t kTtlMs = 400;
constexpr const char* kNames[] = {"one", "two"};

// A lease as its holder saw it.
struct Grant {
  size_t name = 0;
  uint32_t client = 0;
  uint64_t token = 0;
  uint64_t begin_ns = 0;   // It took the lock for its own from this time
  uint64_t good_ns = 0;    // to this time at least.
  bool is_whole = false;   // It was held until its release. Else the service ended it before, and
                           // the holder heard of that later than the next one of its grant.
  bool said_lost = false;  // `sh_lock_held` said no before the release.
};

struct Told {
  std::atomic<int> count{0};
  static void Tell(void* context) { ++static_cast<Told*>(context)->count; }
};

// Counts under rising tokens only.
struct Resource {
  std::mutex mutex;
  uint64_t token = 0;
  uint64_t count = 0;

  bool Add(uint64_t with) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (with < token) return false;
    token = with;
    ++count;
    return true;
  }
};

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
using ClientPtr = std::unique_ptr<sh_client, ClientCloser>;

class LockHistoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  ClientPtr Connect(const std::string& address) {
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.timeout_ms = 20'000;
    options.transport = SH_TRANSPORT_NETWORK;
    sh_client* client = nullptr;
    sh_error* error = nullptr;
    sh_reason reason = SH_UNAVAILABLE;
    // The proxy may cut the very first call.
    EXPECT_TRUE(Eventually([&] {
      sh_error_free(error);
      error = nullptr;
      reason = sh_connect(("statehouse://" + address).c_str(), &options, &client, &error);
      return reason != SH_UNAVAILABLE;
    }));
    EXPECT_EQ(reason, SH_OK) << sh_error_message(error);
    sh_error_free(error);
    return ClientPtr(client);
  }
  // Takes turns until `until_ns`.
  void Work(uint32_t number, sh_client* client, uint32_t seed, uint64_t until_ns) {
    std::mt19937 random(seed);
    while (MonotonicNs() < until_ns) {
      Grant grant;
      grant.client = number;
      grant.name = random() % std::size(kNames);
      Told told;
      sh_lock_options options{};
      options.ttl_ms = kTtlMs;
      options.timeout_ms = 2'000;
      options.on_lost = Told::Tell;
      options.context = &told;
      sh_lock* lock = nullptr;
      sh_error* error = nullptr;
      const sh_reason reason = sh_lock_acquire(client, kNames[grant.name], &options, &lock, &error);
      if (reason != SH_OK) {
        // LOCK_LOST: its connection was cut again and again between the grant and the answer.
        EXPECT_TRUE(reason == SH_UNAVAILABLE || reason == SH_TIMEOUT || reason == SH_LOCK_LOST)
            << sh_error_message(error);
        ++refusals_;
      }
      sh_error_free(error);
      if (lock == nullptr) continue;
      Hold(lock, &grant, random);
      grant.said_lost = sh_lock_held(lock, nullptr) == 0;
      if (grant.said_lost) {
        EXPECT_TRUE(Eventually([&] { return told.count > 0; })) << "nobody told of the loss";
      }
      int held = 0;
      const sh_reason released = sh_lock_release(lock, &held, nullptr);
      EXPECT_TRUE(released == SH_OK || released == SH_UNAVAILABLE || released == SH_TIMEOUT);
      grant.is_whole = held == 1 && !grant.said_lost;
      EXPECT_LE(told.count, 1);
      const std::lock_guard<std::mutex> guard(mutex_);
      if (grant.begin_ns != 0) history_.push_back(grant);
    }
  }
  // Counts for some milliseconds while its lease is good.
  void Hold(sh_lock* lock, Grant* grant, std::mt19937& random) {
    grant->token = sh_lock_token(lock);
    const int looks = 1 + static_cast<int>(random() % 8);
    // Now and then longer than a lease lasts without renewal.
    const uint64_t pause_ns = random() % 64 == 0 ? 100'000'000 : random() % 500'000;
    for (int i = 0; i < looks; ++i) {
      const uint64_t before_ns = MonotonicNs();
      if (sh_lock_held(lock, nullptr) == 0) return;
      if (grant->begin_ns == 0) grant->begin_ns = before_ns;
      grant->good_ns = before_ns;
      if (!resources_[grant->name].Add(grant->token)) {
        EXPECT_TRUE(Eventually([&] { return sh_lock_held(lock, nullptr) == 0; }))
            << "refused for a newer token, and never told";
        return;
      }
      ++adds_;
      SleepNs(pause_ns);
    }
  }
  // Later grants have higher tokens, and nobody else comes in while a lease is held that goes on to
  // its release.
  void CheckHistory() {
    std::sort(history_.begin(), history_.end(), [](const Grant& a, const Grant& b) {
      return std::pair(a.name, a.begin_ns) < std::pair(b.name, b.begin_ns);
    });
    const Grant* latest = nullptr;
    for (const Grant& grant : history_) {
      if (latest == nullptr || latest->name != grant.name) {
        latest = &grant;
        continue;
      }
      ASSERT_NE(grant.token, latest->token);
      if (grant.token < latest->token) {
        // Over before its holder began, who had not heard of that yet.
        ASSERT_FALSE(grant.is_whole) << "client " << grant.client << ", token " << grant.token;
        late_ns_max_ = std::max(late_ns_max_, grant.good_ns - latest->begin_ns);
        continue;
      }
      if (latest->good_ns > grant.begin_ns) {
        ASSERT_FALSE(latest->is_whole)
            << "client " << latest->client << " had token " << latest->token << " when client "
            << grant.client << " had " << grant.token;
        late_ns_max_ = std::max(late_ns_max_, latest->good_ns - grant.begin_ns);
      }
      latest = &grant;
    }
  }

  std::unique_ptr<Daemon> daemon_;
  std::array<Resource, std::size(kNames)> resources_;
  std::atomic<uint64_t> adds_{0};
  std::atomic<uint64_t> refusals_{0};
  std::mutex mutex_;
  std::vector<Grant> history_;
  uint64_t late_ns_max_ = 0;  // How late a loss was heard of, after the next one had the lock.
};

TEST_F(LockHistoryTest, CutConnectionsNeverGiveALockToTwo) {
  const uint64_t run_ns = static_cast<uint64_t>(Rounds(4, 600)) * 1'000'000'000;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::vector<std::unique_ptr<FaultProxy>> proxies;
  std::vector<ClientPtr> clients;
  for (uint32_t i = 0; i < kClients; ++i) {
    // Half of them through the unix socket. A proxy each, so that each has its own connection.
    const std::string target = i % 2 == 0 ? daemon_->tcp_address() : daemon_->grpc_socket();
    auto proxy = FaultProxy::Start({target, kLifeMsMax, seed + i});
    ASSERT_TRUE(proxy.ok()) << proxy.status().ToString();
    proxies.push_back(*std::move(proxy));
    clients.push_back(Connect(proxies.back()->address()));
  }

  std::vector<std::thread> threads;
  const uint64_t until_ns = MonotonicNs() + run_ns;
  for (uint32_t i = 0; i < kClients; ++i) {
    threads.emplace_back([&, i] { Work(i, clients[i].get(), seed + kClients + i, until_ns); });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t cuts = 0;
  for (const auto& proxy : proxies) cuts += proxy->cuts();
  for (const auto& proxy : proxies) proxy->StopCutting();
  clients.clear();

  CheckHistory();
  uint64_t counted = 0;
  for (const Resource& resource : resources_) counted += resource.count;
  EXPECT_EQ(counted, adds_);
  const ClientPtr looking = Connect(daemon_->tcp_address());
  for (const char* name : kNames) {
    EXPECT_TRUE(Eventually([&] {
      sh_lock_info* info = nullptr;
      EXPECT_EQ(sh_lock_describe(looking.get(), name, &info, nullptr), SH_OK);
      const bool is_free = info->holder_count == 0 && info->waiter_count == 0;
      sh_lock_infos_free(info, 1);
      return is_free;
    })) << name
        << " is held or waited for by nobody who lives";
  }
  const auto lost = std::count_if(history_.begin(), history_.end(),
                                  [](const Grant& grant) { return grant.said_lost; });
  EXPECT_GT(cuts, kClients);
  EXPECT_GT(history_.size(), kClients);
  std::printf(
      "%llu cuts, %zu grants, %lld of them lost and told, at most %.1f ms after the next one had "
      "the lock; %llu asks without an answer\n",
      static_cast<unsigned long long>(cuts), history_.size(), static_cast<long long>(lost),
      static_cast<double>(late_ns_max_) / 1e6, static_cast<unsigned long long>(refusals_.load()));
}

}  // namespace
}  // namespace statehouse::testing
