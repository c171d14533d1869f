// What the log says of calls, and what it does not.
#include "service/api/call_log.h"

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <sstream>

#include "service/api/api_test_support.h"
#include "service/log.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/lock.pb.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

// Whatever is logged while it lives.
class CapturedLog {
 public:
  CapturedLog() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~CapturedLog() { spdlog::set_default_logger(before_); }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  const std::shared_ptr<spdlog::logger> before_;
};

LoggedCall Call(std::string_view method, std::string_view name) {
  return {Door::kNetwork, method, name, "testtest", "10.0.0.7:5", Reason::kOk, milliseconds(1234)};
}

TEST(CallLogTest, ASlowCallIsSaidWithWhoAndWhatAndHowLong) {
  const CapturedLog log;
  CallLog calls;
  calls.Slow(Call("/statehouse.v1.Dicts/ScanEntries", "web\n\x1b[2J\xff\"x\\"), 7);
  EXPECT_EQ(
      log.text(),
      "warning slow call: Dicts/ScanEntries \"web??[2J??x?\" by token testtest at the network "
      "door from 10.0.0.7:5 took 1234 ms: OK\n");
}

TEST(CallLogTest, WhatIsSlowIsASetting) {
  CallLog calls;
  EXPECT_FALSE(calls.IsSlow(milliseconds(kSlowCallMsDefault - 1)));
  EXPECT_TRUE(calls.IsSlow(milliseconds(kSlowCallMsDefault)));
  calls.SetSlowCall(milliseconds(5));
  EXPECT_TRUE(calls.IsSlow(milliseconds(5)));
  calls.SetSlowCall(milliseconds(0));
  EXPECT_FALSE(calls.IsSlow(std::chrono::hours(1)));
  EXPECT_FALSE(calls.looks_for_slow());
  EXPECT_TRUE(CallLog::Waits("/statehouse.v1.Locks/AcquireLock"));
  EXPECT_FALSE(CallLog::Waits("/statehouse.v1.Dicts/ScanEntries"));
}

TEST(CallLogTest, AFloodOfSlowCallsIsCountedInsteadOfWritten) {
  const CapturedLog log;
  CallLog calls;
  for (uint32_t i = 0; i < kCallLinesMax + 5; ++i) calls.Slow(Call("/x", ""), 7);
  std::string text = log.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), kCallLinesMax);
  calls.Slow(Call("/x", ""), 8);
  EXPECT_THAT(log.text(), HasSubstr("5 more slow calls were not logged one by one"));
}

class AuditTest : public testing::Test {
 protected:
  void Create(const char* name) {
    v1::CreateAreaRequest request;
    request.set_name(name);
    request.set_size(64);
    (void)service_.Call<v1::CreateAreaResponse>("/statehouse.v1.Areas/CreateArea", request);
  }

  const CapturedLog log_;
  TestService service_;
};

TEST_F(AuditTest, SaysWhoMadeAndRemovedObjectsAndWhoWasRefused) {
  Create("one");
  v1::DeleteAreaRequest remove;
  remove.set_name("one");
  EXPECT_EQ(service_
                .CallAs<v1::DeleteAreaResponse>(IdentityOf({"area:*:read"}, "nobody12"),
                                                "/statehouse.v1.Areas/DeleteArea", remove)
                .status()
                .reason(),
            Reason::kPermissionDenied);
  v1::ReadAreaRequest read;
  read.set_name("one");
  read.set_len(8);
  EXPECT_TRUE(service_.Call<v1::ReadAreaResponse>("/statehouse.v1.Areas/ReadArea", read).ok());
  EXPECT_THAT(log_.text(),
              HasSubstr("info audit: Areas/CreateArea \"one\" by token testtest at the "
                        "network door from 10.0.0.7:5: OK"));
  EXPECT_THAT(log_.text(),
              HasSubstr("info audit: Areas/DeleteArea \"one\" by token nobody12 at the "
                        "network door from 10.0.0.7:5: PERMISSION_DENIED"));
  EXPECT_THAT(log_.text(), Not(HasSubstr("ReadArea")));
}

TEST_F(AuditTest, AnOperationOfABatchIsAuditedAsItsCall) {
  v1::RunBatchRequest batch;
  batch.mutable_batch()->add_operations()->mutable_create_dict()->set_name("d");
  v1::EntrySet* const set = batch.mutable_batch()->add_operations()->mutable_set();
  batch.mutable_batch()->add_names("d");
  set->set_key("secret key");
  set->mutable_value()->set_string_value("secret value");
  const auto done = service_.Call<v1::RunBatchResponse>("/statehouse.v1.Batches/RunBatch", batch);
  ASSERT_TRUE(done.ok()) << done.status().ToString();
  EXPECT_THAT(log_.text(), HasSubstr("info audit: Dicts/CreateDict \"d\" by token testtest at the "
                                     "network door from 10.0.0.7:5: OK"));
  EXPECT_THAT(log_.text(), Not(HasSubstr("secret")));
}

TEST_F(AuditTest, NamesWhatIsDoneAndNotWhatIsSaid) {
  Create("victim");
  // Two names, of which a decoder takes the second, behind a field that nobody knows.
  const std::string request =
      std::string("\xf8\x07\x01") + "\x0a\x08" + "harmless" + "\x0a\x06" + "victim";
  Answer answer;
  (void)service_.Send("/statehouse.v1.Areas/DeleteArea", request, &answer);
  ASSERT_TRUE(answer.Await().ok());
  EXPECT_THAT(log_.text(), HasSubstr("audit: Areas/DeleteArea \"victim\" by token testtest at the "
                                     "network door from 10.0.0.7:5: OK"));
  EXPECT_THAT(log_.text(), Not(HasSubstr("harmless")));
}

TEST_F(AuditTest, AnIndexIsLoggedWithItsName) {
  Create("one");
  v1::DeleteAreaRequest remove;
  remove.set_name("#0");
  ASSERT_TRUE(
      service_.Call<v1::DeleteAreaResponse>("/statehouse.v1.Areas/DeleteArea", remove).ok());
  EXPECT_THAT(log_.text(), HasSubstr("Areas/DeleteArea \"#0 = one\" by token testtest at the "
                                     "network door from 10.0.0.7:5: OK"));
}

TEST_F(AuditTest, RefusedCallsAreNoFloodAndWhatIsDoneIsAlwaysLogged) {
  spdlog::default_logger()->set_level(spdlog::level::err);
  v1::RunBatchRequest batch;
  for (int i = 0; i < 100; ++i) {
    batch.mutable_batch()->add_operations()->mutable_delete_dict()->set_name("none");
  }
  ASSERT_TRUE(service_.Call<v1::RunBatchResponse>("/statehouse.v1.Batches/RunBatch", batch).ok());
  for (int i = 0; i < 20; ++i) Create(("a" + std::to_string(i)).c_str());
  const std::string text = log_.text();
  const auto count = [&text](const std::string& what) {
    size_t found = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++found;
    return found;
  };
  EXPECT_LE(count("Dicts/DeleteDict"), 2 * kCallLinesMax);  // Of two seconds, at most.
  EXPECT_EQ(count("Areas/CreateArea"), 20u);
}

TEST_F(AuditTest, AnEntrysLockIsLoggedWithoutTheKey) {
  v1::CreateDictRequest dict;
  for (const char* name : {"a/b", "c", "c/d"}) {
    dict.set_name(name);
    ASSERT_TRUE(
        service_.Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", dict).ok());
  }
  v1::ForceReleaseLockRequest force;
  for (const char* name : {"dict/a/b/secret", "dict/c/d/secret", "dict/gone/secret/secret",
                           "dict/plain", "dictionary/plain", "area/a/plain"}) {
    force.set_name(name);
    ASSERT_TRUE(service_
                    .CallAs<v1::ForceReleaseLockResponse>(IdentityOf({"lock:*:admin"}),
                                                          "/statehouse.v1.Locks/ForceReleaseLock",
                                                          force)
                    .ok());
  }
  for (const char* shown : {"\"dict/a/b/...\"", "\"dict/c/...\"", "\"dict/gone/...\"",
                            "\"dict/plain\"", "\"dictionary/plain\"", "\"area/a/plain\""}) {
    EXPECT_THAT(log_.text(), HasSubstr(std::string("audit: Locks/ForceReleaseLock ") + shown));
    EXPECT_THAT(log_.text(), HasSubstr(std::string("took lock ") + shown));
  }
  EXPECT_THAT(log_.text(), Not(HasSubstr("secret")));
}

TEST(AuditSettingTest, CanBeTurnedOff) {
  const CapturedLog log;
  CallLog calls;
  EXPECT_TRUE(calls.audits());
  calls.SetAudit(false);
  EXPECT_FALSE(calls.audits());
  EXPECT_TRUE(CallLog::IsAudited("/statehouse.v1.Admin/Drain"));
  EXPECT_FALSE(CallLog::IsAudited("/statehouse.v1.Dicts/SetEntry"));
}

}  // namespace
}  // namespace statehouse
