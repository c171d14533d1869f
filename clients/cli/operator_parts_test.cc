// The parts of top, latency and bench that need no service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "clients/cli/bench_load.h"
#include "clients/cli/histogram.h"
#include "clients/cli/hot_counter.h"
#include "clients/cli/metrics_text.h"
#include "clients/cli/percentiles.h"
#include "clients/cli/quantity.h"
#include "clients/cli/ranking.h"
#include "clients/cli/terminal_text.h"
#include "clients/cli/top_model.h"
#include "clients/cli/watch_line.h"

namespace statehouse::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HistogramTest, PercentilesAreRightWithinTheWidthOfABucket) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Histogram histogram;
  std::vector<uint64_t> values;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(random() >> (random() % 64));
    histogram.Record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const auto rank = std::max<size_t>(
        1,
        static_cast<size_t>(std::ceil(percent * static_cast<double>(values.size()) / 100 - 1e-6)));
    const uint64_t exact = values[rank - 1];
    const uint64_t told = histogram.Percentile(percent);
    EXPECT_GE(told, exact) << percent;
    EXPECT_LE(static_cast<double>(told), static_cast<double>(exact) * (1 + 1.0 / 128)) << percent;
  }
  EXPECT_EQ(histogram.min(), values.front());
  EXPECT_EQ(histogram.max(), values.back());
  EXPECT_EQ(histogram.count(), values.size());
}

TEST(HistogramTest, SmallValuesAndEndsAreExact) {
  Histogram histogram;
  EXPECT_EQ(histogram.Percentile(50), 0u);
  EXPECT_EQ(histogram.min(), 0u);
  EXPECT_EQ(histogram.mean(), 0);
  for (uint64_t i = 1; i <= 100; ++i) histogram.Record(i);
  EXPECT_EQ(histogram.Percentile(50), 50u);
  EXPECT_EQ(histogram.Percentile(99), 99u);
  EXPECT_EQ(histogram.Percentile(99.9), 100u);
  EXPECT_EQ(histogram.mean(), 50.5);
  histogram.Record(0);
  histogram.Record(UINT64_MAX);
  EXPECT_EQ(histogram.Percentile(0), 0u);
  EXPECT_EQ(histogram.Percentile(100), UINT64_MAX);
  Histogram thousand;
  for (int i = 0; i < 999; ++i) thousand.Record(1);
  thousand.Record(100);
  EXPECT_EQ(thousand.Percentile(99.9), 1u);
  EXPECT_EQ(thousand.Percentile(99.95), 100u);
}

TEST(HistogramTest, AddIsAsIfOneHadRecordedAll) {
  Histogram one;
  Histogram two;
  Histogram all;
  for (uint64_t i = 0; i < 1000; ++i) {
    (i % 2 == 0 ? one : two).Record(i * i);
    all.Record(i * i);
  }
  one.Add(two);
  for (const double percent : {1.0, 50.0, 99.0, 100.0}) {
    EXPECT_EQ(one.Percentile(percent), all.Percentile(percent));
  }
  EXPECT_EQ(one.count(), 1000u);
  EXPECT_EQ(one.min(), all.min());
  EXPECT_EQ(one.mean(), all.mean());
}

TEST(RankingTest, KeepsTheHighestAndEachNameOnce) {
  Ranking ranking(3);
  const struct {
    const char* key;
    uint64_t number;
  } offers[] = {{"c", 5}, {"a", 5}, {"low", 1}, {"b", 5}, {"high", 9}, {"a", 5}, {"a", 4}};
  for (const auto& offer : offers) ranking.Offer({"d", offer.key}, offer.number);
  EXPECT_THAT(ranking.Sorted(),
              ElementsAre(Ranked{{"d", "high"}, 9}, Ranked{{"d", "a"}, 5}, Ranked{{"d", "b"}, 5}));
  ranking.Offer({"d", "a"}, 12);
  EXPECT_EQ(ranking.Sorted().front(), (Ranked{{"d", "a"}, 12}));
  EXPECT_EQ(ranking.Sorted().size(), 3u);
  ranking.Offer({"other", "a"}, 11);
  EXPECT_THAT(ranking.Sorted(), ElementsAre(Ranked{{"d", "a"}, 12}, Ranked{{"other", "a"}, 11},
                                            Ranked{{"d", "high"}, 9}));
}

TEST(KeyCountsTest, CountsUpToItsLimitAndSumsUpTheRest) {
  KeyCounts counts(2);
  for (const char* const key : {"a", "b", "b", "c", "b", "a", "d"}) counts.Count({"d", key});
  EXPECT_EQ(counts.total(), 7u);
  EXPECT_EQ(counts.keys(), 2u);
  EXPECT_EQ(counts.uncounted(), 2u);
  EXPECT_THAT(counts.Hottest(5), ElementsAre(Ranked{{"d", "b"}, 3}, Ranked{{"d", "a"}, 2}));
  EXPECT_THAT(counts.Hottest(1), ElementsAre(Ranked{{"d", "b"}, 3}));
}

TEST(HotCounterTest, WhatChangedBeforeTheMeasuredTimeIsNotCounted) {
  HotCounter counter;
  sh_watch_event event{};
  event.kind = SH_WATCH_PUT;
  event.key = {"k", 1};
  sh_watch_event resync{};
  resync.kind = SH_WATCH_RESYNC;
  EXPECT_FALSE(counter.Take("d", event));
  EXPECT_FALSE(counter.Take("d", resync));
  EXPECT_EQ(counter.counts().total(), 0u);
  EXPECT_EQ(counter.resyncs(), 0u);

  counter.Began();
  counter.Take("d", event);
  counter.Take("d", resync);
  event.kind = SH_WATCH_ENTRY;
  counter.Take("d", event);
  EXPECT_THAT(counter.counts().Hottest(5), ElementsAre(Ranked{{"d", "k"}, 1}));
  EXPECT_EQ(counter.resyncs(), 1u);
}

TEST(PercentilesTest, WhatTooFewSamplesCannotTellIsNotTold) {
  Histogram histogram;
  EXPECT_FALSE(PercentilesJson(histogram, 1).contains("max"));
  EXPECT_THAT(PercentilesRow(histogram, 1, 1), ::testing::Not(HasSubstr("0.00")));
  for (uint64_t i = 1; i < 100; ++i) histogram.Record(i * 100);
  EXPECT_TRUE(PercentilesJson(histogram, 1)["p99"].is_null());
  EXPECT_FALSE(PercentilesJson(histogram, 1)["p90"].is_null());
  histogram.Record(10'000);
  const nlohmann::ordered_json json = PercentilesJson(histogram, 100);
  EXPECT_EQ(json["count"], 100);
  EXPECT_EQ(json["min"], 1.0);
  EXPECT_EQ(json["max"], 100.0);
  EXPECT_NEAR(json["p99"].get<double>(), 99, 1);
  EXPECT_TRUE(json["p99.9"].is_null());
  const std::string row = PercentilesRow(histogram, 1, 1000);
  EXPECT_EQ(row.size(), PercentilesTitle().size());
  EXPECT_THAT(row, HasSubstr(" 10.00"));
  EXPECT_THAT(row, HasSubstr(" - "));
}

TEST(BenchScheduleTest, TheConnectionsTakeTurnsAtEvenTimesWhateverBecomesOfOne) {
  const BenchSchedule::Clock::time_point begin{};
  std::vector<int64_t> due_us;
  for (uint32_t connection = 0; connection < 4; ++connection) {
    BenchSchedule schedule(begin, 1000, connection, 4);
    for (int i = 0; i < 3; ++i) {
      due_us.push_back(
          std::chrono::duration_cast<std::chrono::microseconds>(schedule.Next() - begin).count());
    }
  }
  EXPECT_THAT(due_us,
              ElementsAre(0, 4000, 8000, 1000, 5000, 9000, 2000, 6000, 10000, 3000, 7000, 11000));
}

TEST(QuantityTextTest, BytesForPeople) {
  EXPECT_EQ(FormatByteCount(0), "0 B");
  EXPECT_EQ(FormatByteCount(1023), "1023 B");
  EXPECT_EQ(FormatByteCount(1024), "1.0 KiB");
  EXPECT_EQ(FormatByteCount(1536), "1.5 KiB");
  EXPECT_EQ(FormatByteCount((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(FormatByteCount(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(FormatByteCount(UINT64_MAX), "16.0 EiB");
}

TEST(MetricsTextTest, SamplesWithLabelsAndOthersLines) {
  const std::vector<MetricSample> samples = ParseMetrics(
      "# HELP x words\n# TYPE x counter\nx 5\nx{a=\"1\",b=\"two \\\"q\\\" \\\\ \\n\"} 2.5\n"
      "y{} +Inf\nbad\nbad{a=\"1\nbad{a=1} 2\nz{a=\"1\"} x\n\nlast 1e3 1700000000");
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].name, "x");
  EXPECT_EQ(samples[0].value, 5);
  EXPECT_EQ(samples[1].labels.at("a"), "1");
  EXPECT_EQ(samples[1].labels.at("b"), "two \"q\" \\ \n");
  EXPECT_EQ(samples[1].value, 2.5);
  EXPECT_TRUE(std::isinf(samples[2].value));
  EXPECT_EQ(samples[3].name, "last");
  EXPECT_EQ(samples[3].value, 1000);
  EXPECT_TRUE(ParseMetrics("").empty());
}

TEST(MetricsTextTest, DamagedTextIsPassedOver) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string sound = "m{door=\"local\",reason=\"OK\"} 12\n";
  for (int i = 0; i < 20'000; ++i) {
    std::string text = sound;
    for (uint64_t edits = random() % 4; edits > 0; --edits) {
      const size_t at = random() % (text.size() + 1);
      text.insert(at, 1, "{}\",=\\\n 1"[random() % 9]);
      text.erase(random() % text.size(), random() % 3);
      if (text.empty()) text = "{";
    }
    const size_t lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
    EXPECT_LE(ParseMetrics(text).size(), lines) << text;
  }
}

TEST(TerminalTextTest, ControlCharactersAreShownAndAllElseStays) {
  const struct {
    std::string_view text;
    std::string_view shown;
  } cases[] = {
      {"", ""},
      {"plain \\ \"text\" ~", "plain \\ \"text\" ~"},
      {"\x1b[2J\n\t\r", "\\u001b[2J\\u000a\\u0009\\u000d"},
      {std::string_view("\0\x1f \x7e\x7f", 5), "\\u0000\\u001f ~\\u007f"},
      {"\u0080\u009b\u009f\u00a0", "\\u0080\\u009b\\u009f\u00a0"},  // C1, up to its end.
      {"\u00e4\u07ff\u20ac\U0001f600", "\u00e4\u07ff\u20ac\U0001f600"},
      {"\x9b\xe4 \xe2\x82", "\\x9b\\xe4 \\xe2\\x82"},  // No UTF-8: C1 to some terminals.
      {"\xc0\x8a\xed\xa0\x80", "\\xc0\\x8a\\xed\\xa0\\x80"},
  };
  for (const auto& one : cases) EXPECT_EQ(Visible(one.text), one.shown);
}

TEST(TerminalTextTest, WhatIsCutEndsWithACharacter) {
  const std::string text = "a\u00e4\u20ac\U0001f600";  // 1, 2, 3 and 4 bytes.
  const size_t ends[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (size_t bytes_max = 0; bytes_max < std::size(ends); ++bytes_max) {
    EXPECT_EQ(CutAtCharacter(text, bytes_max), text.substr(0, ends[bytes_max])) << bytes_max;
  }
  EXPECT_EQ(CutAtCharacter("\x80\x80", 1), "") << "it never was a character";
}

TEST(WatchLineTest, KeysAndValuesForgeNoLineAndCommandNoTerminal) {
  const Told told{.dict = "d",
                  .kind = "put",
                  .key = "k\x1b[2J\nd\tdelete\tother\u009b",
                  .value = "\"\x7f\\n\"",
                  .previous = "\"\u0085\"",
                  .revision = 7,
                  .has_key = true};
  EXPECT_EQ(LineOf(told, false),
            "d\tput\tk\\u001b[2J\\u000ad\\u0009delete\\u0009other\\u009b\t\"\\u007f\\n\""
            "\twas \"\\u0085\"\t(revision 7)");
  const nlohmann::json line = nlohmann::json::parse(LineOf(told, true));
  EXPECT_EQ(line["key"], told.key) << "for programs it is the key itself";
  EXPECT_EQ(line["value"], "\x7f\n");
}

v1::Dict DictOf(uint32_t index, const std::string& name, uint64_t revision, uint64_t bytes) {
  v1::Dict dict;
  dict.set_index(index);
  dict.set_name(name);
  dict.set_revision(revision);
  dict.set_memory_bytes(bytes);
  return dict;
}

sh_area_info AreaOf(uint32_t index, const char* name, uint64_t updates) {
  sh_area_info area{};
  area.index = index;
  area.updates = updates;
  std::strncpy(area.name, name, sizeof area.name - 1);
  return area;
}

MetricSample CallsOf(const char* method, const char* reason, double value) {
  return {
      "statehouse_calls_total", {{"door", "local"}, {"method", method}, {"reason", reason}}, value};
}

// Two looks that are two seconds apart.
struct Looks {
  TopLook before;
  TopLook now;
  Looks() { now.time = before.time + std::chrono::seconds(2); }
};

TEST(TopModelTest, RatesAreOfWhatWasThereBefore) {
  Looks looks;
  looks.before.dicts = {DictOf(1, "quiet", 7, 900), DictOf(2, "busy", 100, 10),
                        DictOf(3, "anew", 50, 5)};
  looks.now.dicts = {DictOf(1, "quiet", 7, 900), DictOf(2, "busy", 300, 10),
                     DictOf(4, "anew", 9, 5)};
  looks.before.areas = {AreaOf(0, "a", 10), AreaOf(1, "b", 10)};
  looks.now.areas = {AreaOf(0, "a", 11), AreaOf(1, "b", 50)};

  const TopView view = Compare(looks.before, looks.now);
  ASSERT_EQ(view.dicts.size(), 3u);
  EXPECT_EQ(view.dicts[0].name, "busy");
  EXPECT_EQ(view.dicts[0].changes, 100.0);
  EXPECT_EQ(view.dicts[1].name, "quiet") << "of two that rest, the larger";
  EXPECT_EQ(view.dicts[1].changes, 0.0);
  EXPECT_EQ(view.dicts[2].changes, std::nullopt) << "another dict of that name";
  ASSERT_EQ(view.areas.size(), 2u);
  EXPECT_EQ(view.areas[0].name, "b");
  EXPECT_EQ(view.areas[0].updates, 20.0);
  EXPECT_FALSE(view.methods.has_value());
  EXPECT_FALSE(ToJson(view).contains("calls"));
  EXPECT_TRUE(ToJson(view)["dicts"][2]["changes_per_s"].is_null());
}

TEST(TopModelTest, CallsAndErrorsBySecondAlsoOverARestart) {
  Looks looks;
  looks.before.metrics = {{CallsOf("/x", "OK", 100), CallsOf("/y", "OK", 1000)}};
  looks.now.metrics = {{CallsOf("/x", "OK", 120),
                        CallsOf("/x", "TIMEOUT", 4),
                        CallsOf("/y", "OK", 6),
                        {"other", {}, 5}}};
  const TopView view = Compare(looks.before, looks.now);
  ASSERT_TRUE(view.methods.has_value());
  ASSERT_EQ(view.methods->size(), 2u);
  EXPECT_EQ((*view.methods)[0].method, "/x");
  EXPECT_EQ((*view.methods)[0].calls, 12.0);
  EXPECT_EQ((*view.methods)[0].errors, 2.0);
  EXPECT_EQ((*view.methods)[1].calls, 3.0) << "it counts from 0 again";
}

TEST(TopModelTest, TablesFitTheScreen) {
  Looks looks;
  for (uint32_t i = 0; i < 100; ++i) {
    looks.now.dicts.push_back(DictOf(i, "dict-" + std::to_string(i), 1, 1));
    looks.now.areas.push_back(AreaOf(i, "area", 1));
  }
  looks.now.locks = {{"free", 1, 1, 0, "x"}, {"wanted", 1, 1, 5, "y"}};
  const TopView view = Compare(looks.before, looks.now);
  EXPECT_EQ(view.locks[0].name, "wanted");
  const std::vector<std::string> all = ToLines(view, 0, 0);
  EXPECT_EQ(all.size(), 3u + 102 + 102 + 4);
  EXPECT_THAT(all[4], HasSubstr("CHANGES/S"));
  for (const size_t lines : {1u, 5u, 24u, 60u}) {
    const std::vector<std::string> cut = ToLines(view, lines, 40);
    EXPECT_LE(cut.size(), lines);
    for (const std::string& line : cut) EXPECT_LE(line.size(), 40u);
  }
  const std::vector<std::string> screen = ToLines(view, 24, 80);
  EXPECT_THAT(screen, ::testing::Contains(HasSubstr("more")));
  EXPECT_THAT(screen, ::testing::Contains(HasSubstr("wanted"))) << "each table has its part";
}

TEST(TopModelTest, OwnersAreShownEscaped) {
  Looks looks;
  looks.now.locks = {{"held", 1, 1, 0, "me\x1b]0;you\a\nstatehouse"}};
  const TopView view = Compare(looks.before, looks.now);
  EXPECT_THAT(ToLines(view, 0, 0),
              ::testing::Contains(HasSubstr("me\\u001b]0;you\\u0007\\u000astatehouse")));
  EXPECT_EQ(ToJson(view)["locks"][0]["owner"], looks.now.locks[0].owner);
}

TEST(TopModelTest, NoLineEndsInsideACharacter) {
  Looks looks;
  std::string name = "x";
  for (int i = 0; i < 250; ++i) name += "\u20ac";
  looks.now.dicts = {DictOf(0, name, 1, 1)};
  const TopView view = Compare(looks.before, looks.now);
  EXPECT_THAT(ToLines(view, 0, 0), ::testing::Contains(HasSubstr(name + " "))) << "nothing cut";
  const std::vector<std::string> cut = ToLines(view, 0, 80);
  EXPECT_THAT(cut, ::testing::Contains(name.substr(0, 79)));  // The 81st byte is inside one.
}

}  // namespace
}  // namespace statehouse::cli
