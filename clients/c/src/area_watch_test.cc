// What a watch of an area makes of the messages of a stream, and from where a later one goes on.
#include "clients/c/src/area_watch.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace statehouse {
namespace {

constexpr uint64_t kIncarnation = 77;

struct Part {
  uint64_t pos;
  std::string bytes;
};

v1::WatchAreaResponse Snapshot(uint64_t pos, const std::string& bytes, bool more) {
  v1::WatchAreaResponse response;
  response.mutable_snapshot()->set_more(more);
  v1::AreaRange* const range = response.mutable_snapshot()->mutable_range();
  range->set_pos(pos);
  range->set_len(bytes.size());
  range->set_data(bytes);
  return response;
}
// `updates` 0: without.
v1::WatchAreaResponse Changes(uint64_t updates, const std::vector<Part>& parts, bool more = false) {
  v1::WatchAreaResponse response;
  if (updates != 0) response.set_updates(updates);
  response.mutable_changes()->set_more(more);
  for (const Part& part : parts) {
    v1::AreaRange* const range = response.mutable_changes()->add_ranges();
    range->set_pos(part.pos);
    range->set_len(part.bytes.size());
    range->set_data(part.bytes);
  }
  return response;
}
v1::WatchAreaResponse Synced(uint64_t updates, uint64_t incarnation = kIncarnation) {
  v1::WatchAreaResponse response;
  response.set_updates(updates);
  response.mutable_synced()->set_incarnation(incarnation);
  response.mutable_synced()->set_pos(10);
  response.mutable_synced()->set_len(20);
  return response;
}
v1::WatchAreaResponse Progress(uint64_t updates) {
  v1::WatchAreaResponse response;
  response.set_updates(updates);
  response.mutable_progress();
  return response;
}
v1::WatchAreaResponse Resync(int reason) {
  v1::WatchAreaResponse response;
  response.mutable_resync()->set_reason(static_cast<v1::ResyncReason>(reason));
  return response;
}

std::shared_ptr<const AreaWatch> Watched(const sh_area_watch_options& options = {}) {
  auto watch = AreaWatch::Make({"a", 64}, 10, 20, options);
  EXPECT_TRUE(watch.ok()) << watch.status().message();
  return std::move(watch).value();
}

class AreaWatchReaderTest : public ::testing::Test {
 protected:
  void Take(const v1::WatchAreaResponse& response) {
    reader_.Take(std::make_unique<v1::WatchAreaResponse>(response));
  }
  // "change 10 abc @7", with " more" behind it.
  std::string Next(AreaWatchReader* reader) {
    constexpr const char* kNames[] = {"none", "snapshot", "change", "synced", "resync", "progress"};
    const StatusOr<bool> given = reader->Next(&event_);
    if (!given.ok()) return std::string(ReasonName(given.status().reason()));
    if (!*given) return "";
    std::string text = kNames[event_.kind];
    if (event_.len > 0) text += " " + std::to_string(event_.pos);
    if (event_.bytes.data != nullptr) {
      text += " " + std::string(static_cast<const char*>(event_.bytes.data), event_.bytes.size);
    }
    if (event_.has_updates != 0) text += " @" + std::to_string(event_.updates);
    if (event_.more != 0) text += " more";
    return text;
  }
  std::string Next() { return Next(&reader_); }
  std::string After(const v1::WatchAreaResponse& response) {
    Take(response);
    return Next();
  }

  AreaWatchReader reader_{Watched()};
  sh_area_watch_event event_{};
};

TEST_F(AreaWatchReaderTest, EventsAreTheRangesOfMessagesInTheirOrder) {
  EXPECT_EQ(Next(), "");
  EXPECT_EQ(After(Snapshot(10, "abc", true)), "snapshot 10 abc more");
  EXPECT_EQ(Next(), "");
  EXPECT_EQ(After(Snapshot(13, "defghijklmnopqrst", false)), "snapshot 13 defghijklmnopqrst");
  EXPECT_EQ(After(Changes(5, {{12, "X"}})), "change 12 X @5");
  EXPECT_EQ(After(Synced(6)), "synced 10 @6");
  EXPECT_EQ(event_.len, 20u);
  EXPECT_EQ(After(Changes(0, {{10, "A"}, {14, "BC"}}, true)), "change 10 A more");
  EXPECT_EQ(Next(), "change 14 BC more");
  EXPECT_EQ(Next(), "");
  EXPECT_EQ(After(Changes(9, {{20, "D"}, {29, "E"}})), "change 20 D more");
  EXPECT_EQ(Next(), "change 29 E @9");
  EXPECT_EQ(After(Progress(11)), "progress @11");
  EXPECT_EQ(After(Resync(v1::RESYNC_REASON_REPLACED)), "resync");
  EXPECT_EQ(event_.reason, SH_RESYNC_REPLACED);
}

TEST_F(AreaWatchReaderTest, PointIsThatOfTheLastEventThatWasGiven) {
  EXPECT_EQ(reader_.point(), WatchPoint());
  After(Snapshot(10, "abc", false));
  EXPECT_EQ(reader_.point(), WatchPoint());
  After(Changes(5, {{12, "X"}}));
  EXPECT_EQ(reader_.point(), WatchPoint());  // Nobody knows yet which area it is.
  After(Synced(6));
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 6, kIncarnation}));
  Take(Changes(9, {{10, "A"}, {14, "B"}}));
  Next();
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 6, kIncarnation}));  // "B" was not given.
  Next();
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 9, kIncarnation}));
  After(Changes(0, {{10, "A"}}, true));
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 9, kIncarnation}));
  reader_.TakeBreak();
  EXPECT_EQ(Next(), "");
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 9, kIncarnation}));
  After(Progress(12));
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 12, kIncarnation}));
  After(Resync(2));
  EXPECT_EQ(reader_.point(), WatchPoint());
  After(Synced(1, 78));
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 1, 78}));
}

TEST_F(AreaWatchReaderTest, MessagesWithoutEventsMoveThePoint) {
  After(Synced(6));
  EXPECT_EQ(After(v1::WatchAreaResponse()), "");
  EXPECT_EQ(After(Changes(7, {})), "");
  EXPECT_EQ(reader_.point(), (WatchPoint{true, 7, kIncarnation}));
  EXPECT_EQ(After(Changes(8, {{10, "A"}})), "change 10 A @8");
}

TEST_F(AreaWatchReaderTest, RangeThatIsNoneOfTheWatchedOneIsRefused) {
  EXPECT_EQ(After(Snapshot(9, "a", false)), "INTERNAL");
  EXPECT_EQ(After(Changes(1, {{30, "a"}})), "INTERNAL");
  EXPECT_EQ(After(Changes(1, {{29, "ab"}})), "INTERNAL");
  EXPECT_EQ(After(Changes(1, {{UINT64_MAX, "ab"}})), "INTERNAL");
  EXPECT_EQ(After(Changes(1, {{10, ""}})), "INTERNAL");
  EXPECT_EQ(After(Changes(1, {{10, std::string(21, 'x')}})), "INTERNAL");
  v1::WatchAreaResponse longer = Changes(1, {{10, "abc"}});
  longer.mutable_changes()->mutable_ranges(0)->set_len(4);
  EXPECT_EQ(After(longer), "INTERNAL");
  EXPECT_EQ(After(Changes(2, {{29, "a"}})), "change 29 a @2");
}

TEST_F(AreaWatchReaderTest, RangesOnlyHaveNoBytes) {
  sh_area_watch_options options{};
  options.ranges_only = 1;
  AreaWatchReader reader(Watched(options));
  v1::WatchAreaResponse change = Changes(3, {{12, "abc"}});
  change.mutable_changes()->mutable_ranges(0)->clear_data();
  reader.Take(std::make_unique<v1::WatchAreaResponse>(change));
  EXPECT_EQ(Next(&reader), "change 12 @3");
  EXPECT_EQ(event_.len, 3u);
}

TEST_F(AreaWatchReaderTest, EveryReasonOfAResyncIsKnownOrUnspecified) {
  for (const int reason : {0, 1, 2, 3, 4, 5, 6, 7, -1}) {
    EXPECT_EQ(After(Resync(reason)), "resync");
    EXPECT_EQ(event_.reason, reason < 0 || reason > 6 ? 0 : reason);
  }
}

TEST(AreaWatchTest, StreamGoesOnAfterItsLastMessageThatHadAPoint) {
  const auto watch = Watched();
  const WatchPoint six{true, 6, kIncarnation};
  EXPECT_EQ(watch->PointAfter(Snapshot(10, "a", false), WatchPoint()), WatchPoint());
  EXPECT_EQ(watch->PointAfter(Changes(5, {{10, "a"}}), WatchPoint()), WatchPoint());
  EXPECT_EQ(watch->PointAfter(Synced(6), WatchPoint()), six);
  EXPECT_EQ(watch->PointAfter(Changes(9, {{10, "a"}}), six), (WatchPoint{true, 9, kIncarnation}));
  EXPECT_EQ(watch->PointAfter(Changes(0, {{10, "a"}}, true), six), six);
  EXPECT_EQ(watch->PointAfter(Resync(5), six), WatchPoint());
  // Without an incarnation by the caller's own choice.
  EXPECT_EQ(watch->PointAfter(Changes(9, {{10, "a"}}), {true, 6, 0}), (WatchPoint{true, 9, 0}));
}

TEST(AreaWatchTest, RequestHasEveryOption) {
  sh_area_watch_options options{};
  options.from = {0, 5, 1};  // No updates are a place, too.
  options.window_us = 10'000;
  options.progress_ms = 1'234;
  options.skip_snapshot = 1;
  options.ranges_only = 1;
  const auto watch = Watched(options);
  EXPECT_EQ(watch->from(), (WatchPoint{true, 0, 5}));
  const auto first = watch->MakeRequest(watch->from(), LocalFollow::kNone);
  const auto& request = static_cast<const v1::WatchAreaRequest&>(*first);
  EXPECT_EQ(request.name(), "a");
  EXPECT_EQ(request.pos(), 10u);
  EXPECT_EQ(request.len(), 20u);
  EXPECT_TRUE(request.has_from_updates());
  EXPECT_EQ(request.from_updates(), 0u);
  EXPECT_EQ(request.from_incarnation(), 5u);
  EXPECT_EQ(request.window().nanos(), 10'000'000);
  EXPECT_EQ(request.progress_interval().seconds(), 1);
  EXPECT_EQ(request.progress_interval().nanos(), 234'000'000);
  EXPECT_TRUE(request.skip_snapshot());
  EXPECT_TRUE(request.ranges_only());
  const auto anew = watch->MakeRequest(WatchPoint(), LocalFollow::kNone);
  EXPECT_FALSE(static_cast<const v1::WatchAreaRequest&>(*anew).has_from_updates());
  EXPECT_EQ(static_cast<const v1::WatchAreaRequest&>(*anew).from_incarnation(), 0u);
}

}  // namespace
}  // namespace statehouse
