// Very many locks at once, through each door: all of them are held, listed, told of and given back,
// and what is too much is refused with its reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <statehouse/statehouse.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/base/limits.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kTtlMs = 600'000;

double Since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// "VmRSS" and "RssShmem", in MiB; the latter is part of the former.
double MemoryMib(pid_t pid, const std::string& what) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == what + ":" && status >> kib) return kib / 1024;
  }
  return -1;
}

class ManyLocksTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    client_ = Connect(GetParam());
    other_ = Connect(SH_TRANSPORT_NETWORK);
  }
  void TearDown() override {
    for (sh_lock* lock : locks_) sh_lock_release(lock, nullptr, nullptr);
    sh_close(client_);
    sh_close(other_);
  }
  sh_client* Connect(sh_transport transport) const {
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.timeout_ms = 60'000;
    options.transport = transport;
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    EXPECT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    return client;
  }
  bool local() const { return GetParam() == SH_TRANSPORT_LOCAL; }
  // Takes one more lock.
  sh_reason Take(std::string* message = nullptr) {
    const std::string name = "many/" + std::to_string(locks_.size());
    sh_lock_options options{};
    options.ttl_ms = kTtlMs;
    sh_lock* lock = nullptr;
    sh_error* error = nullptr;
    const sh_reason reason = sh_lock_acquire(client_, name.c_str(), &options, &lock, &error);
    if (message != nullptr) *message = sh_error_message(error);
    sh_error_free(error);
    if (lock != nullptr) locks_.push_back(lock);
    return reason;
  }
  size_t Listed(const char* prefix) {
    sh_lock_info* infos = nullptr;
    size_t count = 0;
    EXPECT_EQ(sh_lock_list(other_, prefix, &infos, &count, nullptr), SH_OK);
    std::set<std::string> names;
    for (size_t i = 0; i < count; ++i) {
      names.insert(infos[i].name);
      EXPECT_EQ(infos[i].holder_count, 1u) << infos[i].name;
    }
    sh_lock_infos_free(infos, count);
    EXPECT_EQ(names.size(), count) << "a lock was listed twice";
    return count;
  }

  std::unique_ptr<Daemon> daemon_;
  sh_client* client_ = nullptr;
  sh_client* other_ = nullptr;
  std::vector<sh_lock*> locks_;
};

TEST_P(ManyLocksTest, AllAreHeldListedToldAndGivenBack) {
  const size_t count = local() ? 100'000 : 5'000;
  const double shared_before = MemoryMib(daemon_->daemon_pid(), "RssShmem");
  const double own_before = MemoryMib(daemon_->daemon_pid(), "VmRSS") - shared_before;
  ASSERT_GT(shared_before, 0);

  auto begin = std::chrono::steady_clock::now();
  while (locks_.size() < count) ASSERT_EQ(Take(), SH_OK);
  const double taking_s = Since(begin);

  begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Listed("many/"), count);
  const double listing_s = Since(begin);
  for (size_t i = 0; i < count; i += count / 100) {
    ASSERT_EQ(sh_lock_held(locks_[i], nullptr), 1) << i;
    sh_lock_info* info = nullptr;
    ASSERT_EQ(sh_lock_describe(other_, sh_lock_name(locks_[i]), &info, nullptr), SH_OK);
    EXPECT_EQ(info->holder_count, 1u);
    EXPECT_EQ(info->parties[0].token, sh_lock_token(locks_[i]));
    sh_lock_infos_free(info, 1);
  }
  const double shared = MemoryMib(daemon_->daemon_pid(), "RssShmem");
  const double own = MemoryMib(daemon_->daemon_pid(), "VmRSS") - shared;

  begin = std::chrono::steady_clock::now();
  for (sh_lock*& lock : locks_) {
    int held = 0;
    ASSERT_EQ(sh_lock_release(lock, &held, nullptr), SH_OK);
    ASSERT_EQ(held, 1);
    lock = nullptr;
  }
  const double releasing_s = Since(begin);
  locks_.clear();
  EXPECT_EQ(Listed("many/"), 0u);
  std::printf(
      "%zu locks: taken in %.2f s, listed in %.2f s, given back in %.2f s; the daemon has %.1f MiB "
      "shared and %.1f MiB of its own more\n",
      count, taking_s, listing_s, releasing_s, shared - shared_before, own - own_before);
}

INSTANTIATE_TEST_SUITE_P(Doors, ManyLocksTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK),
                         [](const auto& at) {
                           return at.param == SH_TRANSPORT_LOCAL ? "Local" : "Network";
                         });

using ManyLocksLimitTest = ManyLocksTest;

TEST_P(ManyLocksLimitTest, WhatIsTooMuchIsRefusedAndTheRestStands) {
  while (locks_.size() < kLocksMaxDefault) ASSERT_EQ(Take(), SH_OK) << locks_.size();

  std::string message;
  EXPECT_EQ(Take(&message), SH_LIMIT_EXCEEDED);
  EXPECT_THAT(message, HasSubstr(std::to_string(kLocksMaxDefault)));
  std::printf("%s\n", message.c_str());
  sh_lock_options options{};
  options.try_only = 1;
  sh_lock* lock = nullptr;
  EXPECT_EQ(sh_lock_acquire(other_, "one too many", &options, &lock, nullptr), SH_LIMIT_EXCEEDED)
      << "through the other door";
  EXPECT_EQ(sh_lock_acquire(other_, "many/7", &options, &lock, nullptr), SH_OK)
      << "a lock that is there needs no room";
  EXPECT_EQ(lock, nullptr) << "it is held";
  EXPECT_EQ(sh_lock_held(locks_.front(), nullptr), 1);

  EXPECT_EQ(sh_lock_release(locks_.back(), nullptr, nullptr), SH_OK);
  locks_.pop_back();
  EXPECT_EQ(Take(), SH_OK) << "there is room again";
}

INSTANTIATE_TEST_SUITE_P(Doors, ManyLocksLimitTest, ::testing::Values(SH_TRANSPORT_LOCAL),
                         [](const auto&) { return "Local"; });

}  // namespace
}  // namespace statehouse::testing
