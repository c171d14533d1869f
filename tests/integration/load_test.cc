// Everything at once: 2,000 connections, half of them with a watch, 200 with a session of its own
// that holds a lock and sends batches of all kinds, four of them under way on each stream, and all
// others with calls. Every answer is right, every watch comes to the last value, no lock is lost,
// and the daemon's memory stays bounded.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <statehouse/client.hpp>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"
#include "statehouse/v1/watch.pb.h"
#include "tests/support/daemon.h"
#include "tests/support/http2.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

constexpr size_t kConnections = 2000;
constexpr size_t kWatches = 1000;
constexpr size_t kBatchStreams = 200;
constexpr size_t kThreads = 4;   // Of the test: each looks after a quarter of each kind.
constexpr int kWindow = 4;       // Batches under way on a stream.
constexpr int kIncrements = 64;  // Of a batch,
constexpr int kOtherVerbs = 5;   // which has so many other operations in front of them.
constexpr int kBatchSize = kIncrements + kOtherVerbs;
constexpr int64_t kTtlS = 30;  // Of sessions and their locks, renewed by each batch.
constexpr uint64_t kWordBytes = 8;
constexpr double kGrowthMibMax = 512;
constexpr char kRunBatches[] = "/statehouse.v1.Batches/RunBatches";
constexpr char kWatchDict[] = "/statehouse.v1.Dicts/WatchDict";
constexpr char kIncrement[] = "/statehouse.v1.Dicts/IncrementEntry";
constexpr char kOpenSession[] = "/statehouse.v1.Sessions/OpenSession";
constexpr char kAcquireLock[] = "/statehouse.v1.Locks/AcquireLock";
constexpr char kReleaseLock[] = "/statehouse.v1.Locks/ReleaseLock";
constexpr uint32_t kRoom = 0x7fffffff - 65'535;

double MemoryMib(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "RssAnon:" && status >> kib) return kib / 1024;
  }
  return -1;
}

// What a client says first, with as much room for answers as there can be.
std::string Opening() {
  return Preface(Setting(4, 0x7fffffff)) +
         EncodeFrame(FrameType::kWindowUpdate, 0, 0, BigEndian32(kRoom));
}

// A stream whose messages are read one after the other.
class Stream final {
 public:
  Stream(const std::string& address, const char* path, const std::string& token)
      : connection_(address) {
    is_fine_ = connection_.valid() &&
               connection_.Send(Opening() + EncodeFrame(FrameType::kHeaders, kEndHeaders, 1,
                                                        CallHeaders(path, token)));
  }
  bool is_fine() const { return is_fine_; }
  void Send(const std::string& message, bool is_last = false) {
    is_fine_ = is_fine_ && connection_.Send(EncodeFrame(FrameType::kData, is_last ? kEndStream : 0,
                                                        1, GrpcMessage(message)));
  }
  // The next message; empty when the stream is over, or nothing came in time.
  std::optional<std::string> Receive() {
    for (;;) {
      if (bytes_.size() >= 5) {
        size_t length = 0;
        for (size_t i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(bytes_[i]);
        if (bytes_.size() >= 5 + length) {
          std::string message = bytes_.substr(5, length);
          bytes_.erase(0, 5 + length);
          return message;
        }
      }
      const auto frame = connection_.Receive(std::chrono::milliseconds(60'000));
      const bool is_over = !frame.has_value() || frame->type == FrameType::kResetStream ||
                           frame->type == FrameType::kGoAway ||
                           (frame->type == FrameType::kHeaders && (frame->flags & kEndStream) != 0);
      if (is_over) return std::nullopt;
      if (frame->type == FrameType::kData) bytes_ += frame->payload;
    }
  }

 private:
  Http2Connection connection_;
  std::string bytes_;
  bool is_fine_ = false;
};

class LoadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    DaemonOptions options_of_daemon;
    // Its connections are read one after the other, for minutes, so that pings go unread.
    options_of_daemon.environment = {"STATEHOUSED_NETWORK__KEEPALIVE_S=0"};
    auto daemon = Daemon::Start(options_of_daemon);
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    address_ = daemon_->tcp_address();
    client::Options options;
    options.token = daemon_->token();
    options.transport = SH_TRANSPORT_NETWORK;
    auto client = client::Client::Connect("statehouse://" + address_, options);
    ASSERT_TRUE(client.ok());
    auto dict = client->OpenDict("load");
    ASSERT_TRUE(dict.ok());
    dict_ = std::make_unique<client::Dict>(*std::move(dict));
    auto area = client->Open("load-area", kWordBytes * kBatchStreams);
    ASSERT_TRUE(area.ok());
    area_ = std::make_unique<client::Area>(*std::move(area));
    client_ = std::make_unique<client::Client>(*std::move(client));
  }

  void Expect(bool holds, const char* what) {
    if (holds) return;
    if (++failures_ <= 5) ADD_FAILURE() << what;
  }
  static std::string WatchRequest() {
    v1::WatchDictRequest request;
    request.set_name("load");
    request.set_key("watched");
    return request.SerializeAsString();
  }

  // A session with its lock, and the batches that it sends.
  struct Worker {
    size_t number = 0;
    uint64_t session = 0;
    uint64_t token = 0;
    std::unique_ptr<Stream> stream;
    std::string request;
    int64_t batches = 0;  // That were answered.
    std::string Name() const { return "w" + std::to_string(number); }
  };

  template <typename Response, typename Request>
  Response Call(Http2Connection* connection, uint32_t stream, const char* path,
                const Request& request) {
    Response response;
    const bool was_sent =
        connection->Send(UnaryCall(stream, path, daemon_->token(), request.SerializeAsString()));
    const auto answer = was_sent ? connection->Answer(stream) : std::nullopt;
    Expect(answer.has_value() && response.ParseFromString(*answer), path);
    return response;
  }

  void Begin(Worker* worker, Http2Connection* connection, uint32_t stream) {
    v1::OpenSessionRequest open;
    open.mutable_ttl()->set_seconds(kTtlS);
    worker->session =
        Call<v1::OpenSessionResponse>(connection, stream, kOpenSession, open).session_id();
    v1::AcquireLockRequest acquire;
    acquire.set_name(worker->Name());
    acquire.set_session_id(worker->session);
    acquire.set_request_id(1);
    acquire.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    acquire.mutable_ttl()->set_seconds(kTtlS);
    acquire.mutable_timeout();
    const auto acquired =
        Call<v1::AcquireLockResponse>(connection, stream + 2, kAcquireLock, acquire);
    Expect(acquired.acquired(), "a lock that nobody wants was not had");
    worker->token = acquired.token();
    worker->request = BatchOf(*worker);
    worker->stream = std::make_unique<Stream>(address_, kRunBatches, daemon_->token());
    for (int i = 0; i < kWindow; ++i) worker->stream->Send(worker->request);
  }
  void End(Worker* worker, Http2Connection* connection, uint32_t stream) {
    for (int i = 0; i < kWindow; ++i) CheckBatch(worker->stream->Receive(), worker);
    batches_ += worker->batches;
    v1::ReleaseLockRequest release;
    release.set_name(worker->Name());
    release.set_session_id(worker->session);
    release.set_token(worker->token);
    Expect(Call<v1::ReleaseLockResponse>(connection, stream, kReleaseLock, release).held(),
           "a lock was lost");
  }

  std::string BatchOf(const Worker& worker) {
    v1::RunBatchesRequest request;
    v1::Batch* const batch = request.mutable_batch();
    batch->add_names("load");
    batch->add_names("load-area");
    v1::EntrySet* const set = batch->add_operations()->mutable_set();
    set->set_key("set by " + worker.Name());
    set->mutable_value()->set_string_value(worker.Name());
    batch->add_operations()->mutable_get()->set_key(set->key());
    v1::WordAdd* const add = batch->add_operations()->mutable_add();
    add->set_area(1);
    add->set_pos(kWordBytes * worker.number);
    add->set_type(v1::WORD_TYPE_U64);
    v1::RenewLockRequest* const renew = batch->add_operations()->mutable_renew_lock();
    renew->set_name(worker.Name());
    renew->set_session_id(worker.session);
    renew->set_token(worker.token);
    renew->mutable_ttl()->set_seconds(kTtlS);
    batch->add_operations()->mutable_renew_session()->set_session_id(worker.session);
    for (int i = 0; i < kIncrements; ++i) {
      batch->add_operations()->mutable_increment()->set_key(worker.Name());
    }
    return request.SerializeAsString();
  }
  // Nobody else touches what the worker's batches touch, so each answer is known.
  void CheckBatch(const std::optional<std::string>& message, Worker* worker) {
    v1::RunBatchesResponse response;
    if (!message.has_value() || !response.ParseFromString(*message)) {
      return Expect(false, "a batch was not answered");
    }
    const auto& results = response.result().results();
    if (results.size() != kBatchSize) return Expect(false, "a batch was not carried out");
    const int64_t before = worker->batches++;
    Expect(results[0].set().version() > 0, "a set was refused");
    Expect(results[1].get().value().string_value() == worker->Name(), "a set was not seen");
    Expect(results[2].add().value().unsigned_value() == static_cast<uint64_t>(before + 1),
           "an add was lost or doubled");
    Expect(results[3].has_renew_lock(), "a lock was lost");
    Expect(results[4].has_renew_session(), "a session was lost");
    for (int i = 0; i < kIncrements; ++i) {
      Expect(results[kOtherVerbs + i].increment().number() == before * kIncrements + i + 1,
             "an increment was lost or doubled");
    }
  }

  // Batches and calls in turns, until the end.
  void Work(size_t thread) {
    Http2Connection connection(address_);
    Expect(connection.valid() && connection.Send(Opening()), "connecting failed");
    std::vector<Worker> workers;
    uint32_t stream = 1;
    for (size_t i = thread; i < kBatchStreams; i += kThreads, stream += 4) {
      workers.emplace_back().number = i;
      Begin(&workers.back(), &connection, stream);
    }
    v1::IncrementEntryRequest call;
    call.set_name("load");
    call.set_key("called");
    const std::string request = call.SerializeAsString();
    std::vector<std::unique_ptr<Http2Connection>> callers;
    for (size_t i = thread; i < kConnections - kWatches - kBatchStreams; i += kThreads) {
      callers.push_back(std::make_unique<Http2Connection>(address_));
      Expect(callers.back()->valid() && callers.back()->Send(Opening()), "connecting failed");
    }
    ++ready_;
    for (uint32_t turn = 0; !stop_; ++turn) {
      for (Worker& worker : workers) {
        CheckBatch(worker.stream->Receive(), &worker);
        worker.stream->Send(worker.request);
      }
      const uint32_t call_stream = 2 * turn + 1;
      for (const auto& caller : callers) {
        Expect(caller->Send(UnaryCall(call_stream, kIncrement, daemon_->token(), request)),
               "no call");
      }
      for (const auto& caller : callers) {
        Expect(caller->Answer(call_stream).has_value(), "a call was not answered");
        ++calls_;
      }
    }
    for (Worker& worker : workers) {
      End(&worker, &connection, stream);
      stream += 2;
    }
  }

  // Reads its watches until each has told the last value.
  void Watch(size_t thread) {
    std::vector<std::unique_ptr<Stream>> watches;
    for (size_t i = thread; i < kWatches; i += kThreads) {
      watches.push_back(std::make_unique<Stream>(address_, kWatchDict, daemon_->token()));
      watches.back()->Send(WatchRequest(), true);
      Expect(watches.back()->is_fine(), "a watch was not opened");
    }
    ++ready_;
    for (const auto& watch : watches) {
      bool has_last = false;
      while (!has_last) {
        const auto message = watch->Receive();
        v1::WatchDictResponse response;
        if (!message.has_value() || !response.ParseFromString(*message)) {
          Expect(false, "a watch ended");
          break;
        }
        // Of a watch that began late it is in the snapshot.
        for (const v1::Entry& entry : response.snapshot().entries()) {
          has_last = has_last || entry.value().string_value() == "last";
        }
        for (const v1::DictChange& change : response.changes().changes()) {
          has_last = has_last || change.value().string_value() == "last";
        }
      }
    }
  }

  std::unique_ptr<Daemon> daemon_;
  std::string address_;
  std::unique_ptr<client::Client> client_;
  std::unique_ptr<client::Dict> dict_;
  std::unique_ptr<client::Area> area_;
  std::atomic<size_t> ready_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> failures_{0};
  std::atomic<int64_t> calls_{0};
  std::atomic<int64_t> batches_{0};
};

TEST_F(LoadTest, ThousandsOfConnectionsWatchesAndBatchesAtOnce) {
  const pid_t daemon = daemon_->daemon_pid();
  const double before = MemoryMib(daemon);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i] { Watch(i); });
    threads.emplace_back([this, i] { Work(i); });
  }
  EXPECT_TRUE(Eventually([this] { return ready_ == 2 * kThreads; }));
  double most = before;
  int64_t sets = 0;
  const uint64_t until = MonotonicNs() + static_cast<uint64_t>(Rounds(3, 180)) * 1'000'000'000;
  while (MonotonicNs() < until) {
    EXPECT_TRUE(dict_->Set("watched", std::to_string(++sets)).ok());
    SleepNs(20'000'000);
    most = std::max(most, MemoryMib(daemon));
  }
  stop_ = true;
  EXPECT_TRUE(dict_->Set("watched", "last").ok());
  for (std::thread& thread : threads) thread.join();

  const int64_t batches = batches_.load();
  std::printf(
      "%zu connections, %zu watches, %zu sessions with a lock and batches: %lld operations of "
      "batches, %lld calls, %lld changes for all watches; memory %.0f MiB, before %.0f MiB\n",
      kConnections, kWatches, kBatchStreams, static_cast<long long>(batches * kBatchSize),
      static_cast<long long>(calls_.load()), static_cast<long long>(sets), most, before);
  EXPECT_EQ(failures_, 0);
  EXPECT_GT(batches, static_cast<int64_t>(kBatchStreams) * kWindow);
  EXPECT_GT(calls_, 0);
  EXPECT_LT(most - before, kGrowthMibMax);
  EXPECT_EQ(daemon_->daemon_pid(), daemon);
  EXPECT_EQ(dict_->Get<int64_t>("called").value(), calls_.load());
  int64_t increments = 0;
  uint64_t adds = 0;
  for (size_t i = 0; i < kBatchStreams; ++i) {
    increments += dict_->Get<int64_t>("w" + std::to_string(i)).value().value_or(0);
    adds += area_->Load<uint64_t>(kWordBytes * i).value();
  }
  EXPECT_EQ(increments, batches * kIncrements);
  EXPECT_EQ(adds, static_cast<uint64_t>(batches));
}

}  // namespace
}  // namespace statehouse::testing
