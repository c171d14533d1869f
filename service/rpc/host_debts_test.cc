#include "service/rpc/host_debts.h"

#include <gtest/gtest.h>

namespace statehouse {
namespace {

constexpr uint64_t kNow = 1'000'000'000'000;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint32_t kPerSecond = 1000;
constexpr uint64_t kEach = kSecond / kPerSecond;

HostKey Host(uint32_t number) {
  TcpPeer peer = ParsePeer("ipv4:10.0.0.0:1").value();
  for (size_t i = 0; i < 3; ++i) peer.host[15 - i] = static_cast<uint8_t>(number >> 8 * i);
  return peer.Host();
}

// So many wasted calls; what the last one says.
uint64_t Waste(HostDebts* debts, const HostKey& host, uint64_t calls, uint64_t now_ns) {
  uint64_t pause_ns = 0;
  for (uint64_t i = 0; i < calls; ++i) pause_ns = debts->Waste(host, now_ns);
  return pause_ns;
}

TEST(HostDebtsTest, AsManyAsMayComeAtOncePauseNobodyAndEachFurtherOneForItsTime) {
  HostDebts debts(kPerSecond);

  EXPECT_EQ(Waste(&debts, Host(1), kWasteAtOnce, kNow), 0u);
  EXPECT_EQ(debts.Waste(Host(1), kNow), kEach);
  EXPECT_EQ(debts.Waste(Host(1), kNow), 2 * kEach);
  EXPECT_EQ(debts.Waste(Host(2), kNow), 0u);
}

TEST(HostDebtsTest, TimePaysForWaste) {
  HostDebts debts(kPerSecond);
  Waste(&debts, Host(1), kWasteAtOnce + 10, kNow);

  EXPECT_EQ(debts.Waste(Host(1), kNow + 10 * kEach), kEach);
  EXPECT_EQ(debts.Waste(Host(1), kNow + kSecond), 0u);
}

TEST(HostDebtsTest, NobodyIsPausedForLongerThanTheLimit) {
  HostDebts debts(kPerSecond);

  EXPECT_EQ(Waste(&debts, Host(1), kWasteAtOnce + kPauseNsMax / kEach, kNow), kPauseNsMax);
  EXPECT_EQ(debts.Waste(Host(1), kNow), kPauseNsMax);
}

TEST(HostDebtsTest, ALowLimitLetsOneComeAtOnce) {
  HostDebts debts(1);

  EXPECT_EQ(debts.Waste(Host(1), kNow), 0u);
  EXPECT_EQ(debts.Waste(Host(1), kNow), kSecond);
}

TEST(HostDebtsTest, WithoutALimitNobodyWaits) {
  HostDebts debts(0);

  EXPECT_EQ(Waste(&debts, Host(1), 100'000, kNow), 0u);
  uint64_t due = 0;
  for (uint64_t i = 0; i < 10 * kConnectionsAtOnce; ++i) due = debts.Enter(Host(1), kNow);
  EXPECT_EQ(debts.DueIn(Host(1), due, kNow), 0u);
  EXPECT_EQ(debts.hosts(), 0u);
}

TEST(HostDebtsTest, ConnectionsBeyondThoseAtOnceComeAWhileApart) {
  HostDebts debts(kPerSecond);
  uint64_t due = 0;
  for (uint64_t i = 0; i < kConnectionsAtOnce; ++i) due = debts.Enter(Host(1), kNow);
  EXPECT_EQ(debts.DueIn(Host(1), due, kNow), 0u);

  const uint64_t next = debts.Enter(Host(1), kNow);
  const uint64_t after = debts.Enter(Host(1), kNow);

  EXPECT_EQ(debts.DueIn(Host(1), next, kNow), kConnectionNs);
  EXPECT_EQ(debts.DueIn(Host(1), after, kNow), 2 * kConnectionNs);
  EXPECT_EQ(debts.DueIn(Host(1), after, kNow + 2 * kConnectionNs), 0u);
  EXPECT_EQ(debts.DueIn(Host(2), debts.Enter(Host(2), kNow), kNow), 0u);
}

TEST(HostDebtsTest, ARefundLetsTheNextOneComeSoonerAndIsNoCredit) {
  HostDebts debts(kPerSecond);
  uint64_t due = 0;
  for (uint64_t i = 0; i <= kConnectionsAtOnce; ++i) due = debts.Enter(Host(1), kNow);
  ASSERT_EQ(debts.DueIn(Host(1), due, kNow), kConnectionNs);

  debts.Refund(Host(1));

  EXPECT_EQ(debts.DueIn(Host(1), due, kNow), 0u);
  for (uint64_t i = 0; i < 10 * kConnectionsAtOnce; ++i) debts.Refund(Host(1));
  for (uint64_t i = 0; i <= kConnectionsAtOnce; ++i) due = debts.Enter(Host(1), kNow);
  EXPECT_EQ(debts.DueIn(Host(1), due, kNow), kConnectionNs);
}

TEST(HostDebtsTest, OneHostBeyondTheLimitTakesThePlaceOfThoseThatOweNothing) {
  HostDebts debts(kPerSecond);
  for (uint32_t i = 0; i < kHostsMax; ++i) debts.Waste(Host(i), kNow);
  EXPECT_EQ(debts.hosts(), kHostsMax);

  debts.Waste(Host(kHostsMax), kNow + kSecond);

  EXPECT_EQ(debts.hosts(), 1u);
}

TEST(HostDebtsTest, OneHostBeyondTheLimitTakesThePlaceOfWhoOwesLeast) {
  HostDebts debts(kPerSecond);
  for (uint32_t i = 0; i < kHostsMax; ++i) Waste(&debts, Host(i), i == 7 ? 1 : kWasteAtOnce, kNow);
  ASSERT_EQ(debts.hosts(), kHostsMax);

  Waste(&debts, Host(kHostsMax), kWasteAtOnce, kNow);

  EXPECT_EQ(debts.hosts(), kHostsMax);
  EXPECT_EQ(debts.Waste(Host(8), kNow), kEach) << "another one than 7 was forgotten";
  EXPECT_EQ(debts.Waste(Host(kHostsMax), kNow), kEach);
}

}  // namespace
}  // namespace statehouse
