// What a watch makes of the messages of a stream, and from where it lets a later one go on.
#include "clients/c/src/dict_watch.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace statehouse {
namespace {

using Events = std::vector<sh_watch_kind>;

v1::WatchDictResponse Snapshot(std::vector<std::string> keys) {
  v1::WatchDictResponse response;
  response.mutable_snapshot();
  for (std::string& key : keys) {
    response.mutable_snapshot()->add_entries()->set_key(std::move(key));
  }
  return response;
}
v1::WatchDictResponse Changes(uint64_t resumable, std::vector<uint64_t> revisions) {
  v1::WatchDictResponse response;
  response.set_revision(resumable);
  for (const uint64_t revision : revisions) {
    v1::DictChange* const change = response.mutable_changes()->add_changes();
    change->set_kind(v1::CHANGE_KIND_PUT);
    change->set_revision(revision);
    change->mutable_value()->set_int_value(1);
  }
  return response;
}
v1::WatchDictResponse Synced(uint64_t revision) {
  v1::WatchDictResponse response;
  response.set_revision(revision);
  response.mutable_synced();
  return response;
}
v1::WatchDictResponse Resync(int reason) {
  v1::WatchDictResponse response;
  response.mutable_resync()->set_reason(static_cast<v1::ResyncReason>(reason));
  return response;
}

class DictWatchReaderTest : public ::testing::Test {
 protected:
  void Take(const v1::WatchDictResponse& response) {
    reader_.Take(std::make_unique<v1::WatchDictResponse>(response));
  }
  Events Rest() {
    Events kinds;
    for (StatusOr<bool> more = reader_.Next(&event_); more.ok() && *more;
         more = reader_.Next(&event_)) {
      kinds.push_back(event_.kind);
    }
    return kinds;
  }
  Events After(const v1::WatchDictResponse& response) {
    Take(response);
    return Rest();
  }
  Events AfterBreak() {
    reader_.TakeBreak();
    return Rest();
  }

  DictWatchReader reader_{WatchPoint()};
  sh_watch_event event_{};
};

TEST_F(DictWatchReaderTest, RevisionIsThatOfTheLastEventThatWasGiven) {
  EXPECT_EQ(After(Snapshot({"a", "b"})), (Events{SH_WATCH_ENTRY, SH_WATCH_ENTRY}));
  EXPECT_EQ(reader_.revision(), 0u);
  EXPECT_EQ(After(Changes(0, {5})), (Events{SH_WATCH_PUT}));
  EXPECT_EQ(reader_.revision(), 0u);  // No stream can go on within a snapshot.
  EXPECT_EQ(After(Synced(6)), (Events{SH_WATCH_SYNCED}));
  EXPECT_EQ(reader_.revision(), 6u);
  Take(Changes(9, {7, 8}));
  ASSERT_TRUE(*reader_.Next(&event_));
  EXPECT_EQ(event_.revision, 7u);
  EXPECT_EQ(reader_.revision(), 7u);
  EXPECT_EQ(std::string(static_cast<const char*>(event_.value.data), event_.value.size),
            "\x18\x01");
  ASSERT_TRUE(*reader_.Next(&event_));
  EXPECT_EQ(reader_.revision(), 9u);  // Nothing of this watch's was between 8 and 9.
  EXPECT_EQ(After(Resync(v1::RESYNC_REASON_OVERRUN)), (Events{SH_WATCH_RESYNC}));
  EXPECT_EQ(event_.reason, SH_RESYNC_UNSPECIFIED);  // Of no event: the last look found none.
  EXPECT_EQ(reader_.revision(), 0u);
}

TEST_F(DictWatchReaderTest, BreakWithinASnapshotIsAResyncAndAnyOtherIsNone) {
  EXPECT_EQ(AfterBreak(), Events{});
  After(Snapshot({"a"}));
  EXPECT_EQ(AfterBreak(), (Events{SH_WATCH_RESYNC}));
  EXPECT_EQ(AfterBreak(), Events{});  // Told already.
  After(Changes(0, {3}));
  EXPECT_EQ(AfterBreak(), (Events{SH_WATCH_RESYNC}));
  After(Snapshot({"a"}));
  After(Synced(4));
  EXPECT_EQ(AfterBreak(), Events{});
  After(Changes(5, {5}));
  EXPECT_EQ(AfterBreak(), Events{});
  EXPECT_EQ(reader_.revision(), 5u);
}

TEST_F(DictWatchReaderTest, EveryReasonOfAResyncIsKnownOrUnspecified) {
  for (const int reason : {0, 1, 2, 3, 4, 5, 6, 7, -1}) {
    Take(Resync(reason));
    ASSERT_TRUE(*reader_.Next(&event_));
    EXPECT_EQ(event_.reason, reason < 0 || reason > 6 ? 0 : reason);
  }
  After(Snapshot({"a"}));
  reader_.TakeBreak();
  ASSERT_TRUE(*reader_.Next(&event_));
  EXPECT_EQ(event_.reason, SH_RESYNC_CONNECTION_LOST);
}

TEST_F(DictWatchReaderTest, MessagesWithoutEventsAndUnknownKindsOfChange) {
  EXPECT_EQ(After(v1::WatchDictResponse()), Events{});
  EXPECT_EQ(After(Snapshot({})), Events{});
  EXPECT_EQ(After(Changes(4, {})), Events{});
  EXPECT_EQ(reader_.revision(), 4u);
  v1::WatchDictResponse unknown = Changes(5, {5});
  unknown.mutable_changes()->mutable_changes(0)->set_kind(static_cast<v1::ChangeKind>(5));
  Take(unknown);
  EXPECT_EQ(reader_.Next(&event_).status().reason(), Reason::kInternal);
  EXPECT_EQ(reader_.revision(), 4u);
}

TEST(DictWatchTest, StreamGoesOnAfterItsLastMessageThatHadARevision) {
  const auto watch = DictWatch::Make("d", sh_watch_options{});
  ASSERT_TRUE(watch.ok());
  const WatchPoint six{true, 6};
  EXPECT_EQ((*watch)->from(), WatchPoint());
  EXPECT_EQ((*watch)->PointAfter(Snapshot({"a"}), WatchPoint()), WatchPoint());
  EXPECT_EQ((*watch)->PointAfter(Synced(6), WatchPoint()), six);
  EXPECT_EQ((*watch)->PointAfter(Changes(9, {7}), six), (WatchPoint{true, 9}));
  EXPECT_EQ((*watch)->PointAfter(Resync(1), six), WatchPoint());
  EXPECT_EQ((*watch)->PointAfter(Changes(0, {7}), six), six);
  const auto request = (*watch)->MakeRequest(six, LocalFollow::kNone);
  const auto& dict_request = static_cast<const v1::WatchDictRequest&>(*request);
  EXPECT_EQ(dict_request.from_revision(), 6u);
  EXPECT_EQ(dict_request.name(), "d");
  const auto anew = (*watch)->MakeRequest(WatchPoint(), LocalFollow::kNone);
  EXPECT_FALSE(static_cast<const v1::WatchDictRequest&>(*anew).has_from_revision());
}

TEST(DictWatchTest, ProgressIsAnEventOnlyWhereItWasAskedFor) {
  v1::WatchDictResponse progress;
  progress.set_revision(7);
  progress.mutable_progress();
  sh_watch_options options{};
  const auto silent = DictWatch::Make("d", options);
  ASSERT_TRUE(silent.ok());
  EXPECT_EQ((*silent)->SignOf(progress), WatchSubject::Sign::kPointAlone);
  EXPECT_EQ((*silent)->PointAfter(progress, {true, 5}), (WatchPoint{true, 7}));
  options.progress_ms = 100;
  const auto asks = DictWatch::Make("d", options);
  ASSERT_TRUE(asks.ok());
  EXPECT_EQ((*asks)->SignOf(progress), WatchSubject::Sign::kOther);
}

}  // namespace
}  // namespace statehouse
