// Watches of areas through the network door: what a client sees, what is refused, how a stream
// ends, and that neither a hot counter nor a slow client costs others anything.
#include <gmock/gmock.h>

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "service/auth/token_file.h"
#include "service/rpc/grpc_door_test_support.h"
#include "statehouse/v1/area.grpc.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

class AreaWatchDoorTest : public GrpcDoorTest {
 protected:
  static constexpr uint64_t kSize = 100'000;

  AreaWatchDoorTest() : stub_(v1::Areas::NewStub(Channel())) { Create("a", kSize); }

  void Create(const std::string& name, uint64_t size) {
    v1::CreateAreaRequest create;
    create.set_name(name);
    create.set_size(size);
    EXPECT_TRUE(
        service_->Call<v1::CreateAreaResponse>("/statehouse.v1.Areas/CreateArea", create).ok());
  }
  void Write(uint64_t pos, const std::string& data) {
    v1::WriteAreaRequest request;
    request.set_name("a");
    request.set_pos(pos);
    request.set_data(data);
    const auto wrote =
        service_->Call<v1::WriteAreaResponse>("/statehouse.v1.Areas/WriteArea", request);
    ASSERT_TRUE(wrote.ok()) << wrote.status().ToString();
  }

  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchAreaResponse>> reader;
    // The next message, or nothing at the end.
    std::optional<v1::WatchAreaResponse> Next() {
      v1::WatchAreaResponse message;
      if (!reader->Read(&message)) return std::nullopt;
      return message;
    }
    // Reads up to the message that has `synced`, which it returns.
    std::optional<v1::WatchAreaResponse> AwaitSynced() {
      for (;;) {
        auto message = Next();
        if (!message || message->has_synced()) return message;
      }
    }
    grpc::Status Finish() { return reader->Finish(); }
  };
  std::unique_ptr<Stream> Open(const v1::WatchAreaRequest& request) {
    auto stream = std::make_unique<Stream>();
    Authorize(&stream->context);
    stream->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream->reader = stub_->WatchArea(&stream->context, request);
    return stream;
  }
  static v1::WatchAreaRequest Watch(uint64_t pos = 0, std::optional<uint64_t> len = {}) {
    v1::WatchAreaRequest request;
    request.set_name("a");
    request.set_pos(pos);
    if (len) request.set_len(*len);
    return request;
  }
  grpc::Status Refusal(const v1::WatchAreaRequest& request) {
    const auto stream = Open(request);
    EXPECT_FALSE(stream->Next().has_value());
    return stream->Finish();
  }

  std::unique_ptr<v1::Areas::Stub> stub_;
};

TEST_F(AreaWatchDoorTest, SnapshotSyncedChangesAndResume) {
  Write(10, "hello");
  auto stream = Open(Watch(8, 100));
  auto message = stream->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->snapshot().range().pos(), 8u);
  EXPECT_EQ(message->snapshot().range().len(), 100u);
  EXPECT_EQ(message->snapshot().range().data().substr(2, 5), "hello");
  EXPECT_FALSE(message->has_updates());
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_TRUE(message->has_synced());
  EXPECT_EQ(message->updates(), 1u);
  EXPECT_EQ(message->synced().pos(), 8u);
  EXPECT_EQ(message->synced().len(), 100u);
  const uint64_t incarnation = message->synced().incarnation();
  EXPECT_GT(incarnation, 0u);
  Write(11, "E");
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().ranges_size(), 1);
  EXPECT_EQ(message->changes().ranges(0).pos(), 11u);
  EXPECT_EQ(message->changes().ranges(0).data(), "E");
  EXPECT_EQ(message->updates(), 2u);
  stream->context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  Write(90, "later");
  v1::WatchAreaRequest resume = Watch(8, 100);
  resume.set_from_updates(2);
  resume.set_from_incarnation(incarnation);
  stream = Open(resume);
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().ranges_size(), 1);
  EXPECT_EQ(message->changes().ranges(0).data(), "later");
  EXPECT_EQ(stream->AwaitSynced()->updates(), 3u);
  resume.set_from_incarnation(incarnation + 1);
  stream = Open(resume);
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->resync().reason(), v1::RESYNC_REASON_REPLACED);
  EXPECT_TRUE(stream->Next()->has_snapshot());
}

TEST_F(AreaWatchDoorTest, BadRequestsAreRefused) {
  v1::WatchAreaRequest request = Watch();
  request.set_name("none");
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_AREA_NOT_FOUND);
  request.set_name("bad name");
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_NAME_INVALID);
  for (const auto& [pos, len] : std::vector<std::pair<uint64_t, std::optional<uint64_t>>>{
           {kSize, {}}, {kSize - 1, 2}, {0, kSize + 1}, {UINT64_MAX, 2}, {1, UINT64_MAX}}) {
    const grpc::Status refused = Refusal(Watch(pos, len));
    EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_OUT_OF_BOUNDS) << pos;
    EXPECT_THAT(refused.error_message(), HasSubstr("area \"a\": pos " + std::to_string(pos)));
    EXPECT_THAT(refused.error_message(), HasSubstr("size of 100000 bytes"));
  }
  EXPECT_THAT(Refusal(Watch(0, 0)).error_message(), HasSubstr("field len"));
  for (const auto& [seconds, nanos] :
       std::vector<std::pair<int64_t, int32_t>>{{0, 10'000'001}, {0, -1}, {1, 0}, {-1, 0}}) {
    request = Watch();
    request.mutable_window()->set_seconds(seconds);
    request.mutable_window()->set_nanos(nanos);
    EXPECT_THAT(Refusal(request).error_message(), HasSubstr("field window"));
  }
  request = Watch();
  request.mutable_progress_interval()->set_nanos(99'999'999);
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("progress_interval"));
  EXPECT_EQ(service_->area_watches().Totals().watches, 0u);
  // At the limits.
  request = Watch(kSize - 1, 1);
  request.mutable_window()->set_nanos(10'000'000);
  request.mutable_progress_interval()->set_nanos(100'000'000);
  const auto stream = Open(request);
  ASSERT_TRUE(stream->AwaitSynced().has_value());
  const auto progress = stream->Next();
  ASSERT_TRUE(progress.has_value());
  EXPECT_TRUE(progress->has_progress());
  EXPECT_EQ(progress->updates(), 0u);
}

TEST_F(AreaWatchDoorTest, LongRangesComeInPiecesUnderTheMessageLimit) {
  constexpr uint64_t kLong = (5 << 20) + 17;  // Beyond what is copied.
  Create("long", kLong);
  v1::WatchAreaRequest request = Watch(17);
  request.set_name("long");
  const auto stream = Open(request);
  uint64_t next = 17;
  auto message = stream->Next();
  for (; message && message->has_snapshot(); message = stream->Next()) {
    EXPECT_EQ(message->snapshot().range().pos(), next);
    EXPECT_LE(message->snapshot().range().data().size(), kAreaPieceBytes);
    next += message->snapshot().range().data().size();
    EXPECT_EQ(message->snapshot().more(), next < kLong);
  }
  EXPECT_EQ(next, kLong);
  ASSERT_TRUE(message.has_value());
  EXPECT_TRUE(message->has_synced());
}

TEST_F(AreaWatchDoorTest, NeedsATokenWithTheRightToRead) {
  grpc::ClientContext context;
  auto reader = stub_->WatchArea(&context, Watch());
  v1::WatchAreaResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(ReasonOf(reader->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);
  const std::string other =
      CreateToken(folder_ + "/tokens.toml", {"", 0, {ParseGrant("area:other:read").value()}})
          .value();
  ASSERT_TRUE(authenticator_->Reload().ok());
  grpc::ClientContext with_other;
  with_other.AddMetadata("authorization", "Bearer " + other);
  reader = stub_->WatchArea(&with_other, Watch());
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(ReasonOf(reader->Finish()), v1::ERROR_REASON_PERMISSION_DENIED);
}

TEST_F(AreaWatchDoorTest, EndsWithTheTokenTheAreaAndTheService) {
  auto stream = Open(Watch());
  ASSERT_TRUE(stream->AwaitSynced().has_value());
  const std::string tokens = folder_ + "/tokens.toml";
  const auto listed = ListTokens(tokens);
  ASSERT_TRUE(listed.ok());
  ASSERT_TRUE(RevokeToken(tokens, listed->front().id).ok());
  ASSERT_TRUE(authenticator_->Reload().ok());
  service_->dispatcher().RecheckIdentities(authenticator_.get());
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);

  token_ = CreateToken(tokens, {"", 0, {ParseGrant("area:*:read").value()}}).value();
  ASSERT_TRUE(authenticator_->Reload().ok());
  stream = Open(Watch());
  ASSERT_TRUE(stream->AwaitSynced().has_value());
  v1::DeleteAreaRequest erase;
  erase.set_name("a");
  ASSERT_TRUE(
      service_->Call<v1::DeleteAreaResponse>("/statehouse.v1.Areas/DeleteArea", erase).ok());
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_AREA_NOT_FOUND);

  Create("a", kSize);
  stream = Open(Watch());
  ASSERT_TRUE(stream->AwaitSynced().has_value());
  service_->dispatcher().Shutdown();
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_DRAINING);
}

TEST_F(AreaWatchDoorTest, ASilentClientGetsTheNewestBytesAndAGoneOneLeavesNothing) {
  const auto silent = Open(Watch());
  ASSERT_TRUE(silent->AwaitSynced().has_value());
  // More than a connection's window holds.
  for (int i = 0; i < 200; ++i) Write(0, std::string(kSize, static_cast<char>('a' + i % 26)));
  Write(0, std::string(kSize, 'Z'));
  std::string bytes(kSize, '\0');
  int messages = 0;
  while (bytes != std::string(kSize, 'Z')) {
    const auto message = silent->Next();
    ASSERT_TRUE(message.has_value());
    ++messages;
    for (const v1::AreaRange& range : message->changes().ranges()) {
      bytes.replace(range.pos(), range.len(), range.data());
    }
  }
  EXPECT_LT(messages, 200);
  silent->context.TryCancel();
  EXPECT_EQ(silent->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return service_->area_watches().Totals().watches == 0; }));
}

}  // namespace
}  // namespace statehouse
