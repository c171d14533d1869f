// Sequences of valid requests, at random. The seed is printed; STATEHOUSE_SEQUENCE_SEED=<seed>
// gives the same requests again.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "service/api/request_sequence.h"

namespace statehouse {
namespace {

int Steps() { return std::getenv("STATEHOUSE_LONG") != nullptr ? 100'000 : 3'000; }

TEST(SequenceTest, EveryRequestLeavesASoundStateThatHoldsWhatTheModelHolds) {
  const char* const given = std::getenv("STATEHOUSE_SEQUENCE_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  TestService service;
  RequestSequence sequence(&service, [&random](uint64_t bound) { return random() % bound; });
  for (int i = 0; i < Steps(); ++i) {
    sequence.Step();
    sequence.CheckAll(i % 100 == 99);
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << i << ", seed " << seed;
  }
}

}  // namespace
}  // namespace statehouse
