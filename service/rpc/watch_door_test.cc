// Watches through the network door: what a client sees, how a stream ends, and that a slow or
// silent client costs nobody else anything.
#include <gmock/gmock.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <atomic>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "service/auth/token_file.h"
#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/joint_sends.h"
#include "service/rpc/sole_poller.h"
#include "statehouse/v1/dict.grpc.pb.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class WatchDoorTest : public GrpcDoorTest {
 protected:
  WatchDoorTest() : stub_(v1::Dicts::NewStub(Channel())) {
    v1::CreateDictRequest create;
    create.set_name("d");
    EXPECT_TRUE(
        service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  }

  static v1::SetEntryRequest SetRequest(const std::string& key, const std::string& text) {
    v1::SetEntryRequest request;
    request.set_name("d");
    request.set_key(key);
    request.mutable_value()->set_string_value(text);
    return request;
  }
  void Set(const std::string& key, const std::string& text) {
    constexpr const char* kVerb = "/statehouse.v1.Dicts/SetEntry";
    ASSERT_TRUE(service_->Call<v1::SetEntryResponse>(kVerb, SetRequest(key, text)).ok());
  }

  // The polling thread makes this change.
  void SetByCall(const std::string& key, const std::string& text) {
    grpc::ClientContext context;
    v1::SetEntryResponse response;
    Authorize(&context);
    ASSERT_TRUE(stub_->SetEntry(&context, SetRequest(key, text), &response).ok());
  }

  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchDictResponse>> reader;
    // The next message, or nothing at the end.
    std::optional<v1::WatchDictResponse> Next() {
      v1::WatchDictResponse message;
      return reader->Read(&message) ? std::optional(message) : std::nullopt;
    }
    // Reads up to the message that has `synced`.
    uint64_t AwaitSynced() {
      while (const auto message = Next()) {
        if (message->has_synced()) return message->revision();
      }
      return 0;
    }
    grpc::Status Finish() { return reader->Finish(); }
  };
  std::unique_ptr<Stream> Open(v1::WatchDictRequest request, v1::Dicts::Stub* stub = nullptr) {
    auto stream = std::make_unique<Stream>();
    Authorize(&stream->context);
    stream->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream->reader = (stub == nullptr ? *stub_ : *stub).WatchDict(&stream->context, request);
    return stream;
  }
  static v1::WatchDictRequest Watch() {
    v1::WatchDictRequest request;
    request.set_name("d");
    return request;
  }
  grpc::Status Refusal(const v1::WatchDictRequest& request) {
    const auto stream = Open(request);
    EXPECT_FALSE(stream->Next().has_value());
    return stream->Finish();
  }

  std::unique_ptr<v1::Dicts::Stub> stub_;
};

TEST_F(WatchDoorTest, SnapshotSyncedChangesAndResume) {
  Set("a", "one");
  auto stream = Open(Watch());
  auto message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->snapshot().entries_size(), 1);
  EXPECT_EQ(message->snapshot().entries(0).key(), "a");
  EXPECT_EQ(message->snapshot().entries(0).value().string_value(), "one");
  EXPECT_EQ(message->revision(), 0u);
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_TRUE(message->has_synced());
  const uint64_t synced = message->revision();
  EXPECT_GT(synced, 0u);
  Set("a", "two");
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().changes_size(), 1);
  const v1::DictChange& change = message->changes().changes(0);
  EXPECT_EQ(change.kind(), v1::CHANGE_KIND_PUT);
  EXPECT_EQ(change.key(), "a");
  EXPECT_EQ(change.value().string_value(), "two");
  EXPECT_EQ(change.revision(), synced + 1);
  EXPECT_EQ(message->revision(), synced + 1);
  EXPECT_GT(change.version(), 0u);
  EXPECT_GT(change.time().seconds(), 0);
  EXPECT_FALSE(change.coalesced());
  EXPECT_FALSE(change.value_gone());
  stream->context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  Set("b", "three");
  v1::WatchDictRequest resume = Watch();
  resume.set_from_revision(synced + 1);
  stream = Open(resume);
  message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().changes_size(), 1);
  EXPECT_EQ(message->changes().changes(0).key(), "b");
  EXPECT_EQ(stream->AwaitSynced(), synced + 2);
}

TEST_F(WatchDoorTest, KeysOnlyKindsNumbersAndDeletes) {
  Set("a", "one");
  v1::WatchDictRequest keys = Watch();
  keys.set_keys_only(true);
  keys.set_prefix("a");
  const auto stream = Open(keys);
  auto message = stream->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->snapshot().entries(0).key(), "a");
  EXPECT_FALSE(message->snapshot().entries(0).has_value());
  EXPECT_GT(stream->AwaitSynced(), 0u);
  v1::WatchDictRequest deletes = Watch();
  deletes.set_skip_snapshot(true);
  deletes.add_kinds(v1::CHANGE_KIND_DELETE);
  const auto other = Open(deletes);
  EXPECT_GT(other->AwaitSynced(), 0u);
  v1::IncrementEntryRequest increment;
  increment.set_name("d");
  increment.set_key("ab");
  ASSERT_TRUE(
      service_->Call<v1::IncrementEntryResponse>("/statehouse.v1.Dicts/IncrementEntry", increment)
          .ok());
  v1::DeleteEntryRequest erase;
  erase.set_name("d");
  erase.set_key("a");
  ASSERT_TRUE(
      service_->Call<v1::DeleteEntryResponse>("/statehouse.v1.Dicts/DeleteEntry", erase).ok());
  std::vector<std::string> told;
  while (told.size() < 2) {
    message = stream->Next();
    ASSERT_TRUE(message.has_value());
    for (const v1::DictChange& change : message->changes().changes()) {
      EXPECT_FALSE(change.has_value());
      told.push_back(v1::ChangeKind_Name(change.kind()) + " " + change.key());
    }
  }
  EXPECT_EQ(told, (std::vector<std::string>{"CHANGE_KIND_PUT ab", "CHANGE_KIND_DELETE a"}));
  message = other->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().changes_size(), 1);
  EXPECT_EQ(message->changes().changes(0).key(), "a");
}

TEST_F(WatchDoorTest, PreviousValuesComeWithEachChange) {
  Set("a", "one");
  v1::WatchDictRequest request = Watch();
  request.set_previous(true);
  const auto stream = Open(request);
  const auto plain = Open(Watch());
  EXPECT_GT(stream->AwaitSynced(), 0u);
  EXPECT_GT(plain->AwaitSynced(), 0u);
  Set("a", "two");
  Set("b", "three");
  v1::DeleteEntryRequest erase;
  erase.set_name("d");
  erase.set_key("a");
  ASSERT_TRUE(
      service_->Call<v1::DeleteEntryResponse>("/statehouse.v1.Dicts/DeleteEntry", erase).ok());
  std::vector<v1::DictChange> changes;
  while (changes.size() < 3) {
    const auto message = stream->Next();
    ASSERT_TRUE(message.has_value());
    for (const v1::DictChange& change : message->changes().changes()) changes.push_back(change);
  }
  EXPECT_EQ(changes[0].value().string_value(), "two");
  EXPECT_EQ(changes[0].previous().string_value(), "one");
  EXPECT_EQ(changes[1].value().string_value(), "three");
  EXPECT_FALSE(changes[1].has_previous());
  EXPECT_EQ(changes[2].kind(), v1::CHANGE_KIND_DELETE);
  EXPECT_EQ(changes[2].previous().string_value(), "two");
  for (const v1::DictChange& change : changes) EXPECT_FALSE(change.previous_gone());
  EXPECT_GT(service_->watches().Totals().previous_bytes, 0u);
  // Nobody else gets them.
  const auto message = plain->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_FALSE(message->changes().changes(0).has_previous());
  EXPECT_FALSE(message->changes().changes(0).previous_gone());
}

TEST_F(WatchDoorTest, WhatWasBeforeTheHistoryIsGoneForOneThatGoesOn) {
  Set("a", "one");
  uint64_t revision = 0;
  {
    const auto stream = Open(Watch());
    revision = stream->AwaitSynced();
    stream->context.TryCancel();
    (void)stream->Finish();
  }
  Set("a", "two");
  Set("a", "three");
  v1::WatchDictRequest request = Watch();
  request.set_previous(true);
  request.set_from_revision(revision);
  const auto stream = Open(request);
  const auto message = stream->Next();
  ASSERT_TRUE(message.has_value());
  ASSERT_EQ(message->changes().changes_size(), 2);
  EXPECT_TRUE(message->changes().changes(0).previous_gone());
  EXPECT_FALSE(message->changes().changes(0).has_previous());
  EXPECT_FALSE(message->changes().changes(1).previous_gone());
  EXPECT_EQ(message->changes().changes(1).previous().string_value(), "two");
}

TEST_F(WatchDoorTest, InAWindowTheNewestOfEachKeyComesWithTheValueBefore) {
  Set("a", "0");
  v1::WatchDictRequest request = Watch();
  request.set_previous(true);
  request.set_slow_policy(v1::SLOW_POLICY_LATEST);
  request.mutable_window()->set_nanos(10'000'000);
  const auto stream = Open(request);
  EXPECT_GT(stream->AwaitSynced(), 0u);
  constexpr int kChanges = 200;
  for (int i = 1; i <= kChanges; ++i) Set("a", std::to_string(i));
  // What each one has is what the one before it left, however many were left out.
  std::string last = "0";
  uint64_t told = 0;
  while (last != std::to_string(kChanges)) {
    const auto message = stream->Next();
    ASSERT_TRUE(message.has_value());
    ASSERT_EQ(message->changes().changes_size(), 1);
    const v1::DictChange& change = message->changes().changes(0);
    EXPECT_EQ(change.previous().string_value(), last);
    EXPECT_EQ(change.coalesced(), std::stoi(change.value().string_value()) != std::stoi(last) + 1);
    last = change.value().string_value();
    ++told;
  }
  EXPECT_EQ(service_->watches().Totals().coalesced, kChanges - told);
}

TEST_F(WatchDoorTest, HandsOverWhereThatIsOfferedAndPossible) {
  v1::WatchDictRequest offered = Watch();
  offered.set_local_follow(v1::LOCAL_FOLLOW_OFFERED);
  const auto of_this_host = v1::Dicts::NewStub(
      grpc::CreateChannel("unix:" + UnixPath(), grpc::InsecureChannelCredentials()));
  auto stream = Open(offered, of_this_host.get());
  const uint64_t revision = stream->AwaitSynced();
  const auto handed_over = stream->Next();
  ASSERT_TRUE(handed_over.has_value());
  ASSERT_TRUE(handed_over->has_handed_over()) << handed_over->DebugString();
  EXPECT_EQ(handed_over->revision(), revision);
  EXPECT_NE(handed_over->handed_over().log_id(), 0u);

  v1::WatchDictRequest latest = offered;
  latest.set_slow_policy(v1::SLOW_POLICY_LATEST);
  v1::WatchDictRequest previous = offered;
  previous.set_previous(true);
  v1::WatchDictRequest window = offered;
  window.mutable_window()->set_nanos(1);
  v1::WatchDictRequest declined = offered;
  declined.set_local_follow(v1::LOCAL_FOLLOW_DECLINED);
  int changes = 0;
  for (const v1::WatchDictRequest& request : {latest, previous, window, declined, Watch()}) {
    auto other = Open(request, of_this_host.get());
    ASSERT_NE(other->AwaitSynced(), 0u);
    Set("a", std::to_string(++changes));
    const auto next = other->Next();
    ASSERT_TRUE(next.has_value());
    EXPECT_TRUE(next->has_changes()) << next->DebugString();
  }
  auto of_another = Open(offered);  // By TCP: it could not map a log.
  ASSERT_NE(of_another->AwaitSynced(), 0u);
  Set("a", std::to_string(++changes));
  const auto next = of_another->Next();
  ASSERT_TRUE(next.has_value());
  EXPECT_TRUE(next->has_changes()) << next->DebugString();
  stream->context.TryCancel();  // It is told nothing but its end.
  EXPECT_FALSE(stream->Next().has_value());

  v1::WatchDictRequest senseless = Watch();
  senseless.set_local_follow(static_cast<v1::LocalFollow>(v1::LOCAL_FOLLOW_DECLINED + 1));
  EXPECT_EQ(Refusal(senseless).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(WatchDoorTest, BadRequestsAreRefused) {
  v1::WatchDictRequest request = Watch();
  request.set_name("none");
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_DICT_NOT_FOUND);
  request.set_name("bad name");
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_NAME_INVALID);
  request = Watch();
  request.set_key("");
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_KEY_INVALID);
  request.set_key(std::string(kDictKeyBytesMax + 1, 'k'));
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_KEY_INVALID);
  request.set_prefix(std::string(kDictKeyBytesMax + 1, 'k'));
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_KEY_INVALID);
  request = Watch();
  request.set_from_revision(0);
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("from_revision"));
  request = Watch();
  request.add_kinds(v1::CHANGE_KIND_UNSPECIFIED);
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("kinds"));
  request = Watch();
  request.set_slow_policy(static_cast<v1::SlowPolicy>(4));
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("slow_policy"));
  for (const int64_t nanos : {int64_t{99'999'999}, int64_t{0}}) {
    request = Watch();
    request.mutable_progress_interval()->set_nanos(static_cast<int32_t>(nanos));
    EXPECT_THAT(Refusal(request).error_message(), HasSubstr("progress_interval"));
  }
  for (const auto& [seconds, nanos] :
       {std::pair(0, 10'000'001), std::pair(1, 0), std::pair(0, -1), std::pair(-1, 0)}) {
    request = Watch();
    request.mutable_window()->set_seconds(seconds);
    request.mutable_window()->set_nanos(nanos);
    EXPECT_THAT(Refusal(request).error_message(), HasSubstr("window"));
  }
  request = Watch();
  request.set_previous(true);
  request.set_keys_only(true);
  EXPECT_EQ(ReasonOf(Refusal(request)), v1::ERROR_REASON_INVALID_ARGUMENT);
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("previous"));
  request = Watch();
  request.mutable_progress_interval()->set_seconds(3601);
  EXPECT_THAT(Refusal(request).error_message(), HasSubstr("progress_interval"));
  EXPECT_EQ(service_->watches().Totals().watches, 0u);
  // At the limits.
  request.mutable_progress_interval()->set_seconds(3600);
  request.mutable_window()->set_nanos(10'000'000);
  request.set_key(std::string(kDictKeyBytesMax, 'k'));
  EXPECT_GT(Open(request)->AwaitSynced(), 0u);
  request.mutable_progress_interval()->set_seconds(0);
  request.mutable_progress_interval()->set_nanos(100'000'000);
  const auto stream = Open(request);
  EXPECT_GT(stream->AwaitSynced(), 0u);
  const auto progress = stream->Next();
  ASSERT_TRUE(progress.has_value());
  EXPECT_TRUE(progress->has_progress());
}

TEST_F(WatchDoorTest, NeedsATokenWithTheRightToRead) {
  grpc::ClientContext context;
  auto reader = stub_->WatchDict(&context, Watch());
  v1::WatchDictResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(ReasonOf(reader->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);
  const std::string tokens = folder_ + "/tokens.toml";
  const std::string other =
      CreateToken(tokens, {"", 0, {ParseGrant("dict:other:read").value()}}).value();
  ASSERT_TRUE(authenticator_->Reload().ok());
  grpc::ClientContext with_other;
  with_other.AddMetadata("authorization", "Bearer " + other);
  reader = stub_->WatchDict(&with_other, Watch());
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(ReasonOf(reader->Finish()), v1::ERROR_REASON_PERMISSION_DENIED);
}

TEST_F(WatchDoorTest, EndsWithTheTokenTheDictAndTheService) {
  auto stream = Open(Watch());
  ASSERT_GT(stream->AwaitSynced(), 0u);
  const std::string tokens = folder_ + "/tokens.toml";
  const auto listed = ListTokens(tokens);
  ASSERT_TRUE(listed.ok());
  ASSERT_TRUE(RevokeToken(tokens, listed->front().id).ok());
  ASSERT_TRUE(authenticator_->Reload().ok());
  service_->dispatcher().RecheckIdentities(authenticator_.get());
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_UNAUTHENTICATED);

  token_ = CreateToken(tokens, {"", 0, {ParseGrant("dict:*:read").value()}}).value();
  ASSERT_TRUE(authenticator_->Reload().ok());
  stream = Open(Watch());
  ASSERT_GT(stream->AwaitSynced(), 0u);
  v1::DeleteDictRequest erase;
  erase.set_name("d");
  ASSERT_TRUE(
      service_->Call<v1::DeleteDictResponse>("/statehouse.v1.Dicts/DeleteDict", erase).ok());
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_DICT_NOT_FOUND);

  v1::CreateDictRequest create;
  create.set_name("d");
  ASSERT_TRUE(
      service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
  stream = Open(Watch());
  ASSERT_GT(stream->AwaitSynced(), 0u);
  service_->dispatcher().Shutdown();
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_EQ(ReasonOf(stream->Finish()), v1::ERROR_REASON_DRAINING);
}

TEST_F(WatchDoorTest, AClientThatGoesLeavesNothingBehind) {
  {
    const auto stream = Open(Watch());
    ASSERT_GT(stream->AwaitSynced(), 0u);
    EXPECT_EQ(service_->watches().Totals().watches, 1u);
    stream->context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Eventually([&] { return service_->watches().Totals().watches == 0; }));
  // Also when it goes while a message is on its way to it, and when the door stops under it.
  const auto silent = Open(Watch());
  ASSERT_GT(silent->AwaitSynced(), 0u);
  for (int i = 0; i < 200; ++i) Set("k" + std::to_string(i), std::string(100'000, 'x'));
  silent->context.TryCancel();
  EXPECT_EQ(silent->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return service_->watches().Totals().watches == 0; }));
  const auto last = Open(Watch());
  ASSERT_GT(last->AwaitSynced(), 0u);
  door_->Shutdown(milliseconds(0));
  EXPECT_FALSE(last->Next().has_value());
  EXPECT_EQ(service_->watches().Totals().watches, 0u);
}

TEST_F(WatchDoorTest, AThousandStreamsAndOneThatNeverReads) {
  constexpr int kStreams = 1000;
  constexpr int kChannels = 10;
  std::vector<std::unique_ptr<v1::Dicts::Stub>> stubs;
  for (int i = 0; i < kChannels; ++i) stubs.push_back(v1::Dicts::NewStub(Channel()));
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < kStreams; ++i) streams.push_back(Open(Watch(), stubs[i % kChannels].get()));
  const auto silent_stub = v1::Dicts::NewStub(Channel());
  const auto silent = Open(Watch(), silent_stub.get());
  for (const auto& stream : streams) ASSERT_GT(stream->AwaitSynced(), 0u);
  // More than a connection's window: the silent one is stuck in the middle.
  for (int i = 0; i < 20; ++i) Set("big", std::string(200'000, static_cast<char>('a' + i)));
  Set("end", "end");
  for (const auto& stream : streams) {
    bool has_end = false;
    while (!has_end) {
      const auto message = stream->Next();
      ASSERT_TRUE(message.has_value());
      for (const v1::DictChange& change : message->changes().changes()) {
        has_end = has_end || change.key() == "end";
      }
    }
  }
  EXPECT_EQ(service_->watches().Totals().watches, kStreams + 1u);
  for (const auto& stream : streams) stream->context.TryCancel();
  silent->context.TryCancel();
}

// Messages are sent by the door's thread, by the hub's and by one that changed the dict, while
// streams come and go.
TEST_F(WatchDoorTest, WhoeverTellsAStreamTellsItInOrder) {
  constexpr int kStreams = 12;
  constexpr int kChanges = 150;
  std::vector<std::unique_ptr<v1::Dicts::Stub>> stubs;
  for (int i = 0; i < 3; ++i) stubs.push_back(v1::Dicts::NewStub(Channel()));
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < kStreams; ++i) streams.push_back(Open(Watch(), stubs[i % 3].get()));
  for (const auto& stream : streams) ASSERT_GT(stream->AwaitSynced(), 0u);
  std::atomic<bool> done{false};
  std::thread by_call([&] {
    for (int i = 0; i < kChanges; ++i) {
      v1::IncrementEntryRequest request;
      request.set_name("d");
      request.set_key("b");
      grpc::ClientContext context;
      Authorize(&context);
      v1::IncrementEntryResponse response;
      ASSERT_TRUE(stubs[0]->IncrementEntry(&context, request, &response).ok());
    }
  });
  std::thread mapped([&] {
    auto served = service_->engine().dicts().Find("d");
    ASSERT_TRUE(served.ok());
    const Lane lane = service_->engine().DaemonLane(2);
    for (int i = 0; i < kChanges; ++i) {
      DictResult result;
      const auto use = service_->engine().UseDaemonLane(lane);
      ASSERT_TRUE((*served)->dict().Set(lane, "c", DictValue::Int64(i), {}, &result).ok());
      // By itself every other time, else by the hub's thread.
      if (i % 2 == 0) service_->watches().LookNow((*served)->record().id);
    }
  });
  std::thread passing([&] {
    while (!done) {
      const auto stream = Open(Watch(), stubs[1].get());
      EXPECT_GT(stream->AwaitSynced(), 0u);
      stream->context.TryCancel();
      (void)stream->Finish();
    }
  });
  for (const auto& stream : streams) {
    uint64_t last = 0;
    for (int seen = 0; seen < 2 * kChanges;) {
      const auto message = stream->Next();
      ASSERT_TRUE(message.has_value());
      ASSERT_FALSE(message->has_resync());
      for (const v1::DictChange& change : message->changes().changes()) {
        ASSERT_GT(change.revision(), last);
        last = change.revision();
        ++seen;
      }
    }
  }
  done = true;
  for (std::thread* thread : {&by_call, &mapped, &passing}) thread->join();
  for (const auto& stream : streams) stream->context.TryCancel();
}

// Packets with data that the service's side of all connections to `port` has sent.
uint32_t PacketsFrom(int port) {
  uint32_t packets = 0;
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_in own{};
    socklen_t bytes = sizeof(own);
    const bool is_known = getsockname(fd, reinterpret_cast<sockaddr*>(&own), &bytes) == 0;
    if (!is_known || own.sin_family != AF_INET || ntohs(own.sin_port) != port) continue;
    tcp_info info{};
    bytes = sizeof(info);
    const bool is_tcp = getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0;
    if (is_tcp) packets += info.tcpi_data_segs_out;
  }
  return packets;
}

TEST_F(WatchDoorTest, StreamsOfOneConnectionAreToldInFewerPacketsThanMessages) {
  constexpr uint32_t kConnections = 50;
  constexpr uint32_t kStreamsOfEach = 8;  // So few that TCP itself would not put them together.
  v1::WatchDictRequest request = Watch();
  request.set_key("k");
  std::vector<std::unique_ptr<Stream>> streams;
  for (uint32_t i = 0; i < kConnections; ++i) {
    const auto stub = v1::Dicts::NewStub(Channel());
    for (uint32_t j = 0; j < kStreamsOfEach; ++j) streams.push_back(Open(request, stub.get()));
  }
  for (const auto& stream : streams) ASSERT_GT(stream->AwaitSynced(), 0u);

  // Where another thread notices a change first and the polling thread keeps up with it, it sends
  // one message after another: not every event has messages to put together.
  uint32_t packets = UINT32_MAX;
  for (int event = 0; event < 20 && packets >= kConnections * kStreamsOfEach; ++event) {
    const uint32_t before = PacketsFrom(port_);
    SetByCall("k", "told");
    for (const auto& stream : streams) {
      const auto message = stream->Next();
      ASSERT_TRUE(message.has_value());
      EXPECT_EQ(message->changes().changes(0).value().string_value(), "told");
    }
    packets = PacketsFrom(port_) - before;
    EXPECT_GE(packets, kConnections);
  }

  EXPECT_LT(packets, kConnections * kStreamsOfEach);
  for (const auto& stream : streams) stream->context.TryCancel();
}

TEST_F(WatchDoorTest, AConnectionOfManyStreamsIsPutOffAndAllAreTold) {
  ASSERT_TRUE(Eventually([] { return SolePoller::IsInForce(); }));
  constexpr uint32_t kStreams = 100;
  v1::WatchDictRequest request = Watch();
  request.set_key("k");
  const auto stub = v1::Dicts::NewStub(Channel());
  std::vector<std::unique_ptr<Stream>> streams;
  for (uint32_t i = 0; i < kStreams; ++i) streams.push_back(Open(request, stub.get()));
  for (const auto& stream : streams) ASSERT_GT(stream->AwaitSynced(), 0u);
  const uint64_t before = JointSends::put_offs();

  // As above, and not each event finds the streams idle; but each is told to all.
  for (int event = 0; event < 1000 && JointSends::put_offs() == before; ++event) {
    SetByCall("k", std::to_string(event));
    for (const auto& stream : streams) {
      const auto message = stream->Next();
      ASSERT_TRUE(message.has_value());
      EXPECT_EQ(message->changes().changes(0).value().string_value(), std::to_string(event));
    }
  }

  EXPECT_GT(JointSends::put_offs(), before);
  for (const auto& stream : streams) stream->context.TryCancel();
}

}  // namespace
}  // namespace statehouse
