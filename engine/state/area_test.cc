// One area, its words, ranges, bounds and atomicity.
#include "engine/state/area.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "engine/shm/owned_lock.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

constexpr WordType kAllTypes[] = {WordType::kU8, WordType::kU16, WordType::kU32, WordType::kU64,
                                  WordType::kI8, WordType::kI16, WordType::kI32, WordType::kI64};
const Lane kLane{1, kOperationTimeoutNsDefault};

TEST(AreaGeometryTest, StripesCoverTheSizeAndAreNeverMoreThanTheLimit) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{4096}, uint64_t{4097}, uint64_t{4} << 20,
                              (uint64_t{4} << 20) + 1, uint64_t{1} << 30, kAreaBytesMax}) {
    const AreaGeometry geometry = AreaGeometry::For(size);

    EXPECT_LE(geometry.stripe_count, kStripesMax) << size;
    EXPECT_GE(uint64_t{geometry.stripe_count} << geometry.stripe_shift, size);
    EXPECT_LT(uint64_t{geometry.stripe_count - 1} << geometry.stripe_shift, size);
    EXPECT_TRUE(geometry.Validate().ok()) << geometry.Validate().ToString();
  }
}

TEST(AreaGeometryTest, ValidateRefusesEveryChangedField) {
  const AreaGeometry good = AreaGeometry::For(1 << 20);
  const auto refused = [&](auto change) {
    AreaGeometry geometry = good;
    change(geometry);
    return geometry.Validate().reason() == Reason::kInvalidArgument;
  };

  EXPECT_TRUE(refused([](AreaGeometry& g) { g.size = 0; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.size = kAreaBytesMax + 1; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.stripe_shift = 63; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.stripe_count += 1; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.control_bytes -= kPageBytes; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.data_offset += 1; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.atomic_range_bytes = 0; }));
  EXPECT_TRUE(refused([](AreaGeometry& g) { g.lane_count = kLanesMax + 1; }));
}

TEST(AreaMapTest, UnsealedOrShortOrForeignDescriptorsAreRefused) {
  TestArea test(4096);
  auto short_memory = CreateSealedMemory("short", kPageBytes);
  ASSERT_TRUE(short_memory.ok());
  auto blank = CreateSealedMemory("blank", test.geometry.data_offset + kPageBytes);
  ASSERT_TRUE(blank.ok());

  EXPECT_EQ(
      Area::Map("a", test.geometry, short_memory->get(), -1, Access::kReadWrite).status().reason(),
      Reason::kBackingInvalid);
  EXPECT_EQ(Area::Map("a", test.geometry, blank->get(), -1, Access::kReadWrite).status().reason(),
            Reason::kVersionMismatch);
  reinterpret_cast<SegmentHeader*>(AreaInternals::Control(*test.area))->abi_major =
      kSegmentAbiMajor + 1;
  EXPECT_EQ(Area::Map("a", test.geometry, test.fd.get(), -1, Access::kReadWrite).status().reason(),
            Reason::kVersionMismatch);
}

TEST(AreaWordTest, EveryTypeStoresLoadsAndAddsAtEveryAlignment) {
  TestArea test(3 * 4096);
  for (const WordType type : kAllTypes) {
    // 4090 … 4100 crosses from the first stripe into the second.
    for (uint64_t pos = 4085; pos < 4101; ++pos) {
      uint64_t bits = 0;
      const uint64_t stored = 0x8182838485868788u & WordMask(type);
      ASSERT_TRUE(test.area->Store(kLane, type, pos, stored).ok());
      ASSERT_TRUE(test.area->Load(type, pos, &bits).ok());
      EXPECT_EQ(bits, stored) << "pos " << pos;

      ASSERT_TRUE(test.area->Add(kLane, type, pos, 3, &bits).ok());
      EXPECT_EQ(bits, (stored + 3) & WordMask(type));
      ASSERT_TRUE(test.area->Add(kLane, type, pos, ~uint64_t{0}, &bits).ok());
      EXPECT_EQ(bits, (stored + 2) & WordMask(type));
    }
  }
}

TEST(AreaWordTest, AddWrapsAroundAtTheWidth) {
  TestArea test(64);
  uint64_t bits = 0;
  ASSERT_TRUE(test.area->Store(kLane, WordType::kU8, 3, 255).ok());

  ASSERT_TRUE(test.area->Add(kLane, WordType::kU8, 3, 1, &bits).ok());

  EXPECT_EQ(bits, 0u);
  EXPECT_EQ(ReadString(*test.area, 0, 8), std::string(8, '\0'));
}

TEST(AreaWordTest, CompareExchangeTellsWhatItFoundAndCountsOnlyAnExchange) {
  TestArea test(64);
  ASSERT_TRUE(test.area->Store(kLane, WordType::kU32, 8, 5).ok());
  const uint64_t before = test.area->Updates();
  CompareExchangeResult result;

  ASSERT_TRUE(test.area->CompareExchange(kLane, WordType::kU32, 8, 4, 9, &result).ok());
  EXPECT_FALSE(result.exchanged);
  EXPECT_EQ(result.found, 5u);
  EXPECT_EQ(test.area->Updates(), before);

  ASSERT_TRUE(test.area->CompareExchange(kLane, WordType::kU32, 8, 5, 9, &result).ok());
  EXPECT_TRUE(result.exchanged);
  EXPECT_EQ(result.found, 5u);
  EXPECT_EQ(test.area->Updates(), before + 1);
}

TEST(AreaWordTest, CompareExchangeWorksAcrossStripes) {
  TestArea test(2 * 4096);
  CompareExchangeResult result;

  ASSERT_TRUE(
      test.area->CompareExchange(kLane, WordType::kU64, 4092, 0, 0x1122334455667788, &result).ok());
  EXPECT_TRUE(result.exchanged);
  ASSERT_TRUE(test.area->CompareExchange(kLane, WordType::kU64, 4092, 0, 1, &result).ok());
  EXPECT_FALSE(result.exchanged);

  EXPECT_EQ(result.found, 0x1122334455667788u);
}

TEST(AreaWordTest, BitwiseCombinesAndReturnsTheNewValue) {
  TestArea test(64);
  uint64_t bits = 0;
  ASSERT_TRUE(test.area->Store(kLane, WordType::kU16, 2, 0x0ff0).ok());

  ASSERT_TRUE(
      test.area->Bitwise(kLane, BitwiseOperator::kAnd, WordType::kU16, 2, 0x00ff, &bits).ok());
  EXPECT_EQ(bits, 0x00f0u);
  ASSERT_TRUE(
      test.area->Bitwise(kLane, BitwiseOperator::kOr, WordType::kU16, 2, 0x8000, &bits).ok());
  EXPECT_EQ(bits, 0x80f0u);
  ASSERT_TRUE(
      test.area->Bitwise(kLane, BitwiseOperator::kXor, WordType::kU16, 2, 0xffff, &bits).ok());
  EXPECT_EQ(bits, 0x7f0fu);
}

TEST(AreaBoundsTest, WordsAreRefusedFromTheFirstByteThatDoesNotFit) {
  TestArea test(100);
  for (const WordType type : kAllTypes) {
    const uint64_t last = 100 - WordBytes(type);
    uint64_t bits = 0;
    EXPECT_TRUE(test.area->Load(type, last, &bits).ok());
    for (const uint64_t pos : {last + 1, uint64_t{100}, UINT64_MAX - 7, UINT64_MAX}) {
      EXPECT_EQ(test.area->Load(type, pos, &bits).reason(), Reason::kOutOfBounds);
      EXPECT_EQ(test.area->Store(kLane, type, pos, 1).reason(), Reason::kOutOfBounds);
      EXPECT_EQ(test.area->Add(kLane, type, pos, 1, &bits).reason(), Reason::kOutOfBounds);
    }
  }
  EXPECT_EQ(test.area->Updates(), 0u);
}

TEST(AreaBoundsTest, MessageNamesAreaPosLenAndSize) {
  TestArea test(100);

  const Status status = test.area->Write(kLane, 98, Bytes("abc"));

  EXPECT_EQ(status.message(), "area \"t\": pos 98 and len 3 do not fit its size of 100 bytes");
}

TEST(AreaBoundsTest, RangesAreRefusedWithoutChangingAByte) {
  TestArea test(100);
  std::vector<std::byte> out(101);

  EXPECT_EQ(test.area->Read(0, out).reason(), Reason::kOutOfBounds);
  EXPECT_EQ(test.area->Read(UINT64_MAX, std::span(out).first(2)).reason(), Reason::kOutOfBounds);
  EXPECT_EQ(test.area->Fill(kLane, 1, 100, std::byte{1}).reason(), Reason::kOutOfBounds);
  EXPECT_EQ(test.area->Fill(kLane, 1, UINT64_MAX, std::byte{1}).reason(), Reason::kOutOfBounds);
  EXPECT_EQ(test.area->Write(kLane, 101, {}).reason(), Reason::kOutOfBounds);
  EXPECT_TRUE(test.area->Write(kLane, 100, {}).ok());

  EXPECT_EQ(ReadString(*test.area, 0, 100), std::string(100, '\0'));
}

TEST(AreaRangeTest, WriteAndReadAgreeAtEverySizeAroundStripesAndPieces) {
  TestArea test(64 << 10, 8192);
  std::mt19937_64 random(1);
  std::string model(64 << 10, '\0');
  for (const uint64_t len : {1u, 2u, 63u, 4095u, 4096u, 4097u, 8191u, 8192u, 8193u, 20000u}) {
    const uint64_t pos = random() % (model.size() - len);
    std::string bytes(len, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    ASSERT_TRUE(test.area->Write(kLane, pos, Bytes(bytes)).ok());
    model.replace(pos, len, bytes);

    EXPECT_EQ(ReadString(*test.area, 0, model.size()), model);
  }
}

TEST(AreaRangeTest, FillSetsExactlyItsRange) {
  TestArea test(40'000, 8192);

  ASSERT_TRUE(test.area->Fill(kLane, 10, 30'000, std::byte{'x'}).ok());

  EXPECT_EQ(ReadString(*test.area, 0, 40'000),
            std::string(10, '\0') + std::string(30'000, 'x') + std::string(9'990, '\0'));
}

TEST(AreaRangeTest, EveryCompletedMutationCounts) {
  TestArea test(3 * 4096);
  uint64_t bits = 0;
  uint64_t last = test.area->Updates();
  const auto grew = [&] {
    const uint64_t now = test.area->Updates();
    const bool result = now > last;
    last = now;
    return result;
  };

  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("a")).ok());
  EXPECT_TRUE(grew());
  ASSERT_TRUE(test.area->Write(kLane, 0, {}).ok());
  EXPECT_TRUE(grew());
  ASSERT_TRUE(test.area->Add(kLane, WordType::kU64, 4092, 0, &bits).ok());
  EXPECT_TRUE(grew());
  ASSERT_TRUE(test.area->Store(kLane, WordType::kU8, 0, 'a').ok());
  EXPECT_TRUE(grew());
  ASSERT_TRUE(test.area->Load(WordType::kU8, 0, &bits).ok());
  EXPECT_FALSE(grew());
}

TEST(AreaAccessTest, ReadOnlyMappingReadsAndRefusesMutations) {
  TestArea test(4096);
  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("hello")).ok());
  const std::unique_ptr<Area> reader = test.Map(Access::kReadOnly);
  uint64_t bits = 0;

  EXPECT_EQ(ReadString(*reader, 0, 5), "hello");
  EXPECT_TRUE(reader->Load(WordType::kU32, 0, &bits).ok());
  EXPECT_EQ(reader->Updates(), test.area->Updates());
  EXPECT_EQ(reader->Store(kLane, WordType::kU8, 0, 1).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Write(kLane, 0, Bytes("x")).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Wait(0, 0).status().reason(), Reason::kReadOnly);
  EXPECT_TRUE(reader->Poll(0)->changed);
}

TEST(AreaAccessTest, DeletedAreaRefusesEverythingInEveryMapping) {
  TestArea test(4096);
  const std::unique_ptr<Area> other = test.Map(Access::kReadWrite);
  uint64_t bits = 0;

  test.area->Retire(AreaState::kDeleted);

  EXPECT_EQ(other->Load(WordType::kU8, 0, &bits).reason(), Reason::kAreaNotFound);
  EXPECT_EQ(other->Add(kLane, WordType::kU8, 0, 1, &bits).reason(), Reason::kAreaNotFound);
  EXPECT_EQ(other->Write(kLane, 0, Bytes("x")).reason(), Reason::kAreaNotFound);
  EXPECT_EQ(other->Wait(0, 1).status().reason(), Reason::kAreaNotFound);
}

TEST(AreaStallTest, HeldStripeIsNamedAndNothingChanges) {
  TestArea test(2 * 4096);
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(AreaInternals::Stripe(*test.area, 1).control, 9, &locked));
  const Lane hasty{1, 1'000'000};
  uint64_t bits = 0;

  const Status word = test.area->Add(hasty, WordType::kU64, 4096, 1, &bits);
  const Status range = test.area->Write(hasty, 4000, Bytes(std::string(200, 'x')));
  std::vector<std::byte> out(200);
  const Status read = test.area->Read(4000, out, nullptr, 1'000'000);

  EXPECT_EQ(word.reason(), Reason::kStalled);
  EXPECT_NE(word.message().find("lane 9"), std::string::npos) << word.message();
  EXPECT_EQ(range.reason(), Reason::kStalled);
  EXPECT_EQ(read.reason(), Reason::kStalled);
  EXPECT_EQ(OwnerOf(AreaInternals::Stripe(*test.area, 0).control.load()), 0u);
  EXPECT_EQ(ReadString(*test.area, 0, 4096), std::string(4096, '\0'));
  AreaInternals::Stripe(*test.area, 0).range_counter = 1;
  EXPECT_EQ(test.area->Load(WordType::kU64, 0, &bits, 1'000'000).reason(), Reason::kStalled);
  AreaInternals::Stripe(*test.area, 0).range_counter = 2;
  // An aligned word is readable while a word writer holds its stripe.
  EXPECT_TRUE(test.area->Load(WordType::kU64, 4096, &bits).ok());
}

// The same checker with one thread, then with four: every range is one writer's, whole; counters
// lose nothing.
void HammerRanges(int writers) {
  constexpr uint64_t kLen = 10'000;  // Three stripes.
  constexpr int kRounds = 3'000;
  TestArea test(4 * 4096);
  std::atomic<bool> done{false};
  std::atomic<uint64_t> torn{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < writers; ++w) {
    threads.emplace_back([&, w] {
      const Lane lane{static_cast<uint32_t>(w + 1), uint64_t{60} * 1'000'000'000};
      uint64_t bits = 0;
      for (int i = 0; i < kRounds; ++i) {
        ASSERT_TRUE(
            test.area->Write(lane, 100, Bytes(std::string(kLen, static_cast<char>('a' + w)))).ok());
        ASSERT_TRUE(test.area->Add(lane, WordType::kU64, 3 * 4096, 1, &bits).ok());
        ASSERT_TRUE(test.area->Add(lane, WordType::kU64, 4096 * 3 - 4 + 4096 - 100, 1, &bits).ok());
      }
    });
  }
  std::thread reader([&] {
    const std::unique_ptr<Area> view = test.Map(Access::kReadOnly);
    std::vector<char> out(kLen);
    while (!done.load()) {
      ASSERT_TRUE(view->Read(100, std::as_writable_bytes(std::span(out)), nullptr,
                             uint64_t{60} * 1'000'000'000)
                      .ok());
      for (const char byte : out) torn += byte != out[0] ? 1 : 0;
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  reader.join();

  uint64_t bits = 0;
  ASSERT_TRUE(test.area->Load(WordType::kU64, 3 * 4096, &bits).ok());
  EXPECT_EQ(bits, static_cast<uint64_t>(writers) * kRounds);
  EXPECT_EQ(torn.load(), 0u);
}

TEST(AreaConcurrencyTest, OneWriterAndAReaderSeeWholeRanges) { HammerRanges(1); }
TEST(AreaConcurrencyTest, FourWritersAndAReaderSeeWholeRanges) { HammerRanges(4); }

}  // namespace
}  // namespace statehouse
