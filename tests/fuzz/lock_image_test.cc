#include "tests/fuzz/lock_image.h"

#include "gtest/gtest.h"
#include "tests/fuzz/many_images.h"

namespace statehouse {
namespace {

TEST(LockImageTest, ArbitraryDamageNeitherCrashesNorHangsNorSpreads) {
  EXPECT_GT(LiveWithManyImages(LiveWithDamagedLocks), 0);
}

}  // namespace
}  // namespace statehouse
