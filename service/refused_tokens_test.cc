#include "service/refused_tokens.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "service/log.h"

namespace statehouse {
namespace {

class RefusedTokensTest : public ::testing::Test {
 protected:
  RefusedTokensTest() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~RefusedTokensTest() override { spdlog::set_default_logger(before_); }

  void Refuse(std::string_view peer, Reason reason, int64_t now_s, int times = 1) {
    for (int i = 0; i < times; ++i) refused_.Add(Door::kNetwork, peer, reason, now_s);
  }
  // What was logged since the last call.
  std::string Logged() {
    std::string text = text_.str();
    text_.str("");
    return text;
  }

  RefusedTokens refused_;
  std::ostringstream text_;
  const std::shared_ptr<spdlog::logger> before_;
};

TEST_F(RefusedTokensTest, AHostHasALineAtOnceAndThenOneAMinute) {
  Refuse("ipv4:10.0.0.7:5001", Reason::kUnauthenticated, 100);
  EXPECT_EQ(Logged(),
            "warning refused access tokens of 10.0.0.7 at the network door: 1 since its last line "
            "(1 UNAUTHENTICATED), the latest from 10.0.0.7:5001\n");

  Refuse("ipv4:10.0.0.7:5002", Reason::kUnauthenticated, 101, 60);
  Refuse("ipv4:10.0.0.7:5003", Reason::kRateLimited, 159, 9);
  refused_.Tell(159);
  EXPECT_EQ(Logged(), "");

  refused_.Tell(160);
  EXPECT_EQ(Logged(),
            "warning refused access tokens of 10.0.0.7 at the network door: 69 since its last line "
            "(60 UNAUTHENTICATED, 9 RATE_LIMITED), the latest from 10.0.0.7:5003\n");
  refused_.Tell(500);  // Nothing came any more.
  EXPECT_EQ(Logged(), "");
}

TEST_F(RefusedTokensTest, EachHostAndDoorHasItsOwn) {
  Refuse("ipv4:10.0.0.7:5001", Reason::kUnauthenticated, 100);
  Refuse("ipv4:10.0.0.8:5001", Reason::kTokenExpired, 100);
  Refuse("ipv6:%5B2001:db8::1%5D:5001", Reason::kUnauthenticated, 100);
  Refuse("ipv6:[2001:db8::2]:5001", Reason::kUnauthenticated, 100);  // Of the same network.
  Refuse("unix:", Reason::kUnauthenticated, 100);
  refused_.Add(Door::kLocal, "unix:uid=1000,pid=7", Reason::kUnauthenticated, 100);
  refused_.Add(Door::kLocal, "unix:uid=1000,pid=8", Reason::kUnauthenticated, 100);

  const std::string text = Logged();
  for (const char* host :
       {"of 10.0.0.7 at the network door: 1 ", "of 10.0.0.8 at the network door: 1 ",
        "of [2001:db8::] at the network door: 1 ", "of grpc.sock at the network door: 1 ",
        "of unix:uid=1000 at the local door: 1 "}) {
    EXPECT_NE(text.find(host), std::string::npos) << host << "\n" << text;
  }
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5) << text;
  refused_.TellAll();
  EXPECT_NE(Logged().find("of unix:uid=1000 at the local door: 1 since its last line "
                          "(1 UNAUTHENTICATED), the latest from unix:uid=1000,pid=8"),
            std::string::npos);
}

TEST_F(RefusedTokensTest, HostsBeyondTheLimitShareALine) {
  const auto host = [](size_t i) {
    return "ipv4:10.0." + std::to_string(i / 200) + "." + std::to_string(i % 200) + ":5";
  };
  for (size_t i = 0; i < kRefusedHostsMax; ++i) Refuse(host(i), Reason::kUnauthenticated, 100);
  const std::string own = Logged();
  EXPECT_EQ(std::count(own.begin(), own.end(), '\n'), static_cast<ptrdiff_t>(kRefusedHostsMax));

  Refuse(host(kRefusedHostsMax), Reason::kUnauthenticated, 100, 3);
  EXPECT_EQ(Logged(), "");
  refused_.Tell(160);  // The others are forgotten, and there is room again.
  EXPECT_EQ(
      Logged(),
      "warning refused access tokens of other hosts than the 256 that have lines of their own: "
      "3\n");
  Refuse(host(kRefusedHostsMax), Reason::kUnauthenticated, 161);
  EXPECT_NE(Logged().find(" at the network door: 1 since"), std::string::npos);
}

TEST_F(RefusedTokensTest, WhatAPeerIsCalledCannotFakeALine) {
  Refuse("ipv9:x\nerror fake\x1b[2J", Reason::kUnauthenticated, 100);
  const std::string text = Logged();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace statehouse
