#include "service/api/error_detail.h"

#include <gtest/gtest.h>

#include "engine/base/limits.h"
#include "service/auth/authenticator.h"

namespace statehouse {
namespace {

TEST(PresentableTextTest, KeepsUtf8AndCutsAtCharacters) {
  EXPECT_EQ(PresentableText("U8 … U64", 100), "U8 … U64");
  EXPECT_EQ(PresentableText("a…", 3), "a");
  EXPECT_EQ(PresentableText("a…", 4), "a…");
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xff"}) {
    EXPECT_EQ(PresentableText(bad, 100), std::string(std::string(bad).size(), '?'));
  }
}

TEST(ErrorDetailTest, SaysWhatAClientBranchesOn) {
  v1::ErrorDetail detail;
  FillErrorDetail(Status(Reason::kStalled, "x"), std::string(300, 'n'), &detail);
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_STALLED);
  EXPECT_EQ(detail.name(), std::string(kNameBytesMax, 'n'));
  EXPECT_TRUE(detail.retryable());
  EXPECT_EQ(detail.retry_after_ms(), 0u);
  v1::ErrorDetail limited;
  FillErrorDetail(Status(Reason::kRateLimited, "x").WithRetryAfter(250), "", &limited);
  EXPECT_EQ(limited.retry_after_ms(), 250u);
}

}  // namespace
}  // namespace statehouse
