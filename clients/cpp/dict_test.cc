// The C++ header's dicts against a real service, through each door. What the calls mean is tested
// in clients/c; here it is their C++ side.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "statehouse/client.hpp"
#include "tests/support/daemon.h"

namespace statehouse::client {
namespace {

TEST(ValueTest, EveryKindComesBackFromItsWireForm) {
  const Value deep = Map{{"web", Map{{"ports", List{80, 443}}}}, {"on", true}, {"", nullptr}};
  const std::vector<Value> values = {nullptr,
                                     true,
                                     false,
                                     0,
                                     -1,
                                     INT64_MAX,
                                     INT64_MIN,
                                     1.5,
                                     -0.0,
                                     "",
                                     "Gr\xc3\xbc\xc3\x9f"
                                     "e",
                                     Bytes{std::string("\0\xff", 2)},
                                     List{},
                                     Map{},
                                     List{1, "two", List{nullptr}},
                                     deep};
  for (const Value& value : values) {
    const Result<Value> back = Value::FromWire(value.ToWire());
    ASSERT_TRUE(back.ok()) << back.error().message();
    EXPECT_EQ(*back, value);
    EXPECT_EQ(back->kind(), value.kind());
    const Result<std::string> json = value.ToJson();
    ASSERT_TRUE(json.ok());
    const Result<Value> from_json = Value::FromJson(*json);
    ASSERT_TRUE(from_json.ok()) << *json;
    EXPECT_EQ(from_json->ToWire(), value.ToWire()) << *json;
  }
  EXPECT_EQ(*deep.Find("web")->Find("ports")->At(1)->IfInt(), 443);
  EXPECT_EQ(deep.Find("none"), nullptr);
  EXPECT_EQ(deep.At(0), nullptr);
}

TEST(ValueTest, KindsWithoutACppTypeKeepTheirBytes) {
  for (const char* json :
       {"123456789012345678901234567890", R"({"$timestamp":"2024-02-29T12:00:00Z"})",
        R"({"$tag":["tuple",[1,2]]})",
        R"({"$tensor":{"dtype":"uint8","shape":[2],"data":"AQI="}})"}) {
    const Result<Value> value = Value::FromJson(json);
    ASSERT_TRUE(value.ok()) << value.error().message();
    ASSERT_NE(value->IfOpaque(), nullptr) << json;
    EXPECT_GE(value->kind(), SH_VALUE_BIG_INT);
    EXPECT_EQ(Value::FromWire(Value(List{*value}).ToWire())->At(0)->ToWire(), value->ToWire());
  }
}

TEST(ValueTest, BytesThatAreNoValueAreRefused) {
  for (const std::string& wire :
       {std::string(), std::string("\x42"), std::string("\x18"), std::string("\x32\x01\xff"),
        std::string("\x08\x00\x08\x00", 4)}) {
    EXPECT_EQ(Value::FromWire(wire).error().reason(), SH_VALUE_INVALID);
  }
  EXPECT_EQ(Value::FromJson("{").error().reason(), SH_VALUE_INVALID);
  Value deep = 1;
  for (int i = 0; i < 31; ++i) deep = List{deep};
  EXPECT_TRUE(Value::FromWire(deep.ToWire()).ok());
  EXPECT_EQ(Value::FromWire(Value(List{deep}).ToWire()).error().reason(), SH_VALUE_INVALID);
}

TEST(ValueTest, MapsCompareInAnyOrderAndAKeyKeepsItsPlace) {
  EXPECT_EQ((Map{{"a", 1}, {"b", 2}}), (Map{{"b", 2}, {"a", 1}}));
  EXPECT_FALSE((Map{{"a", 1}}) == (Map{{"a", 1.0}}));
  EXPECT_FALSE((Map{{"a", 1}}) == (Map{{"a", 1}, {"b", 2}}));
  Map map{{"a", 1}, {"b", 2}, {"a", 3}};
  EXPECT_EQ(map.size(), 2u);
  EXPECT_EQ(map.begin()->second, Value(3));
  map["c"] = "new";
  EXPECT_EQ(*map.Find("c"), Value("new"));
}

class CppDictTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = testing::Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    Options options;
    options.token = daemon_->token();
    options.transport = GetParam();
    options.timeout = std::chrono::seconds(60);
    auto client = Client::Connect("statehouse+unix://" + daemon_->runtime_dir(), options);
    ASSERT_TRUE(client.ok()) << client.error().message();
    client_ = *std::move(client);
    auto dict = client_->OpenDict("d");
    ASSERT_TRUE(dict.ok()) << dict.error().message();
    dict_ = *std::move(dict);
  }
  Dict& dict() { return *dict_; }

  std::unique_ptr<testing::Daemon> daemon_;
  std::optional<Client> client_;
  std::optional<Dict> dict_;
};

TEST_P(CppDictTest, ValuesAreSetAndReadByTheirTypes) {
  EXPECT_TRUE(dict().Set("s", "Ada")->applied);
  EXPECT_TRUE(dict().Set("n", 5)->applied);
  EXPECT_TRUE(dict().Set("m", Map{{"ports", List{80, 443}}})->applied);

  EXPECT_EQ(dict().Get<std::string>("s").value(), "Ada");
  EXPECT_EQ(dict().Get<int64_t>("n").value(), 5);
  EXPECT_EQ(dict().Get<int64_t>("m", {"ports", -1}).value(), 443);
  EXPECT_EQ(dict().Get("m").value(), Value(Map{{"ports", List{80, 443}}}));
  EXPECT_EQ(dict().Get<List>("m", {"ports"}).value(), (List{80, 443}));
  EXPECT_FALSE(dict().Get("absent").value().has_value());
  EXPECT_EQ(dict().Get<double>("n").error().reason(), SH_TYPE_MISMATCH);
  EXPECT_EQ(dict().Get("m", {"none"}).error().reason(), SH_PATH_NOT_FOUND);
  EXPECT_EQ(dict().Length().value(), 3u);
  EXPECT_EQ(dict().name(), "d");
}

TEST_P(CppDictTest, OptionsReachTheService) {
  std::optional<Entry> before;
  EXPECT_TRUE(
      dict().Set("k", 1, {.ttl = Ttl::For(std::chrono::hours(1)), .fence = 3}, &before)->applied);
  EXPECT_FALSE(before.has_value());
  EXPECT_FALSE(dict().Set("k", 2, {.condition = Condition::Absent()}, &before)->applied);
  ASSERT_TRUE(before.has_value());
  EXPECT_EQ(before->value, Value(1));
  EXPECT_EQ(before->fence, 3u);
  ASSERT_TRUE(before->ttl.has_value());
  EXPECT_LE(*before->ttl, std::chrono::hours(1));
  EXPECT_EQ(dict().Set("k", 2, {.fence = 2}).error().reason(), SH_FENCED);
  EXPECT_TRUE(dict().Set("k", 2, {.condition = Condition::Version(before->version)})->applied);
  EXPECT_TRUE(dict().Set("k", 3, {.condition = Condition::Holds(2)})->applied);
  EXPECT_FALSE(dict().Delete("k", {.condition = Condition::Holds(2)})->applied);
  EXPECT_TRUE(dict().Touch("k", Ttl::Forever())->applied);
  EXPECT_FALSE(dict().GetEntry("k").value()->ttl.has_value());
  EXPECT_EQ(dict().Pop("k").value()->value, Value(3));
  EXPECT_FALSE(dict().Pop("k").value().has_value());
  EXPECT_EQ(dict().GetOrSet("k", "first").value(), Value("first"));
  EXPECT_EQ(dict().GetOrSet("k", "second").value(), Value("first"));
}

TEST_P(CppDictTest, NumbersAreAdded) {
  EXPECT_EQ(dict().Increment("n").value(), 1);
  EXPECT_EQ(dict().Increment("n", -3).value(), -2);
  EXPECT_EQ(dict().Increment<double>("f", 0.5, {.initial = 1.5}).value(), 2.0);
  EXPECT_EQ(dict().Increment<int64_t>("n", 1, {.max = -2}).error().reason(), SH_VALUE_OUT_OF_RANGE);
  EXPECT_EQ(dict().Increment<int64_t>("none", 1, {.must_exist = true}).error().reason(),
            SH_KEY_NOT_FOUND);
  ASSERT_TRUE(dict().Set("real", 1.75)->applied);
  EXPECT_EQ(dict().Increment("real", 2).value(), 3);
  EXPECT_EQ(dict().Get<double>("real").value(), 3.75);
  ASSERT_TRUE(dict().Set("real", 1e300)->applied);
  EXPECT_EQ(dict().Increment("real", 1).value(), INT64_MAX);
  ASSERT_TRUE(dict().Set("m", Map{{"hits", 1}})->applied);
  EXPECT_EQ(dict().Increment<int64_t>("m", 41, {.path = {"hits"}}).value(), 42);
}

TEST_P(CppDictTest, EditsWorkAtTheirPath) {
  ASSERT_TRUE(dict().Set("k", Map{{"list", List{1, 2}}, {"text", "a"}})->applied);
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Append(3))->length, 3u);
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Insert(0, 0))->length, 4u);
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Pop())->value, Value(3));
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Extend({7, 8}))->length, 5u);
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Remove(7))->length, 4u);
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Slice(1, 3, {"x"}))->length, 3u);
  EXPECT_EQ(dict().Get("k", {"list"}).value(), Value(List{0, "x", 8}));
  EXPECT_EQ(dict().EditAt("k", {"text"}, Edit::AppendString("b"))->length, 2u);
  EXPECT_EQ(dict().EditAt("k", {"text"}, Edit::Delete())->value, Value("ab"));
  EXPECT_EQ(dict().EditAt("k", {}, Edit::Merge({{"new", 1}}))->length, 2u);
  EXPECT_EQ(dict().EditAt("k", {"new"}, Edit::SetDefault(5))->value, Value(1));
  EXPECT_EQ(dict().EditAt("k", {"list"}, Edit::Clear())->length, 0u);
  EXPECT_EQ(dict().EditAt("k", {"a", "b"}, Edit::Set(1)).error().reason(), SH_PATH_NOT_FOUND);
  const auto made = dict().EditAt("k", {"a", "b"}, Edit::Set(1).CreateParents());
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(dict().Get("k").value(),
            Value(Map{{"list", List{}}, {"new", 1}, {"a", Map{{"b", 1}}}}));
  EXPECT_EQ(dict().EditAt("k", {"new"}, Edit::Set(2).IfVersion(made->version + 1)).error().reason(),
            SH_CONFLICT);
  EXPECT_TRUE(dict().EditAt("k", {"new"}, Edit::Set(2).IfVersion(made->version)).ok());
  Edit edit = Edit::Set("a text that no small string holds");
  edit = std::move(edit).CreateParents();  // Into itself: nothing may get lost.
  EXPECT_TRUE(dict().EditAt("k", {"p", "q"}, edit).ok());
  EXPECT_EQ(dict().Get<std::string>("k", {"p", "q"}).value(), "a text that no small string holds");
}

TEST_P(CppDictTest, ManyEntriesTransactionsAndScans) {
  const auto versions = dict().SetMany({{"a", 1}, {"b", "two"}});
  ASSERT_TRUE(versions.ok()) << versions.error().message();
  EXPECT_EQ(versions->size(), 2u);
  const auto many = dict().GetMany({"a", "none", "b"}, true);
  ASSERT_TRUE(many.ok());
  EXPECT_EQ((*many)[0]->value, Value(1));
  EXPECT_EQ((*many)[0]->version, (*versions)[0]);
  EXPECT_FALSE((*many)[1].has_value());
  EXPECT_EQ((*many)[2]->key, "b");
  Transaction move;
  move.If("a", Condition::Holds(1)).Increment("a", -1).Set("c", List{}).Get("b").Delete("none");
  move.Otherwise().Get("a");
  const auto first = dict().Transact(move);
  ASSERT_TRUE(first.ok()) << first.error().message();
  EXPECT_TRUE(first->compared);
  ASSERT_EQ(first->results.size(), 4u);
  EXPECT_EQ(first->results[0]->value, Value(0));
  EXPECT_FALSE(first->results[1].has_value());
  EXPECT_EQ(first->results[2]->value, Value("two"));
  EXPECT_GT(first->versions[0], (*versions)[0]);
  const auto second = dict().Transact(move);
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(second->compared);
  EXPECT_EQ(second->results[0]->value, Value(0));
  std::map<std::string, Value> seen;
  ASSERT_TRUE(dict()
                  .Scan("",
                        [&](Entry entry) {
                          seen[entry.key] = entry.value;
                          return true;
                        })
                  .ok());
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen["c"], Value(List{}));
  int given = 0;
  ASSERT_TRUE(dict().Scan("", [&](Entry) { return ++given < 2; }).ok());
  EXPECT_EQ(given, 2);
  EXPECT_EQ(dict().DeletePrefix("a").value(), 1u);
  EXPECT_EQ(dict().Clear().value(), 2u);
}

TEST_P(CppDictTest, UpdatesOfManyThreadsAllCount) {
  constexpr int kThreads = 4;
  constexpr int kUpdates = 50;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kUpdates; ++i) {
        const auto outcome = dict().Update(
            "list",
            [](Value& value) {
              if (value.IfList() == nullptr) value = List{};
              value.IfList()->push_back("x");
            },
            10'000);
        if (!outcome.ok() || !outcome->applied) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(failures, 0);
  EXPECT_EQ(dict().Get<List>("list").value()->size(), size_t{kThreads} * kUpdates);
  int tries = 0;
  const auto lost = dict().Update(
      "list",
      [&](Value& value) {
        ++tries;
        EXPECT_TRUE(dict().EditAt("list", {}, Edit::Append(tries)).ok());
        value = 1;
      },
      3);
  EXPECT_EQ(lost.error().reason(), SH_CONFLICT);
  EXPECT_EQ(tries, 3);
}

TEST_P(CppDictTest, DictsAreListedDescribedAndDeleted) {
  ASSERT_TRUE(client_->CreateDict("x/1", {.max_entries = 10, .evict = true}).ok());
  EXPECT_EQ(client_->CreateDict("x/1", {.exclusive = true}).error().reason(), SH_DICT_EXISTS);
  EXPECT_EQ(client_->DescribeDict("x/1")->max_entries, 10u);
  EXPECT_EQ(client_->ListDicts("x/")->size(), 1u);
  EXPECT_EQ(client_->OpenDict("none", std::nullopt).error().reason(), SH_DICT_NOT_FOUND);
  ASSERT_TRUE(client_->DeleteDict("x/1").ok());
  EXPECT_TRUE(client_->ListDicts("x/")->empty());
  client_.reset();
  EXPECT_EQ(dict().Get("k").error().reason(), SH_CLIENT_CLOSED);
}

INSTANTIATE_TEST_SUITE_P(Doors, CppDictTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK),
                         [](const auto& door) {
                           return door.param == SH_TRANSPORT_LOCAL ? "local" : "network";
                         });

}  // namespace
}  // namespace statehouse::client
