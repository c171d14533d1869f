#include "service/logging.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>

#include "statehouse/v1/dict.pb.h"

namespace statehouse {
namespace {

TEST(LoggingTest, EveryMessageIsOneLineOfJson) {
  std::ostringstream out;
  auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(out);
  spdlog::logger logger("test", sink);
  logger.set_formatter(NewJsonFormatter());

  logger.warn("a \"quoted\"\nsecond line\x01");

  const std::string line = out.str();
  EXPECT_EQ(line.find("{\"time\":\"2"), 0u) << line;
  EXPECT_NE(line.find("\"level\":\"warning\",\"process\":\"daemon\""), std::string::npos) << line;
  EXPECT_NE(line.find("\"message\":\"a \\\"quoted\\\"\\nsecond line\\u0001\"}\n"),
            std::string::npos)
      << line;
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

// A client could fill the log with them.
TEST(LoggingTest, WhatProtobufFindsWrongWithARequestIsNoLine) {
  testing::internal::CaptureStderr();
  SetUpLogging("text", "info");
  v1::GetEntryRequest request;
  EXPECT_FALSE(request.ParseFromString("\x12\x01\xff"));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace statehouse
