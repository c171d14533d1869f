// The C++ header's watches against a real service, through each door. What a watch tells is tested
// in clients/c; here it is their C++ side.
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "clients/cpp/testing/watch_client.h"
#include "statehouse/client.hpp"

namespace statehouse::client {
namespace {

using std::chrono::milliseconds;

static_assert(!std::is_copy_constructible_v<Watch> && std::is_move_constructible_v<Watch>);

class CppWatchTest : public WatchClientTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(WatchClientTest::SetUp());
    dict_ = client_->OpenDict("d").value();
  }
  Watch Open(const WatchOptions& options = {}) {
    auto watch = dict_->Watch(options);
    EXPECT_TRUE(watch.ok()) << watch.error().message();
    return *std::move(watch);
  }

  std::optional<Dict> dict_;
};

TEST_P(CppWatchTest, EventsHaveWhatIsKnownOfThem) {
  dict_->Set("web/a", Map{{"port", 80}}).value();
  dict_->Set("db", 1).value();
  Watch watch = Open({.prefix = "web/"});
  const WatchEvent entry = Take(&watch);
  EXPECT_EQ(entry.kind, SH_WATCH_ENTRY);
  EXPECT_EQ(entry.key, "web/a");
  EXPECT_EQ(entry.value, Value(Map{{"port", 80}}));
  EXPECT_EQ(entry.version, 1u);
  const WatchEvent synced = Take(&watch);
  EXPECT_EQ(synced.kind, SH_WATCH_SYNCED);
  EXPECT_EQ(synced.value, std::nullopt);
  EXPECT_EQ(watch.revision(), synced.revision);
  EXPECT_FALSE(watch.Next(milliseconds(0))->has_value());
  EXPECT_FALSE(watch.Next(milliseconds(-5))->has_value());

  dict_->Set("web/a", "x").value();
  const WatchEvent put = Take(&watch);
  EXPECT_EQ(put.kind, SH_WATCH_PUT);
  EXPECT_EQ(put.value, Value("x"));
  EXPECT_EQ(put.version, 2u);
  EXPECT_GT(put.revision, synced.revision);
  EXPECT_LT(std::chrono::abs(std::chrono::system_clock::now() - put.time), std::chrono::minutes(1));
  EXPECT_FALSE(put.value_gone);
  EXPECT_FALSE(put.coalesced);
}

TEST_P(CppWatchTest, EveryOptionReachesTheService) {
  dict_->Set("a", 1).value();
  Watch all = Open();
  while (Take(&all).kind != SH_WATCH_SYNCED) {
  }
  Watch some = Open({.key = "a",
                     .kinds = {SH_WATCH_PUT},
                     .slow = SH_SLOW_LATEST,
                     .skip_snapshot = true,
                     .keys_only = true,
                     .progress = milliseconds(100)});
  EXPECT_EQ(Take(&some).kind, SH_WATCH_SYNCED);
  EXPECT_EQ(Take(&some).kind, SH_WATCH_PROGRESS);
  dict_->Delete("a").value();
  dict_->Set("b", 2).value();
  dict_->Set("a", 2).value();
  WatchEvent put = Take(&some);
  while (put.kind == SH_WATCH_PROGRESS) put = Take(&some);
  EXPECT_EQ(put.kind, SH_WATCH_PUT);
  EXPECT_EQ(put.key, "a");
  EXPECT_EQ(put.value, std::nullopt);
  EXPECT_FALSE(put.value_gone);
  Watch later = Open({.from_revision = all.revision()});
  EXPECT_EQ(Take(&later).kind, SH_WATCH_DELETE);
  EXPECT_EQ(dict_->Watch({.key = ""}).error().reason(), SH_KEY_INVALID);
  EXPECT_EQ(dict_->Watch({.kinds = {SH_WATCH_NONE}}).error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(dict_->Watch({.kinds = {SH_WATCH_ENTRY}}).error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(dict_->Watch({.progress = milliseconds(0)}).error().reason(), SH_INVALID_ARGUMENT);
}

TEST_P(CppWatchTest, ChangesComeWithWhatWasBeforeThem) {
  dict_->Set("a", 1).value();
  Watch watch = Open({.previous = true, .window = milliseconds(10)});
  while (Take(&watch).kind != SH_WATCH_SYNCED) {
  }
  dict_->Set("a", "two").value();
  const WatchEvent put = Take(&watch);
  EXPECT_EQ(put.value, Value("two"));
  EXPECT_EQ(put.previous, Value(1));
  EXPECT_FALSE(put.previous_gone);
  dict_->Set("b", 1).value();
  EXPECT_EQ(Take(&watch).previous, std::nullopt);
  EXPECT_EQ(dict_->Watch({.window = milliseconds(11)}).error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(dict_->Watch({.keys_only = true, .previous = true}).error().reason(),
            SH_INVALID_ARGUMENT);
}

TEST_P(CppWatchTest, RangeGivesEventsUntilTheWatchEnds) {
  dict_->Set("a", 1).value();
  Watch watch = Open();
  std::vector<sh_watch_kind> kinds;
  for (const WatchEvent& event : watch) {
    kinds.push_back(event.kind);
    if (event.kind == SH_WATCH_SYNCED) break;
  }
  EXPECT_EQ(watch.error(), std::nullopt);
  dict_->Set("a", 2).value();
  for (const WatchEvent& event : watch) {
    kinds.push_back(event.kind);
    client_->DeleteDict("d").value();
  }
  EXPECT_EQ(kinds, (std::vector{SH_WATCH_ENTRY, SH_WATCH_SYNCED, SH_WATCH_PUT}));
  ASSERT_TRUE(watch.error().has_value());
  EXPECT_EQ(watch.error()->reason(), SH_DICT_NOT_FOUND);
}

TEST_P(CppWatchTest, RunCallsUntilItIsStoppedOrEnds) {
  Watch watch = Open();
  uint64_t revision = 0;
  std::stop_source stop;
  auto done = watch.Run(
      [&](const WatchEvent& event) {
        if (event.kind == SH_WATCH_SYNCED) dict_->Set("a", 1).value();
        if (event.kind == SH_WATCH_PUT) stop.request_stop();
        revision = event.revision;
      },
      stop.get_token());
  EXPECT_TRUE(done.ok());
  EXPECT_EQ(watch.revision(), revision);
  dict_->Set("a", 2).value();
  Watch later = Open({.from_revision = revision});
  const std::stop_source never;
  done = later.Run(
      [&](const WatchEvent& event) {
        if (event.kind == SH_WATCH_PUT) {
          EXPECT_EQ(event.value, Value(2));
        }
        if (event.kind == SH_WATCH_SYNCED) client_->DeleteDict("d").value();
      },
      never.get_token());
  EXPECT_EQ(done.error().reason(), SH_DICT_NOT_FOUND);
}

TEST_P(CppWatchTest, StopFromAnotherThreadWakesRun) {
  Watch watch = Open();
  std::stop_source stop;
  std::atomic<bool> synced{false};
  bool ok = false;
  std::thread runs(
      [&] { ok = watch.Run([&](const WatchEvent&) { synced = true; }, stop.get_token()).ok(); });
  EXPECT_TRUE(testing::Eventually([&] { return synced.load(); }));
  stop.request_stop();
  runs.join();
  EXPECT_TRUE(ok);
  EXPECT_EQ(watch.Next().error().reason(), SH_CANCELLED);
  EXPECT_TRUE(Open().Run([](const WatchEvent&) {}, stop.get_token()).ok());  // Stopped before.
}

TEST_P(CppWatchTest, MovesAndHasADescriptor) {
  Watch watch = Open();
  const int fd = watch.fd();
  pollfd waits{fd, POLLIN, 0};
  EXPECT_EQ(poll(&waits, 1, static_cast<int>(kPatience.count())), 1);
  Watch moved = std::move(watch);
  EXPECT_EQ(moved.fd(), fd);
  EXPECT_EQ(watch.fd(), -1);  // NOLINT: what a moved-from watch says.
  EXPECT_EQ(watch.revision(), 0u);
  EXPECT_EQ(watch.Next().error().reason(), SH_CLIENT_CLOSED);
  watch.Cancel();
  EXPECT_EQ(Take(&moved).kind, SH_WATCH_SYNCED);
  client_.reset();
  EXPECT_EQ(moved.Next().error().reason(), SH_CLIENT_CLOSED);
}

INSTANTIATE_TEST_SUITE_P(Doors, CppWatchTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse::client
