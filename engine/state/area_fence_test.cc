// Fencing tokens on an area's mutations: who is late is refused, and only there.
#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/state/test_area.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

constexpr uint64_t kStripe = 4096;
constexpr uint64_t kSize = 5 * kStripe;
constexpr uint64_t kAtomicRange = 8 << 10;
const Lane kLane{1, kOperationTimeoutNsDefault};
constexpr uint32_t kReaderLane = 9;
constexpr uint64_t kPatienceNs = uint64_t{60} * 1'000'000'000;

// Every mutation, at a position whose first stripe is the one of `pos`.
struct Mutation {
  const char* name;
  std::function<Status(Area&, uint64_t pos, uint64_t fence)> run;
};

std::vector<Mutation> Mutations() {
  return {
      {"store", [](Area& a, uint64_t pos,
                   uint64_t fence) { return a.Store(kLane, WordType::kU32, pos, 1, fence); }},
      {"store, unaligned",
       [](Area& a, uint64_t pos, uint64_t fence) {
         return a.Store(kLane, WordType::kU32, pos + 1, 1, fence);
       }},
      {"store by type", [](Area& a, uint64_t pos,
                           uint64_t fence) { return a.StoreAs<uint16_t>(kLane, pos, 1, fence); }},
      {"add",
       [](Area& a, uint64_t pos, uint64_t fence) {
         uint64_t bits = 0;
         return a.Add(kLane, WordType::kU64, pos, 1, &bits, fence);
       }},
      {"add across two stripes",
       [](Area& a, uint64_t pos, uint64_t fence) {
         uint64_t bits = 0;
         return a.Add(kLane, WordType::kU64, pos / kStripe * kStripe + kStripe - 3, 1, &bits,
                      fence);
       }},
      {"compare_exchange that exchanges",
       [](Area& a, uint64_t pos, uint64_t fence) {
         uint64_t found = 0;
         SH_RETURN_IF_ERROR(a.Load(WordType::kU8, pos, &found));
         CompareExchangeResult result;
         return a.CompareExchange(kLane, WordType::kU8, pos, found, found + 1, &result, fence);
       }},
      {"or",
       [](Area& a, uint64_t pos, uint64_t fence) {
         uint64_t bits = 0;
         return a.Bitwise(kLane, BitwiseOperator::kOr, WordType::kU8, pos, 1, &bits, fence);
       }},
      {"write", [](Area& a, uint64_t pos,
                   uint64_t fence) { return a.Write(kLane, pos, Bytes("bytes"), fence); }},
      {"empty write",
       [](Area& a, uint64_t pos, uint64_t fence) { return a.Write(kLane, pos, {}, fence); }},
      {"fill", [](Area& a, uint64_t pos,
                  uint64_t fence) { return a.Fill(kLane, pos, 9, std::byte{'f'}, fence); }},
  };
}

uint64_t FenceAt(const TestArea& test, uint32_t stripe) {
  return AreaInternals::Stripe(*test.area, stripe).fence.load();
}

TEST(AreaFenceTest, EveryMutationWithAnOlderTokenIsRefusedAndChangesNothing) {
  for (const Mutation& mutation : Mutations()) {
    TestArea test(kSize, kAtomicRange);
    ASSERT_TRUE(mutation.run(*test.area, 64, 7).ok()) << mutation.name;
    const std::string before = ReadString(*test.area, 0, kSize);
    const uint64_t updates = test.area->Updates();

    const Status late = mutation.run(*test.area, 64, 6);

    EXPECT_EQ(late.reason(), Reason::kFenced) << mutation.name;
    EXPECT_EQ(ReadString(*test.area, 0, kSize), before) << mutation.name;
    EXPECT_EQ(test.area->Updates(), updates) << mutation.name;
    EXPECT_EQ(FenceAt(test, 0), 7u) << mutation.name;
  }
}

TEST(AreaFenceTest, AnEqualTokenAndANewerOneAreServed) {
  for (const Mutation& mutation : Mutations()) {
    TestArea test(kSize, kAtomicRange);
    ASSERT_TRUE(mutation.run(*test.area, 64, 7).ok()) << mutation.name;

    EXPECT_TRUE(mutation.run(*test.area, 64, 7).ok()) << mutation.name;
    EXPECT_TRUE(mutation.run(*test.area, 64, 8).ok()) << mutation.name;

    EXPECT_EQ(FenceAt(test, 0), 8u) << mutation.name;
  }
}

TEST(AreaFenceTest, AMutationWithoutATokenIsNeitherRefusedNorNoted) {
  for (const Mutation& mutation : Mutations()) {
    TestArea test(kSize, kAtomicRange);
    ASSERT_TRUE(mutation.run(*test.area, 64, 7).ok()) << mutation.name;

    EXPECT_TRUE(mutation.run(*test.area, 64, 0).ok()) << mutation.name;

    EXPECT_EQ(FenceAt(test, 0), 7u) << mutation.name;
  }
}

TEST(AreaFenceTest, StripesThatNobodyTouchedKeepTheirFence) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->Write(kLane, kStripe + 10, Bytes("x"), 9).ok());

  EXPECT_TRUE(test.area->Write(kLane, 10, Bytes("x"), 5).ok());
  EXPECT_TRUE(test.area->Write(kLane, 2 * kStripe, Bytes("x"), 5).ok());

  EXPECT_EQ(FenceAt(test, 0), 5u);
  EXPECT_EQ(FenceAt(test, 1), 9u);
  EXPECT_EQ(FenceAt(test, 2), 5u);
}

TEST(AreaFenceTest, ARangeIsRefusedWhereAnyOfItsStripesHasANewerToken) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->StoreAs<uint8_t>(kLane, kStripe, 1, 9).ok());

  const Status late = test.area->Write(kLane, kStripe - 2, Bytes("four"), 8);

  EXPECT_EQ(late.reason(), Reason::kFenced);
  EXPECT_EQ(ReadString(*test.area, kStripe - 2, 2), std::string(2, '\0'));
  EXPECT_EQ(FenceAt(test, 0), 0u) << "a refused write raises no fence";
}

TEST(AreaFenceTest, ALongRangeSaysHowFarItCame) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->StoreAs<uint8_t>(kLane, 3 * kStripe, 1, 9).ok());

  const Status late = test.area->Fill(kLane, 0, kSize, std::byte{'f'}, 8);

  EXPECT_EQ(late.reason(), Reason::kFenced);
  EXPECT_NE(late.message().find("the first 8192 bytes were done"), std::string::npos)
      << late.message();
  EXPECT_EQ(ReadString(*test.area, 0, kAtomicRange), std::string(kAtomicRange, 'f'));
  EXPECT_EQ(ReadString(*test.area, kAtomicRange, 10), std::string(10, '\0'));
}

TEST(AreaFenceTest, ACompareExchangeThatFindsAnotherWordIsCheckedButRaisesNothing) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->StoreAs<uint8_t>(kLane, 0, 1, 5).ok());
  CompareExchangeResult result;

  EXPECT_TRUE(test.area->CompareExchange(kLane, WordType::kU8, 0, 2, 3, &result, 6).ok());
  EXPECT_FALSE(result.exchanged);
  EXPECT_EQ(FenceAt(test, 0), 5u);
  EXPECT_EQ(test.area->CompareExchange(kLane, WordType::kU8, 0, 2, 3, &result, 4).reason(),
            Reason::kFenced);
}

TEST(AreaFenceTest, TheMessageNamesAreaRangeAndBothTokens) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->StoreAs<uint32_t>(kLane, 8, 1, 1234).ok());

  const Status late = test.area->StoreAs<uint32_t>(kLane, 8, 1, 77);

  for (const char* part : {"area \"t\"", "pos 8", "len 4", "1234", "77", "lease is over"}) {
    EXPECT_NE(late.message().find(part), std::string::npos) << part << ": " << late.message();
  }
}

TEST(AreaFenceTest, RecoveryAndScrubKeepWhateverTheFenceSays) {
  TestArea test(kSize, kAtomicRange);
  AreaInternals::Stripe(*test.area, 0).fence = ~uint64_t{0};
  AreaInternals::Stripe(*test.area, 1).fence = 17;

  (void)test.area->RecoverLane(2);
  (void)test.area->Scrub([](uint32_t, uint64_t) { return true; });

  EXPECT_EQ(FenceAt(test, 0), ~uint64_t{0});
  EXPECT_EQ(FenceAt(test, 1), 17u);
  EXPECT_EQ(test.area->StoreAs<uint8_t>(kLane, 0, 1, 5).reason(), Reason::kFenced);
  EXPECT_TRUE(test.area->StoreAs<uint8_t>(kLane, 0, 1).ok());
}

TEST(AreaFenceTest, AReadOnlyMappingOrABadRangeIsRefusedBeforeTheFence) {
  TestArea test(kSize, kAtomicRange);
  ASSERT_TRUE(test.area->StoreAs<uint8_t>(kLane, 0, 1, 5).ok());
  const auto reader = test.Map(Access::kReadOnly);

  EXPECT_EQ(reader->StoreAs<uint8_t>(kLane, 0, 1, 4).reason(), Reason::kReadOnly);
  EXPECT_EQ(test.area->StoreAs<uint8_t>(kLane, kSize, 1, 4).reason(), Reason::kOutOfBounds);
}

// Writers that are late by chance: each takes the next token and writes it. A reader must never see
// a token after a higher one.
template <typename Write, typename Read>
void RaceWithTokens(TestArea& test, const Write& write, const Read& read) {
  constexpr int kWriters = 3;
  constexpr int kRounds = 20'000;
  std::atomic<uint64_t> next_token{1};
  std::atomic<int> writing{kWriters};
  std::vector<std::thread> writers;
  for (uint32_t id = 1; id <= kWriters; ++id) {
    writers.emplace_back([&, id] {
      const Lane lane{id, kPatienceNs};
      for (int i = 0; i < kRounds; ++i) {
        const uint64_t token = next_token.fetch_add(1);
        if (i % 64 == 0) std::this_thread::yield();
        const Status status = write(*test.area, lane, token);
        EXPECT_TRUE(status.ok() || status.reason() == Reason::kFenced) << status.ToString();
      }
      --writing;
    });
  }
  uint64_t seen = 0;
  while (writing > 0) {
    const uint64_t token = read(*test.area);
    EXPECT_GE(token, seen);
    seen = token;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(read(*test.area), next_token - 1) << "nobody can refuse the highest token";
}

TEST(AreaFenceTest, AWordNeverGoesBackToAnOlderToken) {
  TestArea test(kSize, kAtomicRange);
  RaceWithTokens(
      test,
      [](Area& area, const Lane& lane, uint64_t token) {
        return area.StoreAs<uint64_t>(lane, 8, token, token);
      },
      [](Area& area) {
        uint64_t token = 0;
        EXPECT_TRUE(area.LoadAs(8, &token, kPatienceNs).ok());
        return token;
      });
}

TEST(AreaFenceTest, ARangeOverTwoStripesNeverGoesBackToAnOlderToken) {
  TestArea test(kSize, kAtomicRange);
  constexpr uint64_t kPos = kStripe - 8;
  RaceWithTokens(
      test,
      [](Area& area, const Lane& lane, uint64_t token) {
        const uint64_t both[2] = {token, token};
        return area.Write(lane, kPos, std::as_bytes(std::span(both)), token);
      },
      [](Area& area) {
        uint64_t both[2] = {};
        const Lane lane{kReaderLane, kPatienceNs};
        EXPECT_TRUE(area.Read(kPos, std::as_writable_bytes(std::span(both)), &lane).ok());
        EXPECT_EQ(both[0], both[1]);
        return both[0];
      });
}

}  // namespace
}  // namespace statehouse
