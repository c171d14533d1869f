// A watch that has told all there is may wait for more without being asked for it in vain.
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

using Found = Watch::Found;
using Kind = WatchEvent::Kind;

class WatchWaitsTest : public WatchTurnTest {
 protected:
  ~WatchWaitsTest() override {
    if (watch_ != nullptr) watch_->Close();
  }

  // A live watch that waits.
  void Open(WatchAsk ask) {
    if (watch_ != nullptr) watch_->Close();
    watch_ = hub->Open(std::move(ask), [this] { ++notified_; }).value();
    bool is_live = false;
    for (int turn = 0; turn < 100; ++turn) {
      WatchEvent event;
      while (watch_->Poll(&event) == Found::kEvent) is_live |= event.kind == Kind::kSynced;
      if (is_live && turn % 2 == 1) break;
      while (hub->Turn() == 0) continue;
    }
    ASSERT_TRUE(is_live);
    notified_ = 0;
  }
  void Change(int times = 1) {
    for (int i = 0; i < times; ++i) Put("k", std::to_string(++puts_));
    while (hub->Turn() == 0) continue;
  }
  // The next event, which is of so many changes.
  bool WaitsAfter(size_t changes) {
    WatchEvent event;
    EXPECT_EQ(watch_->Poll(&event, /*may_wait=*/true), Found::kEvent);
    EXPECT_EQ(event.kind, Kind::kChanges);
    EXPECT_EQ(event.changes.size(), changes);
    return event.waits;
  }

  std::shared_ptr<Watch> watch_;
  int notified_ = 0;

 private:
  int puts_ = 0;
};

TEST_F(WatchWaitsTest, ItNotifiesOfWhatComesAfterItsLastEvent) {
  Open(Ask());
  for (int i = 1; i <= 3; ++i) {
    Change();
    EXPECT_EQ(notified_, i);
    EXPECT_TRUE(WaitsAfter(1));
  }
  Change(2);
  Change();
  EXPECT_EQ(notified_, 4) << "once until it is asked";
  EXPECT_TRUE(WaitsAfter(3));

  ASSERT_TRUE(store->Delete(served->record().name).ok());
  while (hub->Turn() == 0) continue;

  EXPECT_EQ(notified_, 5);
  WatchEvent event;
  EXPECT_EQ(watch_->Poll(&event, true), Found::kEnd);
}

TEST_F(WatchWaitsTest, ItSleepsWhileOnlyOthersChange) {
  WatchAsk ask = Ask();
  ask.key = "k";
  Open(ask);
  Change();
  EXPECT_TRUE(WaitsAfter(1));
  for (int i = 0; i < 8; ++i) {
    Put("other", std::to_string(i));
    while (hub->Turn() == 0) continue;
  }
  EXPECT_EQ(hub->Totals().asleep, 1u);
  notified_ = 0;

  Change();

  EXPECT_EQ(notified_, 1);
  EXPECT_TRUE(WaitsAfter(1));
}

TEST_F(WatchWaitsTest, WhoHasMoreToTellIsAsked) {
  constexpr size_t kChangesPerMessage = 512;
  Open(Ask());
  Change(kChangesPerMessage + 1);
  EXPECT_FALSE(WaitsAfter(kChangesPerMessage));
  EXPECT_TRUE(WaitsAfter(1));
}

TEST_F(WatchWaitsTest, WhoIsToldByTimeOrHasMoreOnHisMindIsAsked) {
  WatchAsk windowed = Ask();
  windowed.window_ns = 1'000'000;
  WatchAsk progress = Ask();
  progress.progress_ms = kProgressMsMin;
  WatchAsk previous = Ask();
  previous.previous = true;
  for (const WatchAsk& ask : {windowed, progress, previous}) {
    Open(ask);
    Change();
    EXPECT_FALSE(WaitsAfter(1));
    WatchEvent event;
    EXPECT_EQ(watch_->Poll(&event, true), Found::kNothing);
  }
}

TEST_F(WatchWaitsTest, NobodyWaitsUnasked) {
  Open(Ask());
  Change();
  WatchEvent event;
  ASSERT_EQ(watch_->Poll(&event), Found::kEvent);
  EXPECT_FALSE(event.waits);
  notified_ = 0;

  Change();

  EXPECT_EQ(notified_, 0);
  EXPECT_TRUE(WaitsAfter(1));
}

}  // namespace
}  // namespace statehouse
