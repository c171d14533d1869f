// Batches of the C library through each door of a real service: each operation gives what its own
// call would, in order, and what is refused leaves the others alone.
#include "clients/c/testing/batch_client.h"

#include <atomic>
#include <functional>
#include <utility>

namespace statehouse {
namespace {

TEST_P(BatchClientTest, OperationsOfAnEntryGiveWhatTheirCallsWould) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_dict* const d = dict.get();
  const std::string value = Wire(R"({"list":[1]})");
  size_t at[9];
  ASSERT_EQ(sh_batch_dict_get(b, d, sh_text("k"), &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_set(b, d, sh_text("k"), Bytes(value), nullptr, 0, &at[1], nullptr),
            SH_OK);
  ASSERT_EQ(sh_batch_dict_get(b, d, sh_text("k"), &at[2], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_increment(b, d, sh_text("n"), sh_int(-5), nullptr, &at[3], nullptr),
            SH_OK);
  const Path list{"list"};
  sh_edit edit = EditOf(SH_EDIT_APPEND);
  const std::string two = Wire("2");
  edit.value = Bytes(two);
  edit.path = list.c_steps.data();
  edit.steps = list.c_steps.size();
  ASSERT_EQ(sh_batch_dict_edit(b, d, sh_text("k"), &edit, &at[4], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_get_entry(b, d, sh_text("k"), list.c_steps.data(), 1, &at[5], nullptr),
            SH_OK);
  ASSERT_EQ(sh_batch_dict_touch(b, d, sh_text("k"), 60'000, &at[6], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_delete(b, d, sh_text("n"), nullptr, 1, &at[7], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_delete(b, d, sh_text("n"), nullptr, 0, &at[8], nullptr), SH_OK);
  EXPECT_EQ(sh_batch_count(b), 9u);

  ASSERT_EQ(RunAll(b), SH_OK);

  const sh_entry* entry = nullptr;
  sh_outcome outcome{};
  ASSERT_EQ(sh_batch_result_entry(b, at[0], &entry, nullptr), SH_OK);
  EXPECT_EQ(entry->found, 0);
  ASSERT_EQ(sh_batch_result_outcome(b, at[1], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  ASSERT_EQ(sh_batch_result_entry(b, at[2], &entry, nullptr), SH_OK);
  EXPECT_EQ(Json(entry->value), R"({"list":[1]})");
  EXPECT_EQ(entry->version, outcome.version);
  EXPECT_EQ(entry->ordinal, 0u);
  sh_number sum{};
  uint64_t version = 0;
  ASSERT_EQ(sh_batch_result_number(b, at[3], &sum, &version, nullptr), SH_OK);
  EXPECT_EQ(sum.integer, -5);
  EXPECT_GT(version, 0u);
  uint64_t length = 0;
  ASSERT_EQ(sh_batch_result_count(b, at[4], &length, nullptr), SH_OK);
  EXPECT_EQ(length, 2u);
  ASSERT_EQ(sh_batch_result_entry(b, at[5], &entry, nullptr), SH_OK);
  EXPECT_EQ(Json(entry->value), "[1,2]");
  EXPECT_EQ(entry->ttl_ms, SH_FOREVER);
  ASSERT_EQ(sh_batch_result_outcome(b, at[6], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  ASSERT_EQ(sh_batch_result_entry(b, at[7], &entry, nullptr), SH_OK);
  EXPECT_EQ(Json(entry->value), "-5");
  ASSERT_EQ(sh_batch_result_outcome(b, at[8], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
}

TEST_P(BatchClientTest, OperationsOfManyEntriesGiveWhatTheirCallsWould) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_dict* const d = dict.get();
  const std::string one = Wire("1");
  const std::string two = Wire("2");
  const sh_bytes keys[] = {sh_text("a/1"), sh_text("a/2"), sh_text("b")};
  const sh_bytes values[] = {Bytes(one), Bytes(two), Bytes(one)};
  size_t at[6];
  ASSERT_EQ(sh_batch_dict_set_many(b, d, keys, values, 3, nullptr, &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_delete_prefix(b, d, sh_text("a/"), &at[1], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_get_many(b, d, keys, 3, 1, &at[2], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_length(b, d, &at[3], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_clear(b, d, &at[4], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_length(b, d, &at[5], nullptr), SH_OK);

  ASSERT_EQ(RunAll(b), SH_OK);

  const uint64_t* versions = nullptr;
  size_t count = 0;
  ASSERT_EQ(sh_batch_result_versions(b, at[0], &versions, &count, nullptr), SH_OK);
  ASSERT_EQ(count, 3u);
  EXPECT_GT(versions[2], 0u);
  const sh_entries* entries = nullptr;
  ASSERT_EQ(sh_batch_result_entries(b, at[2], &entries, nullptr), SH_OK);
  ASSERT_EQ(entries->count, 3u);
  EXPECT_EQ(Text(entries->items[0].key), "a/1");
  EXPECT_EQ(entries->items[0].found, 0);
  EXPECT_EQ(Json(entries->items[2].value), "1");
  EXPECT_EQ(entries->items[2].version, versions[2]);
  const uint64_t wanted[] = {0, 2, 0, 1, 1, 0};
  for (const size_t each : {at[1], at[3], at[4], at[5]}) {
    uint64_t number = 99;
    ASSERT_EQ(sh_batch_result_count(b, each, &number, nullptr), SH_OK);
    EXPECT_EQ(number, wanted[each]) << each;
  }
}

TEST_P(BatchClientTest, OptionsOfMutationsHoldAsInTheirCalls) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_dict* const d = dict.get();
  const std::string one = Wire("1");
  size_t at[9];
  sh_write_options absent{};
  absent.condition.kind = SH_IF_ABSENT;
  ASSERT_EQ(sh_batch_dict_set(b, d, sh_text("k"), Bytes(one), &absent, 1, &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_set(b, d, sh_text("k"), Bytes(one), &absent, 1, &at[1], nullptr), SH_OK);
  sh_write_options timed{};
  timed.ttl_ms = 60'000;
  ASSERT_EQ(sh_batch_dict_set(b, d, sh_text("t"), Bytes(one), &timed, 0, &at[2], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_get_entry(b, d, sh_text("t"), nullptr, 0, &at[3], nullptr), SH_OK);
  {
    std::string held = one;  // What a condition points to is copied.
    sh_write_options equals{};
    equals.condition.kind = SH_IF_VALUE;
    equals.condition.value = Bytes(held);
    ASSERT_EQ(sh_batch_dict_delete(b, d, sh_text("k"), &equals, 0, &at[4], nullptr), SH_OK);
    held.assign(held.size(), 'x');
  }
  {
    const sh_number initial = sh_int(40);
    const sh_number max = sh_int(45);
    sh_increment_options options{};
    options.initial = &initial;
    options.max = &max;
    ASSERT_EQ(sh_batch_dict_increment(b, d, sh_text("n"), sh_int(5), &options, &at[5], nullptr),
              SH_OK);
    ASSERT_EQ(sh_batch_dict_increment(b, d, sh_text("n"), sh_int(5), &options, &at[6], nullptr),
              SH_OK);
  }
  ASSERT_EQ(sh_batch_dict_increment(b, d, sh_text("f"), sh_double(0.5), nullptr, &at[7], nullptr),
            SH_OK);
  ASSERT_EQ(sh_batch_dict_increment(b, d, sh_text("f"), sh_int(1), nullptr, &at[8], nullptr),
            SH_OK);

  size_t failed = 99;
  EXPECT_EQ(sh_batch_run(b, &failed, nullptr), SH_VALUE_OUT_OF_RANGE);
  EXPECT_EQ(failed, at[6]);

  sh_outcome outcome{};
  const sh_entry* entry = nullptr;
  ASSERT_EQ(sh_batch_result_outcome(b, at[0], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  ASSERT_EQ(sh_batch_result_entry(b, at[0], &entry, nullptr), SH_OK);
  EXPECT_EQ(entry->found, 0);
  ASSERT_EQ(sh_batch_result_outcome(b, at[1], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  ASSERT_EQ(sh_batch_result_entry(b, at[1], &entry, nullptr), SH_OK);
  EXPECT_EQ(Json(entry->value), "1");
  ASSERT_EQ(sh_batch_result_entry(b, at[3], &entry, nullptr), SH_OK);
  EXPECT_LE(entry->ttl_ms, 60'000u);
  ASSERT_EQ(sh_batch_result_outcome(b, at[4], &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  sh_number sum{};
  ASSERT_EQ(sh_batch_result_number(b, at[5], &sum, nullptr, nullptr), SH_OK);
  EXPECT_EQ(sum.integer, 45);
  ASSERT_EQ(sh_batch_result_number(b, at[8], &sum, nullptr, nullptr), SH_OK);
  EXPECT_EQ(sum.is_double, 1);
  EXPECT_EQ(sum.real, 1.5);
}

TEST_P(BatchClientTest, OperationsOfAreasGiveWhatTheirCallsWould) {
  const AreaPtr area = OpenArea("a", 4096);
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_area* const a = area.get();
  size_t at[10];
  ASSERT_EQ(sh_batch_area_add(b, a, SH_I16, 0, -2, 0, &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_add(b, a, SH_U16, 0, 1, 0, &at[1], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_store(b, a, SH_U64, 8, 6, 0, &at[2], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_compare_exchange(b, a, SH_U64, 8, 6, 7, 0, &at[3], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_compare_exchange(b, a, SH_U64, 8, 6, 8, 0, &at[4], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_bitwise(b, a, SH_OR, SH_U64, 8, 8, 0, &at[5], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_load(b, a, SH_I16, 0, &at[6], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_write(b, a, 100, "hello", 5, 0, &at[7], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_fill(b, a, 105, 3, '!', 0, &at[8], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_area_read(b, a, 100, 8, &at[9], nullptr), SH_OK);

  ASSERT_EQ(RunAll(b), SH_OK);

  uint64_t word = 0;
  ASSERT_EQ(sh_batch_result_word(b, at[0], &word, nullptr), SH_OK);
  EXPECT_EQ(static_cast<int64_t>(word), -2);
  ASSERT_EQ(sh_batch_result_word(b, at[1], &word, nullptr), SH_OK);
  EXPECT_EQ(word, 65'535u);
  int exchanged = 0;
  ASSERT_EQ(sh_batch_result_exchange(b, at[3], &exchanged, &word, nullptr), SH_OK);
  EXPECT_EQ(exchanged, 1);
  EXPECT_EQ(word, 6u);
  ASSERT_EQ(sh_batch_result_exchange(b, at[4], &exchanged, &word, nullptr), SH_OK);
  EXPECT_EQ(exchanged, 0);
  EXPECT_EQ(word, 7u);
  ASSERT_EQ(sh_batch_result_word(b, at[5], &word, nullptr), SH_OK);
  EXPECT_EQ(word, 15u);
  ASSERT_EQ(sh_batch_result_word(b, at[6], &word, nullptr), SH_OK);
  EXPECT_EQ(static_cast<int64_t>(word), -1);
  sh_bytes bytes{};
  ASSERT_EQ(sh_batch_result_bytes(b, at[9], &bytes, nullptr), SH_OK);
  EXPECT_EQ(Text(bytes), "hello!!!");
}

TEST_P(BatchClientTest, ALockIsTriedForAndGivenBackInOrder) {
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  const ClientPtr other = Connect(daemon_->token());
  sh_lock* theirs = nullptr;
  ASSERT_EQ(sh_lock_acquire(other.get(), "taken", nullptr, &theirs, nullptr), SH_OK);
  size_t at[3];
  ASSERT_EQ(sh_batch_lock_try(b, "free", nullptr, &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_lock_try(b, "taken", nullptr, &at[1], nullptr), SH_OK);
  ASSERT_EQ(RunAll(b), SH_OK);
  sh_lock* lock = nullptr;
  ASSERT_EQ(sh_batch_result_lock(b, at[0], &lock, nullptr), SH_OK);
  ASSERT_NE(lock, nullptr);
  EXPECT_STREQ(sh_lock_name(lock), "free");
  EXPECT_GT(sh_lock_token(lock), 0u);
  EXPECT_EQ(sh_lock_held(lock, nullptr), 1);
  sh_lock* none = nullptr;
  EXPECT_EQ(sh_batch_result_lock(b, at[0], &none, nullptr), SH_INVALID_ARGUMENT);  // Once.
  EXPECT_EQ(sh_batch_result_lock(b, at[1], &none, nullptr), SH_OK);
  EXPECT_EQ(none, nullptr);

  // Given back, and tried for by the next operation.
  ASSERT_EQ(sh_batch_lock_release(b, lock, &at[0], nullptr), SH_OK);
  ASSERT_EQ(sh_batch_lock_try(b, "free", nullptr, &at[1], nullptr), SH_OK);
  ASSERT_EQ(RunAll(b), SH_OK);
  int held = 0;
  EXPECT_EQ(sh_batch_result_released(b, at[0], &held, nullptr), SH_OK);
  EXPECT_EQ(held, 1);
  EXPECT_EQ(sh_batch_result_lock(b, at[0], &lock, nullptr), SH_INVALID_ARGUMENT);
  // What nobody asked for is given back with the batch's end.
  sh_batch_clear(b);
  EXPECT_TRUE(IsFree("free"));
  sh_lock_release(theirs, nullptr, nullptr);
}

TEST_P(BatchClientTest, ALockWhoseReleaseWasNotCarriedOutIsTheCallersAgain) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin(/*stop_at_failure=*/true);
  sh_batch* const b = batch.get();
  ASSERT_EQ(Set(dict.get(), "text", R"("x")"), SH_OK);
  sh_lock* lock = nullptr;
  ASSERT_EQ(sh_lock_acquire(client_.get(), "l", nullptr, &lock, nullptr), SH_OK);
  size_t at[2];
  ASSERT_EQ(
      sh_batch_dict_increment(b, dict.get(), sh_text("text"), sh_int(1), nullptr, &at[0], nullptr),
      SH_OK);
  ASSERT_EQ(sh_batch_lock_release(b, lock, &at[1], nullptr), SH_OK);
  size_t failed = 99;
  EXPECT_EQ(sh_batch_run(b, &failed, nullptr), SH_TYPE_MISMATCH);
  EXPECT_EQ(failed, 0u);
  EXPECT_EQ(sh_batch_result(b, at[1], nullptr), SH_CANCELLED);
  lock = nullptr;
  ASSERT_EQ(sh_batch_result_lock(b, at[1], &lock, nullptr), SH_OK);
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(sh_lock_held(lock, nullptr), 1);
  int held = 0;
  EXPECT_EQ(sh_lock_release(lock, &held, nullptr), SH_OK);
  EXPECT_EQ(held, 1);
  EXPECT_TRUE(IsFree("l"));
}

TEST_P(BatchClientTest, ALockThatABatchGivesBackIsNotReportedAsLost) {
  constexpr int kRounds = 40;
  constexpr int kReads = 120;  // Long answers: renewals come due before they are read.
  const DictPtr dict = Open("d");
  const std::string text(100'000, 'x');
  ASSERT_EQ(sh_dict_set_string(dict.get(), sh_text("k"), Bytes(text), nullptr, nullptr), SH_OK);
  std::atomic<int> losses{0};
  const BatchPtr batch = Begin();
  for (int round = 0; round < kRounds; ++round) {
    sh_lock_options options{};
    options.ttl_ms = 100;
    options.on_lost = [](void* count) { ++*static_cast<std::atomic<int>*>(count); };
    options.context = &losses;
    sh_lock* lock = nullptr;
    ASSERT_EQ(sh_lock_acquire(client_.get(), "l", &options, &lock, nullptr), SH_OK);
    size_t at = 0;
    ASSERT_EQ(sh_batch_lock_release(batch.get(), lock, &at, nullptr), SH_OK);
    for (int i = 0; i < kReads; ++i) {
      ASSERT_EQ(sh_batch_dict_get(batch.get(), dict.get(), sh_text("k"), nullptr, nullptr), SH_OK);
    }
    const int before = losses;
    const bool was_held = sh_lock_held(lock, nullptr) == 1;  // A busy machine may be too late.
    ASSERT_EQ(RunAll(batch.get()), SH_OK);
    int held = 0;
    EXPECT_EQ(sh_batch_result_released(batch.get(), at, &held, nullptr), SH_OK);
    if (!was_held) continue;
    EXPECT_EQ(held, 1) << "round " << round;
    EXPECT_EQ(losses, before) << "round " << round;
  }
}

TEST_P(BatchClientTest, AnOperationThatIsRefusedLeavesTheOthersAlone) {
  const DictPtr dict = Open("d");
  const AreaPtr area = OpenArea("a", 64);
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  const std::string text = Wire(R"("text")");
  ASSERT_EQ(
      sh_batch_dict_set(b, dict.get(), sh_text("k"), Bytes(text), nullptr, 0, nullptr, nullptr),
      SH_OK);
  ASSERT_EQ(
      sh_batch_dict_increment(b, dict.get(), sh_text("k"), sh_int(1), nullptr, nullptr, nullptr),
      SH_OK);
  ASSERT_EQ(sh_batch_area_add(b, area.get(), SH_U64, 60, 1, 0, nullptr, nullptr), SH_OK);
  ASSERT_EQ(
      sh_batch_dict_increment(b, dict.get(), sh_text("n"), sh_int(1), nullptr, nullptr, nullptr),
      SH_OK);
  size_t failed = 99;
  sh_error* error = nullptr;
  EXPECT_EQ(sh_batch_run(b, &failed, &error), SH_TYPE_MISMATCH);
  EXPECT_EQ(failed, 1u);
  EXPECT_STRNE(sh_error_message(error), "");
  EXPECT_STREQ(sh_error_name(error), "d");
  sh_error_free(error);
  EXPECT_EQ(sh_batch_result(b, 0, nullptr), SH_OK);
  EXPECT_EQ(sh_batch_result(b, 2, nullptr), SH_OUT_OF_BOUNDS);
  EXPECT_EQ(sh_batch_result(b, 3, nullptr), SH_OK);
  EXPECT_EQ(Get(dict.get(), "n"), "1");
}

TEST_P(BatchClientTest, ABatchThatStopsAtAFailureCarriesOutNothingBehindIt) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin(/*stop_at_failure=*/true);
  sh_batch* const b = batch.get();
  ASSERT_EQ(Set(dict.get(), "k", R"("text")"), SH_OK);
  for (const char* key : {"before", "k", "behind"}) {
    ASSERT_EQ(
        sh_batch_dict_increment(b, dict.get(), sh_text(key), sh_int(1), nullptr, nullptr, nullptr),
        SH_OK);
  }
  const sh_bytes keys[] = {sh_text("before")};
  ASSERT_EQ(sh_batch_dict_get_many(b, dict.get(), keys, 1, 0, nullptr, nullptr), SH_OK);
  EXPECT_EQ(sh_batch_run(b, nullptr, nullptr), SH_TYPE_MISMATCH);
  EXPECT_EQ(sh_batch_result(b, 0, nullptr), SH_OK);
  EXPECT_EQ(sh_batch_result(b, 2, nullptr), SH_CANCELLED);
  EXPECT_EQ(sh_batch_result(b, 3, nullptr), SH_CANCELLED);
  EXPECT_EQ(Get(dict.get(), "before"), "1");
  EXPECT_EQ(Get(dict.get(), "behind"), "absent");
}

// Calls that are refused, each with its reason and a message.
void ExpectRefused(
    const std::vector<std::pair<sh_reason, std::function<sh_reason(sh_error**)>>>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    sh_error* error = nullptr;
    EXPECT_EQ(rows[i].second(&error), rows[i].first) << "row " << i;
    EXPECT_STRNE(sh_error_message(error), "") << "row " << i;
    sh_error_free(error);
  }
}

TEST_P(BatchClientTest, WhatIsWrongWithAnArgumentOfADictIsRefusedBeforeAnythingIsNoted) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_dict* const d = dict.get();
  const std::string one = Wire("1");
  const std::string long_key(1025, 'k');
  sh_write_options bound{};
  bound.bound = 1;
  sh_write_options odd{};
  odd.condition.kind = static_cast<sh_condition_kind>(9);
  ExpectRefused({
      {SH_KEY_INVALID, [&](sh_error** e) { return sh_batch_dict_get(b, d, {}, nullptr, e); }},
      {SH_KEY_INVALID,
       [&](sh_error** e) { return sh_batch_dict_get(b, d, Bytes(long_key), nullptr, e); }},
      {SH_KEY_INVALID, [&](sh_error** e) { return sh_batch_dict_touch(b, d, {}, 5, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_dict_touch(b, d, sh_text("k"), 0, nullptr, e); }},
      {SH_VALUE_INVALID,
       [&](sh_error** e) {
         return sh_batch_dict_set(b, d, sh_text("k"), sh_text("junk"), nullptr, 0, nullptr, e);
       }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) {
         return sh_batch_dict_set(b, d, sh_text("k"), Bytes(one), &bound, 0, nullptr, e);
       }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) {
         return sh_batch_dict_set(b, d, sh_text("k"), Bytes(one), &odd, 0, nullptr, e);
       }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_dict_edit(b, d, sh_text("k"), nullptr, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_dict_get_many(b, d, nullptr, 2, 0, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_dict_get(b, nullptr, sh_text("k"), nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_dict_get(nullptr, d, sh_text("k"), nullptr, e); }},
  });
  EXPECT_EQ(sh_batch_count(b), 0u);
  EXPECT_EQ(sh_batch_run(b, nullptr, nullptr), SH_OK);
}

TEST_P(BatchClientTest, WhatIsWrongWithAnArgumentOfAnAreaOrALockIsRefusedBeforeAnythingIsNoted) {
  const AreaPtr area = OpenArea("a", 4096);
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  sh_area* const a = area.get();
  sh_lock_options mode{};
  mode.mode = static_cast<sh_lock_mode>(7);
  ExpectRefused({
      {SH_WIDTH_INVALID,
       [&](sh_error** e) {
         return sh_batch_area_add(b, a, static_cast<sh_word_type>(0), 0, 1, 0, nullptr, e);
       }},
      {SH_VALUE_OUT_OF_RANGE,
       [&](sh_error** e) { return sh_batch_area_store(b, a, SH_U8, 0, 300, 0, nullptr, e); }},
      {SH_OUT_OF_BOUNDS,
       [&](sh_error** e) { return sh_batch_area_read(b, a, 4000, 97, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_area_write(b, a, 0, nullptr, 4, 0, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_lock_try(b, nullptr, nullptr, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_lock_try(b, "l", &mode, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_lock_release(b, nullptr, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_area_load(b, nullptr, SH_U8, 0, nullptr, e); }},
      {SH_INVALID_ARGUMENT,
       [&](sh_error** e) { return sh_batch_begin(nullptr, nullptr, nullptr, e); }},
      {SH_INVALID_ARGUMENT, [&](sh_error** e) { return sh_batch_run(nullptr, nullptr, e); }},
  });
  EXPECT_EQ(sh_batch_count(b), 0u);
  EXPECT_EQ(sh_batch_run(b, nullptr, nullptr), SH_OK);
}

TEST_P(BatchClientTest, ResultsAreRefusedWhereThereAreNone) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  uint64_t word = 0;
  size_t at = 99;
  ASSERT_EQ(sh_batch_dict_increment(b, dict.get(), sh_text("n"), sh_int(1), nullptr, &at, nullptr),
            SH_OK);
  EXPECT_EQ(at, 0u);
  EXPECT_EQ(sh_batch_result_number(b, at, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  ASSERT_EQ(RunAll(b), SH_OK);
  EXPECT_EQ(sh_batch_result_number(b, at, nullptr, nullptr, nullptr), SH_OK);
  EXPECT_EQ(sh_batch_result_number(b, 1, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_batch_result_number(b, SIZE_MAX, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_batch_result_word(b, at, &word, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_batch_result(nullptr, 0, nullptr), SH_INVALID_ARGUMENT);
  // It is not run twice; what is noted next begins anew.
  EXPECT_EQ(sh_batch_run(b, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(Get(dict.get(), "n"), "1");
  ASSERT_EQ(sh_batch_dict_get(b, dict.get(), sh_text("n"), &at, nullptr), SH_OK);
  EXPECT_EQ(at, 0u);
  EXPECT_EQ(sh_batch_count(b), 1u);
  sh_batch_clear(b);
  EXPECT_EQ(sh_batch_count(b), 0u);
  EXPECT_EQ(sh_batch_result(b, 0, nullptr), SH_INVALID_ARGUMENT);
  sh_batch_clear(nullptr);
  sh_batch_end(nullptr);
  EXPECT_EQ(sh_batch_count(nullptr), 0u);
}

TEST_P(BatchClientTest, WhatAnotherClientOpenedIsRefused) {
  const ClientPtr other = Connect(daemon_->token());
  const sh_dict_spec spec{};
  const DictPtr dict = Open(other.get(), "d", &spec);
  sh_lock* lock = nullptr;
  ASSERT_EQ(sh_lock_acquire(other.get(), "l", nullptr, &lock, nullptr), SH_OK);
  const BatchPtr batch = Begin();
  EXPECT_EQ(sh_batch_dict_get(batch.get(), dict.get(), sh_text("k"), nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_batch_lock_release(batch.get(), lock, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_held(lock, nullptr), 1);
  sh_lock_release(lock, nullptr, nullptr);
}

TEST_P(BatchClientTest, HandlesMayBeClosedBeforeTheBatchIsRun) {
  const BatchPtr batch = Begin();
  {
    const DictPtr dict = Open("d");
    ASSERT_EQ(sh_batch_dict_increment(batch.get(), dict.get(), sh_text("n"), sh_int(3), nullptr,
                                      nullptr, nullptr),
              SH_OK);
    const AreaPtr area = OpenArea("a", 64);
    ASSERT_EQ(sh_batch_area_store(batch.get(), area.get(), SH_U64, 0, 5, 0, nullptr, nullptr),
              SH_OK);
  }
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  const DictPtr dict = Open("d");
  EXPECT_EQ(Get(dict.get(), "n"), "3");
}

TEST_P(BatchClientTest, AFullBatchRefusesOneMoreAndGoesInOrder) {
  const DictPtr dict = Open("d");
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  for (size_t i = 0; i < SH_BATCH_OPERATIONS_MAX; ++i) {
    ASSERT_EQ(
        sh_batch_dict_increment(b, dict.get(), sh_text("n"), sh_int(1), nullptr, nullptr, nullptr),
        SH_OK);
  }
  sh_error* error = nullptr;
  EXPECT_EQ(sh_batch_dict_get(b, dict.get(), sh_text("n"), nullptr, &error), SH_LIMIT_EXCEEDED);
  EXPECT_NE(std::string(sh_error_message(error)).find("65536"), std::string::npos);
  sh_error_free(error);
  EXPECT_EQ(sh_batch_count(b), size_t{SH_BATCH_OPERATIONS_MAX});
  ASSERT_EQ(RunAll(b), SH_OK);
  sh_number sum{};
  for (const size_t at : {size_t{0}, size_t{4095}, size_t{4096}, size_t{65535}}) {
    ASSERT_EQ(sh_batch_result_number(b, at, &sum, nullptr, nullptr), SH_OK);
    EXPECT_EQ(sum.integer, static_cast<int64_t>(at) + 1);
  }
}

TEST_P(BatchClientTest, ABatchHoldsSoManyBytesAndNoMore) {
  const AreaPtr area = OpenArea("a", 1 << 20);
  const BatchPtr batch = Begin();
  sh_batch* const b = batch.get();
  const std::string bytes(SH_BATCH_RANGE_BYTES_MAX + 1, 'x');
  EXPECT_EQ(sh_batch_area_read(b, area.get(), 0, SH_BATCH_RANGE_BYTES_MAX, nullptr, nullptr),
            SH_OK);
  EXPECT_EQ(sh_batch_area_read(b, area.get(), 0, SH_BATCH_RANGE_BYTES_MAX + 1, nullptr, nullptr),
            SH_LIMIT_EXCEEDED);
  EXPECT_EQ(sh_batch_area_write(b, area.get(), 0, bytes.data(), bytes.size(), 0, nullptr, nullptr),
            SH_LIMIT_EXCEEDED);
  // 63 of them, each with its head, leave less than a megabyte.
  for (int i = 0; i < 63; ++i) {
    ASSERT_EQ(sh_batch_area_write(b, area.get(), 0, bytes.data(), SH_BATCH_RANGE_BYTES_MAX, 0,
                                  nullptr, nullptr),
              SH_OK);
  }
  EXPECT_EQ(sh_batch_area_write(b, area.get(), 0, bytes.data(), SH_BATCH_RANGE_BYTES_MAX, 0,
                                nullptr, nullptr),
            SH_LIMIT_EXCEEDED);
  EXPECT_EQ(sh_batch_count(b), 64u);
  EXPECT_EQ(sh_batch_area_add(b, area.get(), SH_U8, 0, 1, 0, nullptr, nullptr), SH_OK);
  ASSERT_EQ(RunAll(b), SH_OK);
  uint64_t word = 0;
  ASSERT_EQ(sh_batch_result_word(b, 64, &word, nullptr), SH_OK);
  EXPECT_EQ(word, uint64_t{'x'} + 1);
}

TEST_P(BatchClientTest, MoreDictsThanAMessageNamesAreWrittenOut) {
  const BatchPtr batch = Begin();
  std::vector<DictPtr> dicts;
  for (int i = 0; i < 66; ++i) {
    dicts.push_back(Open(("d" + std::to_string(i)).c_str()));
    ASSERT_EQ(sh_batch_dict_increment(batch.get(), dicts.back().get(), sh_text("n"), sh_int(i),
                                      nullptr, nullptr, nullptr),
              SH_OK);
  }
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  for (const int i : {0, 63, 64, 65}) {
    EXPECT_EQ(Get(dicts[static_cast<size_t>(i)].get(), "n"), std::to_string(i));
  }
}

TEST_P(BatchClientTest, AReadOnlyTokenReadsAndItsMutationsAreRefused) {
  const DictPtr owner = Open("d");
  ASSERT_EQ(Set(owner.get(), "k", "1"), SH_OK);
  const ClientPtr client = Connect(AddToken("dict:*:read"));
  const DictPtr reader = Open(client.get(), "d", nullptr);
  sh_batch* batch = nullptr;
  ASSERT_EQ(sh_batch_begin(client.get(), nullptr, &batch, nullptr), SH_OK);
  const BatchPtr owned(batch);
  ASSERT_EQ(sh_batch_dict_get(batch, reader.get(), sh_text("k"), nullptr, nullptr), SH_OK);
  ASSERT_EQ(sh_batch_dict_increment(batch, reader.get(), sh_text("k"), sh_int(1), nullptr, nullptr,
                                    nullptr),
            SH_OK);
  size_t failed = 0;
  const sh_reason reason = sh_batch_run(batch, &failed, nullptr);
  EXPECT_TRUE(reason == SH_READ_ONLY || reason == SH_PERMISSION_DENIED) << sh_reason_name(reason);
  EXPECT_EQ(failed, 1u);
  const sh_entry* entry = nullptr;
  ASSERT_EQ(sh_batch_result_entry(batch, 0, &entry, nullptr), SH_OK);
  EXPECT_EQ(Json(entry->value), "1");
  EXPECT_EQ(Get(owner.get(), "k"), "1");
}

INSTANTIATE_TEST_SUITE_P(Doors, BatchClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
