#include "clients/c/src/in_use.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <thread>
#include <vector>

namespace statehouse {
namespace {

struct Thing {
  explicit Thing(int is) : number(is) {}
  int number;
};

TEST(InUseTest, AnObjectIsInUseAsLongAsAUseLives) {
  Thing thing(1);
  std::atomic<Thing*> current{&thing};
  EXPECT_FALSE(IsInUse(&thing));
  {
    const Use<Thing> use(current);
    EXPECT_EQ(use->number, 1);
    EXPECT_TRUE(IsInUse(&thing));
  }
  EXPECT_FALSE(IsInUse(&thing));
}

TEST(InUseTest, AnotherThreadsUseCounts) {
  Thing thing(1);
  std::atomic<Thing*> current{&thing};
  std::atomic<int> step{0};
  std::thread other([&] {
    const Use<Thing> use(current);
    step = 1;
    while (step != 2) std::this_thread::yield();
  });
  while (step != 1) std::this_thread::yield();

  const bool while_used = IsInUse(&thing);
  step = 2;
  other.join();

  EXPECT_TRUE(while_used);
  EXPECT_FALSE(IsInUse(&thing));
}

constexpr uint64_t kUsesMin = 200'000;  // Of each reader of the test below.

// As soon as IsInUse says that nobody works on a replaced object, it is spoilt; threads use
// whatever is current all the time and must never meet a spoilt one.
TEST(InUseTest, NoThreadEverWorksOnAnObjectThatWasGivenUp) {
  constexpr size_t kReaders = 3;
  constexpr size_t kObjectsMin = 100;
  std::deque<std::atomic<bool>> spoilt;  // Never freed, so that a late reader shows.
  spoilt.emplace_back(false);
  std::atomic<std::atomic<bool>*> current{&spoilt.back()};
  std::atomic<uint64_t> bad{0};
  std::array<std::atomic<uint64_t>, kReaders> uses{};
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (size_t i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] {
      while (!stop) {
        const Use<std::atomic<bool>> use(current);
        if (use->load(std::memory_order_relaxed)) ++bad;
        ++uses[i];
      }
    });
  }
  std::vector<std::atomic<bool>*> retired;
  const auto spoil_unused = [&] {
    std::erase_if(retired, [](std::atomic<bool>* object) {
      if (IsInUse(object)) return false;
      object->store(true, std::memory_order_relaxed);
      return true;
    });
  };
  const auto is_short = [](const auto& n) { return n < kUsesMin; };
  while (spoilt.size() < kObjectsMin || std::any_of(uses.begin(), uses.end(), is_short)) {
    retired.push_back(current.exchange(&spoilt.emplace_back(false)));
    spoil_unused();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  spoil_unused();

  EXPECT_EQ(bad, 0u);
  EXPECT_TRUE(retired.empty());
}

TEST(InUseTest, AForkedChildForgetsWhatOtherThreadsUsed) {
  Thing thing(1);
  std::atomic<Thing*> current{&thing};
  std::atomic<int> step{0};
  std::thread other([&] {
    const Use<Thing> use(current);
    step = 1;
    while (step != 2) std::this_thread::yield();
  });
  while (step != 1) std::this_thread::yield();

  const pid_t child = ::fork();
  if (child == 0) {
    bool right = !IsInUse(&thing);
    {
      const Use<Thing> use(current);
      right = right && IsInUse(&thing);
    }
    ::_exit(right && !IsInUse(&thing) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(IsInUse(&thing));
  step = 2;
  other.join();
}

TEST(InUseTest, AThreadThatEndsMayStillUseThings) {
  static Thing thing(1);
  static std::atomic<Thing*> current{&thing};
  static std::atomic<int> seen{0};
  struct Last {
    ~Last() {
      const Use<Thing> use(current);
      if (use->number == 1 && IsInUse(&thing)) ++seen;
    }
  };
  for (int i = 0; i < 3; ++i) {
    std::thread([] {
      static thread_local Last last;  // Made before the record, so destroyed after it.
      (void)&last;
      const Use<Thing> use(current);
    }).join();
  }

  EXPECT_EQ(seen, 3);
  EXPECT_FALSE(IsInUse(&thing));
}

}  // namespace
}  // namespace statehouse
