#include "tests/fuzz/dict_image.h"

#include "gtest/gtest.h"
#include "tests/fuzz/many_images.h"

namespace statehouse {
namespace {

TEST(DictImageTest, ArbitraryDamageNeitherCrashesNorHangsNorSpreads) {
  EXPECT_GT(LiveWithManyImages(LiveWithDamagedDict), 0);
}

}  // namespace
}  // namespace statehouse
