// The C library's watches against a real service, through clients of each door: what they tell, and
// what each option does.
#include "clients/c/testing/watch_client.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace statehouse {
namespace {

using Events = std::vector<std::string>;

class WatchClientTest : public DictClientTest {
 protected:
  // Sets kKeys keys to one KiB each, `rounds` times, by calls that the service serves itself.
  void SetMany(int rounds, char fill) {
    const std::string wire = Wire('"' + std::string(1000, fill) + '"');
    std::vector<std::string> names;
    for (int i = 0; i < kKeys; ++i) names.push_back("k" + std::to_string(i));
    std::vector<sh_bytes> keys;
    for (const std::string& name : names) keys.push_back(Bytes(name));
    const std::vector<sh_bytes> values(kKeys, Bytes(wire));
    const ClientPtr client = ConnectThrough(SH_TRANSPORT_NETWORK);
    const DictPtr dict = Open(client.get(), "d", nullptr);
    for (int round = 0; round < rounds; ++round) {
      ASSERT_EQ(sh_dict_set_many(dict.get(), keys.data(), values.data(), kKeys, nullptr, nullptr,
                                 nullptr),
                SH_OK);
    }
  }
  ClientPtr ConnectThrough(sh_transport transport) {
    sh_options options{};
    options.token = daemon_->token().c_str();
    options.timeout_ms = kPatienceMs;
    options.transport = transport;
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    EXPECT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    return ClientPtr(client);
  }
  static constexpr int kKeys = 32;
};

TEST_P(WatchClientTest, TellsEntriesThenSyncedThenChanges) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  const WatchPtr watch = Watch(dict.get());
  sh_watch_event event{};
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "entry a=1");
  EXPECT_EQ(event.version, 1u);
  EXPECT_EQ(sh_watch_revision(watch.get()), 0u);
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "synced");
  EXPECT_GT(event.revision, 0u);
  EXPECT_EQ(sh_watch_revision(watch.get()), event.revision);
  EXPECT_EQ(Next(watch.get(), 0), "nothing");
  EXPECT_EQ(Next(watch.get(), 20), "nothing");

  ASSERT_EQ(Set(dict.get(), "a", "[1]"), SH_OK);
  const uint64_t before = event.revision;
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "put a=[1]");
  EXPECT_EQ(event.version, 2u);
  EXPECT_GT(event.revision, before);
  EXPECT_EQ(sh_watch_revision(watch.get()), event.revision);
  EXPECT_LT(std::abs(event.time_ns / 1'000'000'000 - std::time(nullptr)), 60);
  EXPECT_EQ(event.coalesced, 0);
  EXPECT_EQ(event.value_gone, 0);
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), 5, nullptr, nullptr), SH_OK);
  ASSERT_EQ(sh_dict_delete_entry(dict.get(), sh_text("a"), nullptr, nullptr, nullptr, nullptr),
            SH_OK);
  EXPECT_EQ(Take(watch.get(), 2), (Events{"put n=5", "delete a"}));
  ASSERT_EQ(sh_dict_clear(dict.get(), nullptr, nullptr), SH_OK);
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"resync replaced", "synced"}));
}

TEST_P(WatchClientTest, ChangesComeWithWhatWasBeforeThem) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  sh_watch_options options{};
  options.previous = 1;
  options.window_us = SH_WATCH_WINDOW_US_MAX;
  const WatchPtr watch = Watch(dict.get(), options);
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"entry a=1", "synced"}));
  ASSERT_EQ(Set(dict.get(), "a", "[2]"), SH_OK);
  ASSERT_EQ(Set(dict.get(), "b", "3"), SH_OK);
  sh_watch_event event{};
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "put a=[2]");
  EXPECT_EQ(Text(event.previous), Wire("1"));
  EXPECT_EQ(event.previous_gone, 0);
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "put b=3");
  EXPECT_EQ(event.previous.data, nullptr);
  EXPECT_EQ(event.previous_gone, 0);

  sh_watch* refused = nullptr;
  options.window_us = SH_WATCH_WINDOW_US_MAX + 1;
  EXPECT_EQ(sh_dict_watch(dict.get(), &options, &refused, nullptr), SH_INVALID_ARGUMENT);
  options.window_us = 0;
  options.keys_only = 1;
  EXPECT_EQ(sh_dict_watch(dict.get(), &options, &refused, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(refused, nullptr);
}

TEST_P(WatchClientTest, PrefixKeyKindsAndKeysOnlyChooseWhatIsTold) {
  const DictPtr dict = Open("d");
  for (const char* key : {"web/a", "web/b", "db"}) ASSERT_EQ(Set(dict.get(), key, "1"), SH_OK);
  sh_watch_options prefix{};
  prefix.prefix = sh_text("web/");
  sh_watch_options one{};
  one.key = sh_text("db");
  one.keys_only = 1;
  sh_watch_options ends{};
  ends.skip_snapshot = 1;
  ends.kinds = SH_WATCH_MASK(SH_WATCH_DELETE) | SH_WATCH_MASK(SH_WATCH_EXPIRE);
  const WatchPtr of_prefix = Watch(dict.get(), prefix);
  const WatchPtr of_one = Watch(dict.get(), one);
  const WatchPtr of_ends = Watch(dict.get(), ends);
  Events entries = UntilSynced(of_prefix.get());
  std::sort(entries.begin(), entries.end());
  EXPECT_EQ(entries, (Events{"entry web/a=1", "entry web/b=1", "synced"}));
  EXPECT_EQ(UntilSynced(of_one.get()), (Events{"entry db", "synced"}));
  EXPECT_EQ(UntilSynced(of_ends.get()), (Events{"synced"}));

  sh_write_options brief{};
  brief.ttl_ms = 20;
  ASSERT_EQ(Set(dict.get(), "db", "2"), SH_OK);
  ASSERT_EQ(Set(dict.get(), "db2", "2"), SH_OK);
  ASSERT_EQ(Set(dict.get(), "web/c", "3", &brief), SH_OK);
  ASSERT_EQ(sh_dict_delete_entry(dict.get(), sh_text("db"), nullptr, nullptr, nullptr, nullptr),
            SH_OK);
  EXPECT_EQ(Take(of_one.get(), 2), (Events{"put db", "delete db"}));
  EXPECT_EQ(Take(of_ends.get(), 2), (Events{"delete db", "expire web/c"}));
  EXPECT_EQ(Take(of_prefix.get(), 2), (Events{"put web/c=3", "expire web/c"}));
}

TEST_P(WatchClientTest, LaterWatchGoesOnAfterARevision) {
  const DictPtr dict = Open("d");
  WatchPtr watch = Watch(dict.get());
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  for (const char* key : {"a", "b", "c"}) ASSERT_EQ(Set(dict.get(), key, "1"), SH_OK);
  EXPECT_EQ(Next(watch.get()), "put a=1");
  sh_watch_options later{};
  later.from_revision = sh_watch_revision(watch.get());
  watch = Watch(dict.get(), later);
  EXPECT_EQ(sh_watch_revision(watch.get()), later.from_revision);
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"put b=1", "put c=1", "synced"}));
  later.from_revision += uint64_t{1} << 40;
  watch = Watch(dict.get(), later);
  const Events anew = UntilSynced(watch.get());
  EXPECT_EQ(anew.front(), "resync revision unknown");
  EXPECT_EQ(anew.size(), 5u);
}

TEST_P(WatchClientTest, ProgressIsToldWhereNothingHappens) {
  const DictPtr dict = Open("d");
  sh_watch_options options{};
  options.progress_ms = 100;
  const WatchPtr watch = Watch(dict.get(), options);
  sh_watch_event event{};
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "synced");
  const uint64_t synced = event.revision;
  EXPECT_EQ(Next(watch.get(), kPatienceMs, &event), "progress");
  EXPECT_GE(event.revision, synced);
  EXPECT_EQ(sh_watch_revision(watch.get()), event.revision);
}

TEST_P(WatchClientTest, OptionsThatMakeNoSenseAreRefused) {
  const DictPtr dict = Open("d");
  const std::string long_key(1025, 'k');
  struct Case {
    const char* what;
    void (*spoil)(sh_watch_options*, const std::string& long_key);
    sh_reason reason;
  };
  const Case cases[] = {
      {"key and prefix",
       [](sh_watch_options* o, const std::string&) { o->key = o->prefix = sh_text("a"); },
       SH_INVALID_ARGUMENT},
      {"empty key", [](sh_watch_options* o, const std::string&) { o->key = sh_text(""); },
       SH_KEY_INVALID},
      {"long key", [](sh_watch_options* o, const std::string& k) { o->key = Bytes(k); },
       SH_KEY_INVALID},
      {"long prefix", [](sh_watch_options* o, const std::string& k) { o->prefix = Bytes(k); },
       SH_KEY_INVALID},
      {"prefix that is no UTF-8",
       [](sh_watch_options* o, const std::string&) { o->prefix = sh_text("\xff"); },
       SH_KEY_INVALID},
      {"key NULL with a size",
       [](sh_watch_options* o, const std::string&) {
         o->key = {nullptr, 1};
       },
       SH_INVALID_ARGUMENT},
      {"prefix NULL with a size",
       [](sh_watch_options* o, const std::string&) {
         o->prefix = {nullptr, 1};
       },
       SH_INVALID_ARGUMENT},
      {"progress_ms 99", [](sh_watch_options* o, const std::string&) { o->progress_ms = 99; },
       SH_INVALID_ARGUMENT},
      {"progress_ms 3600001",
       [](sh_watch_options* o, const std::string&) { o->progress_ms = 3'600'001; },
       SH_INVALID_ARGUMENT},
      {"kind synced",
       [](sh_watch_options* o, const std::string&) { o->kinds = SH_WATCH_MASK(SH_WATCH_SYNCED); },
       SH_INVALID_ARGUMENT},
      {"kind 0", [](sh_watch_options* o, const std::string&) { o->kinds = 1; },
       SH_INVALID_ARGUMENT},
      {"slow 3",
       [](sh_watch_options* o, const std::string&) { o->slow = static_cast<sh_slow_policy>(3); },
       SH_INVALID_ARGUMENT},
  };
  for (const Case& bad : cases) {
    sh_watch_options options{};
    bad.spoil(&options, long_key);
    sh_watch* watch = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_dict_watch(dict.get(), &options, &watch, &error), bad.reason) << bad.what;
    EXPECT_STRNE(sh_error_message(error), "") << bad.what;
    EXPECT_STREQ(sh_error_name(error), "d") << bad.what;
    EXPECT_EQ(watch, nullptr) << bad.what;
    sh_error_free(error);
  }
}

TEST_P(WatchClientTest, ExtremesOfOptionsAreTaken) {
  const DictPtr dict = Open("d");
  const std::string longest(1024, 'k');
  sh_watch_options options{};
  options.key = Bytes(longest);
  options.progress_ms = 3'600'000;
  options.kinds = SH_WATCH_MASK(SH_WATCH_PUT) | SH_WATCH_MASK(SH_WATCH_EVICT);
  options.slow = SH_SLOW_CANCEL;
  const WatchPtr watch = Watch(dict.get(), options);
  EXPECT_EQ(Next(watch.get()), "synced");
  options.key = {nullptr, 0};
  options.prefix = Bytes(longest);
  EXPECT_EQ(Next(Watch(dict.get(), options).get()), "synced");
}

TEST_P(WatchClientTest, NullsAreRefusedOrDoNothing) {
  const DictPtr dict = Open("d");
  sh_watch* watch = nullptr;
  sh_watch_event event{};
  EXPECT_EQ(sh_dict_watch(nullptr, nullptr, &watch, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_watch(dict.get(), nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_watch_next(nullptr, 0, &event, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_watch_revision(nullptr), 0u);
  EXPECT_EQ(sh_watch_fd(nullptr), -1);
  sh_watch_cancel(nullptr);
  sh_watch_close(nullptr);
  ASSERT_EQ(sh_dict_watch(dict.get(), nullptr, &watch, nullptr), SH_OK);
  EXPECT_EQ(sh_watch_next(watch, 0, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(UntilSynced(watch), (Events{"synced"}));
  sh_watch_close(watch);
  EXPECT_STREQ(sh_resync_reason_text(SH_RESYNC_UNSPECIFIED), "unspecified");
  EXPECT_STREQ(sh_resync_reason_text(static_cast<sh_resync_reason>(7)), "unspecified");
  EXPECT_STREQ(sh_resync_reason_text(SH_RESYNC_CONNECTION_LOST), "connection lost");
}

TEST_P(WatchClientTest, DeletedDictEndsItsWatchesForGood) {
  const DictPtr dict = Open("d");
  const WatchPtr watch = Watch(dict.get());
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  ASSERT_EQ(Set(dict.get(), "a", "1"), SH_OK);
  ASSERT_EQ(sh_dict_delete_prefix(dict.get(), sh_text("a"), nullptr, nullptr), SH_OK);
  EXPECT_EQ(Take(watch.get(), 2), (Events{"put a=1", "delete a"}));
  ASSERT_EQ(sh_dict_delete(client_.get(), "d", nullptr), SH_OK);
  EXPECT_EQ(Take(watch.get(), 2), (Events{"DICT_NOT_FOUND", "DICT_NOT_FOUND"}));
  EXPECT_EQ(Next(Watch(dict.get()).get()), "DICT_NOT_FOUND");
}

TEST_P(WatchClientTest, WatchWhoseTokenIsNoLongerGoodIsRefused) {
  const DictPtr dict = Open("d");
  std::stringstream before;
  before << std::ifstream(daemon_->tokens_file()).rdbuf();
  const ClientPtr reader = Connect(AddToken("dict:d:read"));
  const DictPtr read = Open(reader.get(), "d", nullptr);
  EXPECT_EQ(Next(Watch(read.get()).get()), "synced");
  std::ofstream(daemon_->tokens_file()) << before.str();
  ASSERT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);
  EXPECT_TRUE(testing::Eventually([&] {
    const WatchPtr watch = Watch(read.get());
    return Next(watch.get()) == "UNAUTHENTICATED" && Next(watch.get()) == "UNAUTHENTICATED";
  }));
}

// A watch that nobody reads keeps little, and the service does to it what it asked for.
TEST_P(WatchClientTest, WatchThatIsNotReadFollowsItsPolicy) {
  const DictPtr dict = Open("d");
  sh_watch_options options{};
  const WatchPtr resyncs = Watch(dict.get(), options);
  options.slow = SH_SLOW_CANCEL;
  const WatchPtr ends = Watch(dict.get(), options);
  EXPECT_EQ(UntilSynced(resyncs.get()), (Events{"synced"}));
  EXPECT_EQ(UntilSynced(ends.get()), (Events{"synced"}));

  SetMany(1'000, 'x');  // 32 MiB, four times the history.
  SetMany(1, 'y');
  Replayer replayer;
  const std::string last = '"' + std::string(1000, 'y') + '"';
  const auto is_complete = [&] {
    return replayer.entries().size() == kKeys &&
           std::all_of(replayer.entries().begin(), replayer.entries().end(),
                       [&](const auto& entry) { return entry.second == last; });
  };
  sh_watch_event event{};
  while (!is_complete()) {
    ASSERT_EQ(sh_watch_next(resyncs.get(), kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_NE(event.kind, SH_WATCH_NONE);
    if (event.kind == SH_WATCH_RESYNC) {
      EXPECT_EQ(event.reason, SH_RESYNC_SLOW_WATCHER);
    }
    replayer.Apply(event);
  }
  EXPECT_GE(replayer.resyncs(), 1);
  EXPECT_LT(replayer.changes(), 1'000 * kKeys);
  sh_reason reason = SH_OK;
  while ((reason = sh_watch_next(ends.get(), kPatienceMs, &event, nullptr)) == SH_OK) {
    ASSERT_EQ(event.kind, SH_WATCH_PUT);
  }
  EXPECT_EQ(reason, SH_LIMIT_EXCEEDED);
}

TEST_P(WatchClientTest, WatchOfTheLatestIsToldTheNewestChangeOfEachKeyAlone) {
  const DictPtr dict = Open("d");
  sh_watch_options options{};
  options.slow = SH_SLOW_LATEST;
  const WatchPtr watch = Watch(dict.get(), options);
  EXPECT_EQ(UntilSynced(watch.get()), (Events{"synced"}));
  SetMany(220, 'x');  // Less than the history, and much more than what is read ahead.
  SetMany(1, 'y');
  const std::string last = '"' + std::string(1000, 'y') + '"';
  int events = 0;
  int coalesced = 0;
  sh_watch_event event{};
  for (int newest = 0; newest < kKeys; ++events) {
    ASSERT_EQ(sh_watch_next(watch.get(), kPatienceMs, &event, nullptr), SH_OK);
    ASSERT_EQ(event.kind, SH_WATCH_PUT);
    coalesced += event.coalesced;
    newest += Json(event.value) == last ? 1 : 0;
  }
  EXPECT_GT(coalesced, 0);
  EXPECT_LT(events, 221 * kKeys);
}

INSTANTIATE_TEST_SUITE_P(Doors, WatchClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK), DoorName);

}  // namespace
}  // namespace statehouse
