#include "clients/cli/hex_dump.h"

#include "gtest/gtest.h"

namespace statehouse::cli {
namespace {

TEST(HexDumpTest, LineShowsOffsetBytesAndCharacters) {
  EXPECT_EQ(HexDump("Hello, world\n", 16),
            "00000010  48 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a           |Hello, world.|\n");
}

TEST(HexDumpTest, EqualLinesAreShownOnceAndTheLastAlways) {
  const std::string dump = HexDump(std::string(64, '\0'), 0);

  EXPECT_EQ(dump.find("00000010"), std::string::npos);
  EXPECT_NE(dump.find("\n*\n"), std::string::npos);
  EXPECT_NE(dump.find("00000030"), std::string::npos);
}

TEST(HexTest, HexadecimalRoundTrips) {
  EXPECT_EQ(FromHex("48 65\n6C"), "Hel");
  EXPECT_EQ(ToHex("Hel\xff"), "48656cff");
  EXPECT_EQ(*FromHex(ToHex(std::string(1, '\0'))), std::string(1, '\0'));
}

TEST(HexTest, HalfBytesAndOtherCharactersAreRefused) {
  EXPECT_FALSE(FromHex("4").has_value());
  EXPECT_FALSE(FromHex("4g").has_value());
}

}  // namespace
}  // namespace statehouse::cli
