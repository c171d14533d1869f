#include "service/rpc/door_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>

#include <array>
#include <functional>
#include <string>
#include <thread>

namespace statehouse {
namespace {

// On a thread of its own, which nobody else has to live with.
void OnThread(const std::function<void()>& body) { std::thread(body).join(); }

int Niceness() { return getpriority(PRIO_PROCESS, 0); }

TEST(DoorThreadTest, HasItsNameAndWhereTheKernelLetsItItsPriority) {
  const int before = Niceness();
  OnThread([before] {
    const bool is_raised = BeginDoorThread("sh-test", true) && before == 0;

    EXPECT_EQ(Niceness(), is_raised ? kRaisedNiceness : before);
    std::array<char, 16> name{};
    pthread_getname_np(pthread_self(), name.data(), name.size());
    EXPECT_EQ(std::string(name.data()), "sh-test");
  });
  EXPECT_EQ(Niceness(), before) << "of other threads";
}

TEST(DoorThreadTest, LeavesItsPriorityWhenItIsNotToBeRaised) {
  const int before = Niceness();
  OnThread([before] {
    EXPECT_TRUE(BeginDoorThread("sh-test", false));

    EXPECT_EQ(Niceness(), before);
  });
}

TEST(DoorThreadTest, LeavesANicenessThatSomebodyHasChosen) {
  OnThread([] {
    ASSERT_EQ(setpriority(PRIO_PROCESS, 0, 5), 0);

    EXPECT_TRUE(BeginDoorThread("sh-test", true));

    EXPECT_EQ(Niceness(), 5);
  });
}

}  // namespace
}  // namespace statehouse
