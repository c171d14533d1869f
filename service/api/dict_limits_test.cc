// What the dict verbs refuse, at the limit and one past it.
#include <gtest/gtest.h>

#include "engine/value/limits.h"
#include "service/api/dict_fields.h"
#include "service/api/dict_verbs_test_support.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {
namespace {

TEST_F(DictVerbsTest, ATransactionThatCannotBeAnsweredDoesNotHappen) {
  v1::TransactDictRequest transact;
  transact.set_name("d");
  const std::string text(1'000'000, 'x');
  for (int i = 0; i < 17; ++i) {
    const std::string key = "k" + std::to_string(i);
    ASSERT_TRUE(Set(key, Text(text)).ok());
    v1::Step::Set* const set = transact.add_then_steps()->mutable_set();
    set->set_key(key);
    *set->mutable_value() = Int(1);
  }
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact).status().reason(),
            Reason::kMessageTooLarge);
  EXPECT_EQ(Get("k0").entry().value().string_value(), text);
  transact.mutable_then_steps()->DeleteSubrange(0, 1);
  const auto fits = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(fits.ok()) << fits.status().ToString();
  EXPECT_EQ(fits->results(0).entry().value().string_value(), text);
}

TEST_F(DictVerbsTest, BadKeysAndValuesAreRefused) {
  EXPECT_EQ(Set("", Int(1)).status().reason(), Reason::kKeyInvalid);
  EXPECT_EQ(Set(std::string(1025, 'k'), Int(1)).status().reason(), Reason::kKeyInvalid);
  EXPECT_EQ(Set("k", v1::Value()).status().reason(), Reason::kValueInvalid);
  v1::Value deep;
  v1::Value* at = &deep;
  for (size_t i = 0; i < kValueDepthMax; ++i) at = at->mutable_list_value()->add_values();
  at->set_int_value(1);
  EXPECT_EQ(Set("k", deep).status().reason(), Reason::kValueInvalid);
  auto set = For<v1::SetEntryRequest>("k");
  *set.mutable_value() = Int(1);
  set.mutable_ttl()->mutable_duration()->set_seconds(-1);
  EXPECT_EQ(SH_DICT_CALL(service_, SetEntry, set).status().reason(), Reason::kInvalidArgument);
  EXPECT_FALSE(Get("k").has_entry());
  auto other = For<v1::GetEntryRequest>("k");
  other.set_name("nothing");
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntry, other).status().reason(), Reason::kDictNotFound);
}

TEST_F(DictVerbsTest, LimitsOfOneCallHoldAtTheLimitAndRefuseOnePast) {
  EXPECT_TRUE(Set(std::string(kDictKeyBytesMax, 'k'), Int(1)).ok());
  EXPECT_EQ(Set(std::string(kDictKeyBytesMax + 1, 'k'), Int(1)).status().reason(),
            Reason::kKeyInvalid);
  // A text of so many bytes has a tag and a length of three bytes before it.
  EXPECT_TRUE(Set("v", Text(std::string(kValueBytesMax - 4, 'v'))).ok());
  EXPECT_EQ(Set("v", Text(std::string(kValueBytesMax - 3, 'v'))).status().reason(),
            Reason::kValueInvalid);
  v1::Value deep;
  v1::Value* at = &deep;
  for (size_t i = 1; i < kValueDepthMax; ++i) at = at->mutable_list_value()->add_values();
  at->set_int_value(1);
  EXPECT_TRUE(Set("deep", deep).ok());
  auto part = For<v1::GetEntryRequest>("deep");
  for (size_t i = 1; i < kValueDepthMax; ++i) part.add_path_steps()->set_index(0);
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntry, part)->entry().value().int_value(), 1);
  part.add_path_steps()->set_index(0);
  ASSERT_EQ(part.path_steps_size(), static_cast<int>(kPathStepsMax));
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntry, part).status().reason(), Reason::kTypeMismatch)
      << "the path is one, and leads too far";
  part.add_path_steps()->set_index(0);
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntry, part).status().reason(), Reason::kInvalidArgument);

  v1::SetEntriesRequest sets;
  sets.set_name("d");
  v1::GetEntriesRequest gets;
  gets.set_name("d");
  v1::TransactDictRequest transact;
  transact.set_name("d");
  for (uint32_t i = 0; i < kTransactionOpsMax; ++i) {
    v1::Entry* const entry = sets.add_entries();
    entry->set_key("k" + std::to_string(i));
    *entry->mutable_value() = Int(i);
    gets.add_keys(entry->key());
    transact.add_then_steps()->mutable_increment()->set_key(entry->key());
  }
  EXPECT_TRUE(SH_DICT_CALL(service_, SetEntries, sets).ok());
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntries, gets)->entries_size(),
            static_cast<int>(kTransactionOpsMax));
  EXPECT_TRUE(SH_DICT_CALL(service_, TransactDict, transact).ok());
  *sets.add_entries() = sets.entries(0);
  gets.add_keys("k0");
  v1::Compare* const compare = transact.add_compares();
  compare->set_key("k0");
  compare->mutable_condition()->set_present(true);
  EXPECT_EQ(SH_DICT_CALL(service_, SetEntries, sets).status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntries, gets).status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact).status().reason(),
            Reason::kLimitExceeded);
  EXPECT_EQ(Get("k5").entry().value().int_value(), 6);
}

TEST_F(DictVerbsTest, ADictHoldsAsManyEntriesAsItMayAndNotOneMore) {
  v1::CreateDictRequest create;
  create.set_name("small");
  create.set_max_entries(3);
  ASSERT_TRUE(SH_DICT_CALL(service_, CreateDict, create).ok());
  for (int i = 0; i < 5; ++i) {
    auto set = For<v1::SetEntryRequest>("k" + std::to_string(i));
    set.set_name("small");
    *set.mutable_value() = Int(i);
    const auto done = SH_DICT_CALL(service_, SetEntry, set);
    EXPECT_EQ(done.status().reason(), i < 3 ? Reason::kOk : Reason::kLimitExceeded) << i;
  }
}

TEST_F(DictVerbsTest, APageOfAScanIsBoundedInEntriesAndInBytes) {
  const auto page = [this](uint32_t size) {
    v1::ScanEntriesRequest scan;
    scan.set_name("d");
    scan.set_page_size(size);
    const auto response = SH_DICT_CALL(service_, ScanEntries, scan);
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    return response.ok() ? *response : v1::ScanEntriesResponse();
  };
  for (int base = 0; base < 21'000; base += 1000) {
    v1::SetEntriesRequest sets;
    sets.set_name("d");
    for (int i = base; i < base + 1000; ++i) {
      v1::Entry* const entry = sets.add_entries();
      entry->set_key("k" + std::to_string(i));
      entry->mutable_value()->set_int_value(i);
    }
    ASSERT_TRUE(SH_DICT_CALL(service_, SetEntries, sets).ok());
  }
  // A page ends with a whole bucket, which has few entries.
  constexpr int kBucket = 40;
  const std::pair<uint32_t, int> cases[] = {
      {1, 1},           {100, 100},       {0, 1000},           {9'999, 9'999},
      {10'000, 10'000}, {10'001, 10'000}, {UINT32_MAX, 10'000}};
  for (const auto& [asked, entries] : cases) {
    const v1::ScanEntriesResponse response = page(asked);
    EXPECT_GE(response.entries_size(), entries) << asked;
    EXPECT_LT(response.entries_size(), entries + kBucket) << asked;
    EXPECT_NE(response.next_page_token(), "") << asked;
  }
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(Set("large" + std::to_string(i), Text(std::string(1'000'000, 'x'))).ok());
  }
  v1::ScanEntriesRequest scan;
  scan.set_name("d");
  scan.set_prefix("large");
  scan.set_page_size(10'000);
  int seen = 0;
  int pages = 0;
  do {
    const auto response = SH_DICT_CALL(service_, ScanEntries, scan);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    EXPECT_LE(response->ByteSizeLong(), size_t{9} << 20) << "4 MiB and a bucket";
    seen += response->entries_size();
    ++pages;
    scan.set_page_token(response->next_page_token());
  } while (!scan.page_token().empty());
  EXPECT_EQ(seen, 12);
  EXPECT_GE(pages, 2);
  scan.set_prefix(std::string(kDictKeyBytesMax, 'p'));
  scan.clear_page_token();
  EXPECT_EQ(SH_DICT_CALL(service_, ScanEntries, scan)->entries_size(), 0);
}

// A service with a limit of memory, an area of 1 MiB and a dict.
class LimitedMemoryTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kLimit = 6 << 20;
  // The ring and the records of a lane that writes come on top; they are counted afterwards.
  static constexpr uint64_t kLaneBytes = 256 << 10;

  void SetUp() override {
    service_.MakeArea("a", 1 << 20);
    v1::CreateDictRequest create;
    create.set_name("d");
    ASSERT_TRUE(SH_DICT_CALL(service_, CreateDict, create).ok());
  }
  static EngineOptions Limited() {
    EngineOptions options;
    options.memory_bytes_max = kLimit;
    return options;
  }
  Status Set(int number, size_t bytes) {
    v1::SetEntryRequest request;
    request.set_name("d");
    request.set_key("key" + std::to_string(number));
    request.mutable_value()->set_bytes_value(std::string(bytes, 'v'));
    return SH_DICT_CALL(service_, SetEntry, request).status();
  }
  v1::GetStatusResponse GetStatus() {
    const auto status = service_.Call<v1::GetStatusResponse>("/statehouse.v1.Admin/GetStatus",
                                                             v1::GetStatusRequest());
    EXPECT_TRUE(status.ok());
    return status.ok() ? *status : v1::GetStatusResponse();
  }

  TestService service_{{}, Limited()};
};

TEST_F(LimitedMemoryTest, SetsAreRefusedAtTheLimitAndTheStatusShowsWhatIsHeld) {
  const uint64_t before = GetStatus().memory_bytes();
  EXPECT_GT(before, 1u << 20);
  int entries = 0;
  Status refused;
  for (; entries < 5000 && refused.ok(); ++entries) refused = Set(entries, 10'000);

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_NE(refused.message().find("dict \"d\""), std::string::npos) << refused.message();
  EXPECT_NE(refused.message().find("of 6291456 (areas.memory_max)"), std::string::npos)
      << refused.message();
  const v1::GetStatusResponse status = GetStatus();
  EXPECT_GE(status.memory_bytes() - before, (static_cast<uint64_t>(entries) - 1) * 10'000);
  EXPECT_GT(status.memory_bytes(), kLimit - kSlabBytes);
  EXPECT_LE(status.memory_bytes(), kLimit + kLaneBytes);
  EXPECT_EQ(status.memory_limit_bytes(), kLimit);
  v1::DescribeDictRequest dict;
  dict.set_name("d");
  v1::DescribeAreaRequest area;
  area.set_name("a");
  const auto of_dict = SH_DICT_CALL(service_, DescribeDict, dict);
  const auto of_area =
      service_.Call<v1::DescribeAreaResponse>("/statehouse.v1.Areas/DescribeArea", area);
  ASSERT_TRUE(of_dict.ok() && of_area.ok());
  EXPECT_EQ(status.memory_bytes(), of_dict->dict().memory_bytes() + of_area->area().memory_bytes());
}

TEST_F(LimitedMemoryTest, WhatIsDeletedGivesRoomToTheNextCall) {
  Status refused;
  int entries = 0;
  for (; entries < 5000 && refused.ok(); ++entries) refused = Set(entries, 10'000);
  ASSERT_EQ(refused.reason(), Reason::kMemoryExhausted);
  v1::CreateDictRequest create;
  create.set_name("e");
  EXPECT_EQ(SH_DICT_CALL(service_, CreateDict, create).status().reason(), Reason::kMemoryExhausted);

  v1::DeleteAreaRequest area;
  area.set_name("a");
  ASSERT_TRUE(service_.Call<v1::DeleteAreaResponse>("/statehouse.v1.Areas/DeleteArea", area).ok());

  EXPECT_TRUE(SH_DICT_CALL(service_, CreateDict, create).ok());
  EXPECT_TRUE(Set(entries, 10'000).ok());
  v1::ClearDictRequest clear;
  clear.set_name("d");
  EXPECT_TRUE(SH_DICT_CALL(service_, ClearDict, clear).ok());
  EXPECT_LT(GetStatus().memory_bytes(), 2u << 20);
}

TEST_F(LimitedMemoryTest, ATransactionGetsItsMemoryWholeOrIsRefused) {
  const auto transact = [this](int values) {
    v1::TransactDictRequest request;
    request.set_name("d");
    for (int i = 0; i < values; ++i) {
      v1::Step::Set* const set = request.add_then_steps()->mutable_set();
      set->set_key("t" + std::to_string(values) + "." + std::to_string(i));
      set->mutable_value()->set_bytes_value(std::string(500'000, 'v'));
    }
    return SH_DICT_CALL(service_, TransactDict, request).status();
  };

  EXPECT_TRUE(transact(6).ok());
  EXPECT_EQ(transact(7).reason(), Reason::kMemoryExhausted);
  v1::ScanEntriesRequest scan;
  scan.set_name("d");
  EXPECT_EQ(SH_DICT_CALL(service_, ScanEntries, scan)->entries_size(), 6);
}

TEST_F(LimitedMemoryTest, WhoWasRefusedBeforeADictWasToldToMakeRoomIsNotRefused) {
  DictStore& dicts = service_.engine().dicts();
  DictSpec spec;
  spec.name = "e";
  spec.max_entries = 8000;
  spec.evict = true;
  const auto made = dicts.Create(spec);
  ASSERT_TRUE(made.ok());
  Dict& dict = made->dict->dict();
  const Lane lane = service_.engine().DaemonLane(0);
  const std::string value(1000, 'v');
  DictResult result;
  const auto set = [&](const std::string& key) {
    return dict.Set(lane, key, DictValue::Bytes(value), {}, &result);
  };
  int i = 0;
  while (dicts.BackMore(*made->dict).ok() && !dict.BackingIsRefused()) {
    while (set(std::to_string(i)).ok()) ++i;
  }
  service_.engine().Scrub();
  const auto identity = IdentityOf({"dict:*:write"});
  VerbContext context;
  context.engine = &service_.engine();
  context.identity = identity.get();
  context.lane = lane;
  context.fast = false;

  int rounds = 0;
  const Status done = WithDict(context, "e", Verb::kWrite, [&](Dict&) {
    const Status status = set("one more");
    if (rounds++ > 0) return status;
    EXPECT_EQ(status.reason(), Reason::kMemoryExhausted);
    EXPECT_TRUE(dicts.BackMore(*made->dict).ok());  // For somebody else, who was refused too.
    return status;
  });

  EXPECT_TRUE(done.ok()) << done.ToString();
  EXPECT_EQ(rounds, 2);
}

}  // namespace
}  // namespace statehouse
