#include "clients/c/src/local_dict.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "clients/c/src/dict_message.h"
#include "clients/c/testing/fake_daemon.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;

constexpr auto kPatience = std::chrono::seconds(60);  // For what must happen.

class LocalDictTest : public testing::Test {
 protected:
  std::shared_ptr<LocalSession> Attach(std::chrono::nanoseconds timeout = kPatience) {
    LocalSessionOptions options;
    options.runtime_dir = daemon_.runtime_dir();
    options.client_name = "test";
    options.timeout = timeout;
    StatusOr<std::shared_ptr<LocalSession>> session = LocalSession::Attach(options);
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    return session.ok() ? *session : nullptr;
  }
  static std::shared_ptr<LocalDict> Open(const std::shared_ptr<LocalSession>& session,
                                         const std::string& name) {
    StatusOr<std::shared_ptr<LocalDict>> dict = session->OpenDict(name);
    EXPECT_TRUE(dict.ok()) << dict.status().ToString();
    return dict.ok() ? *dict : nullptr;
  }
  std::shared_ptr<LocalDict> MakeAndOpen(const std::string& name) {
    daemon_.CreateDict(name);
    return Open(Attach(), name);
  }

  FakeDaemon daemon_;
};

Status SetInt(LocalDict& dict, const std::string& key, int64_t number) {
  DictResult result;
  return dict.Set(key, DictValue::Int64(number), {}, &result);
}

Status AddOne(LocalDict& dict, const std::string& key) {
  DictIncrement increment;
  increment.delta = DictValue::Int64(1);
  increment.initial = DictValue::Int64(0);
  DictResult result;
  return dict.Increment(key, increment, &result);
}

std::optional<int64_t> IntOf(LocalDict& dict, const std::string& key) {
  DictEntry entry;
  bool found = false;
  const Status status = dict.Get(key, &entry, &found);
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!found) return std::nullopt;
  return static_cast<int64_t>(entry.bits);
}

std::string ListWire(const std::vector<int64_t>& numbers) {
  std::string wire;
  ValueWriter writer(&wire);
  writer.BeginList();
  for (const int64_t number : numbers) writer.Int(number);
  writer.EndList();
  EXPECT_TRUE(writer.Finish().ok());
  return wire;
}

// Runs `check` in a forked child and says whether it returned true there.
template <typename Check>
bool TrueInChild(const Check& check) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(check() ? 0 : 1);
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

int MappedSegments() {
  std::ifstream maps("/proc/self/maps");
  std::set<std::string> inodes;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("statehouse-dict") == std::string::npos) continue;
    std::istringstream parts(line);
    std::string range, rights, offset, device, inode;
    parts >> range >> rights >> offset >> device >> inode;
    inodes.insert(inode);
  }
  return static_cast<int>(inodes.size());
}

TEST_F(LocalDictTest, EveryOperationRunsWithoutTheDaemon) {
  const auto dict = MakeAndOpen("d");
  daemon_.StopServing();
  DictResult result;

  EXPECT_TRUE(SetInt(*dict, "n", 5).ok());
  EXPECT_TRUE(AddOne(*dict, "n").ok());
  EXPECT_EQ(IntOf(*dict, "n"), 6);
  const std::string list = ListWire({1, 2, 3});
  EXPECT_TRUE(dict->Set("list", DictValue::Bytes(list), {}, &result).ok());
  const PathStep second[] = {PathStep::Index(1)};
  EntryEdit edit;
  edit.path = second;
  edit.edit.kind = EditKind::kSet;
  const std::string nine = ListWire({9});
  edit.edit.value = nine;
  EntryEditResult edited;
  EXPECT_TRUE(dict->Edit("list", edit, &edited).ok());
  const PathStep inner[] = {PathStep::Index(1), PathStep::Index(0)};
  LocalValue part;
  ASSERT_TRUE(dict->GetWire("list", inner, &part).ok());
  EXPECT_EQ(ValueView(part.wire).AsInt(), 9);
  EXPECT_TRUE(dict->Touch("n", {DictTtl::Kind::kSet, 60'000}, &result).ok());
  EXPECT_TRUE(result.applied);
  EXPECT_TRUE(dict->Touch("absent", {DictTtl::Kind::kSet, 60'000}, &result).ok());
  EXPECT_FALSE(result.applied);
  const std::string_view keys[] = {"n", "absent", "list"};
  for (const bool consistent : {false, true}) {
    std::vector<DictOperationResult> many;
    ASSERT_TRUE(dict->GetMany(keys, consistent, &many).ok());
    ASSERT_EQ(many.size(), 3u);
    EXPECT_TRUE(many[0].result.existed && !many[1].result.existed && many[2].result.existed);
    EXPECT_EQ(many[0].entry.bits, 6u);
    EXPECT_LE(*dict->TtlMs(many[0].entry), 60'000u);
    EXPECT_GT(*dict->TtlMs(many[0].entry), 0u);
    EXPECT_FALSE(dict->TtlMs(many[2].entry).has_value());
  }
  DictOperation steps[2];
  steps[0].kind = DictOperation::Kind::kSet;
  steps[0].key = "a/1";
  steps[0].value = DictValue::Int64(1);
  steps[1].kind = DictOperation::Kind::kDelete;
  steps[1].key = "n";
  DictCompare compare;
  compare.key = "n";
  compare.condition.kind = DictCondition::Kind::kPresent;
  DictTransactionResult transaction;
  ASSERT_TRUE(dict->Transact({&compare, 1}, steps, {}, &transaction).ok());
  EXPECT_TRUE(transaction.compared);
  EXPECT_FALSE(IntOf(*dict, "n").has_value());
  EXPECT_EQ(*dict->Length(), 2u);
  uint64_t deleted = 0;
  EXPECT_TRUE(dict->DeletePrefix("a/", &deleted).ok());
  EXPECT_EQ(deleted, 1u);
  ASSERT_TRUE(dict->Delete("list", {}, &result).ok());
  EXPECT_EQ(*dict->Length(), 0u);
}

TEST_F(LocalDictTest, OpeningAgainGivesTheSameDict) {
  daemon_.CreateDict("d");
  const auto session = Attach();

  EXPECT_EQ(Open(session, "d"), Open(session, "#0"));
  EXPECT_EQ(session->OpenDict("other").status().reason(), Reason::kDictNotFound);
}

TEST_F(LocalDictTest, GrowsPastItsFirstSegmentWhileItIsFilled) {
  const auto served = daemon_.CreateDict("d");
  const auto dict = Open(Attach(), "d");
  const uint64_t entries = served->record().geometry.entries_max * 3;

  for (uint64_t i = 0; i < entries; ++i) {
    const Status status = SetInt(*dict, "k" + std::to_string(i), static_cast<int64_t>(i));
    ASSERT_TRUE(status.ok()) << i << ": " << status.ToString();
  }

  EXPECT_EQ(*dict->Length(), entries);
  for (uint64_t i = 0; i < entries; i += 97) {
    EXPECT_EQ(IntOf(*dict, "k" + std::to_string(i)), static_cast<int64_t>(i));
  }
  EXPECT_EQ(served->dict().state(), DictState::kMoved);
}

// More than a packet of the attach socket holds: what moves is the dict, and not the value.
TEST_F(LocalDictTest, ALargeValueMakesAFullSegmentGrowToo) {
  const auto served = daemon_.CreateDict("d");
  const auto dict = Open(Attach(), "d");
  const uint64_t entries = served->record().geometry.entries_max;
  std::string large;
  ValueWriter writer(&large);
  writer.Bytes(std::string(200'000, 'x'));
  ASSERT_TRUE(writer.Finish().ok());
  for (uint64_t i = 0; i < entries; ++i) {
    ASSERT_TRUE(SetInt(*dict, "k" + std::to_string(i), 0).ok());
  }
  ASSERT_EQ(served->dict().state(), DictState::kLive);

  DictResult result;
  const Status status = dict->Set("large", DictValue::Bytes(large), {}, &result);

  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(served->dict().state(), DictState::kMoved);
  EXPECT_EQ(*dict->Length(), entries + 1);
}

TEST_F(LocalDictTest, AtItsLimitTheDictRefusesWithoutAskingTheDaemon) {
  daemon_.CreateDict("d", 100);
  const auto dict = Open(Attach(), "d");
  const int opens = daemon_.dict_opens();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(SetInt(*dict, "k" + std::to_string(i), i).ok());

  EXPECT_EQ(SetInt(*dict, "one more", 1).reason(), Reason::kLimitExceeded);
  EXPECT_TRUE(SetInt(*dict, "k0", 7).ok());
  EXPECT_EQ(daemon_.dict_opens(), opens);
}

TEST_F(LocalDictTest, ATransactionBeyondTheLimitIsRefusedAndMovesNothing) {
  const auto served = daemon_.CreateDict("d");
  const auto dict = Open(Attach(), "d");
  std::vector<std::string> keys;
  for (uint32_t i = 0; i <= kTransactionOpsMax; ++i) keys.push_back("k" + std::to_string(i));
  std::vector<DictOperation> steps(keys.size());
  std::vector<std::string_view> views(keys.begin(), keys.end());
  for (size_t i = 0; i < keys.size(); ++i) {
    steps[i].kind = DictOperation::Kind::kSet;
    steps[i].key = keys[i];
    steps[i].value = DictValue::Int64(1);
  }
  DictTransactionResult result;
  std::vector<DictOperationResult> many;
  const std::span<const DictOperation> all(steps);
  const std::span<const std::string_view> all_keys(views);

  EXPECT_EQ(dict->Transact({}, all, {}, &result).reason(), Reason::kLimitExceeded);
  EXPECT_EQ(dict->GetMany(all_keys, false, &many).reason(), Reason::kLimitExceeded);
  EXPECT_EQ(*dict->Length(), 0u);
  EXPECT_TRUE(dict->Transact({}, all.first(kTransactionOpsMax), {}, &result).ok());
  EXPECT_TRUE(dict->GetMany(all_keys.first(kTransactionOpsMax), true, &many).ok());
  EXPECT_EQ(*dict->Length(), kTransactionOpsMax);
  EXPECT_EQ(served->dict().state(), DictState::kLive);
}

TEST_F(LocalDictTest, FollowsItsDictThroughEveryKindOfMove) {
  const auto dict = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());

  daemon_.MoveDict("d", DictStore::Move::kGrow);
  EXPECT_EQ(IntOf(*dict, "k"), 1);
  EXPECT_TRUE(AddOne(*dict, "k").ok());
  daemon_.MoveDict("d", DictStore::Move::kSalvage);
  EXPECT_TRUE(AddOne(*dict, "k").ok());
  EXPECT_EQ(IntOf(*dict, "k"), 3);
  daemon_.MoveDict("d", DictStore::Move::kGrow);
  EXPECT_EQ(*dict->Length(), 1u);
  daemon_.MoveDict("d", DictStore::Move::kClear);
  EXPECT_EQ(*dict->Length(), 0u);
  EXPECT_FALSE(IntOf(*dict, "k").has_value());
}

TEST_F(LocalDictTest, ASegmentThatWasLeftIsUnmapped) {
  const auto dict = MakeAndOpen("d");
  const int before = MappedSegments();
  ASSERT_GE(before, 1);
  for (int i = 0; i < 20; ++i) {
    daemon_.MoveDict("d", DictStore::Move::kClear);
    ASSERT_TRUE(SetInt(*dict, "k", i).ok());
    EXPECT_EQ(IntOf(*dict, "k"), i);
  }
  EXPECT_EQ(MappedSegments(), before);
}

TEST_F(LocalDictTest, ThreadsCountExactlyWhileTheDictGrowsUnderThem) {
  constexpr int kThreads = 12;  // More than there are lanes.
  constexpr int kKeys = 3000;
  const auto dict = MakeAndOpen("d");
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kKeys; ++i) {
        const Status own = SetInt(*dict, std::to_string(t) + "/" + std::to_string(i), i);
        const Status total = AddOne(*dict, "total");
        DictEntry entry;
        bool found = false;
        const Status read = dict->Get("total", &entry, &found);
        if (!own.ok() || !total.ok() || !read.ok() || !found) {
          if (++failures == 1) {
            ADD_FAILURE() << own.ToString() << " " << total.ToString() << " " << read.ToString();
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(failures, 0);
  EXPECT_EQ(IntOf(*dict, "total"), kThreads * kKeys);
  EXPECT_EQ(*dict->Length(), static_cast<uint64_t>(kThreads * kKeys + 1));
  EXPECT_GT((*daemon_.engine().dicts().Find("d"))->record().generation, 1u);
}

TEST_F(LocalDictTest, AScanGivesEachEntryOnceAlsoWhenTheDictGrowsMeanwhile) {
  const auto dict = MakeAndOpen("d");
  constexpr int kEntries = 5000;
  for (int i = 0; i < kEntries; ++i) {
    ASSERT_TRUE(SetInt(*dict, (i % 2 == 0 ? "even/" : "odd/") + std::to_string(i), i).ok());
  }
  std::map<std::string, int> seen;
  LocalDictCursor cursor;
  std::vector<DictEntry> page;
  for (int pages = 0; !cursor.done; ++pages) {
    if (pages == 5) daemon_.MoveDict("d", DictStore::Move::kGrow);
    ASSERT_TRUE(dict->Scan(&cursor, 100, "even/", &page).ok());
    for (const DictEntry& entry : page) ++seen[entry.key];
  }

  EXPECT_EQ(seen.size(), kEntries / 2u);
  for (const auto& [key, times] : seen) EXPECT_EQ(times, 1) << key;
  ASSERT_TRUE(dict->Scan(&cursor, 100, "", &page).ok());
  EXPECT_TRUE(page.empty());
}

TEST_F(LocalDictTest, AScanMissesNothingWhenTheDictIsRepairedMeanwhile) {
  const auto dict = MakeAndOpen("d");
  constexpr int kEntries = 2000;
  for (int i = 0; i < kEntries; ++i) ASSERT_TRUE(SetInt(*dict, std::to_string(i), i).ok());
  std::map<std::string, int> seen;
  LocalDictCursor cursor;
  std::vector<DictEntry> page;
  for (int pages = 0; !cursor.done; ++pages) {
    if (pages == 5) daemon_.MoveDict("d", DictStore::Move::kSalvage);
    ASSERT_TRUE(dict->Scan(&cursor, 100, "", &page).ok());
    for (const DictEntry& entry : page) ++seen[entry.key];
  }

  EXPECT_EQ(seen.size(), static_cast<size_t>(kEntries));
  for (const auto& [key, times] : seen) EXPECT_LE(times, 2) << key;
}

TEST_F(LocalDictTest, AReaderMayReadAndNothingElse) {
  const auto writer = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*writer, "k", 1).ok());
  daemon_.OpenAreasReadOnly();
  const auto reader = Open(Attach(), "d");
  DictResult result;
  EntryEditResult edited;
  EntryEdit edit;
  DictTransactionResult transaction;
  std::vector<DictOperationResult> many;
  uint64_t deleted = 0;
  const std::string_view key = "k";

  EXPECT_FALSE(reader->writable());
  EXPECT_EQ(IntOf(*reader, "k"), 1);
  EXPECT_EQ(*reader->Length(), 1u);
  EXPECT_TRUE(reader->GetMany({&key, 1}, false, &many).ok());
  EXPECT_EQ(reader->GetMany({&key, 1}, true, &many).reason(), Reason::kReadOnly);
  EXPECT_EQ(SetInt(*reader, "k", 2).reason(), Reason::kReadOnly);
  EXPECT_EQ(AddOne(*reader, "k").reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Delete("k", {}, &result).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Edit("k", edit, &edited).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Touch("k", {}, &result).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Transact({}, {}, {}, &transaction).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->DeletePrefix("k", &deleted).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Clear(&deleted).reason(), Reason::kReadOnly);
}

TEST_F(LocalDictTest, AWriterLeavesADamagedSegmentBehind) {
  const auto dict = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());
  (*daemon_.engine().dicts().Find("d"))->dict().SetState(DictState::kQuarantined);

  EXPECT_EQ(IntOf(*dict, "k"), 1);
  EXPECT_TRUE(AddOne(*dict, "k").ok());
  EXPECT_EQ(IntOf(*dict, "k"), 2);
}

TEST_F(LocalDictTest, AReaderLetsTheDaemonSeeTheDamageItself) {
  const auto writer = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*writer, "k", 1).ok());
  daemon_.OpenAreasReadOnly();
  const auto reader = Open(Attach(), "d");
  const auto damaged = *daemon_.engine().dicts().Find("d");
  damaged->dict().SetState(DictState::kQuarantined);
  EXPECT_EQ(reader->Stats().status().reason(), Reason::kDataLoss);
  DictEntry entry;
  bool found = false;
  EXPECT_EQ(reader->Get("k", &entry, &found).reason(), Reason::kDataLoss);
  std::string request;
  daemon_.HandleCalls([&](const std::string& method, const std::string& bytes) {
    EXPECT_EQ(method, "/statehouse.v1.Dicts/GetEntry");
    request = bytes;
    daemon_.MoveDict("d", DictStore::Move::kSalvage);
    return Status(Reason::kMessageTooLarge, "whatever it answers");
  });

  EXPECT_EQ(IntOf(*reader, "k"), 1);
  EXPECT_EQ(request, EncodeEntryName("#0", "k"));
}

TEST_F(LocalDictTest, ADeletedDictIsNotFoundAndItsSuccessorIsAnotherOne) {
  daemon_.CreateDict("d");
  const auto session = Attach();
  const auto old = Open(session, "d");
  ASSERT_TRUE(SetInt(*old, "k", 1).ok());
  ASSERT_TRUE(daemon_.engine().dicts().Delete("d").ok());
  daemon_.CreateDict("d");

  DictEntry entry;
  bool found = false;
  EXPECT_EQ(old->Get("k", &entry, &found).reason(), Reason::kDictNotFound);
  EXPECT_EQ(SetInt(*old, "k", 1).reason(), Reason::kDictNotFound);
  EXPECT_EQ(old->Length().status().reason(), Reason::kDictNotFound);
  const auto fresh = Open(session, "d");
  EXPECT_NE(fresh, old);
  EXPECT_FALSE(IntOf(*fresh, "k").has_value());
}

TEST_F(LocalDictTest, ADictOfAServiceThatLostItsStateIsNotFound) {
  daemon_.CreateDict("d");
  const auto session = Attach();
  const auto old = Open(session, "d");
  daemon_.StopServing();
  ASSERT_TRUE(SetInt(*old, "k", 1).ok());
  daemon_.LoseState();
  daemon_.CreateDict("d");
  daemon_.Serve();

  const auto fresh = Open(session, "d");

  EXPECT_NE(fresh, old);
  EXPECT_EQ(SetInt(*old, "k", 1).reason(), Reason::kDictNotFound);
  EXPECT_FALSE(IntOf(*fresh, "k").has_value());
}

TEST_F(LocalDictTest, AnOperationThatNeedsTheAbsentDaemonIsUnavailable) {
  daemon_.CreateDict("d");
  const auto session = Attach(milliseconds(50));
  const auto dict = Open(session, "d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());
  daemon_.StopServing();
  daemon_.MoveDict("d", DictStore::Move::kGrow);

  EXPECT_EQ(SetInt(*dict, "k", 2).reason(), Reason::kUnavailable);

  daemon_.Serve();
  EXPECT_TRUE(AddOne(*dict, "k").ok());
  EXPECT_EQ(IntOf(*dict, "k"), 2);
}

TEST_F(LocalDictTest, AfterTheSessionClosedEveryOperationSaysSo) {
  daemon_.CreateDict("d");
  const auto session = Attach();
  const auto dict = Open(session, "d");
  session->Close();
  DictEntry entry;
  bool found = false;
  uint64_t deleted = 0;

  EXPECT_EQ(dict->Get("k", &entry, &found).reason(), Reason::kClientClosed);
  EXPECT_EQ(SetInt(*dict, "k", 1).reason(), Reason::kClientClosed);
  EXPECT_EQ(dict->Stats().status().reason(), Reason::kClientClosed);
  EXPECT_EQ(dict->Clear(&deleted).reason(), Reason::kClientClosed);
  EXPECT_EQ(session->OpenDict("d").status().reason(), Reason::kClientClosed);
}

TEST_F(LocalDictTest, AForkedChildGoesOnWithLanesOfItsOwn) {
  const auto dict = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());
  const int hellos = daemon_.hellos_with_lanes();

  EXPECT_TRUE(TrueInChild([&] {
    if (IntOf(*dict, "k") != 1) return false;
    for (int i = 0; i < 1000; ++i) {
      if (!AddOne(*dict, "k").ok() || !SetInt(*dict, "child" + std::to_string(i), i).ok()) {
        return false;
      }
    }
    return true;
  }));

  EXPECT_EQ(daemon_.hellos_with_lanes(), hellos + 1);
  EXPECT_TRUE(AddOne(*dict, "k").ok());
  EXPECT_EQ(IntOf(*dict, "k"), 1002);
  EXPECT_EQ(*dict->Length(), 1001u);
}

TEST_F(LocalDictTest, AForkedChildFollowsItsDictToo) {
  const auto dict = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());
  daemon_.MoveDict("d", DictStore::Move::kGrow);

  EXPECT_TRUE(TrueInChild([&] { return AddOne(*dict, "k").ok() && IntOf(*dict, "k") == 2; }));
  EXPECT_TRUE(TrueInChild([&] { return IntOf(*dict, "k") == 2 && AddOne(*dict, "k").ok(); }));
  EXPECT_EQ(IntOf(*dict, "k"), 3);
}

TEST_F(LocalDictTest, TimesOfEntriesAreOnTheDaemonsClock) {
  const auto served = daemon_.CreateDict("d");
  constexpr uint64_t kHourMs = 3'600'000;
  struct Case {
    std::chrono::nanoseconds ahead;
    uint64_t ahead_ms;  // As the worker takes it.
  };
  const Case cases[] = {{std::chrono::hours(1), kHourMs}, {milliseconds(500), 0}};
  for (const Case& c : cases) {
    daemon_.SetClockAhead(c.ahead);
    const auto dict = Open(Attach(), "d");
    DictResult result;
    DictSetOptions options;
    options.ttl = {DictTtl::Kind::kSet, 10 * kHourMs};
    ASSERT_TRUE(dict->Set("k", DictValue::Int64(1), options, &result).ok());
    DictEntry entry;
    bool found = false;
    ASSERT_TRUE(dict->Get("k", &entry, &found).ok());

    EXPECT_LE(*dict->TtlMs(entry), 10 * kHourMs);
    // This process's clock is the served dict's.
    const uint64_t left = entry.expires_ms - served->dict().NowMs();
    EXPECT_LE(left, 10 * kHourMs + c.ahead_ms + 1000);
    EXPECT_GT(left, 9 * kHourMs + c.ahead_ms);
  }
}

TEST_F(LocalDictTest, KeysAreCheckedWhereverTheyGoIn) {
  const auto dict = MakeAndOpen("d");
  const std::string longest(kDictKeyBytesMax, 'k');
  EXPECT_TRUE(SetInt(*dict, longest, 1).ok());
  EXPECT_EQ(IntOf(*dict, longest), 1);
  EXPECT_TRUE(SetInt(*dict,
                     "Gr\xc3\xbc\xc3\x9f"
                     "e",
                     1)
                  .ok());
  DictEntry entry;
  bool found = false;
  DictResult result;
  EntryEditResult edited;
  EntryEdit edit;
  LocalValue value;
  DictTransactionResult transaction;
  std::vector<DictOperationResult> many;
  for (const std::string& key : {std::string(), longest + "k", std::string("\xff"),
                                 std::string("a\xc0\x80"), std::string("\xed\xa0\x80")}) {
    const std::string_view view = key;
    DictOperation step;
    step.key = key;
    DictCompare compare;
    compare.key = key;
    EXPECT_EQ(dict->Get(key, &entry, &found).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->GetWire(key, {}, &value).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->GetMany({&view, 1}, false, &many).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->GetMany({&view, 1}, true, &many).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(SetInt(*dict, key, 1).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(AddOne(*dict, key).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Delete(key, {}, &result).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Edit(key, edit, &edited).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Touch(key, {}, &result).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Transact({&compare, 1}, {}, {}, &transaction).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Transact({}, {&step, 1}, {}, &transaction).reason(), Reason::kKeyInvalid);
    EXPECT_EQ(dict->Transact({}, {}, {&step, 1}, &transaction).reason(), Reason::kKeyInvalid);
  }
}

TEST_F(LocalDictTest, ClearAsksTheDaemon) {
  const auto dict = MakeAndOpen("d");
  ASSERT_TRUE(SetInt(*dict, "k", 1).ok());
  daemon_.HandleCalls([&](const std::string& method, const std::string& request) {
    EXPECT_EQ(method, "/statehouse.v1.Dicts/ClearDict");
    EXPECT_EQ(request, EncodeDictName("#0"));
    daemon_.MoveDict("d", DictStore::Move::kClear);
    return StatusOr<std::string>(std::string("\x08\x01", 2));
  });
  uint64_t deleted = 0;

  ASSERT_TRUE(dict->Clear(&deleted).ok());

  EXPECT_EQ(deleted, 1u);
  EXPECT_FALSE(IntOf(*dict, "k").has_value());
}

TEST(DictMessageTest, AMalformedAnswerIsNoAnswer) {
  EXPECT_EQ(*DecodeClearDictResponse(""), 0u);
  EXPECT_EQ(*DecodeClearDictResponse(std::string_view("\x08\x85\x01", 3)), 133u);
  EXPECT_EQ(*DecodeClearDictResponse(std::string_view("\x12\x01x\x08\x02", 5)), 2u);
  for (const std::string_view bytes : {std::string_view("\x08", 1), std::string_view("\x08\x85", 2),
                                       std::string_view("\x12\x05x", 3)}) {
    EXPECT_EQ(DecodeClearDictResponse(bytes).status().reason(), Reason::kInternal);
  }
}

}  // namespace
}  // namespace statehouse
