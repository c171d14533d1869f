// A real service takes JSON Web Tokens of another service, through both doors, and ends what their
// holders have when their time or their key is over.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <jwt.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

std::string Sign(const std::string& secret, int lasts_s) {
  jwt_t* jwt = nullptr;
  EXPECT_EQ(jwt_new(&jwt), 0);
  const std::string claims = R"({"sub":"web","aud":"statehouse","exp":)" +
                             std::to_string(time(nullptr) + lasts_s) +
                             R"(,"statehouse_grants":["dict:web/*:read,write,create"]})";
  EXPECT_EQ(jwt_add_grants_json(jwt, claims.c_str()), 0);
  EXPECT_EQ(jwt_set_alg(jwt, JWT_ALG_HS256, reinterpret_cast<const unsigned char*>(secret.data()),
                        static_cast<int>(secret.size())),
            0);
  char* const text = jwt_encode_str(jwt);
  const std::string token = text == nullptr ? "" : text;
  std::free(text);  // NOLINT: libjwt gives it so.
  jwt_free(jwt);
  return token;
}

class JwtTest : public ::testing::Test {
 protected:
  JwtTest() { WriteSecret(secret_); }

  void WriteSecret(const std::string& secret) {
    std::ofstream(keys()) << secret << '\n';
    ASSERT_EQ(::chmod(keys().c_str(), 0600), 0);
  }
  std::string keys() const { return folder_.path() + "/jwt.key"; }
  StatusOr<std::unique_ptr<Daemon>> Start() const {
    DaemonOptions options;
    options.environment = {"STATEHOUSED_AUTH__JWT_KEY_FILE=" + keys(),
                           "STATEHOUSED_AUTH__JWT_ALGORITHM=HS256",
                           "STATEHOUSED_AUTH__JWT_AUDIENCE=statehouse"};
    return Daemon::Start(options);
  }
  static grpc::Status Create(const Daemon& daemon, const std::string& token,
                             const std::string& name) {
    const auto stub = v1::Dicts::NewStub(
        grpc::CreateChannel(daemon.tcp_address(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token);
    v1::CreateDictRequest request;
    request.set_name(name);
    v1::CreateDictResponse response;
    return stub->CreateDict(&context, request, &response);
  }

  const std::string secret_ = "0123456789abcdef0123456789abcdef";
  const TemporaryFolder folder_;
};

TEST_F(JwtTest, BothDoorsTakeThemAndTheirGrantsCount) {
  auto started = Start();
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  const Daemon& daemon = **started;
  const std::string token = Sign(secret_, 600);

  const grpc::Status made = Create(daemon, token, "web/a");
  EXPECT_TRUE(made.ok()) << made.error_message();
  EXPECT_EQ(Create(daemon, token, "db/a").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Create(daemon, Sign("another secret, of 32 characters", 600), "web/b").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon.attach_socket()).ok());
  EXPECT_TRUE(worker.Hello(token, true).ok());
  // Those of the tokens file go on.
  AttachClient other;
  ASSERT_TRUE(other.Connect(daemon.attach_socket()).ok());
  EXPECT_TRUE(other.Hello(daemon.token(), true).ok());
  EXPECT_NE(daemon.errors().find("by token jwt:web"), std::string::npos) << daemon.errors();
}

TEST_F(JwtTest, TheEndOfATokenAndOfAKeyEndConnections) {
  auto started = Start();
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  const Daemon& daemon = **started;
  AttachClient brief;
  ASSERT_TRUE(brief.Connect(daemon.attach_socket()).ok());
  ASSERT_TRUE(brief.Hello(Sign(secret_, 3), true).ok());
  AttachClient lasting;
  ASSERT_TRUE(lasting.Connect(daemon.attach_socket()).ok());
  ASSERT_TRUE(lasting.Hello(Sign(secret_, 600), true).ok());
  v1::ListDictsRequest list;
  const auto is_refused = [&](AttachClient& client) {
    return !client.Call("/statehouse.v1.Dicts/ListDicts", list.SerializeAsString()).ok();
  };
  EXPECT_TRUE(Eventually([&] { return is_refused(brief); }));
  EXPECT_FALSE(is_refused(lasting));

  WriteSecret("fedcba9876543210fedcba9876543210");
  ASSERT_EQ(kill(daemon.keeper_pid(), SIGHUP), 0);
  EXPECT_TRUE(Eventually([&] { return is_refused(lasting); }));
  EXPECT_TRUE(Create(daemon, Sign("fedcba9876543210fedcba9876543210", 600), "web/c").ok());
}

TEST_F(JwtTest, AKeyFileThatCannotBeUsedStopsTheStart) {
  DaemonOptions options;
  options.environment = {"STATEHOUSED_AUTH__JWT_KEY_FILE=" + keys() + ".missing",
                         "STATEHOUSED_AUTH__JWT_ALGORITHM=HS256",
                         "STATEHOUSED_AUTH__JWT_AUDIENCE=statehouse"};
  const auto ending = Daemon::RunToEnd(options);
  ASSERT_TRUE(ending.ok()) << ending.status().ToString();
  EXPECT_EQ(ending->code, 78);
  EXPECT_NE(ending->errors.find("auth.jwt_key_file"), std::string::npos) << ending->errors;
}

}  // namespace
}  // namespace statehouse::testing
