// For tests of watches through the C++ header: a service, and a client through the door under test.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "statehouse/client.hpp"
#include "tests/support/daemon.h"

namespace statehouse::client {

inline constexpr std::chrono::milliseconds kPatience{60'000};

class WatchClientTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = testing::Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    Options options;
    options.token = daemon_->token();
    options.transport = GetParam();
    options.timeout = kPatience;
    auto client = Client::Connect("statehouse+unix://" + daemon_->runtime_dir(), options);
    ASSERT_TRUE(client.ok()) << client.error().message();
    client_ = *std::move(client);
  }
  // The next event of a watch of any kind; one of no kind where there is none.
  template <typename AnyWatch>
  static auto Take(AnyWatch* watch) {
    auto event = watch->Next(kPatience);
    EXPECT_TRUE(event.ok()) << event.error().message();
    return event->value_or(typename AnyWatch::Event());
  }

  std::unique_ptr<testing::Daemon> daemon_;
  std::optional<Client> client_;
};

inline std::string DoorName(const ::testing::TestParamInfo<sh_transport>& door) {
  return door.param == SH_TRANSPORT_LOCAL ? "local" : "network";
}

}  // namespace statehouse::client
