// The C++ header's batches against a real service, through each door. What they do is tested in
// clients/c; here it is their C++ side.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "statehouse/client.hpp"
#include "tests/support/daemon.h"

namespace statehouse::client {
namespace {

class CppBatchTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = testing::Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    client_.emplace(Connect());
  }
  Client Connect() {
    Options options;
    options.token = daemon_->token();
    options.transport = GetParam();
    return Client::Connect("statehouse+unix://" + daemon_->runtime_dir(), options).value();
  }

  bool IsFree(const std::string& name) {
    return testing::Eventually([&] { return client_->DescribeLock(name).value().parties.empty(); });
  }

  std::unique_ptr<testing::Daemon> daemon_;
  std::optional<Client> client_;
};

TEST_P(CppBatchTest, EachOperationHasItsTypedResult) {
  Dict dict = client_->OpenDict("d").value();
  Area area = client_->Open("a", 4096).value();
  Batch batch = client_->NewBatch();
  const auto set = batch.Set(dict, "k", List{1});
  const auto got = batch.Get<List>(dict, "k");
  const auto absent = batch.Get(dict, "absent");
  const auto sum = batch.Increment(dict, "n", 5);
  const auto half = batch.Increment<double>(dict, "f", 0.5, {.initial = 1});
  const auto edited = batch.EditAt(dict, "k", {}, Edit::Append(2));
  const auto entry = batch.GetEntry(dict, "k", {1});
  const auto touched = batch.Touch(dict, "k", Ttl::For(std::chrono::minutes(1)));
  const auto before = batch.Exchange(dict, "k", "new");
  const auto many = batch.GetMany(dict, {"n", "absent"});
  const auto versions = batch.SetMany(dict, {{"x/1", 1}, {"x/2", 2}});
  const auto deleted = batch.DeletePrefix(dict, "x/");
  const auto popped = batch.Pop(dict, "n");
  const auto gone = batch.Delete(dict, "n");
  const auto length = batch.Length(dict);
  const auto cleared = batch.ClearDict(dict);
  const auto stored = batch.Store<int16_t>(area, 0, -7);
  const auto word = batch.Add<int16_t>(area, 0, 2);
  const auto exchanged = batch.CompareExchange<int16_t>(area, 0, -5, 1);
  const auto bits = batch.BitwiseOr<uint8_t>(area, 0, 6);
  const auto loaded = batch.Load<uint16_t>(area, 0);
  const std::vector<std::byte> text(3, std::byte{'x'});
  const auto written = batch.Write(area, 100, text);
  const auto filled = batch.Fill(area, 103, 1, std::byte{'y'});
  const auto read = batch.Read(area, 100, 4);
  EXPECT_EQ(batch.count(), 24u);

  const Result<Done> ran = batch.Run();
  ASSERT_TRUE(ran.ok()) << ran.error().message();

  EXPECT_TRUE(set.value().applied);
  EXPECT_EQ(Value(*got.value()), Value(List{1}));
  EXPECT_FALSE(absent.value().has_value());
  EXPECT_EQ(sum.value(), 5);
  EXPECT_EQ(half.value(), 1.5);
  EXPECT_EQ(edited.value().length, 2u);
  EXPECT_EQ(entry.value()->value, Value(2));
  EXPECT_EQ(entry.value()->version, edited.value().version);
  EXPECT_TRUE(touched.value().applied);
  EXPECT_EQ(before.value()->value, Value(List{1, 2}));
  EXPECT_EQ(many.value()[0]->value, Value(5));
  EXPECT_FALSE(many.value()[1].has_value());
  EXPECT_EQ(versions.value().size(), 2u);
  EXPECT_EQ(deleted.value(), 2u);
  EXPECT_EQ(popped.value()->value, Value(5));
  EXPECT_FALSE(gone.value().applied);
  EXPECT_EQ(length.value(), 2u);
  EXPECT_EQ(cleared.value(), 2u);
  EXPECT_TRUE(stored.ok());
  EXPECT_EQ(word.value(), -5);
  EXPECT_TRUE(exchanged.value().exchanged);
  EXPECT_EQ(exchanged.value().found, -5);
  EXPECT_EQ(bits.value(), 7);
  EXPECT_EQ(loaded.value(), 7);
  EXPECT_TRUE(written.ok());
  EXPECT_TRUE(filled.ok());
  EXPECT_EQ(read.value()[3], std::byte{'y'});
}

TEST_P(CppBatchTest, ResultsAreThereAfterRunAndUntilResultsAreGivenUp) {
  Dict dict = client_->OpenDict("d").value();
  Batch batch = client_->NewBatch();
  const auto first = batch.Increment(dict, "n");
  EXPECT_EQ(first.result().error().reason(), SH_INVALID_ARGUMENT);  // Not run yet.
  ASSERT_TRUE(batch.Run().ok());
  EXPECT_EQ(first.value(), 1);
  EXPECT_EQ(batch.Run().error().reason(), SH_INVALID_ARGUMENT);  // Not twice.
  EXPECT_EQ(first.value(), 1);
  const auto second = batch.Increment(dict, "n");
  EXPECT_EQ(first.error().reason(), SH_INVALID_ARGUMENT);  // Its place is another's.
  EXPECT_EQ(second.index(), 0u);
  ASSERT_TRUE(batch.Run().ok());
  EXPECT_EQ(second.value(), 2);
  batch.End();
  EXPECT_EQ(second.error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(batch.Run().error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(batch.Increment(dict, "n").error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(batch.count(), 0u);
  Batch moved = client_->NewBatch();
  const Batch other = std::move(moved);
  EXPECT_EQ(moved.Run().error().reason(), SH_INVALID_ARGUMENT);  // NOLINT: that is the test.
}

TEST_P(CppBatchTest, ABatchEndsWithItsObjectThoughItsOperationsAreKept) {
  Dict dict = client_->OpenDict("d").value();
  std::optional<Noted<int64_t>> noted;
  std::optional<Noted<std::optional<Lock>>> tried;
  {
    Batch batch = client_->NewBatch();
    noted = batch.Increment(dict, "n");
    tried = batch.TryLock("l");
    ASSERT_TRUE(batch.Run().ok());
    EXPECT_TRUE(tried->ok());  // Looked at, not taken.
    EXPECT_EQ(noted->value(), 1);
  }
  EXPECT_EQ(noted->error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(tried->error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_TRUE(IsFree("l"));

  Batch batch = client_->NewBatch();
  tried = batch.TryLock("l");
  ASSERT_TRUE(batch.Run().ok());
  batch = client_->NewBatch();  // Ends what it was.
  EXPECT_FALSE(tried->ok());
  EXPECT_TRUE(IsFree("l"));
  noted = batch.Increment(dict, "n");
  Batch moved = std::move(batch);  // The same batch: its operations go on.
  ASSERT_TRUE(moved.Run().ok());
  EXPECT_EQ(noted->value(), 2);
}

TEST_P(CppBatchTest, ALockThatWasLookedAtIsStillGivenOnce) {
  Batch batch = client_->NewBatch();
  const auto tried = batch.TryLock("l");
  const auto copy = tried;
  EXPECT_FALSE(tried.ok());  // Not run yet.
  ASSERT_TRUE(batch.Run().ok());
  ASSERT_TRUE(tried.ok());
  ASSERT_TRUE(tried.ok());
  ASSERT_TRUE(copy.ok());
  std::optional<Lock> lock = tried.value();
  ASSERT_TRUE(lock.has_value());
  EXPECT_TRUE(lock->held());
  EXPECT_FALSE(client_->DescribeLock("l").value().parties.empty());
  EXPECT_EQ(tried.error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(copy.error().reason(), SH_INVALID_ARGUMENT);

  const auto not_had = batch.TryLock("l");
  ASSERT_TRUE(batch.Run().ok());
  ASSERT_TRUE(not_had.ok());
  EXPECT_FALSE(not_had.value().has_value());
  ASSERT_TRUE(lock->Release().value());
  const auto cleared = batch.TryLock("l");
  ASSERT_TRUE(batch.Run().ok());
  ASSERT_TRUE(cleared.ok());
  batch.Clear();  // Gives back what was looked at and not taken.
  EXPECT_FALSE(cleared.ok());
  EXPECT_TRUE(IsFree("l"));
}

TEST_P(CppBatchTest, WhatIsRefusedAtNotingIsSaidByTheOperationAndByRun) {
  Dict dict = client_->OpenDict("d").value();
  Batch batch = client_->NewBatch();
  const auto fine = batch.Increment(dict, "n");
  const auto empty_key = batch.Increment(dict, "");
  EXPECT_EQ(empty_key.error().reason(), SH_KEY_INVALID);
  EXPECT_EQ(empty_key.index(), SIZE_MAX);
  const auto no_limit = batch.TryLock("l", {.limit = 0});
  EXPECT_EQ(no_limit.error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(batch.Run().error().reason(), SH_KEY_INVALID);
  EXPECT_FALSE(fine.ok());  // Nothing was run.
  EXPECT_FALSE(dict.Get("n").value().has_value());
  batch.Clear();
  const auto again = batch.Increment(dict, "n");
  ASSERT_TRUE(batch.Run().ok());
  EXPECT_EQ(again.value(), 1);
}

TEST_P(CppBatchTest, ARefusedOperationHasItsErrorAndStopsTheBatchWhereAsked) {
  Dict dict = client_->OpenDict("d").value();
  ASSERT_TRUE(dict.Set("text", "x").ok());
  for (const bool stops : {false, true}) {
    Batch batch = client_->NewBatch({.stop_at_failure = stops});
    const auto refused = batch.Increment(dict, "text");
    const auto behind = batch.Increment(dict, stops ? "never" : "n");
    const auto wrong_kind = batch.Get<int64_t>(dict, "text");
    const Result<Done> ran = batch.Run();
    ASSERT_FALSE(ran.ok());
    EXPECT_EQ(ran.error().reason(), SH_TYPE_MISMATCH);
    EXPECT_EQ(refused.error().reason(), SH_TYPE_MISMATCH);
    EXPECT_EQ(refused.error().name(), "d");
    EXPECT_EQ(behind.ok(), !stops);
    EXPECT_EQ(wrong_kind.error().reason(), stops ? SH_CANCELLED : SH_TYPE_MISMATCH);
  }
  EXPECT_FALSE(dict.Get("never").value().has_value());
}

TEST_P(CppBatchTest, LocksAreTriedForAndGivenBack) {
  Dict dict = client_->OpenDict("d").value();
  ASSERT_TRUE(dict.Set("text", "x").ok());
  Batch batch = client_->NewBatch({.stop_at_failure = true});
  auto tried = batch.TryLock("l");
  ASSERT_TRUE(batch.Run().ok());
  std::optional<Lock> lock = tried.result().value();
  ASSERT_TRUE(lock.has_value());
  EXPECT_TRUE(lock->held());
  EXPECT_EQ(tried.error().reason(), SH_INVALID_ARGUMENT);  // Given once.

  const auto refused = batch.Increment(dict, "text");
  auto released = batch.Release(*lock);
  EXPECT_FALSE(lock->held());
  EXPECT_EQ(batch.Run().error().reason(), SH_TYPE_MISMATCH);
  EXPECT_EQ(released.error().reason(), SH_CANCELLED);
  Result<Lock> back = batch.TakeBack(released);
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_TRUE(back->held());

  released = batch.Release(*back);
  const auto again = batch.TryLock("l");
  ASSERT_TRUE(batch.Run().ok());
  EXPECT_TRUE(released.value());
  EXPECT_EQ(batch.TakeBack(released).error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(batch.Release(*back).error().reason(), SH_INVALID_ARGUMENT);  // It holds nothing.
  batch.End();  // Gives back what was had and not asked for.
  EXPECT_TRUE(IsFree("l"));
}

INSTANTIATE_TEST_SUITE_P(Doors, CppBatchTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK),
                         [](const ::testing::TestParamInfo<sh_transport>& door) {
                           return door.param == SH_TRANSPORT_LOCAL ? "local" : "network";
                         });

}  // namespace
}  // namespace statehouse::client
