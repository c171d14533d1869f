// The parts of top that need no service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "clients/cli/metrics_text.h"
#include "clients/cli/quantity.h"
#include "clients/cli/top_model.h"

namespace statehouse::cli {
namespace {

using ::testing::HasSubstr;

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

}  // namespace
}  // namespace statehouse::cli
