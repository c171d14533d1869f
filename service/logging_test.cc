#include "service/logging.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <sstream>

#include "service/api/log_fields.h"
#include "service/log.h"
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

TEST(LoggingTest, FieldsFollowTheMessageInJsonAndAreLeftOutOfText) {
  std::ostringstream out;
  auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(out);
  spdlog::logger logger("test", sink);
  LogFields fields;
  fields.Text("kind", "slow").Text("object", "a\"b\n").Text("peer", "").Number("count", 7);
  fields.Milliseconds("ms", 1234.5678);

  logger.set_formatter(NewJsonFormatter());
  fields.Log(logger, spdlog::level::warn, "said {} as it is");
  const std::string json = out.str();
  out.str("");
  logger.set_pattern("%l: [%@] %v");
  fields.Log(logger, spdlog::level::warn, "said");
  logger.set_formatter(NewJsonFormatter());
  logger.warn("without");

  EXPECT_NE(json.find("\"message\":\"said {} as it is\",\"kind\":\"slow\",\"object\":\"a\\\"b\\n\","
                      "\"count\":7,\"ms\":1234.568}\n"),
            std::string::npos)
      << json;
  EXPECT_EQ(out.str().find("warning: [] said\n{"), 0u) << out.str();
  EXPECT_NE(out.str().find("\"message\":\"without\"}\n"), std::string::npos) << out.str();
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
