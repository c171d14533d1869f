// A worker's dict under a service's limit of memory.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "clients/c/src/local_dict.h"
#include "clients/c/testing/fake_daemon.h"
#include "engine/os/futex.h"

namespace statehouse {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);  // For what must happen.

// A service with a limit of memory.
class LimitedLocalDictTest : public testing::Test {
 protected:
  static constexpr uint64_t kLimit = 3 << 20;
  std::shared_ptr<LocalDict> Open() {
    LocalSessionOptions options;
    options.runtime_dir = daemon_.runtime_dir();
    options.client_name = "test";
    options.timeout = kPatience;
    StatusOr<std::shared_ptr<LocalSession>> session = LocalSession::Attach(options);
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    StatusOr<std::shared_ptr<LocalDict>> dict = (*session)->OpenDict("d");
    EXPECT_TRUE(dict.ok()) << dict.status().ToString();
    return dict.ok() ? *dict : nullptr;
  }
  // Sets keys that nobody else has until that is refused, and how many.
  static int Fill(LocalDict& dict, const std::string& prefix, Status* refused) {
    const std::string value(4000, 'v');
    DictResult result;
    for (int i = 0; i < 2000; ++i) {
      *refused = dict.Set(prefix + std::to_string(i), DictValue::Bytes(value), {}, &result);
      if (!refused->ok()) return i;
    }
    return 2000;
  }

  FakeDaemon daemon_{EngineOptions{.memory_bytes_max = kLimit}};
};

TEST_F(LimitedLocalDictTest, MemoryIsAskedForAndTheRefusalNamesTheLimitOfTheService) {
  daemon_.CreateDict("d");
  const auto dict = Open();
  const int opens = daemon_.dict_opens();
  Status refused;

  const int entries = Fill(*dict, "k", &refused);

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_NE(refused.message().find("of 3145728 (areas.memory_max)"), std::string::npos)
      << refused.message();
  EXPECT_GT(entries, 400);
  EXPECT_LT(daemon_.dict_opens() - opens, 10);
  EXPECT_LE(daemon_.engine().Totals().memory_bytes, kLimit + (256 << 10));  // The lane's ring.
  DictEntry entry;
  bool found = false;
  ASSERT_TRUE(dict->Get("k0", &entry, &found).ok() && found);
}

TEST_F(LimitedLocalDictTest, WorkersThatFillTogetherStopAtOneLimit) {
  daemon_.CreateDict("d");
  std::vector<std::thread> workers;
  std::atomic<int> entries{0};
  std::atomic<int> refusals{0};
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([this, i, &entries, &refusals] {
      const auto dict = Open();
      Status refused;
      entries += Fill(*dict, std::to_string(i) + ".", &refused);
      refusals += refused.reason() == Reason::kMemoryExhausted ? 1 : 0;
    });
  }
  for (std::thread& worker : workers) worker.join();

  EXPECT_EQ(refusals, 3);
  EXPECT_GT(entries, 400);
  EXPECT_LE(daemon_.engine().Totals().memory_bytes, kLimit + 3 * (256 << 10));
  const auto served = daemon_.engine().dicts().Find("d");
  ASSERT_TRUE(served.ok());
  EXPECT_EQ((*served)->Stats().entries, static_cast<uint64_t>(entries));
}

TEST_F(LimitedLocalDictTest, ADictThatEvictsMakesRoomWithoutFurtherQuestions) {
  DictSpec spec;
  spec.name = "d";
  spec.evict = true;
  ASSERT_TRUE(daemon_.engine().dicts().Create(spec).ok());
  const auto dict = Open();
  const int opens = daemon_.dict_opens();
  Status status;

  EXPECT_EQ(Fill(*dict, "k", &status), 2000) << status.ToString();

  EXPECT_LT(daemon_.dict_opens() - opens, 10);
  EXPECT_LE(daemon_.engine().Totals().memory_bytes, kLimit + (256 << 10));
}

// Each of them may be refused before another one's question makes the service tell the dict to make
// room, and ask after that; and the upkeep takes it back all the time.
TEST_F(LimitedLocalDictTest, WorkersThatFillADictThatEvictsTogetherAreNeverRefused) {
  DictSpec spec;
  spec.name = "d";
  spec.max_entries = 8000;
  spec.evict = true;
  ASSERT_TRUE(daemon_.engine().dicts().Create(spec).ok());
  std::atomic<int> at_work{3};
  std::vector<std::thread> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([this, i, &at_work] {
      const auto dict = Open();
      Status status;
      EXPECT_EQ(Fill(*dict, std::to_string(i) + ".", &status), 2000) << status.ToString();
      --at_work;
    });
  }
  while (at_work > 0) {
    daemon_.engine().Scrub();
    SleepNs(50'000);
  }
  for (std::thread& worker : workers) worker.join();

  EXPECT_LE(daemon_.engine().Totals().memory_bytes, kLimit + 3 * (256 << 10));
}

}  // namespace
}  // namespace statehouse
