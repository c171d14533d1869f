// libFuzzer target: whatever a client sends over a connection of batches, the session ends or goes
// on, gives back all that it counted, and carries out nothing that was not asked for by a caller
// with a token. The input's first bytes choose what a client that behaves has sent before, in what
// pieces the rest comes, and when batches are answered.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "service/http2/batch_session.h"
#include "service/http2/grpc_wire.h"
#include "tests/support/http2.h"

namespace {

using namespace statehouse;  // NOLINT(google-build-using-namespace)

constexpr int64_t kBytesMax = 1 << 20;
constexpr char kToken[] = "right";

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a session of batches: %s\n", what);
  std::abort();
}

class Host final : public BatchHost {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                         uint64_t* generation) override {
    *generation = 1;
    if (authorization != std::string("Bearer ") + kToken) {
      return Status(Reason::kUnauthenticated, "who is this");
    }
    return std::make_shared<const Identity>("id", "", 0, std::vector<Grant>());
  }
  StatusOr<std::shared_ptr<const Identity>> Current(std::shared_ptr<const Identity> identity,
                                                    uint64_t*) override {
    return identity;
  }
  GrpcTrailers TrailersOf(const Status& why) override { return {13, why.message(), "details"}; }
  Status OpenStream() override {
    ++streams;
    return Status();
  }
  void CloseStream() override { Require(--streams >= 0, "a stream is closed twice"); }
  void CountWasted() override {}
  void CountUseful() override {}
  void CountBytes(int64_t more) override {
    bytes += more;
    Require(bytes >= 0, "bytes are given back twice");
  }
  bool HasRoom(int64_t answers) override {
    Require(answers >= 0 && answers <= bytes, "session and host count differently");
    return bytes < kBytesMax;
  }
  int streams = 0;
  int64_t bytes = 0;
};

class Answers final : public Dispatcher {
 public:
  std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view,
                                        std::string_view request, DoneCallback done) override {
    Require(context.identity != nullptr, "a batch without a caller");
    std::string answer(request.size() % 97 * 13, 'a');
    if (waits) {
      parked.emplace_back(std::move(answer), std::move(done));
    } else {
      done(std::move(answer));
    }
    return nullptr;
  }
  void AnswerAll() {
    while (!parked.empty()) {
      auto [answer, done] = std::move(parked.front());
      parked.pop_front();
      done(std::move(answer));
    }
  }
  bool Knows(std::string_view) const override { return false; }
  bool Streams(std::string_view) const override { return false; }
  bool Converses(std::string_view) const override { return true; }
  StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext&, std::string_view,
                                                     std::string_view,
                                                     std::function<void()>) override {
    return Status(Reason::kInternal, "not here");
  }
  std::vector<std::string> Methods() const override { return {}; }
  uint32_t CallsInFlight() const override { return 0; }
  void RecheckIdentities(Authenticator*) override {}
  void Shutdown() override {}

  bool waits = false;
  std::deque<std::pair<std::string, DoneCallback>> parked;
};

std::string WhatCameBefore(uint8_t how) {
  if (how % 4 == 0) return "";
  std::string before = testing::Preface(testing::Setting(kBatchesSetting, kBatchesSettingValue));
  for (uint32_t stream = 1; how % 4 >= 2 && stream <= how % 4; stream += 2) {
    before +=
        testing::EncodeFrame(testing::FrameType::kHeaders, testing::kEndHeaders, stream,
                             testing::CallHeaders("/statehouse.v1.Batches/RunBatches", kToken));
    before +=
        testing::EncodeFrame(testing::FrameType::kData, 0, stream, testing::GrpcMessage("a batch"));
  }
  return before;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  Host host;
  Answers answers;
  answers.waits = (data[0] & 4) != 0;
  const bool ends_streams = (data[0] & 8) != 0;
  const size_t piece = 1 + data[1];
  {
    BatchSession session(&host, &answers, Lane{}, "10.0.0.7:5", [] {});
    std::string output;
    session.Receive(WhatCameBefore(data[0]));
    std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
    while (!rest.empty() && !session.is_over()) {
      session.Receive(rest.substr(0, piece));
      rest.remove_prefix(std::min(piece, rest.size()));
      if (rest.size() % 3 == 0) answers.AnswerAll();
      session.BeginTurn((data[0] & 32) != 0 && rest.size() % 5 != 0 ? 0 : UINT64_MAX);
      session.Settle();
      output.clear();
      session.Take(&output, 64 << 10);
    }
    if (ends_streams) session.EndStreams(Status(Reason::kDraining, "the service stops"));
    if ((data[0] & 16) != 0) answers.AnswerAll();
    session.Settle();
    session.Take(&output, 1 << 20);
    Require(host.streams <= static_cast<int>(BatchSession::kStreamsMax), "too many streams");
  }
  answers.AnswerAll();
  Require(host.streams == 0 && host.bytes == 0, "something is left");
  return 0;
}
