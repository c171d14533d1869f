// TLS at the network door: who gets in, who does not, and certificates that are renewed.
#include <gmock/gmock.h>

#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/test_certificates.h"
#include "service/rpc/tls_files.h"

namespace statehouse {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

TEST(TlsFilesTest, SayWhatIsWrongWithThem) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "a.pem", folder / "a.key");
  authority.Issue(folder / "b.pem", folder / "b.key");
  authority.Issue(folder / "old.pem", folder / "old.key", -60);
  std::ofstream(folder / "text.pem") << "hello\n";
  const TlsFiles good{folder / "a.pem", folder / "a.key", folder / "ca.pem"};
  EXPECT_TRUE(CheckTlsFiles(good).ok()) << CheckTlsFiles(good).ToString();
  EXPECT_GT(CertificateExpiry(folder / "a.pem").value(), std::time(nullptr) + 3000);

  struct Case {
    TlsFiles files;
    const char* says;
  };
  const Case cases[] = {
      {{folder / "none.pem", folder / "a.key", ""}, "none.pem\": it cannot be read"},
      {{folder / "a.pem", folder / "none.key", ""}, "none.key\": it cannot be read"},
      {{folder / "text.pem", folder / "a.key", ""}, "no certificate"},
      {{folder / "a.pem", folder / "text.pem", ""}, "no private key"},
      {{folder / "a.pem", folder / "b.key", ""}, "not the key of the certificate"},
      {{folder / "old.pem", folder / "old.key", ""}, "is over"},
      {{folder / "a.pem", folder / "a.key", folder / "text.pem"}, "no certificate"},
  };
  for (const Case& one : cases) {
    const Status status = CheckTlsFiles(one.files);
    EXPECT_EQ(status.reason(), Reason::kConfigInvalid) << one.says;
    EXPECT_THAT(status.message(), HasSubstr(one.says));
  }
}

class TlsDoorTest : public GrpcDoorTest {
 protected:
  explicit TlsDoorTest(bool mutual = false) : TlsDoorTest(Files(mutual)) {}

  // A call over a connection of its own.
  grpc::Status Add(const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_), credentials, arguments);
    grpc::ClientContext context;
    Authorize(&context);
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    v1::AddWordResponse response;
    return v1::Areas::NewStub(channel)->AddWord(&context, GrpcDoorTest::Add("a"), &response);
  }
  static std::shared_ptr<grpc::ChannelCredentials> Trusting(const std::string& authorities,
                                                            const std::string& certificate = "",
                                                            const std::string& key = "") {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadText(authorities);
    if (!certificate.empty()) options.pem_cert_chain = ReadText(certificate);
    if (!key.empty()) options.pem_private_key = ReadText(key);
    return grpc::SslCredentials(options);
  }

  struct Material {
    TestFolder folder;
    std::unique_ptr<TestAuthority> authority = std::make_unique<TestAuthority>(folder / "ca.pem");
    GrpcDoorOptions options;
  };
  static std::unique_ptr<Material> Files(bool mutual) {
    auto made = std::make_unique<Material>();
    made->authority->Issue(made->folder / "service.pem", made->folder / "service.key");
    made->options.tls = {made->folder / "service.pem", made->folder / "service.key",
                         mutual ? made->folder / "ca.pem" : ""};
    return made;
  }
  explicit TlsDoorTest(std::unique_ptr<Material> material)
      : GrpcDoorTest(material->options), material_(std::move(material)) {
    service_->MakeArea("a", 64);
  }
  const TestFolder& folder() const { return material_->folder; }
  TestAuthority& authority() { return *material_->authority; }

  std::unique_ptr<Material> material_;
};

TEST_F(TlsDoorTest, ServesWhoTrustsItsAuthorityAndNobodyElse) {
  EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
  const TestAuthority other(folder() / "other.pem");
  EXPECT_EQ(Add(Trusting(folder() / "other.pem")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Add(grpc::InsecureChannelCredentials()).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
}

TEST_F(TlsDoorTest, TakesARenewedCertificateWithoutARestart) {
  ASSERT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
  const TestAuthority next(folder() / "next.pem");
  next.Issue(folder() / "new.pem", folder() / "new.key");
  std::filesystem::rename(folder() / "new.key", folder() / "service.key");
  std::filesystem::rename(folder() / "new.pem", folder() / "service.pem");
  EXPECT_TRUE(Eventually([&] { return Add(Trusting(folder() / "next.pem")).ok(); }));
  EXPECT_FALSE(Add(Trusting(folder() / "ca.pem")).ok());
}

class TlsStormTest : public TlsDoorTest {
 protected:
  TlsStormTest() : TlsDoorTest(FilesAnd(&ended_)) {}
  static std::unique_ptr<Material> FilesAnd(std::atomic<int>* ended) {
    auto made = Files(/*mutual=*/false);
    made->options.on_connection_throttled = [ended](const std::string&) { ended->fetch_add(1); };
    made->options.on_connection_ended = [ended] { ended->fetch_add(1); };
    return made;
  }

  std::atomic<int> ended_{0};
};

// A handshake takes the polling thread a while and is no event of its queue.
TEST_F(TlsStormTest, ManyThatConnectAtOnceAreAllTaken) {
  constexpr size_t kConnections = 300;
  const auto credentials = Trusting(folder() / "ca.pem");
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (size_t i = 0; i < kConnections; ++i) {
    channels.push_back(
        grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_), credentials, arguments));
  }

  for (const auto& channel : channels) channel->GetState(/*try_to_connect=*/true);

  for (const auto& channel : channels) {
    EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() + seconds(60)));
  }
  EXPECT_EQ(ended_.load(), 0);
}

class MutualTlsDoorTest : public TlsDoorTest {
 protected:
  MutualTlsDoorTest() : TlsDoorTest(/*mutual=*/true) {}
};

TEST_F(MutualTlsDoorTest, ServesClientsWithACertificateOfItsAuthority) {
  authority().Issue(folder() / "client.pem", folder() / "client.key");
  EXPECT_TRUE(
      Add(Trusting(folder() / "ca.pem", folder() / "client.pem", folder() / "client.key")).ok());
  EXPECT_EQ(Add(Trusting(folder() / "ca.pem")).error_code(), grpc::StatusCode::UNAVAILABLE);
  const TestAuthority other(folder() / "other.pem");
  other.Issue(folder() / "stranger.pem", folder() / "stranger.key");
  EXPECT_EQ(Add(Trusting(folder() / "ca.pem", folder() / "stranger.pem", folder() / "stranger.key"))
                .error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace statehouse
