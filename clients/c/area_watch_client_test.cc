// The C library's watches of areas against a real service, through clients of each door: what they
// tell, and what each option does.
#include "clients/c/testing/area_watch_client.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace statehouse {
namespace {

using Events = std::vector<std::string>;

constexpr uint64_t kAreaBytes = 8192;

class AreaWatchClientTest : public DictClientTest {
 protected:
  AreaPtr OpenA(uint64_t size = kAreaBytes) { return OpenArea(client_.get(), "a", size); }
};

TEST_P(AreaWatchClientTest, TellsTheBytesThenSyncedThenChanges) {
  const AreaPtr area = OpenA();
  ASSERT_EQ(Write(area.get(), 10, "hello"), SH_OK);
  const WatchPtr watch = WatchArea(area.get(), 8, 8);
  sh_area_watch_event event{};
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "snapshot 8+8 ..hello.");
  EXPECT_EQ(event.has_updates, 0);
  EXPECT_EQ(sh_area_watch_point(watch.get()).is_set, 0);
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "synced");
  EXPECT_EQ(event.pos, 8u);
  EXPECT_EQ(event.len, 8u);
  uint64_t updates = 0;
  ASSERT_EQ(sh_updates(area.get(), &updates, nullptr), SH_OK);
  EXPECT_EQ(event.has_updates, 1);
  EXPECT_EQ(event.updates, updates);
  EXPECT_EQ(sh_area_watch_point(watch.get()).updates, updates);
  EXPECT_EQ(sh_area_watch_point(watch.get()).is_set, 1);
  EXPECT_NE(sh_area_watch_point(watch.get()).incarnation, 0u);
  EXPECT_EQ(NextOfArea(watch.get(), 0), "nothing");
  EXPECT_EQ(NextOfArea(watch.get(), 20), "nothing");

  ASSERT_EQ(Write(area.get(), 11, "E"), SH_OK);
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "change 11+1 E");
  EXPECT_EQ(event.has_updates, 1);
  EXPECT_GT(event.updates, updates);
  EXPECT_EQ(sh_area_watch_point(watch.get()).updates, event.updates);
  ASSERT_EQ(Write(area.get(), 16, "beside"), SH_OK);
  ASSERT_EQ(Write(area.get(), 11, "E"), SH_OK);
  EXPECT_EQ(NextOfArea(watch.get(), 50), "nothing");
}

TEST_P(AreaWatchClientTest, PartsOfOneWriteBelongTogether) {
  const AreaPtr area = OpenA();
  ASSERT_EQ(Write(area.get(), 0, std::string(300, '.')), SH_OK);
  const WatchPtr watch = WatchArea(area.get(), 0, 300);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+300", "synced"}));
  const uint64_t before = sh_area_watch_point(watch.get()).updates;
  ASSERT_EQ(Write(area.get(), 0, "A" + std::string(250, '.') + "B"), SH_OK);
  sh_area_watch_event event{};
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "change 0+1 A more");
  EXPECT_EQ(event.has_updates, 0);
  EXPECT_EQ(sh_area_watch_point(watch.get()).updates, before);
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "change 251+1 B");
  EXPECT_EQ(event.has_updates, 1);
  EXPECT_GT(sh_area_watch_point(watch.get()).updates, before);
}

TEST_P(AreaWatchClientTest, WithoutSnapshotAndWithRangesOnly) {
  const AreaPtr area = OpenA();
  ASSERT_EQ(Write(area.get(), 0, "a"), SH_OK);
  sh_area_watch_options options{};
  options.skip_snapshot = 1;
  const WatchPtr changes = WatchArea(area.get(), 0, 8, options);
  options.skip_snapshot = 0;
  options.ranges_only = 1;
  const WatchPtr ranges = WatchArea(area.get(), 0, 8, options);
  EXPECT_EQ(NextOfArea(changes.get()), "synced");
  EXPECT_EQ(NextOfArea(ranges.get()), "synced");
  ASSERT_EQ(Write(area.get(), 3, "abc"), SH_OK);
  EXPECT_EQ(NextOfArea(changes.get()), "change 3+3 abc");
  sh_area_watch_event event{};
  EXPECT_EQ(NextOfArea(ranges.get(), kPatienceMs, &event), "change 3+3");
  EXPECT_EQ(event.bytes.data, nullptr);
}

TEST_P(AreaWatchClientTest, ProgressIsToldWhereNothingHappens) {
  const AreaPtr area = OpenA();
  sh_area_watch_options options{};
  options.progress_ms = 100;
  const WatchPtr watch = WatchArea(area.get(), 0, 1, options);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  ASSERT_EQ(Write(area.get(), 1, "beside"), SH_OK);
  sh_area_watch_event event{};
  EXPECT_EQ(NextOfArea(watch.get(), kPatienceMs, &event), "progress");
  EXPECT_EQ(event.has_updates, 1);
  EXPECT_EQ(sh_area_watch_point(watch.get()).updates, event.updates);
}

TEST_P(AreaWatchClientTest, HotWordMakesAtMostOneEventInAWindow) {
  const AreaPtr area = OpenA();
  sh_area_watch_options options{};
  options.window_us = SH_WATCH_WINDOW_US_MAX;
  const WatchPtr watch = WatchArea(area.get(), 0, 8, options);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+8 ........", "synced"}));
  constexpr int kAdds = 2'000;
  for (int i = 0; i < kAdds; ++i) {
    ASSERT_EQ(sh_add(area.get(), SH_U64, 0, 1, nullptr, nullptr), SH_OK);
  }
  AreaReplayer replayer(0, 8);
  while (!replayer.Equals(area.get())) {
    sh_area_watch_event event{};
    ASSERT_EQ(sh_area_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_EQ(event.kind, SH_AREA_WATCH_CHANGE);
    ASSERT_NO_FATAL_FAILURE(replayer.Apply(event));
  }
  EXPECT_LT(replayer.changes(), kAdds);
}

TEST_P(AreaWatchClientTest, LongRangesComeInPieces) {
  constexpr uint64_t kLong = 6 << 20;  // Longer than what the service keeps a copy of.
  const AreaPtr area = OpenA(kLong);
  const WatchPtr watch = WatchArea(area.get());
  sh_area_watch_event event{};
  uint64_t told = 0;
  int pieces = 0;
  do {
    ASSERT_EQ(sh_area_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_EQ(event.kind, SH_AREA_WATCH_SNAPSHOT);
    EXPECT_EQ(event.pos, told);
    told += event.len;
    ++pieces;
  } while (event.more != 0);
  EXPECT_EQ(told, kLong);
  EXPECT_GT(pieces, 1);
  EXPECT_EQ(NextOfArea(watch.get()), "synced");
  ASSERT_EQ(Write(area.get(), kLong - 1, "z"), SH_OK);
  ASSERT_EQ(sh_area_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
  EXPECT_EQ(event.pos + event.len, kLong);
  EXPECT_GE(event.len, 4096u);  // Whole stripes.
  EXPECT_EQ(Text(event.bytes).back(), 'z');
}

TEST_P(AreaWatchClientTest, LaterWatchGoesOnFromAPoint) {
  const AreaPtr area = OpenA();
  WatchPtr watch = WatchArea(area.get());
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+8192", "synced"}));
  sh_area_watch_options later{};
  later.from = sh_area_watch_point(watch.get());
  watch = WatchArea(area.get(), 0, SH_TO_END, later);
  EXPECT_EQ(sh_area_watch_point(watch.get()).updates, later.from.updates);
  EXPECT_EQ(NextOfArea(watch.get()), "synced");
  ASSERT_EQ(Write(area.get(), 100, "x"), SH_OK);
  EXPECT_EQ(NextOfArea(watch.get()), "change 100+1 x");
  watch = WatchArea(area.get(), 0, SH_TO_END, later);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"change 100+1 x", "synced"}));

  sh_area_watch_options wrong = later;
  wrong.from.incarnation += 1;
  watch = WatchArea(area.get(), 0, 1, wrong);
  EXPECT_EQ(NextOfArea(watch.get()), "resync replaced");
  EXPECT_EQ(sh_area_watch_point(watch.get()).is_set, 0);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  EXPECT_EQ(sh_area_watch_point(watch.get()).incarnation, later.from.incarnation);
  wrong.from = {uint64_t{1} << 40, 0, 1};
  wrong.skip_snapshot = 1;
  watch = WatchArea(area.get(), 0, 1, wrong);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"resync revision unknown", "synced"}));
}

TEST_P(AreaWatchClientTest, AreaThatWasMadeAnewIsToldByAnotherIncarnation) {
  AreaPtr area = OpenA();
  WatchPtr watch = WatchArea(area.get(), 0, 1);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  sh_area_watch_options later{};
  later.from = sh_area_watch_point(watch.get());
  ASSERT_EQ(sh_area_delete(client_.get(), "a", nullptr), SH_OK);
  area = OpenA();
  ASSERT_EQ(Write(area.get(), 0, "n"), SH_OK);
  watch = WatchArea(area.get(), 0, 1, later);
  EXPECT_EQ(TakeOfArea(watch.get(), 3), (Events{"resync replaced", "snapshot 0+1 n", "synced"}));
  EXPECT_NE(sh_area_watch_point(watch.get()).incarnation, later.from.incarnation);
}

TEST_P(AreaWatchClientTest, RangesAndOptionsThatMakeNoSenseAreRefused) {
  const AreaPtr area = OpenA();
  struct Case {
    const char* what;
    uint64_t pos;
    uint64_t len;
    sh_area_watch_options options;
    sh_reason reason;
  };
  const Case cases[] = {
      {"pos at the end", kAreaBytes, SH_TO_END, {}, SH_OUT_OF_BOUNDS},
      {"empty at the end", kAreaBytes, 0, {}, SH_OUT_OF_BOUNDS},
      {"pos beyond the end", UINT64_MAX, 1, {}, SH_OUT_OF_BOUNDS},
      {"over the end", kAreaBytes - 1, 2, {}, SH_OUT_OF_BOUNDS},
      {"longer than the area", 0, kAreaBytes + 1, {}, SH_OUT_OF_BOUNDS},
      {"end that no number holds", 1, SH_TO_END - 1, {}, SH_OUT_OF_BOUNDS},
      {"empty", 0, 0, {}, SH_INVALID_ARGUMENT},
      {"window_us 10001", 0, 1, {{}, 10'001, 0, 0, 0}, SH_INVALID_ARGUMENT},
      {"progress_ms 99", 0, 1, {{}, 0, 99, 0, 0}, SH_INVALID_ARGUMENT},
      {"progress_ms 3600001", 0, 1, {{}, 0, 3'600'001, 0, 0}, SH_INVALID_ARGUMENT},
      {"updates without is_set", 0, 1, {{5, 0, 0}, 0, 0, 0, 0}, SH_INVALID_ARGUMENT},
      {"incarnation without is_set", 0, 1, {{0, 5, 0}, 0, 0, 0, 0}, SH_INVALID_ARGUMENT},
  };
  for (const Case& bad : cases) {
    sh_watch* watch = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_area_watch(area.get(), bad.pos, bad.len, &bad.options, &watch, &error), bad.reason)
        << bad.what;
    EXPECT_NE(std::string(sh_error_message(error)).find("\"a\""), std::string::npos) << bad.what;
    EXPECT_STREQ(sh_error_name(error), "a") << bad.what;
    EXPECT_EQ(watch, nullptr) << bad.what;
    sh_error_free(error);
  }
}

TEST_P(AreaWatchClientTest, ExtremesAreTaken) {
  const AreaPtr area = OpenA();
  sh_area_watch_options options{};
  options.window_us = SH_WATCH_WINDOW_US_MAX;
  options.progress_ms = 3'600'000;
  EXPECT_EQ(NextOfArea(WatchArea(area.get(), kAreaBytes - 1, 1, options).get()),
            "snapshot 8191+1 .");
  EXPECT_EQ(NextOfArea(WatchArea(area.get(), 0, kAreaBytes, options).get()), "snapshot 0+8192");
  EXPECT_EQ(NextOfArea(WatchArea(area.get(), kAreaBytes - 2).get()), "snapshot 8190+2 ..");
  options.window_us = 1;
  options.progress_ms = 100;
  EXPECT_EQ(NextOfArea(WatchArea(area.get(), 0, 1, options).get()), "snapshot 0+1 .");
}

TEST_P(AreaWatchClientTest, NullsAndWatchesOfAnotherKindAreRefused) {
  const AreaPtr area = OpenA();
  const DictPtr dict = Open("d");
  sh_watch* watch = nullptr;
  sh_area_watch_event event{};
  EXPECT_EQ(sh_area_watch(nullptr, 0, 1, nullptr, &watch, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_area_watch(area.get(), 0, 1, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_area_watch_next(nullptr, 0, &event, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_area_watch_point(nullptr).is_set, 0);
  ASSERT_EQ(sh_area_watch(area.get(), 0, 1, nullptr, &watch, nullptr), SH_OK);
  const WatchPtr of_area(watch);
  const WatchPtr of_dict = Watch(dict.get());
  EXPECT_EQ(sh_area_watch_next(of_area.get(), 0, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(Next(of_area.get()), "INVALID_ARGUMENT");
  EXPECT_EQ(sh_watch_revision(of_area.get()), 0u);
  EXPECT_EQ(NextOfArea(of_dict.get()), "INVALID_ARGUMENT");
  // Neither has lost anything by that.
  EXPECT_EQ(TakeOfArea(of_area.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  EXPECT_EQ(Next(of_dict.get()), "synced");
  EXPECT_EQ(sh_area_watch_point(of_dict.get()).is_set, 0);
}

TEST_P(AreaWatchClientTest, DeletedAreaEndsItsWatchesForGood) {
  const AreaPtr area = OpenA();
  const WatchPtr watch = WatchArea(area.get(), 0, 1);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  ASSERT_EQ(sh_area_delete(client_.get(), "a", nullptr), SH_OK);
  EXPECT_EQ(TakeOfArea(watch.get(), 2), (Events{"AREA_NOT_FOUND", "AREA_NOT_FOUND"}));
  EXPECT_EQ(NextOfArea(WatchArea(area.get(), 0, 1).get()), "AREA_NOT_FOUND");
}

TEST_P(AreaWatchClientTest, WatchBeyondTheServicesLimitIsRefused) {
  client_.reset();
  daemon_.reset();
  testing::DaemonOptions few;
  few.environment = {"STATEHOUSED_WATCHES__COUNT_MAX=1"};
  auto started = testing::Daemon::Start(std::move(few));
  ASSERT_TRUE(started.ok()) << started.status().message();
  daemon_ = std::move(started).value();
  client_ = Connect(daemon_->token());
  const AreaPtr area = OpenA();
  WatchPtr first = WatchArea(area.get(), 0, 1);
  EXPECT_EQ(TakeOfArea(first.get(), 2), (Events{"snapshot 0+1 .", "synced"}));
  const WatchPtr second = WatchArea(area.get(), 0, 1);
  EXPECT_EQ(TakeOfArea(second.get(), 2), (Events{"LIMIT_EXCEEDED", "LIMIT_EXCEEDED"}));
  first.reset();
  EXPECT_TRUE(testing::Eventually(
      [&] { return NextOfArea(WatchArea(area.get(), 0, 1).get()) == "snapshot 0+1 ."; }));
}

INSTANTIATE_TEST_SUITE_P(Doors, AreaWatchClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse
