// Requests of each method as clients send them, and the same with bytes changed, moved and left
// out: the same ones in each run.
#include "tests/fuzz/dispatch_bytes.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/null_sink.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "service/log.h"

namespace statehouse::testing {
namespace {

constexpr int kInputs = 3'000;
constexpr int kInputsForAll = 500;  // The whole lock space is looked through after so many.

class Source final {
 public:
  explicit Source(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  const std::string& Seed() { return seeds_[Below(seeds_.size())]; }
  // Some requests, of which most bytes are as they should be.
  std::string Input() {
    std::string input;
    for (uint64_t i = 1 + Below(4); i > 0; --i) {
      std::string request = Seed();
      if (Below(8) == 0) request[0] = static_cast<char>(request[0] | 0x80);
      for (uint64_t damage = Below(3); damage > 0 && !request.empty(); --damage) {
        Damage(&request);
      }
      input += request;
    }
    return input;
  }

 private:
  void Damage(std::string* bytes) {
    const size_t at = Below(bytes->size());
    switch (Below(4)) {
      case 0: (*bytes)[at] = static_cast<char>(Below(256)); break;
      case 1: bytes->erase(at, 1 + Below(4)); break;
      case 2: bytes->insert(at, 1, static_cast<char>(Below(256))); break;
      default: bytes->append(Seed().substr(Below(3))); break;
    }
  }

  const std::vector<std::string> seeds_;
  std::mt19937_64 random_{20261130};
};

class DispatchBytesTest : public ::testing::Test {
 protected:
  DispatchBytesTest() { spdlog::set_default_logger(spdlog::null_logger_mt("none")); }
  ~DispatchBytesTest() override { spdlog::drop("none"); }
};

TEST_F(DispatchBytesTest, TheSeedOfEachMethodIsTaken) {
  DispatchBytes bytes;
  const std::vector<std::string> seeds = bytes.Seeds();
  for (const std::string& seed : seeds) {
    bytes.Run(seed, /*thoroughly=*/false);
    EXPECT_EQ(bytes.answered(), 1)
        << "method " << static_cast<int>(seed.front()) << ": " << bytes.last_refusal().ToString();
  }
}

TEST_F(DispatchBytesTest, StreamsAreBegunAndHaveMessages) {
  DispatchBytes bytes;
  int streams = 0;
  for (const std::string& seed : bytes.Seeds()) {
    bytes.Run(seed, /*thoroughly=*/false);
    if (bytes.streams() == 0) continue;
    // A snapshot and its end. Which of them come in time is chance.
    EXPECT_TRUE(Eventually([&] {
      bytes.Run(seed, /*thoroughly=*/false);
      return bytes.messages() > 1;
    })) << "method "
        << static_cast<int>(seed.front());
    ++streams;
  }
  EXPECT_EQ(streams, 2);
}

TEST_F(DispatchBytesTest, AnyBytesAreAnsweredAndLeaveASoundState) {
  DispatchBytes bytes;
  Source source(bytes.Seeds());
  for (int i = 0; i < kInputs; ++i) {
    bytes.Run(source.Input(), i % kInputsForAll == kInputsForAll - 1);
  }
}

}  // namespace
}  // namespace statehouse::testing
