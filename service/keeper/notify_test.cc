#include "service/keeper/notify.h"

#include <gtest/gtest.h>

#include <random>

namespace statehouse {
namespace {

TEST(NotifyTest, EachLineIsUnderstood) {
  const auto store = ParseNotify("FDSTORE=1\nFDPOLL=0\nFDNAME=area.7");
  const auto remove = ParseNotify("FDSTOREREMOVE=1\nFDNAME=area.7\n");
  const auto rest = ParseNotify(
      "READY=1\nSTOPPING=1\nBARRIER=1\nX_STATEHOUSE_COMPLETE=1\nEXIT_STATUS=75\nSTATUS="
      "x\nnonsense");
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE(remove.ok());
  ASSERT_TRUE(rest.ok());

  EXPECT_TRUE(store->store);
  EXPECT_EQ(store->name, "area.7");
  EXPECT_TRUE(remove->remove);
  EXPECT_FALSE(remove->store);
  EXPECT_TRUE(rest->ready);
  EXPECT_TRUE(rest->stopping);
  EXPECT_TRUE(rest->barrier);
  EXPECT_TRUE(rest->complete);
  EXPECT_EQ(rest->exit_status, 75);
}

TEST(NotifyTest, WhatTheDaemonSendsIsWhatTheKeeperReads) {
  const auto store = ParseNotify(StoreText("data.12"));
  const auto remove = ParseNotify(RemoveText("data.12"));

  EXPECT_TRUE(store.ok() && store->store && store->name == "data.12");
  EXPECT_TRUE(remove.ok() && remove->remove && remove->name == "data.12");
}

TEST(NotifyTest, WrongMessagesAreRefused) {
  const std::string cases[] = {
      "FDSTORE=1",                                   // No name.
      "FDSTORE=1\nFDNAME=",                          // An empty one.
      "FDSTORE=1\nFDNAME=a:b",                       // The separator.
      "FDSTORE=1\nFDNAME=a b",                       // A space.
      "FDSTORE=1\nFDNAME=" + std::string(256, 'x'),  // One past the limit.
      "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=x",        // Both.
      "EXIT_STATUS=256",
      "EXIT_STATUS=-1",
      "EXIT_STATUS=",
      "EXIT_STATUS=1x",
      std::string(kNotifyBytesMax + 1, 'x'),
  };
  for (const std::string& text : cases) {
    EXPECT_EQ(ParseNotify(text).status().reason(), Reason::kInvalidArgument) << text.substr(0, 60);
  }
  EXPECT_TRUE(ParseNotify("FDSTORE=1\nFDNAME=" + std::string(255, 'x')).ok());
  EXPECT_TRUE(ParseNotify(std::string(kNotifyBytesMax, 'x')).ok());
}

TEST(NotifyTest, RandomBytesNeverBreakTheParser) {
  std::mt19937_64 random(7);
  const std::string seed = "FDSTORE=1\nFDNAME=area.7\nREADY=1\nEXIT_STATUS=12\n";
  int taken = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text = seed.substr(random() % seed.size());
    for (uint64_t edits = random() % 3; edits > 0; --edits)
      text[random() % text.size()] = static_cast<char>(random());
    const auto message = ParseNotify(text);
    if (!message.ok()) continue;
    ++taken;
    if (!message->store && !message->remove) continue;
    ASSERT_TRUE(IsDescriptorName(message->name));
  }
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace statehouse
