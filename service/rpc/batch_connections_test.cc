// Connections that carry only batches, through the whole door: which they are, what their ends are,
// and that others are not held up by them.
#include "service/rpc/batch_connections.h"

#include <gmock/gmock.h>
#include <netinet/tcp.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "service/http2/batch_client_test_support.h"
#include "service/http2/batch_session.h"
#include "service/rpc/grpc_door_test_support.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

constexpr milliseconds kLong{15'000};

// A client with a socket. Threads: one.
class Talk final {
 public:
  explicit Talk(int port, std::vector<nghttp2_settings_entry> settings = {{kBatchesSetting,
                                                                           kBatchesSettingValue}})
      : client(std::move(settings)), connection_("127.0.0.1:" + std::to_string(port)) {}

  // Sends what there is and takes what comes until `is_done`. False: it is not in time, or the
  // service closes before.
  bool Until(const std::function<bool()>& is_done, milliseconds patience = kLong) {
    const auto until = steady_clock::now() + patience;
    while (!is_done()) {
      if (is_closed_ || steady_clock::now() > until || !Send()) return is_done();
      pollfd readable{connection_.fd(), POLLIN, 0};
      if (poll(&readable, 1, 10) == 1) Receive();
    }
    return true;
  }
  bool Send() { return connection_.Send(client.TakeOutput()); }
  void Receive() {
    char bytes[16 << 10];
    const ssize_t got = recv(connection_.fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got > 0) client.Receive({bytes, static_cast<size_t>(got)});
    is_closed_ = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
  }
  std::optional<v1::RunBatchesResponse> Next(int32_t id) {
    std::string message;
    v1::RunBatchesResponse response;
    if (!Until([&] { return client.At(id).Next(&message); }) ||
        !response.ParseFromString(message)) {
      return std::nullopt;
    }
    return response;
  }
  bool AwaitEnd(int32_t id) {
    return Until([&] { return client.At(id).is_closed; });
  }
  bool AwaitClose() {
    return Until([this] { return is_closed_; });
  }
  bool is_closed() const { return is_closed_; }
  void Close() { connection_.Close(); }

  BatchClient client;

 private:
  testing::Http2Connection connection_;
  bool is_closed_ = false;
};

class BatchConnectionsTest : public GrpcDoorTest {
 protected:
  explicit BatchConnectionsTest(GrpcDoorOptions options = {})
      : GrpcDoorTest(WithCount(std::move(options), &open_)) {
    v1::CreateDictRequest create;
    create.set_name("d");
    EXPECT_TRUE(
        service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  }
  static GrpcDoorOptions WithCount(GrpcDoorOptions options, std::atomic<int>* open) {
    options.on_connection_open = [open](int change) { open->fetch_add(change); };
    return options;
  }

  int32_t Open(Talk* talk) { return talk->client.Open(BatchClient::Request(token_)); }
  static v1::RunBatchesRequest Increments(int count, const std::string& key = "n") {
    v1::RunBatchesRequest request;
    request.mutable_batch()->add_names("d");
    for (int i = 0; i < count; ++i) {
      request.mutable_batch()->add_operations()->mutable_increment()->set_key(key);
    }
    return request;
  }
  static void Send(Talk* talk, int32_t id, const v1::RunBatchesRequest& request) {
    talk->client.SendMessage(id, request.SerializeAsString());
  }
  // -1: no answer came.
  static int64_t NextNumber(Talk* talk, int32_t id) {
    const auto response = talk->Next(id);
    if (!response.has_value() || response->result().results().empty()) return -1;
    return response->result().results().rbegin()->increment().number();
  }
  int64_t Number(const std::string& key = "n") {
    v1::GetEntryRequest request;
    request.set_name("d");
    request.set_key(key);
    const auto got = service_->Call<v1::GetEntryResponse>("/statehouse.v1.Dicts/GetEntry", request);
    EXPECT_TRUE(got.ok());
    return got.ok() ? got->entry().value().int_value() : -1;
  }
  // Of a key that need not be there.
  int64_t Count(const std::string& key) {
    v1::GetEntryRequest request;
    request.set_name("d");
    request.set_key(key);
    const auto got = service_->Call<v1::GetEntryResponse>("/statehouse.v1.Dicts/GetEntry", request);
    return got.ok() ? got->entry().value().int_value() : 0;
  }
  void SetLarge() {
    v1::SetEntryRequest set;
    set.set_name("d");
    set.set_key("large");
    set.mutable_value()->set_string_value(std::string(1'000'000, 'x'));
    ASSERT_TRUE(service_->Call<v1::SetEntryResponse>("/statehouse.v1.Dicts/SetEntry", set).ok());
  }
  static v1::RunBatchesRequest IncrementAndGetLarge() {
    v1::RunBatchesRequest request = Increments(1);
    request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
    return request;
  }
  // Whether a call of another method is refused because the connection carries only batches.
  static bool CarriesOnlyBatches(Talk* talk, const std::string& token) {
    const int32_t id =
        talk->client.Open(BatchClient::Request(token, {{":path", "/statehouse.v1.Areas/AddWord"}}));
    talk->client.SendMessage(id, Add("a").SerializeAsString());
    talk->client.Send(id, "", /*ends=*/true);
    EXPECT_TRUE(talk->AwaitEnd(id));
    const auto& fields = talk->client.At(id).fields;
    const auto text = fields.find("grpc-message");
    return text != fields.end() && text->second.find("carries only") != std::string::npos;
  }

  std::atomic<int> open_{0};
};

TEST_F(BatchConnectionsTest, OnlyWhoSaysSoCarriesOnlyBatches) {
  service_->MakeArea("a", 64);
  Talk marked(port_);
  EXPECT_TRUE(CarriesOnlyBatches(&marked, token_));
  for (const nghttp2_settings_entry other :
       {nghttp2_settings_entry{kBatchesSetting, 2}, nghttp2_settings_entry{0x5349, 1}}) {
    Talk plain(port_, {other});
    EXPECT_FALSE(CarriesOnlyBatches(&plain, token_));
    EXPECT_EQ(Number(), -1 + 1) << "nothing was done";
  }
}

TEST_F(BatchConnectionsTest, AnswersComeInTheOrderOfTheBatches) {
  Talk talk(port_);
  const int32_t id = Open(&talk);
  for (int i = 0; i < 500; ++i) {
    v1::RunBatchesRequest request = Increments(16);
    // Some of them go elsewhere in the middle.
    if (i % 7 == 0) request.mutable_batch()->add_operations()->mutable_list_dicts();
    request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
    Send(&talk, id, request);
  }
  for (int64_t i = 0; i < 500; ++i) ASSERT_EQ(NextNumber(&talk, id), (i + 1) * 17);
  talk.client.Send(id, "", /*ends=*/true);
  ASSERT_TRUE(talk.AwaitEnd(id));
  EXPECT_EQ(talk.client.At(id).Code(), 0);
  EXPECT_FALSE(talk.is_closed());
}

TEST_F(BatchConnectionsTest, AWrongTokenIsRefusedAndTheConnectionCloses) {
  Talk talk(port_);
  const int32_t id = talk.client.Open(BatchClient::Request("sh1_wrongwrong"));
  Send(&talk, id, Increments(1));
  ASSERT_TRUE(talk.AwaitClose());

  EXPECT_EQ(talk.client.At(id).Code(), static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));
  EXPECT_FALSE(talk.client.At(id).fields.at("grpc-status-details-bin").empty());
  EXPECT_EQ(auth_failures_.load(), 1);
  EXPECT_TRUE(Eventually([this] { return open_.load() == 0; }));
}

TEST_F(BatchConnectionsTest, ARevokedTokenEndsTheStreamBeforeItsNextBatch) {
  Talk talk(port_);
  const int32_t id = Open(&talk);
  Send(&talk, id, Increments(1));
  EXPECT_EQ(NextNumber(&talk, id), 1);
  std::filesystem::remove(folder_ + "/tokens.toml");
  ASSERT_TRUE(authenticator_->Reload().ok());
  Send(&talk, id, Increments(1));
  ASSERT_TRUE(talk.AwaitEnd(id));

  EXPECT_EQ(talk.client.At(id).Code(), static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));
  EXPECT_EQ(Number(), 1);
}

TEST_F(BatchConnectionsTest, WhoSaysNothingAtFirstIsServedLater) {
  service_->MakeArea("a", 64);
  testing::Http2Connection silent("127.0.0.1:" + std::to_string(port_));
  ASSERT_TRUE(Eventually([this] { return open_.load() == 1; })) << "the kernel keeps it back";

  ASSERT_TRUE(
      silent.Send(testing::Preface() + testing::UnaryCall(1, "/statehouse.v1.Areas/AddWord", token_,
                                                          Add("a").SerializeAsString())));
  EXPECT_TRUE(silent.Answer(1).has_value());
}

TEST_F(BatchConnectionsTest, WhoDoesNotReadHoldsUpOnlyItself) {
  SetLarge();
  Talk deaf(port_);
  const int32_t id = Open(&deaf);
  for (int i = 0; i < 2000; ++i) Send(&deaf, id, IncrementAndGetLarge());
  ASSERT_TRUE(deaf.Send());
  Talk other(port_);
  const int32_t its = Open(&other);
  for (int i = 0; i < 200; ++i) {
    Send(&other, its, Increments(1, "other"));
    ASSERT_EQ(NextNumber(&other, its), i + 1);
  }
  EXPECT_LT(Number(), 50) << "what windows and buffers take, and not all of it";

  for (int64_t i = 1; i <= 50; ++i) {
    const auto response = deaf.Next(id);
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->result().results(0).increment().number(), i);
  }
}

TEST_F(BatchConnectionsTest, ClientsThatGoAwayAtAnyMomentLeaveNothing) {
  std::mt19937 random(7);
  int64_t answered = 0;
  for (int round = 0; round < 200; ++round) {
    Talk talk(port_);
    const int32_t id = Open(&talk);
    v1::RunBatchesRequest request = Increments(1);
    if (round % 3 == 0) request.mutable_batch()->add_operations()->mutable_list_dicts();
    const int sent = round % 4;
    for (int i = 0; i < sent; ++i) Send(&talk, id, request);
    if (round % 2 == 0 && sent > 0) {
      EXPECT_TRUE(talk.Next(id).has_value());
      ++answered;
    } else {
      const std::string bytes = talk.client.TakeOutput();
      testing::Http2Connection cut("127.0.0.1:" + std::to_string(port_));
      EXPECT_TRUE(cut.Send(bytes.substr(0, random() % bytes.size())));
    }
  }
  EXPECT_GE(Number(), answered);
  EXPECT_TRUE(Eventually([this] { return open_.load() == 0; }));
  EXPECT_TRUE(Eventually([this] { return service_->dispatcher().CallsInFlight() == 0; }));
}

TEST_F(BatchConnectionsTest, AnswersUnderWayGoBeforeTheEndOfTheStream) {
  SetLarge();
  Talk talk(port_);
  const int32_t id = Open(&talk);
  for (int i = 0; i < 40; ++i) Send(&talk, id, IncrementAndGetLarge());
  ASSERT_TRUE(talk.Next(id).has_value());

  std::thread stopper([this] { door_->Shutdown(seconds(30)); });
  int64_t last = 1;
  while (const auto response = talk.Next(id)) {
    EXPECT_EQ(response->result().results(0).increment().number(), ++last);
    EXPECT_EQ(response->result().results(1).get().value().string_value().size(), 1'000'000u);
  }
  EXPECT_TRUE(talk.AwaitClose());
  stopper.join();

  EXPECT_EQ(talk.client.At(id).Code(), static_cast<int>(grpc::StatusCode::UNAVAILABLE));
  EXPECT_THAT(talk.client.At(id).fields.at("grpc-message"), HasSubstr("the service stops"));
  EXPECT_EQ(Number(), last) << "what was carried out was answered";
}

TEST_F(BatchConnectionsTest, AStopEndsIdleStreamsAtOnceAndOthersWithItsGrace) {
  SetLarge();
  Talk idle(port_);
  const int32_t id = Open(&idle);
  Send(&idle, id, Increments(1));
  EXPECT_EQ(NextNumber(&idle, id), 1);
  Talk deaf(port_);
  const int32_t its = Open(&deaf);
  for (int i = 0; i < 100; ++i) Send(&deaf, its, IncrementAndGetLarge());
  ASSERT_TRUE(deaf.Send());
  ASSERT_TRUE(Eventually([this] { return Number() >= 2; }));

  std::thread stopper([this] { door_->Shutdown(milliseconds(300)); });
  EXPECT_TRUE(idle.AwaitEnd(id));
  EXPECT_TRUE(idle.client.was_told_to_go());
  stopper.join();
  EXPECT_EQ(open_.load(), 0);
}

class FewConnectionsTest : public BatchConnectionsTest {
 protected:
  FewConnectionsTest() : BatchConnectionsTest(Few()) {}
  static GrpcDoorOptions Few() {
    GrpcDoorOptions options;
    options.connections_max = 2;
    return options;
  }
};

TEST_F(FewConnectionsTest, TheyCountAsOthersDo) {
  Talk first(port_);
  const int32_t id = Open(&first);
  Send(&first, id, Increments(1));
  EXPECT_EQ(NextNumber(&first, id), 1);
  Talk second(port_);
  const int32_t its = Open(&second);
  Send(&second, its, Increments(1));
  EXPECT_EQ(NextNumber(&second, its), 2);
  Talk third(port_);
  (void)Open(&third);
  EXPECT_TRUE(third.AwaitClose());

  first.Close();
  EXPECT_TRUE(Eventually([this] { return open_.load() == 1; }));
  Talk fourth(port_);
  const int32_t last = Open(&fourth);
  Send(&fourth, last, Increments(1));
  EXPECT_EQ(NextNumber(&fourth, last), 3);
}

class IdleBatchConnectionsTest : public BatchConnectionsTest {
 protected:
  IdleBatchConnectionsTest() : BatchConnectionsTest(SoonIdle()) {}
  static GrpcDoorOptions SoonIdle() {
    GrpcDoorOptions options;
    options.idle_s = 1;
    return options;
  }
};

TEST_F(IdleBatchConnectionsTest, OneWithoutAStreamEndsAndOneWithAStreamStays) {
  Talk used(port_);
  const int32_t id = Open(&used);
  Send(&used, id, Increments(1));
  EXPECT_EQ(NextNumber(&used, id), 1);
  Talk left(port_);
  const int32_t its = Open(&left);
  Send(&left, its, Increments(1, "left"));
  left.client.Send(its, "", /*ends=*/true);
  ASSERT_TRUE(left.AwaitEnd(its));

  EXPECT_TRUE(left.AwaitClose());
  EXPECT_TRUE(left.client.was_told_to_go());
  EXPECT_FALSE(used.Until([&] { return used.is_closed(); }, milliseconds(2'500)));
  Send(&used, id, Increments(1));
  EXPECT_EQ(NextNumber(&used, id), 2);
}

// Whose request is not all here, or came to nothing, is as silent as who says nothing.
TEST_F(BatchConnectionsTest, WhoHasNoStreamInTimeIsClosed) {
  BatchConnectionsOptions options;
  options.first_stream = milliseconds(200);
  auto all = BatchConnections::Start(options, &service_->dispatcher(), authenticator_.get(),
                                     service_->engine().DaemonLane(1))
                 .value();
  int port = 0;
  const UniqueFd listener = Listen(&port);
  const std::string mark = BatchClient().TakeOutput();
  const std::string begun =
      testing::EncodeFrame(testing::FrameType::kHeaders, 0, 1,
                           testing::CallHeaders("/statehouse.v1.Batches/RunBatches", token_));
  for (const std::string& said : {mark, mark + begun}) {
    testing::Http2Connection client("127.0.0.1:" + std::to_string(port));
    ASSERT_TRUE(client.Send(said));
    all->Take(UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    while (client.Receive().has_value()) continue;
    char byte = 0;
    EXPECT_EQ(recv(client.fd(), &byte, 1, 0), 0) << "it is open after ten seconds";
  }
}

// A client that takes nothing has all the room there is: who has little waiting goes on, who has
// much waits, and goes on when the other one has left.
TEST_F(BatchConnectionsTest, WithoutRoomOnlySmallOnesGoOnUntilThereIsSome) {
  SetLarge();
  BatchConnectionsOptions options;
  options.waiting_bytes_max = 1'500'000;
  auto all = BatchConnections::Start(options, &service_->dispatcher(), authenticator_.get(),
                                     service_->engine().DaemonLane(1))
                 .value();
  int port = 0;
  const UniqueFd listener = Listen(&port);
  const auto take = [&] {
    all->Take(UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  };
  Talk deaf(port);
  take();
  // One answer of a stream goes as far as the windows let it, and the others wait.
  for (int i = 0; i < 2; ++i) Send(&deaf, Open(&deaf), IncrementAndGetLarge());
  ASSERT_TRUE(deaf.Send());
  ASSERT_TRUE(Eventually([this] { return Number() == 2; }));

  Talk much(port);
  take();
  const int32_t first = Open(&much);
  const int32_t second = Open(&much);
  v1::RunBatchesRequest get;
  get.mutable_batch()->add_names("d");
  get.mutable_batch()->add_operations()->mutable_get()->set_key("large");
  Send(&much, first, get);
  ASSERT_TRUE(much.Send());
  Talk small(port);
  take();
  const int32_t its = Open(&small);
  for (int i = 0; i < 100; ++i) {
    Send(&small, its, Increments(1, "small"));
    ASSERT_EQ(NextNumber(&small, its), i + 1);
  }
  Send(&much, second, Increments(1, "much"));
  ASSERT_TRUE(much.Send());
  for (int i = 0; i < 100; ++i) {
    Send(&small, its, Increments(1, "small"));
    ASSERT_EQ(NextNumber(&small, its), i + 101);
  }
  EXPECT_EQ(Count("much"), 0);

  deaf.Close();
  EXPECT_TRUE(Eventually([this] { return Count("much") == 1; }));
  EXPECT_EQ(NextNumber(&much, second), 1);
  EXPECT_TRUE(much.Next(first).has_value());
}

TEST_F(BatchConnectionsTest, TheKernelEndsWhoIsGoneOrTakesNothing) {
  BatchConnectionsOptions options;
  options.keepalive_s = 7;
  options.keepalive_timeout_s = 6;
  auto all = BatchConnections::Start(options, &service_->dispatcher(), authenticator_.get(),
                                     service_->engine().DaemonLane(1))
                 .value();
  int port = 0;
  const UniqueFd listener = Listen(&port);
  const Talk client(port);
  UniqueFd taken(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const UniqueFd same(dup(taken.get()));
  all->Take(std::move(taken));
  const auto get = [&](int level, int name) {
    int value = 0;
    socklen_t bytes = sizeof(value);
    return getsockopt(same.get(), level, name, &value, &bytes) == 0 ? value : -1;
  };

  EXPECT_TRUE(Eventually([&] { return get(IPPROTO_TCP, TCP_USER_TIMEOUT) == 13'000; }));
  EXPECT_EQ(get(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_KEEPIDLE), 7);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_KEEPINTVL) * get(IPPROTO_TCP, TCP_KEEPCNT), 6);
}

TEST_F(BatchConnectionsTest, AStrangerIsReadSoFarAndNoFurther) {
  const std::string mark = BatchClient().TakeOutput();
  const std::string update =
      testing::EncodeFrame(testing::FrameType::kWindowUpdate, 0, 0, testing::BigEndian32(1));
  std::string flood;
  while (flood.size() < 64 * BatchConnections::kStrangerBytesMax) flood += update;
  testing::Http2Connection stranger("127.0.0.1:" + std::to_string(port_));
  ASSERT_TRUE(stranger.Send(mark));
  int floods = 0;  // Many more than the kernel's buffers hold.
  while (floods < 32 && stranger.Send(flood, milliseconds(5'000))) ++floods;
  EXPECT_LT(floods, 32) << "all of it was read";
  EXPECT_TRUE(Eventually([this] { return open_.load() == 0; }));

  // Who has a stream, and is of use, may say as much.
  Talk talk(port_);
  const int32_t id = Open(&talk);
  Send(&talk, id, Increments(1));
  EXPECT_EQ(NextNumber(&talk, id), 1);
  for (size_t bytes = 0; bytes < flood.size(); bytes += 4 * 16'000) {
    for (int i = 0; i < 4; ++i) Send(&talk, id, Increments(1, std::string(900, 'k')));
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(talk.Next(id).has_value());
  }
}

TEST_F(BatchConnectionsTest, WhatWasAnsweredArrivesThoughTheConnectionEnds) {
  Talk talk(port_);
  const int32_t id = talk.client.Open(BatchClient::Request("sh1_wrongwrong"));
  // More than is read before the end is decided.
  for (int i = 0; i < 3; ++i) {
    talk.client.SendMessage(id, std::string(BatchSession::kMessageBytesMax, 'x'));
  }
  ASSERT_TRUE(talk.AwaitClose());

  EXPECT_EQ(talk.client.At(id).Code(), static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));
}

// All of a client's windows full of batches, which are carried out when it takes the answers.
TEST_F(BatchConnectionsTest, WhoHasMuchAtOnceHoldsUpNobodyForLong) {
  Talk many(port_, {{kBatchesSetting, kBatchesSettingValue},
                    {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}});
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < BatchSession::kStreamsMax; ++i) ids.push_back(Open(&many));
  constexpr int kBatches = 60;  // Of a stream.
  for (int i = 0; i < kBatches; ++i) {
    for (const int32_t id : ids) Send(&many, id, Increments(60, "many"));
  }
  std::thread reader([&] {
    for (const int32_t id : ids) {
      for (int i = 0; i < kBatches; ++i) ASSERT_TRUE(many.Next(id).has_value());
    }
  });
  Talk other(port_);
  const int32_t its = Open(&other);
  int64_t answered = 0;
  const int64_t all = int64_t{kBatches} * 60 * BatchSession::kStreamsMax;
  while (Number("many") < all) {
    Send(&other, its, Increments(1, "other"));
    ASSERT_EQ(NextNumber(&other, its), ++answered);
  }
  reader.join();
  EXPECT_GT(answered, 5) << "it had its turns meanwhile";
}

// Bytes that are no HTTP/2 behind the mark, from many connections beside one that is of use.
TEST_F(BatchConnectionsTest, NonsenseEndsItsConnectionOnly) {
  std::mt19937 random(11);
  Talk good(port_);
  const int32_t id = Open(&good);
  const std::string mark = BatchClient().TakeOutput();
  for (int round = 0; round < 100; ++round) {
    std::string noise(1 + random() % 200, '\0');
    for (char& byte : noise) byte = static_cast<char>(random());
    testing::Http2Connection bad("127.0.0.1:" + std::to_string(port_));
    ASSERT_TRUE(bad.Send(mark + noise));
    Send(&good, id, Increments(1));
    ASSERT_EQ(NextNumber(&good, id), round + 1);
  }
  EXPECT_TRUE(Eventually([this] { return open_.load() == 1; }));
}

}  // namespace
}  // namespace statehouse
