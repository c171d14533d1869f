#include "service/config/toml_text.h"

#include "gtest/gtest.h"
#include "service/config/toml_parser.h"

namespace statehouse {
namespace {

TEST(TomlTextTest, WhatEndsAStringOrIsNotShownIsEscaped) {
  EXPECT_EQ(QuoteToml(""), R"("")");
  EXPECT_EQ(QuoteToml("a \"b\" \\ c"), R"("a \"b\" \\ c")");
  EXPECT_EQ(QuoteToml("\t\n\x7f"), R"("\u0009\u000A\u007F")");
  EXPECT_EQ(QuoteToml("Zürich"), R"("Zürich")");
}

TEST(TomlTextTest, IsReadAsItWasWritten) {
  std::string text = "é";
  for (char c = 1; c < 0x7f; ++c) text.push_back(c);

  const toml::parse_result file = toml::parse("key = " + QuoteToml(text));

  ASSERT_TRUE(file.succeeded());
  EXPECT_EQ(file["key"].value_or(std::string()), text);
}

}  // namespace
}  // namespace statehouse
