#include "service/metrics/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>
#include <vector>

#include "service/metrics/process_numbers.h"

namespace statehouse {
namespace {

using std::chrono::microseconds;

// A vault that keeps nothing: these tests restart no daemon.
class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    metrics_ = NewMetrics(engine_.get(), {"/a/One", "/a/Two"}, "1.2.3");
  }
  void ExpectLine(const std::string& line) {
    const std::string text = metrics_->Scrape();
    EXPECT_NE(("\n" + text).find("\n" + line + "\n"), std::string::npos) << line << "\nis not in\n"
                                                                         << text;
  }

  NoVault vault_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Metrics> metrics_;
};

TEST_F(MetricsTest, CallsAreCountedByDoorMethodAndReason) {
  metrics_->OnCall(Door::kNetwork, "/a/One", Reason::kOk, microseconds(20));
  metrics_->OnCall(Door::kNetwork, "/a/One", Reason::kOk, microseconds(20));
  metrics_->OnCall(Door::kLocal, "/a/Two", Reason::kStalled, microseconds(20));

  ExpectLine("statehouse_calls_total{door=\"network\",method=\"/a/One\",reason=\"OK\"} 2");
  ExpectLine("statehouse_calls_total{door=\"local\",method=\"/a/Two\",reason=\"STALLED\"} 1");
}

TEST_F(MetricsTest, ConnectionsAreCounted) {
  metrics_->OnConnectionOpen(+1);
  metrics_->OnConnectionOpen(+1);
  metrics_->OnConnectionOpen(-1);
  metrics_->OnConnectionRefused();

  ExpectLine("statehouse_connections 1");
  ExpectLine("statehouse_connections_refused_total 1");
}

TEST_F(MetricsTest, TheProcessIsWhatTheKernelSays) {
  const ProcessNumbers before = ReadProcessNumbers();
  EXPECT_GT(before.cpu_seconds, 0);
  EXPECT_GT(before.descriptors_max, before.open_descriptors);
  constexpr size_t kBytes = 64 << 20;
  std::vector<char> touched(kBytes, 'x');
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);

  const ProcessNumbers after = ReadProcessNumbers();

  EXPECT_GE(after.resident_bytes, before.resident_bytes + kBytes / 2);
  EXPECT_LT(after.resident_bytes, before.resident_bytes + kBytes * 2);
  EXPECT_EQ(after.open_descriptors, before.open_descriptors + 2);
  EXPECT_GT(after.cpu_seconds, before.cpu_seconds);
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(touched[kBytes - 1], 'x');
}

TEST_F(MetricsTest, AMethodThatIsNotKnownMakesNoNewSeries) {
  metrics_->OnCall(Door::kNetwork, "/evil/1", Reason::kUnimplemented, microseconds(1));
  metrics_->OnCall(Door::kNetwork, "/evil/2", Reason::kUnimplemented, microseconds(1));

  ExpectLine(
      "statehouse_calls_total{door=\"network\",method=\"unknown\",reason=\"UNIMPLEMENTED\"} 2");
  EXPECT_EQ(metrics_->Scrape().find("evil"), std::string::npos);
}

TEST_F(MetricsTest, DurationsFallIntoTheBucketWhoseBoundTheyDoNotExceed) {
  metrics_->OnCall(Door::kNetwork, "/a/One", Reason::kOk, microseconds(10));
  metrics_->OnCall(Door::kNetwork, "/a/One", Reason::kOk, microseconds(11));
  metrics_->OnCall(Door::kNetwork, "/a/One", Reason::kOk, std::chrono::seconds(11));

  const std::string labels = "{door=\"network\",method=\"/a/One\",le=";
  ExpectLine("statehouse_call_duration_seconds_bucket" + labels + "\"1e-05\"} 1");
  ExpectLine("statehouse_call_duration_seconds_bucket" + labels + "\"2.5e-05\"} 2");
  ExpectLine("statehouse_call_duration_seconds_bucket" + labels + "\"10\"} 2");
  ExpectLine("statehouse_call_duration_seconds_bucket" + labels + "\"+Inf\"} 3");
  ExpectLine("statehouse_call_duration_seconds_count{door=\"network\",method=\"/a/One\"} 3");
}

TEST_F(MetricsTest, TheEngineIsReadWhenScraped) {
  ExpectLine("statehouse_areas 0");
  AreaSpec spec;
  spec.name = "x";
  spec.size = 4096;
  auto created = engine_->CreateArea(std::move(spec));
  ASSERT_TRUE(created.ok()) << created.status().ToString();
  ASSERT_TRUE(created->area->area().Store(engine_->DaemonLane(0), WordType::kU8, 0, 1).ok());

  ExpectLine("statehouse_areas 1");
  ExpectLine("statehouse_generation 1");
  ExpectLine("statehouse_area_mutations_total{origin=\"daemon\"} 1");
  ExpectLine("statehouse_area_mutations_total{origin=\"worker\"} 0");
}

TEST_F(MetricsTest, TheMemoryOfAreasAndDictsIsOneGauge) {
  const auto gauge = [this](const std::string& name) {
    const std::string text = "\n" + metrics_->Scrape();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1.0
                                   : std::strtod(text.c_str() + at + name.size() + 2, nullptr);
  };
  EXPECT_EQ(gauge("statehouse_memory_bytes"), 0);
  EXPECT_EQ(gauge("statehouse_memory_limit_bytes"), 0);
  AreaSpec spec;
  spec.name = "x";
  spec.size = 1 << 20;
  ASSERT_TRUE(engine_->CreateArea(std::move(spec)).ok());
  DictSpec dict;
  dict.name = "d";
  const auto made = engine_->dicts().Create(dict);
  ASSERT_TRUE(made.ok());
  const double before = gauge("statehouse_memory_bytes");
  EXPECT_GT(before, 1 << 20);

  // 400 blocks of 10,240 bytes in slabs of six.
  const std::string value(10'000, 'v');
  DictResult result;
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(made->dict->dict()
                    .Set(engine_->DaemonLane(0), "k" + std::to_string(i), DictValue::Bytes(value),
                         {}, &result)
                    .ok());
  }

  const double grown = gauge("statehouse_memory_bytes") - before;
  EXPECT_GE(grown, 4'000'000);
  EXPECT_LE(grown, 4'600'000);
  ASSERT_TRUE(engine_->dicts().Delete("d").ok());
  ASSERT_TRUE(engine_->DeleteArea("x").ok());
  EXPECT_EQ(gauge("statehouse_memory_bytes"), 0);
}

TEST_F(MetricsTest, FailuresOfAuthenticationAndAttachmentsAreCounted) {
  metrics_->OnAuthFailure(Door::kLocal, Reason::kTokenExpired);
  metrics_->OnAttach(+1);
  metrics_->OnAttach(+1);
  metrics_->OnAttach(-1);

  ExpectLine("statehouse_authentication_failures_total{door=\"local\",reason=\"TOKEN_EXPIRED\"} 1");
  ExpectLine("statehouse_attached_workers 1");
  ExpectLine("statehouse_attachments_total 2");
  ExpectLine("statehouse_build_info{version=\"1.2.3\"} 1");
}

TEST_F(MetricsTest, LocksAndSessionsAreReadWhenScraped) {
  LeaseNumbers numbers;
  numbers.holding = 3;
  numbers.grants = 7;
  numbers.sessions = 2;
  numbers.session_ends = {{"closed", 0}, {"expired", 4}};
  metrics_ = NewMetrics(engine_.get(), {}, "1.2.3", [&numbers] { return numbers; });
  numbers.waiting = 5;

  ExpectLine("statehouse_locks_held 3");
  ExpectLine("statehouse_lock_waiters 5");
  ExpectLine("statehouse_lock_grants_total 7");
  ExpectLine("statehouse_sessions 2");
  ExpectLine("statehouse_session_ends_total{reason=\"closed\"} 0");
  ExpectLine("statehouse_session_ends_total{reason=\"expired\"} 4");
}

TEST_F(MetricsTest, NothingIsLostBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 10'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this] {
      for (int call = 0; call < kCalls; ++call) {
        metrics_->OnCall(Door::kNetwork, "/a/Two", Reason::kOk, microseconds(1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  ExpectLine("statehouse_calls_total{door=\"network\",method=\"/a/Two\",reason=\"OK\"} 40000");
}

TEST_F(MetricsTest, TheEndOfTheCertificateIsAMetric) {
  ExpectLine("statehouse_tls_certificate_expiry_seconds 0");
  metrics_->OnCertificate(86'400);
  ExpectLine("statehouse_tls_certificate_expiry_seconds 86400");
}

TEST_F(MetricsTest, RefusedTlsFilesAreAMetric) {
  ExpectLine("statehouse_tls_files_refused 0");
  metrics_->OnTlsFilesRefused(true);
  ExpectLine("statehouse_tls_files_refused 1");
  metrics_->OnTlsFilesRefused(false);
  ExpectLine("statehouse_tls_files_refused 0");
}

}  // namespace
}  // namespace statehouse
