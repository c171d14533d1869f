// What the log of the real service holds, and what it never does.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <memory>
#include <string>
#include <vector>

#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "statehouse/v1/lock.grpc.pb.h"
#include "statehouse/v1/session.grpc.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr const char* kKey = "topsecretkey";
constexpr const char* kValue = "topsecretvalue";

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    DaemonOptions options;
    options.arguments = {"--log-level", "trace", "--log-format", "json"};
    options.environment = {"STATEHOUSED_LOG__SLOW_CALL_MS=1"};
    auto daemon = Daemon::Start(std::move(options));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    channel_ = grpc::CreateChannel(daemon_->tcp_address(), grpc::InsecureChannelCredentials());
    dicts_ = v1::Dicts::NewStub(channel_);
    locks_ = v1::Locks::NewStub(channel_);
  }
  grpc::ClientContext* Context(const std::string& token = "") {
    contexts_.push_back(std::make_unique<grpc::ClientContext>());
    contexts_.back()->AddMetadata("authorization",
                                  "Bearer " + (token.empty() ? daemon_->token() : token));
    contexts_.back()->set_deadline(std::chrono::system_clock::now() + kPatience);
    return contexts_.back().get();
  }
  void CreateDict() {
    v1::CreateDictRequest request;
    request.set_name("d");
    v1::CreateDictResponse response;
    ASSERT_TRUE(dicts_->CreateDict(Context(), request, &response).ok());
  }
  // With the key and the value that nobody may find in the log.
  void ChangeEntries() {
    v1::SetEntryRequest set;
    set.set_name("d");
    set.set_key(kKey);
    set.mutable_value()->set_string_value(kValue);
    v1::SetEntryResponse was_set;
    EXPECT_TRUE(dicts_->SetEntry(Context(), set, &was_set).ok());
    v1::IncrementEntryRequest add;  // Refused: it is no number.
    add.set_name("d");
    add.set_key(kKey);
    v1::IncrementEntryResponse added;
    EXPECT_FALSE(dicts_->IncrementEntry(Context(), add, &added).ok());
    set.set_key(std::string(2000, 'k') + kKey);  // Refused: it is too long.
    EXPECT_FALSE(dicts_->SetEntry(Context(), set, &was_set).ok());
    v1::RunBatchRequest batch;
    batch.mutable_batch()->add_names("d");
    auto* const get = batch.mutable_batch()->add_operations()->mutable_get_entry();
    get->set_name("d");
    get->set_key(kKey);
    v1::RunBatchResponse results;
    EXPECT_TRUE(v1::Batches::NewStub(channel_)->RunBatch(Context(), batch, &results).ok());
    v1::WatchDictRequest watch;
    watch.set_name("d");
    watch.set_key(kKey);
    v1::WatchDictResponse first;
    EXPECT_TRUE(dicts_->WatchDict(Context(), watch)->Read(&first));
    v1::DeletePrefixRequest prefix;
    prefix.set_name("d");
    prefix.set_prefix(kKey);
    v1::DeletePrefixResponse deleted;
    EXPECT_TRUE(dicts_->DeletePrefix(Context(), prefix, &deleted).ok());
  }
  void LoseTheEntrysLock() {
    v1::OpenSessionResponse session;
    const auto sessions = v1::Sessions::NewStub(channel_);
    ASSERT_TRUE(sessions->OpenSession(Context(), {}, &session).ok());
    v1::AcquireLockRequest acquire;
    acquire.set_name(std::string("dict/d/") + kKey);
    acquire.set_session_id(session.session_id());
    acquire.set_request_id(1);
    acquire.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    v1::AcquireLockResponse acquired;
    EXPECT_TRUE(locks_->AcquireLock(Context(), acquire, &acquired).ok());
    v1::ForceReleaseLockRequest force;
    force.set_name(acquire.name());
    v1::ForceReleaseLockResponse released;
    EXPECT_TRUE(locks_->ForceReleaseLock(Context(), force, &released).ok());
    EXPECT_EQ(released.released(), 1u);
    v1::CloseSessionRequest close;
    close.set_session_id(session.session_id());
    v1::CloseSessionResponse closed;
    EXPECT_TRUE(sessions->CloseSession(Context(), close, &closed).ok());
  }
  // The first line that has all of these.
  std::string LineWith(const std::vector<std::string>& parts) const {
    const std::string log = daemon_->errors();
    for (size_t begin = 0, end; (end = log.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      const std::string line = log.substr(begin, end - begin);
      bool has_all = true;
      for (const std::string& part : parts) {
        has_all = has_all && line.find(part) != std::string::npos;
      }
      if (has_all) return line;
    }
    return "";
  }

  std::unique_ptr<Daemon> daemon_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Dicts::Stub> dicts_;
  std::unique_ptr<v1::Locks::Stub> locks_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
};

TEST_F(LogTest, NoValueKeyOrTokenIsInItAtAnyLevel) {
  const std::string secret = "topsecret" + std::string(34, 'T');
  ASSERT_NO_FATAL_FAILURE(CreateDict());
  ASSERT_NO_FATAL_FAILURE(ChangeEntries());
  ASSERT_NO_FATAL_FAILURE(LoseTheEntrysLock());
  v1::GetStatusResponse status;
  const auto admin = v1::Admin::NewStub(channel_);
  EXPECT_FALSE(admin->GetStatus(Context("sh1_aaaaaaaa_" + secret), {}, &status).ok());
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon_->attach_socket()).ok());
  EXPECT_FALSE(worker.Hello("sh1_aaaaaaaa_" + secret, false).ok());
  contexts_.clear();

  daemon_->Stop();

  const std::string log = daemon_->errors();
  EXPECT_NE(log.find("Dicts/DeletePrefix"), std::string::npos) << log;
  EXPECT_NE(log.find("\"object\":\"dict/d/...\""), std::string::npos) << log;
  EXPECT_NE(log.find("refused access tokens"), std::string::npos) << log;
  EXPECT_EQ(log.find("topsecret"), std::string::npos) << log;
  EXPECT_EQ(log.find(daemon_->token().substr(13)), std::string::npos) << log;
}

TEST_F(LogTest, AnAuditLineHasFieldsForPrograms) {
  ASSERT_NO_FATAL_FAILURE(CreateDict());
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon_->attach_socket()).ok());
  ASSERT_TRUE(worker.Hello(daemon_->token(), false).ok());
  v1::CreateAreaRequest area;
  area.set_name("a");
  area.set_size(64);
  ASSERT_TRUE(worker.Call("/statehouse.v1.Areas/CreateArea", area.SerializeAsString()).ok());

  const std::string id = daemon_->token().substr(4, 8);
  const std::string remote = LineWith({"\"kind\":\"audit\"", "Dicts/CreateDict"});
  EXPECT_NE(remote.find("\"message\":\"audit: Dicts/CreateDict \\\"d\\\" by token " + id +
                        " at the network door from 127.0.0.1:"),
            std::string::npos)
      << remote << daemon_->errors();
  EXPECT_NE(remote.find("\"method\":\"Dicts/CreateDict\",\"object\":\"d\",\"token_id\":\"" + id +
                        "\",\"door\":\"network\",\"peer\":\"127.0.0.1:"),
            std::string::npos)
      << remote;
  EXPECT_NE(remote.find("\"reason\":\"OK\",\"ms\":"), std::string::npos) << remote;
  EXPECT_TRUE(remote.ends_with("}") && std::isdigit(remote[remote.size() - 2])) << remote;
  const std::string local = LineWith({"\"kind\":\"audit\"", "Areas/CreateArea"});
  EXPECT_NE(local.find("\"door\":\"local\",\"peer\":\"unix:uid=" + std::to_string(geteuid()) +
                       ",pid=" + std::to_string(getpid()) + "\""),
            std::string::npos)
      << local << daemon_->errors();
}

}  // namespace
}  // namespace statehouse::testing
