// Fifty clients through a bad network: connections are cut at random moments, one reply in a
// hundred is lost after its request went through, and the daemon is killed each second. What was
// acknowledged is there exactly once, and what was not at most once. The seed is printed;
// STATEHOUSE_NETWORK_SEED=<seed> draws the same sequence again; what it meets depends on the time.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <statehouse/client.hpp>
#include <thread>

#include "engine/os/futex.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/support/daemon.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

constexpr int kClients = 50;
constexpr int kBatchClients = 10;   // Of them: batches by a stub, operation ids by hand.
constexpr int kBatchSize = 16;      // Increments of a batch, of a key each.
constexpr uint64_t kWords = 65536;  // Of one byte each, in the area of a client.
constexpr char kDict[] = "d";

// What became of the mutations of one client, as far as it was told. Of its thread until that ends.
struct Ledger {
  std::vector<bool> words;  // The n-th addition went to the n-th byte: whether it was acknowledged.
  int64_t added = 0;        // To its own entry.
  int64_t added_perhaps = 0;
  int64_t set = 0;  // The last acknowledged value of another one; the same number of sets.
  int64_t set_perhaps = 0;
  int64_t batches = 0;
  uint64_t unknown = 0;  // Mutations that were not acknowledged.
  uint64_t sent_again = 0;
};

// What is not as it must be.
class Problems final {
 public:
  void Add(const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (all_.size() < kKept) all_.push_back(what);
    ++count_;
  }
  bool any() const { return count_ > 0; }
  std::string Text() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string text = std::to_string(count_) + " problems";
    for (const std::string& problem : all_) text += "\n  " + problem;
    return text;
  }

 private:
  static constexpr size_t kKept = 20;
  mutable std::mutex mutex_;
  std::vector<std::string> all_;
  std::atomic<uint64_t> count_{0};
};

// A range that a number must lie in.
void ExpectWithin(int64_t seen, int64_t least, int64_t most, const std::string& what,
                  Problems* problems) {
  if (seen >= least && seen <= most) return;
  problems->Add(what + " is " + std::to_string(seen) + ", and must be within " +
                std::to_string(least) + " and " + std::to_string(most));
}

// Bytes of an area, and entries of a dict, by the C++ client library.
class LibraryClient final {
 public:
  LibraryClient(int index, client::Area area, client::Dict dict, Ledger* ledger, Problems* problems)
      : name_("c" + std::to_string(index)),
        area_(std::move(area)),
        dict_(std::move(dict)),
        ledger_(*ledger),
        problems_(*problems) {}

  void Step() {
    if (ledger_.words.size() < kWords) AddToWord();
    AddToEntry();
    SetEntry();
  }

 private:
  // Whether a refusal says that the call may have been carried out. Any other one is a problem.
  bool IsUnknown(sh_reason reason, const std::string& message) {
    ++ledger_.unknown;
    if (reason == SH_UNAVAILABLE || reason == SH_TIMEOUT) return true;
    problems_.Add(name_ + ": " + message);
    return true;
  }

  // Additions to words carry no operation id, so the library does not repeat them.
  void AddToWord() {
    const uint64_t at = ledger_.words.size();
    const auto sum = area_.Add<uint8_t>(at);
    ledger_.words.push_back(sum.ok());
    if (!sum.ok()) {
      IsUnknown(sum.error().reason(), sum.error().message());
    } else if (*sum != 1) {
      problems_.Add(name_ + ": word " + std::to_string(at) + " was added to before");
    }
  }
  void AddToEntry() {
    const auto sum = dict_.Increment(name_ + "/added");
    if (!sum.ok()) {
      if (IsUnknown(sum.error().reason(), sum.error().message())) ++ledger_.added_perhaps;
      return;
    }
    ++ledger_.added;
    ExpectWithin(*sum, ledger_.added, ledger_.added + ledger_.added_perhaps, name_ + "/added",
                 &problems_);
  }
  void SetEntry() {
    const int64_t next = ledger_.set + ledger_.set_perhaps + 1;
    const auto outcome = dict_.Set(name_ + "/set", next);
    if (!outcome.ok()) {
      if (IsUnknown(outcome.error().reason(), outcome.error().message())) ++ledger_.set_perhaps;
      return;
    }
    ledger_.set = next;
    ledger_.set_perhaps = 0;
  }

  const std::string name_;
  client::Area area_;
  client::Dict dict_;
  Ledger& ledger_;
  Problems& problems_;
};

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 5);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void Prepare(grpc::ClientContext* context, const std::string& token) {
  context->AddMetadata("authorization", "Bearer " + token);
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  context->set_wait_for_ready(true);
}

// How a batch client goes wrong, for the test of the test.
enum class Bug { kNone, kNewOperationIdForARetry };

// Batches of increments, each sent until it is answered.
class BatchClient final {
 public:
  BatchClient(int index, const std::string& address, std::string token, Bug bug, Ledger* ledger,
              Problems* problems)
      : name_("c" + std::to_string(index)),
        token_(std::move(token)),
        bug_(bug),
        session_(1'000'000 + static_cast<uint64_t>(index)),
        stub_(v1::Batches::NewStub(ChannelTo(address))),
        ledger_(*ledger),
        problems_(*problems) {}

  void Step() {
    v1::RunBatchRequest request;
    v1::Batch* const batch = request.mutable_batch();
    batch->add_names(kDict);
    for (int i = 0; i < kBatchSize; ++i) {
      batch->add_operations()->mutable_increment()->set_key(name_ + "/" + std::to_string(i));
    }
    batch->mutable_operation_id()->set_session(session_);
    v1::RunBatchResponse response;
    for (bool is_retry = false;; is_retry = true) {
      if (!is_retry || bug_ == Bug::kNewOperationIdForARetry) {
        batch->mutable_operation_id()->set_sequence(sequence_);
        sequence_ += kBatchSize;
      }
      if (is_retry) ++ledger_.sent_again;
      if (Run(request, &response)) break;
    }
    ++ledger_.batches;
    for (const v1::OperationResult& result : response.result().results()) {
      ExpectWithin(result.increment().number(), ledger_.batches, ledger_.batches,
                   name_ + ": a number of batch " + std::to_string(ledger_.batches), &problems_);
    }
  }

 private:
  // False: it must be sent again.
  bool Run(const v1::RunBatchRequest& request, v1::RunBatchResponse* response) {
    grpc::ClientContext context;
    Prepare(&context, token_);
    const grpc::Status status = stub_->RunBatch(&context, request, response);
    if (!status.ok()) {
      const auto code = status.error_code();
      if (code != grpc::UNAVAILABLE && code != grpc::DEADLINE_EXCEEDED && code != grpc::CANCELLED) {
        problems_.Add(name_ + ": " + status.error_message());
      }
      return false;
    }
    bool is_whole = response->result().results_size() == kBatchSize;
    for (const v1::OperationResult& result : response->result().results()) {
      is_whole = is_whole && result.has_increment();
      if (!result.has_failure() || result.failure().detail().reason() == v1::ERROR_REASON_STALLED) {
        continue;  // STALLED: the dict moves to a larger segment.
      }
      problems_.Add(name_ + ": " + result.failure().message());
    }
    return is_whole;
  }

  const std::string name_;
  const std::string token_;
  const Bug bug_;
  const uint64_t session_;
  const std::unique_ptr<v1::Batches::Stub> stub_;
  Ledger& ledger_;
  Problems& problems_;
  uint64_t sequence_ = 1;
};

class BadNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* const given = std::getenv("STATEHOUSE_NETWORK_SEED");
    seed_ = given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10))
                             : std::random_device()();
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    client_ = Connect(daemon_->tcp_address());
    ASSERT_TRUE(client_->OpenDict(kDict).ok());
  }
  void StartProxy(double reply_loss) {
    FaultProxy::Options options;
    options.target = daemon_->tcp_address();
    options.life_ms_max = 3000;
    options.seed = seed_;
    options.reply_loss = reply_loss;
    auto proxy = FaultProxy::Start(std::move(options));
    ASSERT_TRUE(proxy.ok()) << proxy.status().ToString();
    proxy_ = *std::move(proxy);
  }
  std::unique_ptr<client::Client> Connect(const std::string& address) const {
    client::Options options;
    options.token = daemon_->token();
    options.timeout = std::chrono::seconds(20);
    options.transport = SH_TRANSPORT_NETWORK;
    auto client = client::Client::Connect("statehouse://" + address, options);
    EXPECT_TRUE(client.ok());
    return std::make_unique<client::Client>(*std::move(client));
  }
  static bool IsBatchClient(int index) { return index < kBatchClients; }
  std::string AreaOf(int index) const { return "words" + std::to_string(index); }

  // One client, until the end.
  void Work(int index, Bug bug) {
    Ledger* const ledger = &ledgers_[static_cast<size_t>(index)];
    if (IsBatchClient(index)) {
      BatchClient client(index, proxy_->address(), daemon_->token(), bug, ledger, &problems_);
      while (!stop_) client.Step();
      return;
    }
    const auto connection = Connect(proxy_->address());
    auto area = connection->Open(AreaOf(index));
    auto dict = connection->OpenDict(kDict, std::nullopt);
    if (!area.ok() || !dict.ok()) return problems_.Add("a client has no objects");
    LibraryClient client(index, *std::move(area), *std::move(dict), ledger, &problems_);
    while (!stop_) client.Step();
  }
  void CreateAreas() {
    for (int i = kBatchClients; i < kClients; ++i) {
      ASSERT_TRUE(client_->Open(AreaOf(i), kWords).ok());
    }
  }
  int64_t NumberAt(const std::string& key) {
    const auto dict = client_->OpenDict(kDict);
    const auto entry = dict->GetEntry(key);
    EXPECT_TRUE(entry.ok());
    if (!entry->has_value()) return 0;
    const int64_t* const number = (*entry)->value.IfInt();
    return number == nullptr ? -1 : *number;
  }
  uint64_t Revision() {
    const auto stub = v1::Dicts::NewStub(ChannelTo(daemon_->tcp_address()));
    grpc::ClientContext context;
    Prepare(&context, daemon_->token());
    v1::DescribeDictRequest request;
    request.set_name(kDict);
    v1::DescribeDictResponse response;
    EXPECT_TRUE(stub->DescribeDict(&context, request, &response).ok());
    return response.dict().revision();
  }

  // Everything that is there against what the clients were told.
  void CheckClient(int index) {
    const Ledger& ledger = ledgers_[static_cast<size_t>(index)];
    const std::string name = "c" + std::to_string(index);
    if (IsBatchClient(index)) {
      for (int i = 0; i < kBatchSize; ++i) {
        const std::string key = name + "/" + std::to_string(i);
        ExpectWithin(NumberAt(key), ledger.batches, ledger.batches, key, &problems_);
      }
      return;
    }
    ExpectWithin(NumberAt(name + "/added"), ledger.added, ledger.added + ledger.added_perhaps,
                 name + "/added", &problems_);
    ExpectWithin(NumberAt(name + "/set"), ledger.set, ledger.set + ledger.set_perhaps,
                 name + "/set", &problems_);
    const auto bytes = client_->Open(AreaOf(index))->Read(0);
    ASSERT_TRUE(bytes.ok());
    for (size_t i = 0; i < kWords; ++i) {
      const bool was_sent = i < ledger.words.size();
      const int least = was_sent && ledger.words[i] ? 1 : 0;
      const auto seen = std::to_integer<int64_t>((*bytes)[i]);
      if (seen == least) continue;
      ExpectWithin(seen, least, was_sent ? 1 : 0, name + ": word " + std::to_string(i), &problems_);
    }
  }
  // Every change of the dict is one of these.
  void CheckRevision() {
    int64_t known = 0;
    int64_t unknown = 0;
    for (const Ledger& ledger : ledgers_) {
      known += ledger.added + ledger.set + ledger.batches * kBatchSize;
      unknown += static_cast<int64_t>(ledger.unknown);
    }
    // A value that was set after an unknown one counts it as known.
    ExpectWithin(static_cast<int64_t>(Revision()), known - unknown, known + unknown,
                 "the dict's revision", &problems_);
  }

  uint32_t seed_ = 0;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<client::Client> client_;
  std::vector<Ledger> ledgers_ = std::vector<Ledger>(kClients);
  Problems problems_;
  std::atomic<bool> stop_{false};
};

TEST_F(BadNetworkTest, WhatWasAcknowledgedIsThereOnceAndAllElseAtMostOnce) {
  StartProxy(0.01);
  CreateAreas();
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) threads.emplace_back([this, i] { Work(i, Bug::kNone); });
  const int seconds = Rounds(10, 60);
  int kills = 0;
  const uint64_t begin = MonotonicNs();
  for (int second = 1; second <= seconds; ++second) {
    const uint64_t due = begin + static_cast<uint64_t>(second) * 1'000'000'000;
    const uint64_t now = MonotonicNs();
    if (now < due) SleepNs(due - now);
    const Status killed = daemon_->KillDaemonAndWait();
    EXPECT_TRUE(killed.ok()) << killed.ToString();
    ++kills;
  }
  stop_ = true;
  proxy_->StopCutting();
  for (std::thread& thread : threads) thread.join();

  for (int i = 0; i < kClients; ++i) CheckClient(i);
  CheckRevision();
  EXPECT_FALSE(problems_.any()) << problems_.Text() << "\nseed " << seed_;
  uint64_t words = 0;
  uint64_t entries = 0;
  uint64_t batches = 0;
  uint64_t unknown = 0;
  uint64_t sent_again = 0;
  for (const Ledger& ledger : ledgers_) {
    words += ledger.words.size();
    entries += static_cast<uint64_t>(ledger.added + ledger.set);
    batches += static_cast<uint64_t>(ledger.batches);
    unknown += ledger.unknown;
    sent_again += ledger.sent_again;
  }
  std::printf(
      "%d kills, %llu cuts, %llu lost replies: %llu words, %llu changes of entries, %llu batches; "
      "%llu without an answer, %llu batches sent again\n",
      kills, static_cast<unsigned long long>(proxy_->cuts()),
      static_cast<unsigned long long>(proxy_->lost_replies()),
      static_cast<unsigned long long>(words), static_cast<unsigned long long>(entries),
      static_cast<unsigned long long>(batches), static_cast<unsigned long long>(unknown),
      static_cast<unsigned long long>(sent_again));
  EXPECT_GT(proxy_->cuts(), 0u);
  EXPECT_GT(proxy_->lost_replies(), 0u);
  EXPECT_GT(sent_again, 0u);
  EXPECT_GT(words, static_cast<uint64_t>(kClients));
}

// The test of the test.
TEST_F(BadNetworkTest, AClientThatRepeatsUnderANewOperationIdIsFound) {
  StartProxy(0.1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kBatchClients; ++i) {
    threads.emplace_back([this, i] { Work(i, Bug::kNewOperationIdForARetry); });
  }

  EXPECT_TRUE(Eventually([this] { return problems_.any(); })) << "seed " << seed_;

  stop_ = true;
  proxy_->StopCutting();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace statehouse::testing
