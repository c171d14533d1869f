// TLS at the network door: who gets in, who does not, and certificates that are renewed.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>

#include <filesystem>
#include <mutex>
#include <utility>
#include <vector>

#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/test_certificates.h"
#include "service/rpc/tls_files.h"
#include "service/rpc/unix_client_test_support.h"
#include "statehouse/v1/dict.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

std::string Padded(const std::string& path, size_t bytes) {
  const std::string text = ReadText(path);
  return text + std::string(bytes - text.size(), '\n');
}

TEST(TlsFilesTest, SayWhatIsWrongWithThem) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "a.pem", folder / "a.key");
  authority.Issue(folder / "b.pem", folder / "b.key");
  authority.Issue(folder / "old.pem", folder / "old.key", {-60});
  authority.Issue(folder / "early.pem", folder / "early.key", {7200, 3600});
  authority.Issue(folder / "short.pem", folder / "short.key", {}, EVP_RSA_gen(512));
  std::ofstream(folder / "text.pem") << "hello\n";
  const std::string whole = ReadText(folder / "ca.pem");
  std::ofstream(folder / "cut.pem") << ReadText(folder / "a.pem") << whole.substr(0, 200);
  std::ofstream(folder / "damaged.pem") << whole << whole.substr(0, 60) << "?" << whole.substr(61);
  std::ofstream(folder / "large.pem") << Padded(folder / "a.pem", kTlsFileBytesMax + 1);

  struct Case {
    TlsFiles files;
    const char* says;
  };
  const Case cases[] = {
      {{folder / "none.pem", folder / "a.key", ""}, "none.pem\": it cannot be read (No such"},
      {{folder / "a.pem", folder / "none.key", ""}, "none.key\": it cannot be read (No such"},
      {{folder / "a.pem", folder / "", ""}, "it cannot be read (Is a directory)"},
      {{folder / "a.pem", folder / "a.key", folder / "none.pem"}, "none.pem\": it cannot be read"},
      {{folder / "large.pem", folder / "a.key", ""}, "larger than 1 MiB"},
      {{folder / "text.pem", folder / "a.key", ""}, "no certificate"},
      {{folder / "cut.pem", folder / "a.key", ""}, "certificate number 2 cannot be read"},
      {{folder / "a.pem", folder / "text.pem", ""}, "no private key"},
      {{folder / "a.pem", folder / "b.key", ""}, "not the key of the certificate"},
      {{folder / "short.pem", folder / "short.key", ""}, "cannot be used: ee key too small"},
      {{folder / "old.pem", folder / "old.key", ""}, "is over since"},
      {{folder / "early.pem", folder / "early.key", ""}, "begins at"},
      {{folder / "a.pem", folder / "a.key", folder / "text.pem"}, "no certificate"},
      {{folder / "a.pem", folder / "a.key", folder / "damaged.pem"}, "certificate number 2"},
  };
  for (const Case& one : cases) {
    const Status status = CheckTlsFiles(one.files);
    EXPECT_EQ(status.reason(), Reason::kConfigInvalid) << one.says;
    EXPECT_THAT(status.message(), HasSubstr(one.says));
  }
}

TEST(TlsFilesTest, AreTakenWhereTheyFit) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  const TestAuthority other(folder / "other.pem");
  authority.Issue(folder / "a.pem", folder / "a.key", {3600});
  std::ofstream(folder / "chain.pem") << ReadText(folder / "a.pem") << ReadText(folder / "ca.pem");
  std::ofstream(folder / "both.pem") << ReadText(folder / "a.key") << ReadText(folder / "a.pem");
  std::ofstream(folder / "two.pem")
      << ReadText(folder / "ca.pem") << ReadText(folder / "other.pem");
  std::ofstream(folder / "large.pem") << Padded(folder / "a.pem", kTlsFileBytesMax);
  const TlsFiles cases[] = {
      {folder / "a.pem", folder / "a.key", ""},
      {folder / "a.pem", folder / "a.key", folder / "two.pem"},
      {folder / "chain.pem", folder / "a.key", ""},
      {folder / "both.pem", folder / "both.pem", ""},
      {folder / "large.pem", folder / "a.key", ""},
  };
  for (const TlsFiles& files : cases) {
    const auto texts = ReadTlsFiles(files);
    ASSERT_TRUE(texts.ok()) << texts.status().ToString();
    const auto expiry = CheckTlsTexts(files, *texts);
    ASSERT_TRUE(expiry.ok()) << expiry.status().ToString();
    EXPECT_GT(*expiry, std::time(nullptr) + 3000);
  }
  EXPECT_EQ(TimeText(1'796'076'330), "2026-11-30 22:05:30 UTC");
}

TEST(TlsRenewalTest, BeginsWithWhatWasKeptWhereTheFilesAreWrong) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "a.pem", folder / "a.key");
  authority.Issue(folder / "b.pem", folder / "b.key");
  authority.Issue(folder / "old.pem", folder / "old.key", {-60});
  const TlsTexts a{ReadText(folder / "a.pem"), ReadText(folder / "a.key"), ""};
  const TlsTexts b{ReadText(folder / "b.pem"), ReadText(folder / "b.key"), ""};
  const TlsTexts old{ReadText(folder / "old.pem"), ReadText(folder / "old.key"), ""};
  std::vector<TlsTexts> taken;
  std::vector<std::string> refused;
  TlsRenewalOptions options;
  options.look_interval = std::chrono::hours(1);
  options.on_taken = [&](const TlsTexts& texts, int64_t) { taken.push_back(texts); };
  options.on_refused = [&](const Status& why, int64_t) { refused.push_back(why.message()); };

  // They are right: what was kept is not asked.
  options.files = {folder / "a.pem", folder / "a.key", ""};
  options.kept = b;
  EXPECT_TRUE(TlsRenewal::Start(options).ok());
  EXPECT_EQ(taken, std::vector<TlsTexts>{a});
  EXPECT_TRUE(refused.empty());

  options.files = {folder / "a.pem", folder / "none.key", ""};
  EXPECT_TRUE(TlsRenewal::Start(options).ok());
  EXPECT_EQ(taken, (std::vector<TlsTexts>{a, b}));
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_THAT(refused.front(), HasSubstr("none.key"));

  // Both are wrong, or there is nothing else: the error is of the files.
  for (const std::optional<TlsTexts>& kept : {std::optional<TlsTexts>(old), {}}) {
    options.kept = kept;
    const auto renewal = TlsRenewal::Start(options);
    EXPECT_EQ(renewal.status().reason(), Reason::kConfigInvalid);
    EXPECT_THAT(renewal.status().message(), HasSubstr("none.key"));
  }
  EXPECT_EQ(taken.size(), 2u);
  EXPECT_EQ(refused.size(), 1u);
}

class TlsDoorTest : public GrpcDoorTest {
 protected:
  explicit TlsDoorTest(bool mutual = false) : TlsDoorTest(Files(mutual)) {}
  // It looks at the files, and tells of them, until it ends.
  ~TlsDoorTest() override { door_.reset(); }

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

  // What the door told of its files.
  class Notes final {
   public:
    void Take(int64_t expiry_unix_s) {
      const std::lock_guard<std::mutex> lock(mutex_);
      expiries_.push_back(expiry_unix_s);
    }
    void Refuse(const Status& why, int64_t expiry_unix_s) {
      const std::lock_guard<std::mutex> lock(mutex_);
      EXPECT_EQ(expiry_unix_s, expiries_.back());
      refusals_.push_back(why.message());
    }
    void Mend() {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++mendings_;
    }
    std::vector<int64_t> expiries() const {
      const std::lock_guard<std::mutex> lock(mutex_);
      return expiries_;
    }
    std::vector<std::string> refusals() const {
      const std::lock_guard<std::mutex> lock(mutex_);
      return refusals_;
    }
    size_t mendings() const {
      const std::lock_guard<std::mutex> lock(mutex_);
      return mendings_;
    }

   private:
    mutable std::mutex mutex_;
    std::vector<int64_t> expiries_;
    std::vector<std::string> refusals_;
    size_t mendings_ = 0;
  };
  struct Material {
    TestFolder folder;
    Notes notes;
    std::unique_ptr<TestAuthority> authority = std::make_unique<TestAuthority>(folder / "ca.pem");
    GrpcDoorOptions options;
  };
  static std::unique_ptr<Material> Files(bool mutual) {
    auto made = std::make_unique<Material>();
    made->authority->Issue(made->folder / "service.pem", made->folder / "service.key");
    made->options.tls = {made->folder / "service.pem", made->folder / "service.key",
                         mutual ? made->folder / "clients.pem" : ""};
    std::filesystem::copy(made->folder / "ca.pem", made->folder / "clients.pem");
    made->options.tls_look_interval = std::chrono::milliseconds(10);
    Notes* const notes = &made->notes;
    made->options.on_tls_taken = [notes](const TlsTexts&, int64_t expiry) { notes->Take(expiry); };
    made->options.on_tls_refused = [notes](const Status& why, int64_t expiry) {
      notes->Refuse(why, expiry);
    };
    made->options.on_tls_mended = [notes] { notes->Mend(); };
    return made;
  }
  explicit TlsDoorTest(std::unique_ptr<Material> material)
      : GrpcDoorTest(material->options), material_(std::move(material)) {
    service_->MakeArea("a", 64);
  }
  const TestFolder& folder() const { return material_->folder; }
  TestAuthority& authority() { return *material_->authority; }
  const Notes& notes() const { return material_->notes; }
  // As a renewal should: a file is never seen half written.
  void Put(const std::string& name, const std::string& text) const {
    std::ofstream(folder() / "put") << text;
    std::filesystem::rename(folder() / "put", folder() / name);
  }

  std::unique_ptr<Material> material_;
};

TEST_F(TlsDoorTest, ServesWhoTrustsItsAuthorityAndNobodyElse) {
  EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
  const TestAuthority other(folder() / "other.pem");
  EXPECT_EQ(Add(Trusting(folder() / "other.pem")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Add(grpc::InsecureChannelCredentials()).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
}

// Also where a client says first that it carries only batches, which without TLS is read by others
// than gRPC.
TEST_F(TlsDoorTest, IsPlainOnUnixSocketsAlone) {
  v1::CreateDictRequest create;
  create.set_name("d");
  ASSERT_TRUE(
      service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  BatchClient client;
  (void)client.Open(BatchClient::Request(token_));
  testing::Http2Connection plain("127.0.0.1:" + std::to_string(port_));
  ASSERT_TRUE(plain.Send(client.TakeOutput()));
  pollfd readable{plain.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 20'000), 1);
  char first = 0;
  constexpr char kAlert = 21;
  EXPECT_TRUE(recv(plain.fd(), &first, 1, 0) <= 0 || first == kAlert);

  Local local(UnixPath());
  const int32_t id = local.client.Open(BatchClient::Request(token_));
  EXPECT_EQ(local.Increment(id, 2), 2);
  const int32_t other =
      local.client.Open(BatchClient::Request(token_, {{":path", "/statehouse.v1.Areas/AddWord"}}));
  local.client.Send(other, "", /*ends=*/true);
  ASSERT_TRUE(local.Until([&] { return local.client.At(other).is_closed; }));
  EXPECT_THAT(local.client.At(other).fields["grpc-message"], HasSubstr("carries only"));
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

TEST_F(TlsDoorTest, GoesOnWithTheOldFilesWhileTheNewOnesAreWrong) {
  authority().Issue(folder() / "b.pem", folder() / "b.key");
  authority().Issue(folder() / "old.pem", folder() / "old.key", {-60});
  const std::string good = ReadText(folder() / "service.pem");
  struct Case {
    std::string certificate;  // Empty: the file is missing.
    std::string key;
    const char* says;
  };
  const std::string key = ReadText(folder() / "service.key");
  const Case cases[] = {
      {ReadText(folder() / "b.pem"), key, "not the key of the certificate"},
      {"junk", key, "service.pem\": it holds no certificate"},
      {"", key, "service.pem\": it cannot be read (No such file"},
      {good, "junk", "service.key\": it holds no private key"},
      {good, "", "service.key\": it cannot be read (No such file"},
      {good.substr(0, good.size() / 2), key, "service.pem\": it holds no certificate"},
      {ReadText(folder() / "old.pem"), ReadText(folder() / "old.key"), "is over since"},
      {ReadText(folder() / "b.pem"), key, "not the key of the certificate"},
  };
  for (const Case& one : cases) {
    Put("service.pem", one.certificate);
    Put("service.key", one.key);
    if (one.certificate.empty()) std::filesystem::remove(folder() / "service.pem");
    if (one.key.empty()) std::filesystem::remove(folder() / "service.key");
    EXPECT_TRUE(Eventually([&] {
      const auto told = notes().refusals();
      return !told.empty() && told.back().find(one.says) != std::string::npos;
    })) << one.says;
    EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok()) << one.says;
  }
  EXPECT_EQ(notes().expiries().size(), 1u);

  const TestAuthority next(folder() / "next.pem");
  next.Issue(folder() / "new.pem", folder() / "new.key", {7200});
  Put("service.key", ReadText(folder() / "new.key"));
  Put("service.pem", ReadText(folder() / "new.pem"));
  EXPECT_TRUE(Eventually([&] { return notes().expiries().size() == 2; }));
  EXPECT_GE(notes().expiries().back(), notes().expiries().front() + 3600);
  EXPECT_EQ(notes().mendings(), 0u);
  EXPECT_TRUE(Add(Trusting(folder() / "next.pem")).ok());
  EXPECT_FALSE(Add(Trusting(folder() / "ca.pem")).ok());
}

TEST_F(TlsDoorTest, SaysOnceOfEachChangeWhatIsWrong) {
  const std::string good = ReadText(folder() / "service.pem");
  authority().Issue(folder() / "b.pem", folder() / "b.key");
  authority().Issue(folder() / "c.pem", folder() / "c.key");
  size_t changes = 0;
  // The first two are wrong in the same words.
  for (const std::string& text :
       {ReadText(folder() / "b.pem"), ReadText(folder() / "c.pem"), std::string("junk")}) {
    Put("service.pem", text);
    ++changes;
    EXPECT_TRUE(Eventually([&] { return notes().refusals().size() >= changes; }));
    EXPECT_EQ(notes().refusals().size(), changes);
  }
  EXPECT_EQ(notes().mendings(), 0u);
  // What is in use is no change, but the end of what was told.
  Put("service.pem", good);
  EXPECT_TRUE(Eventually([&] { return notes().mendings() == 1; }));
  EXPECT_TRUE(Add(Trusting(folder() / "ca.pem")).ok());
  EXPECT_EQ(notes().refusals().size(), changes);
  // A second time, too; and once for each.
  Put("service.pem", "junk");
  EXPECT_TRUE(Eventually([&] { return notes().refusals().size() == changes + 1; }));
  Put("service.pem", good);
  EXPECT_TRUE(Eventually([&] { return notes().mendings() == 2; }));
  EXPECT_EQ(notes().expiries().size(), 1u);
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

TEST_F(MutualTlsDoorTest, TakesOtherAuthoritiesOfClientsWhereTheyCanBeRead) {
  const TestAuthority other(folder() / "other.pem");
  authority().Issue(folder() / "client.pem", folder() / "client.key");
  other.Issue(folder() / "stranger.pem", folder() / "stranger.key");
  const auto client =
      Trusting(folder() / "ca.pem", folder() / "client.pem", folder() / "client.key");
  const auto stranger =
      Trusting(folder() / "ca.pem", folder() / "stranger.pem", folder() / "stranger.key");

  Put("clients.pem", "junk");
  EXPECT_TRUE(Eventually([&] { return notes().refusals().size() == 1; }));
  EXPECT_THAT(notes().refusals().front(), HasSubstr("clients.pem\": it holds no certificate"));
  EXPECT_TRUE(Add(client).ok());
  EXPECT_FALSE(Add(stranger).ok());
  EXPECT_FALSE(Add(Trusting(folder() / "ca.pem")).ok());

  Put("clients.pem", ReadText(folder() / "other.pem"));
  EXPECT_TRUE(Eventually([&] { return notes().expiries().size() == 2; }));
  EXPECT_TRUE(Add(stranger).ok());
  EXPECT_FALSE(Add(client).ok());
}

}  // namespace
}  // namespace statehouse
