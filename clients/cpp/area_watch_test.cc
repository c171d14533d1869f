// The C++ header's watches of areas against a real service, through each door. What a watch tells
// is tested in clients/c; here it is their C++ side.
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "clients/cpp/testing/watch_client.h"
#include "statehouse/client.hpp"

namespace statehouse::client {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

static_assert(!std::is_copy_constructible_v<AreaWatch> &&
              std::is_nothrow_move_constructible_v<AreaWatch>);

std::vector<std::byte> BytesOf(std::string_view text) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

class CppAreaWatchTest : public WatchClientTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(WatchClientTest::SetUp());
    area_ = client_->Open("a", 4096).value();
  }
  AreaWatch Open(const AreaWatchOptions& options = {}) {
    auto watch = area_->Watch(options);
    EXPECT_TRUE(watch.ok()) << watch.error().message();
    return *std::move(watch);
  }
  void Write(uint64_t pos, std::string_view text) { area_->Write(pos, BytesOf(text)).value(); }

  std::optional<Area> area_;
};

TEST_P(CppAreaWatchTest, EventsHaveWhatIsKnownOfThem) {
  Write(10, "hello");
  AreaWatch watch = Open({.pos = 10, .len = 300});
  const AreaEvent snapshot = Take(&watch);
  EXPECT_EQ(snapshot.kind, SH_AREA_WATCH_SNAPSHOT);
  EXPECT_EQ(snapshot.pos, 10u);
  EXPECT_EQ(snapshot.len, 300u);
  EXPECT_EQ(snapshot.bytes, area_->Read(10, 300).value());
  EXPECT_EQ(snapshot.updates, std::nullopt);
  EXPECT_EQ(watch.point(), std::nullopt);
  const AreaEvent synced = Take(&watch);
  EXPECT_EQ(synced.kind, SH_AREA_WATCH_SYNCED);
  EXPECT_TRUE(synced.bytes.empty());
  EXPECT_EQ(synced.updates, area_->Updates().value());
  ASSERT_TRUE(watch.point().has_value());
  EXPECT_EQ(watch.point()->updates, synced.updates);
  EXPECT_NE(watch.point()->incarnation, 0u);
  EXPECT_FALSE(watch.Next(milliseconds(0))->has_value());

  Write(10, "Hello" + std::string(250, '\0') + "!");
  const AreaEvent first = Take(&watch);
  EXPECT_EQ(first.kind, SH_AREA_WATCH_CHANGE);
  EXPECT_EQ(first.bytes, BytesOf("H"));
  EXPECT_TRUE(first.more);
  EXPECT_EQ(first.updates, std::nullopt);
  const AreaEvent second = Take(&watch);
  EXPECT_EQ(second.pos, 265u);
  EXPECT_EQ(second.bytes, BytesOf("!"));
  EXPECT_FALSE(second.more);
  EXPECT_GT(second.updates, synced.updates);
}

TEST_P(CppAreaWatchTest, EveryOptionReachesTheService) {
  AreaWatch all = Open();
  EXPECT_EQ(Take(&all).len, 4096u);
  EXPECT_EQ(Take(&all).kind, SH_AREA_WATCH_SYNCED);
  AreaWatch some = Open({.pos = 4090,
                         .ranges_only = true,
                         .window = milliseconds(10),
                         .progress = milliseconds(100)});
  const AreaEvent synced = Take(&some);
  EXPECT_EQ(synced.kind, SH_AREA_WATCH_SYNCED);
  EXPECT_EQ(synced.pos, 4090u);
  EXPECT_EQ(synced.len, 6u);
  EXPECT_EQ(Take(&some).kind, SH_AREA_WATCH_PROGRESS);
  Write(4091, "ab");
  AreaEvent change = Take(&some);
  while (change.kind == SH_AREA_WATCH_PROGRESS) change = Take(&some);
  EXPECT_EQ(change.kind, SH_AREA_WATCH_CHANGE);
  EXPECT_EQ(change.len, 2u);
  EXPECT_TRUE(change.bytes.empty());
  AreaWatch without = Open({.skip_snapshot = true});
  EXPECT_EQ(Take(&without).kind, SH_AREA_WATCH_SYNCED);
  AreaWatch later = Open({.from = all.point()});
  EXPECT_EQ(Take(&later).bytes, BytesOf("ab"));
  AreaPoint other = *all.point();
  other.incarnation += 1;
  AreaWatch anew = Open({.from = other});
  const AreaEvent resync = Take(&anew);
  EXPECT_EQ(resync.kind, SH_AREA_WATCH_RESYNC);
  EXPECT_EQ(resync.reason, SH_RESYNC_REPLACED);
}

TEST_P(CppAreaWatchTest, RangesAndOptionsThatMakeNoSenseAreRefused) {
  const auto reason = [&](const AreaWatchOptions& options) {
    return area_->Watch(options).error().reason();
  };
  EXPECT_EQ(reason({.pos = 4096}), SH_OUT_OF_BOUNDS);
  EXPECT_EQ(reason({.len = 4097}), SH_OUT_OF_BOUNDS);
  EXPECT_EQ(reason({.len = UINT64_MAX}), SH_OUT_OF_BOUNDS);
  EXPECT_EQ(reason({.len = 0}), SH_INVALID_ARGUMENT);
  EXPECT_EQ(reason({.window = microseconds(10'001)}), SH_INVALID_ARGUMENT);
  EXPECT_EQ(reason({.window = microseconds(-1)}), SH_INVALID_ARGUMENT);
  EXPECT_EQ(reason({.progress = milliseconds(0)}), SH_INVALID_ARGUMENT);
  EXPECT_EQ(reason({.progress = milliseconds(-1)}), SH_INVALID_ARGUMENT);
}

TEST_P(CppAreaWatchTest, RangeGivesEventsUntilTheWatchEnds) {
  AreaWatch watch = Open({.len = 8});
  std::vector<sh_area_watch_kind> kinds;
  for (auto& event : watch) {
    kinds.push_back(event.kind);
    if (event.kind == SH_AREA_WATCH_SYNCED) break;
  }
  EXPECT_EQ(watch.error(), std::nullopt);
  Write(0, "x");
  for (const AreaEvent& event : watch) {
    kinds.push_back(event.kind);
    client_->Delete("a").value();
  }
  EXPECT_EQ(kinds,
            (std::vector{SH_AREA_WATCH_SNAPSHOT, SH_AREA_WATCH_SYNCED, SH_AREA_WATCH_CHANGE}));
  ASSERT_TRUE(watch.error().has_value());
  EXPECT_EQ(watch.error()->reason(), SH_AREA_NOT_FOUND);
}

TEST_P(CppAreaWatchTest, RunCallsUntilItIsStoppedAndAnotherGoesOn) {
  AreaWatch watch = Open({.len = 8});
  std::stop_source stop;
  auto done = watch.Run(
      [&](const AreaEvent& event) {
        if (event.kind == SH_AREA_WATCH_SYNCED) Write(0, "a");
        if (event.kind == SH_AREA_WATCH_CHANGE) stop.request_stop();
      },
      stop.get_token());
  EXPECT_TRUE(done.ok());
  Write(1, "b");
  AreaWatch later = Open({.len = 8, .from = watch.point()});
  const std::stop_source never;
  std::vector<std::byte> told;
  done = later.Run(
      [&](const AreaEvent& event) {
        told.insert(told.end(), event.bytes.begin(), event.bytes.end());
        if (event.kind == SH_AREA_WATCH_SYNCED) client_->Delete("a").value();
      },
      never.get_token());
  EXPECT_EQ(told, BytesOf("b"));
  EXPECT_EQ(done.error().reason(), SH_AREA_NOT_FOUND);
}

TEST_P(CppAreaWatchTest, StopFromAnotherThreadWakesRun) {
  AreaWatch watch = Open({.len = 1});
  std::stop_source stop;
  std::atomic<bool> synced{false};
  bool ok = false;
  std::thread runs([&] {
    const auto take = [&](const AreaEvent& event) { synced = event.kind == SH_AREA_WATCH_SYNCED; };
    ok = watch.Run(take, stop.get_token()).ok();
  });
  EXPECT_TRUE(testing::Eventually([&] { return synced.load(); }));
  stop.request_stop();
  runs.join();
  EXPECT_TRUE(ok);
  EXPECT_EQ(watch.Next().error().reason(), SH_CANCELLED);
}

TEST_P(CppAreaWatchTest, GoesOnOverAKilledDaemon) {
  AreaWatch watch = Open({.len = 4});
  EXPECT_EQ(Take(&watch).kind, SH_AREA_WATCH_SNAPSHOT);
  EXPECT_EQ(Take(&watch).kind, SH_AREA_WATCH_SYNCED);
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  Write(2, "x");
  AreaEvent event = Take(&watch);
  while (event.kind == SH_AREA_WATCH_SYNCED) event = Take(&watch);
  EXPECT_EQ(event.kind, SH_AREA_WATCH_CHANGE);
  EXPECT_EQ(event.bytes.at(2 - event.pos), std::byte{'x'});
}

TEST_P(CppAreaWatchTest, MovesAndHasADescriptor) {
  AreaWatch watch = Open({.len = 1});
  const int fd = watch.fd();
  pollfd waits{fd, POLLIN, 0};
  EXPECT_EQ(poll(&waits, 1, static_cast<int>(kPatience.count())), 1);
  AreaWatch moved = std::move(watch);
  EXPECT_EQ(moved.fd(), fd);
  EXPECT_EQ(watch.fd(), -1);  // NOLINT: what a moved-from watch says.
  EXPECT_EQ(watch.point(), std::nullopt);
  EXPECT_EQ(watch.Next().error().reason(), SH_CLIENT_CLOSED);
  watch.Cancel();
  EXPECT_EQ(Take(&moved).kind, SH_AREA_WATCH_SNAPSHOT);
  area_.reset();
  EXPECT_EQ(Take(&moved).kind, SH_AREA_WATCH_SYNCED);
  client_.reset();
  EXPECT_EQ(moved.Next().error().reason(), SH_CLIENT_CLOSED);
}

INSTANTIATE_TEST_SUITE_P(Doors, CppAreaWatchTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse::client
