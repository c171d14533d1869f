// A dict that somebody scribbled on: what is damaged is left behind, everything else survives.
#include <unistd.h>

#include <cstring>
#include <map>
#include <random>
#include <span>

#include "engine/state/dict_internal.h"
#include "engine/state/dict_store.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

const Lane kLane{1, kOperationTimeoutNsDefault};
constexpr int kEntries = 300;

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

std::string KeyOf(int i) { return "key" + std::to_string(i); }
std::string ValueOf(int i) {
  return "value" + std::to_string(i) + std::string(static_cast<size_t>(i) % 40, '.');
}

class DictSalvageTest : public testing::Test {
 protected:
  DictSalvageTest() {
    std::map<std::string, UniqueFd> none;
    std::vector<std::string> warnings;
    store = std::move(*DictStore::Start({}, &none, &vault, &warnings));
    DictSpec spec;
    spec.name = "a";
    spec.max_entries = 1000;
    spec.max_bytes = 8 << 20;
    served = store->Create(spec)->dict;
    for (int i = 0; i < kEntries; ++i) {
      DictResult result;
      EXPECT_TRUE(dict().Set(kLane, KeyOf(i), DictValue::Bytes(ValueOf(i)), {}, &result).ok());
    }
    for (int i = 0; i < kEntries; ++i) slots.push_back(FindSlot(KeyOf(i)));
  }

  Dict& dict() { return served->dict(); }
  // The slot that leads to key i.
  std::atomic<uint64_t>& SlotOf(int i) { return *slots[i]; }
  EntryHeader& HeaderOf(int i) { return At<EntryHeader>(SlotOf(i) & kRefMask); }
  template <typename Block>
  Block& At(BlockRef ref) {
    return *reinterpret_cast<Block*>(DictInternals::Base(dict()) + dict().geometry().data_offset() +
                                     PositionOf(ref));
  }
  // REQUIRES: nothing is damaged. Keys of one bucket can have the same tag, so their bytes decide.
  std::atomic<uint64_t>* FindSlot(const std::string& key) {
    BucketLine& bucket = DictInternals::Bucket(dict(), DictInternals::BucketOf(dict(), key));
    std::span<std::atomic<uint64_t>> row(bucket.slots);
    for (BlockRef next = bucket.link;;) {
      for (std::atomic<uint64_t>& slot : row) {
        if (slot == 0) continue;
        const EntryHeader& header = At<EntryHeader>(slot & kRefMask);
        const EntryShape shape = EntryShape::Of(header.shape);
        const char* const bytes = reinterpret_cast<const char*>(&header) + shape.key_offset();
        if (std::string_view(bytes, shape.key_bytes) == key) return &slot;
      }
      if (next == 0) break;
      auto& line = At<OverflowLine>(next);
      row = line.slots;
      next = line.link;
    }
    ADD_FAILURE() << "\"" << key << "\" is in no slot of its bucket";
    return &bucket.slots[0];
  }
  // Moves the dict; every key but those `damaged` must be there, whole.
  void SalvageAllBut(const std::set<int>& damaged) {
    const Status moved = store->MoveDict(kLane, served, DictStore::Move::kSalvage);
    ASSERT_TRUE(moved.ok()) << moved.ToString();
    served = *store->Find("a");
    for (int i = 0; i < kEntries; ++i) {
      DictEntry entry;
      bool found = false;
      const Status status = dict().Get(KeyOf(i), &entry, &found);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_EQ(found, damaged.count(i) == 0) << KeyOf(i);
      if (found) {
        EXPECT_EQ(entry.bytes, ValueOf(i));
      }
      DictResult result;
      ASSERT_TRUE(dict().Set(kLane, KeyOf(i), DictValue::Bytes("new"), {}, &result).ok());
      EXPECT_GT(result.version, entry.version);
    }
    for (const std::string& fault : dict().Check(true).faults) ADD_FAILURE() << fault;
    EXPECT_EQ(store->Totals().repairs > 0, !damaged.empty());
  }

  NoVault vault;
  std::unique_ptr<DictStore> store;
  std::shared_ptr<ServedDict> served;
  std::vector<std::atomic<uint64_t>*> slots;  // By key, of the segment before the move.
};

TEST_F(DictSalvageTest, DamagedSlotsAndHeadersTakeNothingElseWithThem) {
  SlotOf(1) = ~uint64_t{0};
  SlotOf(20) = SlotOf(20) ^ kBlockUnitBytes << 8;
  HeaderOf(40).shape = ~uint64_t{0};
  HeaderOf(60).shape = EntryShape{0, 5000, 0}.word();
  HeaderOf(80).shape = EntryShape{40, 0, 0}.word();
  HeaderOf(100).version = uint64_t{1} << 60;
  SalvageAllBut({1, 20, 40, 60, 80, 100});
}

TEST_F(DictSalvageTest, DamagedMagazinesAndListsAreLeftBehind) {
  for (uint32_t lane = 1; lane < kLanesPerBlock; ++lane) {
    DictLaneRecord& record = DictInternals::Record(dict(), lane);
    for (Magazine& magazine : record.magazines) {
      magazine.count = 12345;
      for (std::atomic<uint64_t>& ref : magazine.refs) ref = ~uint64_t{0};
    }
    record.extent = ~uint64_t{0};
    record.staged_count = ~uint64_t{0};
    record.entries = 77;
  }
  AllocatorLine& allocator = DictInternals::Allocator(dict());
  for (std::atomic<uint64_t>& head : allocator.heads) head = ~uint64_t{0};
  allocator.slab_hint = ~uint64_t{0};
  SalvageAllBut({});
}

TEST_F(DictSalvageTest, AbsurdSequencesNeitherStopTheMoveNorLowerAVersion) {
  const uint32_t bucket = DictInternals::BucketOf(dict(), KeyOf(7));
  DictInternals::Bucket(dict(), bucket).control = ~kOwnerMask;
  SalvageAllBut({});
}

TEST_F(DictSalvageTest, RandomDamageIsSurvivedByWhatItDoesNotReach) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::set<int> damaged;
  for (int n = 0; n < 40; ++n) {
    const int i = static_cast<int>(random() % kEntries);
    if (!damaged.insert(i).second) continue;
    if (n % 2 == 0) {
      SlotOf(i) = 0;
    } else {
      HeaderOf(i).shape = ~uint64_t{random()};
    }
  }
  SalvageAllBut(damaged);
}

TEST_F(DictSalvageTest, ADamagedKeyThatReadsAsAnotherOneDoesNotReplaceIt) {
  // The bytes of key 3 say "key4" now, but its block stands where "key3" belongs.
  std::byte* const key = reinterpret_cast<std::byte*>(&HeaderOf(3)) + sizeof(EntryHeader);
  key[3] = std::byte{'4'};
  SalvageAllBut({3});
}

TEST_F(DictSalvageTest, NorDoesOneInTheSameBucket) {
  std::map<uint32_t, int> in_bucket;
  for (int i = 100; i < kEntries; ++i) {
    const auto [other, is_first] = in_bucket.emplace(DictInternals::BucketOf(dict(), KeyOf(i)), i);
    if (is_first) continue;
    std::memcpy(reinterpret_cast<std::byte*>(&HeaderOf(i)) + sizeof(EntryHeader),
                KeyOf(other->second).data(), KeyOf(i).size());
    return SalvageAllBut({i});
  }
  FAIL() << "no two of the keys share a bucket";
}

}  // namespace
}  // namespace statehouse
