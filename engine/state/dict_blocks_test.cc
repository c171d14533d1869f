// The allocator's promises at its edges: a change that happened is not told as refused when giving
// blocks back has to wait, and nothing is lost by that.
#include "engine/shm/owned_lock.h"
#include "engine/state/dict.h"
#include "engine/state/dict_internal.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

constexpr uint32_t kStopped = 5;  // A lane whose thread was stopped while it holds the allocator.

class DictBlocksTest : public testing::Test {
 protected:
  DictBlocksTest() { t.lane.operation_timeout_ns = 1'000'000; }

  void StopInsideTheAllocator() {
    std::atomic<uint64_t>& control = DictInternals::Allocator(*t.dict).control;
    control = control.load() | kStopped;
  }
  void GoOn() {
    std::atomic<uint64_t>& control = DictInternals::Allocator(*t.dict).control;
    control = ReleasedUnchanged(control.load());
  }
  uint64_t MagazineOf(uint64_t entry_bytes) {
    return DictInternals::Record(*t.dict, t.lane.id).magazines[ClassForEntry(entry_bytes)].count;
  }
  // Deletes entries of one class until the next block fills the lane's magazine.
  void FillMagazine(uint64_t entry_bytes, const std::string& value) {
    for (int i = 0; i < 40; ++i) t.Put("k" + std::to_string(i), value);
    const uint32_t full = MagazineBlocks(ClassForEntry(entry_bytes));
    for (int i = 0; MagazineOf(entry_bytes) + 1 < full; ++i) {
      ASSERT_LT(i, 39);
      t.Delete("k" + std::to_string(i));
    }
  }

  TestDict t;
};

constexpr uint64_t kEntryBytes = sizeof(EntryHeader) + 3 + 100;  // "k39" and its value.
const char* const kRefusedAfterwards = "the lane has to tidy up first, and cannot";

TEST_F(DictBlocksTest, ADeleteThatHappenedIsToldSoWhileTheAllocatorIsHeld) {
  FillMagazine(kEntryBytes, std::string(100, 'v'));
  StopInsideTheAllocator();

  EXPECT_TRUE(t.Delete("k39").applied);

  DictResult result;
  EXPECT_EQ(t.dict->Delete(t.lane, "k38", {}, &result).reason(), Reason::kStalled)
      << kRefusedAfterwards;
  EXPECT_EQ(t.Text("k38"), std::string(100, 'v')) << "what is refused changes nothing";
  GoOn();
  EXPECT_TRUE(t.Delete("k38").applied);
  t.ExpectSound();
}

TEST_F(DictBlocksTest, ASetThatHappenedIsToldSoWhileTheAllocatorIsHeld) {
  t.Put("other class", std::string(900, 'v'));
  t.Put("k", std::string(900, 'v'));
  t.Delete("other class");
  FillMagazine(kEntryBytes, std::string(100, 'v'));
  StopInsideTheAllocator();

  EXPECT_TRUE(t.Put("k39", std::string(890, 'w')).applied);

  DictResult result;
  EXPECT_EQ(t.dict->Set(t.lane, "k38", DictValue::Bytes("x"), {}, &result).reason(),
            Reason::kStalled)
      << kRefusedAfterwards;
  GoOn();
  EXPECT_TRUE(t.Put("k38", "x").applied);
  t.ExpectSound();
}

TEST_F(DictBlocksTest, ALargeValueThatIsReplacedWaitsInTheLaneWhileTheAllocatorIsHeld) {
  t.Put("large", std::string(200'000, 'v'));
  t.Put("small", "s");
  t.Put("spare", "s");
  t.Delete("spare");
  StopInsideTheAllocator();

  EXPECT_TRUE(t.Put("large", "s").applied);

  DictResult result;
  EXPECT_EQ(t.dict->Delete(t.lane, "small", {}, &result).reason(), Reason::kStalled)
      << kRefusedAfterwards;
  GoOn();
  EXPECT_TRUE(t.Delete("small").applied);
  EXPECT_EQ(DictInternals::Record(*t.dict, t.lane.id).extent.load(), 0u);
  t.ExpectSound();
}

TEST_F(DictBlocksTest, ALaneIsReadyWhileTheAllocatorIsHeldAndTidiesUpLater) {
  FillMagazine(kEntryBytes, std::string(100, 'v'));
  StopInsideTheAllocator();
  EXPECT_TRUE(t.Delete("k39").applied);

  const auto next = t.Map(Access::kReadWrite);
  ASSERT_TRUE(next->PrepareLanes(t.lane.id, 1).ok());

  DictResult result;
  EXPECT_EQ(next->Delete(t.lane, "k38", {}, &result).reason(), Reason::kStalled);
  GoOn();
  EXPECT_TRUE(next->Delete(t.lane, "k38", {}, &result).ok());
  EXPECT_LT(MagazineOf(kEntryBytes), MagazineBlocks(ClassForEntry(kEntryBytes)));
  t.ExpectSound();
}

// So many large values need more redo pairs than one critical section has.
TEST_F(DictBlocksTest, ATransactionOfManyLargeValuesIsOneChange) {
  constexpr size_t kValues = kRedoPairsMax / kExtentSlabsMax + 5;
  TestDict large(1000, (kValues + 2) * kExtentSlabsMax * kSlabBytes * 2);
  const std::string value(kDictValueBytesMax, 'v');
  std::vector<std::string> keys;
  for (size_t i = 0; i < kValues; ++i) keys.push_back("key" + std::to_string(i));
  std::vector<DictOperation> steps(kValues);
  for (size_t i = 0; i < kValues; ++i) {
    steps[i].kind = DictOperation::Kind::kSet;
    steps[i].key = keys[i];
    steps[i].value = DictValue::Bytes(value);
  }

  DictTransactionResult result;
  const Status status = large.dict->Transact(large.lane, {}, steps, {}, &result);

  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(large.dict->Stats().entries, kValues);
  EXPECT_EQ(large.Text(keys.back()), value);
  large.ExpectSound();
}

TEST_F(DictBlocksTest, ATransactionThatFindsMemoryForSomeOfItsValuesGivesAllOfItBack) {
  constexpr size_t kValues = 8;
  TestDict tight(1000, ((kValues - 1) * kExtentSlabsMax + 1) * kSlabBytes);
  const std::string value(kDictValueBytesMax, 'v');
  std::vector<DictOperation> steps(kValues);
  std::vector<std::string> keys;
  for (size_t i = 0; i < kValues; ++i) keys.push_back("key" + std::to_string(i));
  for (size_t i = 0; i < kValues; ++i) {
    steps[i].kind = DictOperation::Kind::kSet;
    steps[i].key = keys[i];
    steps[i].value = DictValue::Bytes(value);
  }

  DictTransactionResult result;
  EXPECT_EQ(tight.dict->Transact(tight.lane, {}, steps, {}, &result).reason(),
            Reason::kMemoryExhausted);

  EXPECT_EQ(tight.dict->Stats().entries, 0u);
  tight.ExpectSound();
  for (size_t i = 0; i < kValues - 1; ++i) EXPECT_TRUE(tight.Put(keys[i], value).applied);
}

}  // namespace
}  // namespace statehouse
