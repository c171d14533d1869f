// Fencing tokens on an area's writes and the locks of its ranges, through each door.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "statehouse/statehouse.h"
#include "tests/support/daemon.h"

namespace statehouse {
namespace {

using testing::Daemon;
using testing::Eventually;

constexpr uint64_t kPatienceMs = 60'000;
constexpr uint64_t kShortTtlMs = 300;
constexpr uint64_t kStripe = 4096;
constexpr uint64_t kAreaBytes = 64 * kStripe;

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};
struct LockReleaser {
  void operator()(sh_lock* lock) const { sh_lock_release(lock, nullptr, nullptr); }
};
using ClientPtr = std::unique_ptr<sh_client, ClientCloser>;
using AreaPtr = std::unique_ptr<sh_area, AreaCloser>;
using LockPtr = std::unique_ptr<sh_lock, LockReleaser>;

struct Range {
  uint64_t pos = 0;
  uint64_t len = 1;
};

// A client with the area open.
struct Worker {
  ClientPtr client;
  AreaPtr area;

  // Empty where it is not had at once.
  LockPtr Try(Range range, sh_lock_options options = {}) const {
    options.try_only = 1;
    return Ask(range, options);
  }
  // A lock that can be had.
  LockPtr Take(Range range, const sh_lock_options& options = {}) const {
    LockPtr lock = Ask(range, options);
    EXPECT_NE(lock, nullptr);
    return lock;
  }
  LockPtr Ask(Range range, const sh_lock_options& options) const {
    sh_lock* lock = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_area_lock(client.get(), area.get(), range.pos, range.len, &options, &lock, &error),
              SH_OK)
        << sh_error_message(error);
    sh_error_free(error);
    return LockPtr(lock);
  }
  sh_reason Write(uint64_t pos, const std::string& bytes, uint64_t fence) const {
    return sh_write_fenced(area.get(), pos, bytes.data(), bytes.size(), fence, nullptr);
  }
  std::string Bytes(uint64_t pos, uint64_t len) const {
    std::string bytes(len, '\0');
    EXPECT_EQ(sh_read(area.get(), pos, bytes.data(), len, nullptr), SH_OK);
    return bytes;
  }
  uint32_t Waiters(const std::string& name) const {
    sh_lock_info* info = nullptr;
    EXPECT_EQ(sh_lock_describe(client.get(), name.c_str(), &info, nullptr), SH_OK);
    const uint32_t count = info->waiter_count;
    sh_lock_infos_free(info, 1);
    return count;
  }
  size_t LocksInUse() const {
    sh_lock_info* infos = nullptr;
    size_t count = 0;
    EXPECT_EQ(sh_lock_list(client.get(), nullptr, &infos, &count, nullptr), SH_OK);
    const size_t held = std::count_if(infos, infos + count, [](const sh_lock_info& info) {
      return info.holder_count + info.waiter_count > 0;
    });
    sh_lock_infos_free(infos, count);
    return held;
  }
};

Worker Connect(const std::string& url, const std::string& token, sh_transport transport) {
  Worker worker;
  sh_options options{};
  options.token = token.c_str();
  options.timeout_ms = kPatienceMs;
  options.transport = transport;
  sh_client* client = nullptr;
  EXPECT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
  worker.client.reset(client);
  sh_area* area = nullptr;
  EXPECT_EQ(sh_area_open(client, "web", kAreaBytes, &area, nullptr), SH_OK);
  worker.area.reset(area);
  return worker;
}

class AreaLockClientTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    mine_ = Connect(url(), daemon_->token(), GetParam());
    theirs_ = Connect(url(), daemon_->token(), GetParam());
  }
  std::string url() const { return "statehouse+unix://" + daemon_->runtime_dir(); }

  std::unique_ptr<Daemon> daemon_;
  Worker mine_;
  Worker theirs_;
};

TEST_P(AreaLockClientTest, EveryWriteWithAnOlderTokenIsRefused) {
  using Call = std::function<sh_reason(sh_area*, uint64_t fence, sh_error**)>;
  const std::pair<const char*, Call> calls[] = {
      {"store",
       [](sh_area* a, uint64_t f, sh_error** e) { return sh_store_fenced(a, SH_U32, 0, 7, f, e); }},
      {"add", [](sh_area* a, uint64_t f,
                 sh_error** e) { return sh_add_fenced(a, SH_I64, 0, -1, f, nullptr, e); }},
      {"compare_exchange",
       [](sh_area* a, uint64_t f, sh_error** e) {
         return sh_compare_exchange_fenced(a, SH_U8, 0, 1, 1, f, nullptr, nullptr, e);
       }},
      {"bitwise",
       [](sh_area* a, uint64_t f, sh_error** e) {
         return sh_bitwise_fenced(a, SH_XOR, SH_U8, 0, 1, f, nullptr, e);
       }},
      {"write",
       [](sh_area* a, uint64_t f, sh_error** e) { return sh_write_fenced(a, 0, "new", 3, f, e); }},
      {"fill",
       [](sh_area* a, uint64_t f, sh_error** e) { return sh_fill_fenced(a, 0, 8, 9, f, e); }},
  };
  ASSERT_EQ(theirs_.Write(0, "theirs", 1000), SH_OK);
  const std::string before = theirs_.Bytes(0, 16);
  for (const auto& [name, call] : calls) {
    sh_error* error = nullptr;
    EXPECT_EQ(call(mine_.area.get(), 999, &error), SH_FENCED) << name;
    EXPECT_STREQ(sh_error_name(error), "web") << name;
    EXPECT_NE(std::string(sh_error_message(error)).find("1000"), std::string::npos) << name;
    sh_error_free(error);
    EXPECT_EQ(theirs_.Bytes(0, 16), before) << name;
  }
  for (const auto& [name, call] : calls) {
    EXPECT_EQ(call(mine_.area.get(), 0, nullptr), SH_OK) << name;
    EXPECT_EQ(call(mine_.area.get(), 1000, nullptr), SH_OK) << name;
  }
}

TEST_P(AreaLockClientTest, RangesThatShareAStripeExcludeEachOtherAndOthersDoNot) {
  const LockPtr lock = mine_.Take({kStripe + 100, kStripe});
  EXPECT_STREQ(sh_lock_name(lock.get()), "area/web");

  EXPECT_EQ(theirs_.Try({kStripe, 1}), nullptr);
  EXPECT_EQ(theirs_.Try({2 * kStripe, 1}), nullptr);
  EXPECT_EQ(theirs_.Try({0, kStripe + 1}), nullptr);
  EXPECT_NE(theirs_.Try({0, kStripe}), nullptr);
  EXPECT_NE(theirs_.Try({3 * kStripe, kStripe}), nullptr);
}

TEST_P(AreaLockClientTest, TheWholeAreaExcludesEveryRange) {
  LockPtr range = mine_.Take({kStripe, 1});
  EXPECT_EQ(theirs_.Try({0, kAreaBytes}), nullptr);
  sh_lock* named = nullptr;
  sh_lock_options at_once{};
  at_once.try_only = 1;
  EXPECT_EQ(sh_lock_acquire(theirs_.client.get(), "area/web", &at_once, &named, nullptr), SH_OK);
  EXPECT_EQ(named, nullptr);
  range.reset();

  const LockPtr whole = theirs_.Take({0, kAreaBytes});
  EXPECT_EQ(mine_.Try({kStripe, 1}), nullptr);
}

TEST_P(AreaLockClientTest, MoreStripesThanTheLimitAreTheWholeArea) {
  {
    const LockPtr at_limit = mine_.Take({0, 32 * kStripe});
    EXPECT_NE(theirs_.Try({32 * kStripe, 1}), nullptr);
    EXPECT_EQ(mine_.LocksInUse(), 33u);
  }
  const LockPtr beyond = mine_.Take({0, 32 * kStripe + 1});
  EXPECT_EQ(theirs_.Try({50 * kStripe, 1}), nullptr);
  EXPECT_EQ(mine_.LocksInUse(), 1u);
}

TEST_P(AreaLockClientTest, SharedRangesHoldTogether) {
  sh_lock_options shared{};
  shared.mode = SH_LOCK_SHARED;
  const LockPtr one = mine_.Take({0, 10}, shared);
  EXPECT_NE(theirs_.Try({5, 10}, shared), nullptr);
  EXPECT_EQ(theirs_.Try({5, 10}), nullptr);
  EXPECT_NE(theirs_.Try({kStripe, 10}), nullptr);
}

TEST_P(AreaLockClientTest, ItIsAllOrNothing) {
  const LockPtr in_the_way = theirs_.Take({2 * kStripe, 1});
  EXPECT_EQ(mine_.Try({0, 4 * kStripe}), nullptr);
  sh_lock_options brief{};
  brief.timeout_ms = 50;
  EXPECT_EQ(mine_.Ask({0, 4 * kStripe}, brief), nullptr);

  EXPECT_NE(theirs_.Try({0, 2 * kStripe}), nullptr);
  EXPECT_NE(theirs_.Try({3 * kStripe, 1}), nullptr);
}

TEST_P(AreaLockClientTest, WhatWasTakenIsKeptWhileTheRestIsWaitedFor) {
  LockPtr in_the_way = theirs_.Take({kStripe, 1});
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  LockPtr lock;
  std::thread waiter([&] { lock = mine_.Take({0, 2 * kStripe}, brief); });
  EXPECT_TRUE(Eventually([&] { return theirs_.Waiters("area/web/#1") == 1; }));
  // Longer than the lease that it has on the first stripe.
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(3 * kShortTtlMs);
  while (std::chrono::steady_clock::now() < until) EXPECT_EQ(theirs_.Try({0, 1}), nullptr);
  in_the_way.reset();
  waiter.join();

  EXPECT_EQ(sh_lock_held(lock.get(), nullptr), 1);
}

TEST_P(AreaLockClientTest, TokensGrowFromHolderToHolderWhateverTheirRanges) {
  LockPtr first = mine_.Take({0, 20 * kStripe});
  const uint64_t token = sh_lock_token(first.get());
  EXPECT_EQ(mine_.Write(5 * kStripe, "first", token), SH_OK);
  first.reset();

  const LockPtr next = theirs_.Take({5 * kStripe, 1});
  EXPECT_GT(sh_lock_token(next.get()), token);
  EXPECT_EQ(theirs_.Write(5 * kStripe, "next", sh_lock_token(next.get())), SH_OK);
  EXPECT_EQ(mine_.Write(5 * kStripe, "late", token), SH_FENCED);
  EXPECT_EQ(mine_.Write(kStripe, "elsewhere", token), SH_OK);
}

TEST_P(AreaLockClientTest, TheLossOfOneStripeIsTheLossOfTheRange) {
  std::atomic<int> told{0};
  sh_lock_options options{};
  options.context = &told;
  options.on_lost = [](void* context) { ++*static_cast<std::atomic<int>*>(context); };
  LockPtr lock = mine_.Take({0, 3 * kStripe}, options);
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_OK);

  uint32_t released = 0;
  ASSERT_EQ(sh_lock_force_release(theirs_.client.get(), "area/web/#1", 0, &released, nullptr),
            SH_OK);
  EXPECT_EQ(released, 1u);

  EXPECT_TRUE(Eventually([&] { return told == 1; }));
  EXPECT_EQ(sh_lock_held(lock.get(), nullptr), 0);
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_LOCK_LOST);
  int held = 2;
  EXPECT_EQ(sh_lock_release(lock.release(), &held, nullptr), SH_OK);
  EXPECT_EQ(held, 0);
  EXPECT_NE(theirs_.Try({0, kAreaBytes}), nullptr) << "the rest was given back";
}

TEST_P(AreaLockClientTest, ManyWhoWantOverlappingRangesAllGetThem) {
  constexpr int kRounds = 20;
  std::atomic<int> inside{0};
  std::atomic<int> seen_together{0};
  const auto work = [&](const Worker& worker, uint64_t first) {
    for (int i = 0; i < kRounds; ++i) {
      const LockPtr lock = worker.Take({first * kStripe, 3 * kStripe});
      if (++inside > 1) ++seen_together;
      --inside;
    }
  };
  const Worker third = Connect(url(), daemon_->token(), GetParam());
  std::thread one([&] { work(mine_, 0); });
  std::thread two([&] { work(theirs_, 1); });
  std::thread three([&] { work(third, 2); });
  one.join();
  two.join();
  three.join();

  EXPECT_EQ(seen_together, 0) << "all of them share stripe 2";
}

TEST_P(AreaLockClientTest, WhatMakesNoSenseIsRefused) {
  sh_lock_options limit{};
  limit.limit = 2;
  const struct {
    Range range;
    sh_lock_options options;
    sh_reason reason;
  } cases[] = {{{0, 0}, {}, SH_INVALID_ARGUMENT},
               {{0, kAreaBytes + 1}, {}, SH_OUT_OF_BOUNDS},
               {{kAreaBytes, 1}, {}, SH_OUT_OF_BOUNDS},
               {{UINT64_MAX, UINT64_MAX}, {}, SH_OUT_OF_BOUNDS},
               {{0, 1}, limit, SH_INVALID_ARGUMENT}};
  for (const auto& refused : cases) {
    sh_lock* lock = nullptr;
    EXPECT_EQ(sh_area_lock(mine_.client.get(), mine_.area.get(), refused.range.pos,
                           refused.range.len, &refused.options, &lock, nullptr),
              refused.reason)
        << refused.range.pos << " +" << refused.range.len;
    EXPECT_EQ(lock, nullptr);
  }
  sh_lock* lock = nullptr;
  EXPECT_EQ(sh_area_lock(nullptr, mine_.area.get(), 0, 1, nullptr, &lock, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_area_lock(mine_.client.get(), nullptr, 0, 1, nullptr, &lock, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(mine_.LocksInUse(), 0u);
}

constexpr uint64_t kReadyPos = 40 * kStripe;  // A word: 1 the late writer is ready, 2 it may go on.
constexpr uint64_t kUnfencedPos = 100;

// What the test below starts as a process of its own; nothing where nobody asks.
TEST(LateWriter, WritesWithItsTokenWhenItGoesOn) {
  const char* const url = getenv("WRITER_URL");
  if (url == nullptr) return;
  const Worker worker = Connect(url, getenv("STATEHOUSE_TOKEN"), SH_TRANSPORT_AUTO);
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  const LockPtr lock = worker.Take({0, kStripe}, brief);
  const uint64_t token = sh_lock_token(lock.get());
  ASSERT_EQ(worker.Write(0, "early", token), SH_OK);
  ASSERT_EQ(sh_store(worker.area.get(), SH_U64, kReadyPos, 1, nullptr), SH_OK);
  const auto may_go_on = [&] {
    uint64_t word = 0;
    EXPECT_EQ(sh_load(worker.area.get(), SH_U64, kReadyPos, &word, nullptr), SH_OK);
    return word == 2;
  };
  ASSERT_TRUE(Eventually(may_go_on));  // It is stopped in here.
  EXPECT_EQ(worker.Write(0, "late!", token), SH_FENCED);
  EXPECT_EQ(worker.Write(kUnfencedPos, "late!", 0), SH_OK);
}

// The resource refuses who is late, though the late one has not noticed anything yet. Without a
// token it cannot tell.
TEST_P(AreaLockClientTest, AHolderThatWasStoppedPastItsLeaseIsRefusedByTheArea) {
  const pid_t writer = fork();
  if (writer == 0) {
    const char* const door = GetParam() == SH_TRANSPORT_LOCAL ? "local" : "network";
    setenv("WRITER_URL", (url() + "?transport=" + door).c_str(), 1);
    setenv("STATEHOUSE_TOKEN", daemon_->token().c_str(), 1);
    execl("/proc/self/exe", "writer", "--gtest_filter=LateWriter.*", nullptr);
    _exit(99);
  }
  const auto word = [&] {
    uint64_t value = 0;
    EXPECT_EQ(sh_load(mine_.area.get(), SH_U64, kReadyPos, &value, nullptr), SH_OK);
    return value;
  };
  ASSERT_TRUE(Eventually([&] { return word() == 1; }));
  ASSERT_TRUE(testing::StopProcess(writer));
  const LockPtr next = mine_.Take({0, kStripe});  // After the lease, which nobody renewed.
  ASSERT_EQ(mine_.Write(0, "next!", sh_lock_token(next.get())), SH_OK);
  ASSERT_EQ(mine_.Write(kUnfencedPos, "next!", sh_lock_token(next.get())), SH_OK);
  ASSERT_EQ(sh_store(mine_.area.get(), SH_U64, kReadyPos, 2, nullptr), SH_OK);
  ASSERT_EQ(kill(writer, SIGCONT), 0);

  EXPECT_EQ(testing::WaitForExit(writer), 0);
  EXPECT_EQ(mine_.Bytes(0, 5), "next!");
  EXPECT_EQ(mine_.Bytes(kUnfencedPos, 5), "late!") << "what a token is for";
}

INSTANTIATE_TEST_SUITE_P(Doors, AreaLockClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK),
                         [](const auto& door) {
                           return door.param == SH_TRANSPORT_LOCAL ? "local" : "network";
                         });

}  // namespace
}  // namespace statehouse
