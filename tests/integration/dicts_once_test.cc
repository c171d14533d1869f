// Mutations of dicts count once: with the daemon killed under them, with replies that get lost, and
// while the dict moves to larger segments.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "statehouse/v1/dict.grpc.pb.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr int kThreads = 4;
constexpr int64_t kAddsBetweenKills = 250;

class DictsOnceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    dicts_ = NewStub();
    v1::CreateDictRequest create;
    create.set_name("d");
    v1::CreateDictResponse created;
    const grpc::Status status = dicts_->CreateDict(Context().get(), create, &created);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  std::unique_ptr<v1::Dicts::Stub> NewStub() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 5);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 20);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::Dicts::NewStub(grpc::CreateCustomChannel(
        daemon_->tcp_address(), grpc::InsecureChannelCredentials(), arguments));
  }
  std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", "Bearer " + daemon_->token());
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    context->set_wait_for_ready(true);
    return context;
  }
  int64_t NumberAt(const std::string& key) {
    v1::GetEntryRequest get;
    get.set_name("d");
    get.set_key(key);
    v1::GetEntryResponse got;
    const grpc::Status status = dicts_->GetEntry(Context().get(), get, &got);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return got.entry().value().int_value();
  }
  uint64_t Entries() {
    v1::DescribeDictRequest describe;
    describe.set_name("d");
    v1::DescribeDictResponse described;
    EXPECT_TRUE(dicts_->DescribeDict(Context().get(), describe, &described).ok());
    return described.dict().entries();
  }

  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<v1::Dicts::Stub> dicts_;
};

// One client: every mutation is sent until it is answered, and one in a hundred answers is thrown
// away as if it had been lost.
class Client {
 public:
  Client(uint64_t session, std::unique_ptr<v1::Dicts::Stub> stub,
         std::function<std::unique_ptr<grpc::ClientContext>()> context)
      : session_(session), stub_(std::move(stub)), context_(std::move(context)), random_(session) {}

  void Add(const std::string& key) {
    v1::IncrementEntryRequest request;
    request.set_name("d");
    request.set_key(key);
    Name(request.mutable_operation_id());
    v1::IncrementEntryResponse first;
    Send(
        [&](grpc::ClientContext* context, v1::IncrementEntryResponse* response) {
          return stub_->IncrementEntry(context, request, response);
        },
        &first);
  }

  // Adds one to two counters and sets a new key, all or nothing.
  void Transact(int number) {
    v1::TransactDictRequest request;
    request.set_name("d");
    request.add_then_steps()->mutable_increment()->set_key("left");
    request.add_then_steps()->mutable_increment()->set_key("right");
    v1::Step::Set* const set = request.add_then_steps()->mutable_set();
    set->set_key("made/" + std::to_string(session_) + "/" + std::to_string(number));
    set->mutable_value()->set_int_value(number);
    Name(request.mutable_operation_id());
    v1::TransactDictResponse first;
    Send(
        [&](grpc::ClientContext* context, v1::TransactDictResponse* response) {
          return stub_->TransactDict(context, request, response);
        },
        &first);
  }

  uint64_t sent_again() const { return sent_again_; }

 private:
  void Name(v1::OperationId* operation) {
    operation->set_session(session_);
    operation->set_sequence(++sequence_);
  }

  template <typename Response, typename Call>
  void Send(const Call& call, Response* first) {
    bool answered = false;
    for (;;) {
      Response response;
      const grpc::Status status = call(context_().get(), &response);
      if (!status.ok()) {
        ASSERT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
        ++sent_again_;
        continue;
      }
      if (answered) {
        EXPECT_EQ(response.SerializeAsString(), first->SerializeAsString());
      }
      *first = response;
      answered = true;
      if (random_() % 100 != 0) return;
      ++sent_again_;  // The answer is lost: the same operation goes out once more.
    }
  }

  const uint64_t session_;
  std::unique_ptr<v1::Dicts::Stub> stub_;
  const std::function<std::unique_ptr<grpc::ClientContext>()> context_;
  std::mt19937_64 random_;
  uint64_t sequence_ = 0;
  uint64_t sent_again_ = 0;
};

TEST_F(DictsOnceTest, EveryMutationCountsOnceWhileTheDaemonIsKilledAndRepliesAreLost) {
  const bool is_long = getenv("STATEHOUSE_LONG") != nullptr;
  const int kills = is_long ? 200 : 10;
  std::atomic<bool> stop{false};
  std::atomic<int64_t> adds{0};
  std::atomic<int64_t> transactions{0};
  std::atomic<uint64_t> sent_again{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Client client(static_cast<uint64_t>(t) + 1000, NewStub(), [this] { return Context(); });
      for (int i = 0; !stop.load(); ++i) {
        client.Add("shared");
        client.Add("own/" + std::to_string(t));
        adds.fetch_add(1);
        // New keys make the dict move to larger segments meanwhile.
        for (int j = 0; j < 4; ++j) client.Transact(i * 4 + j);
        transactions.fetch_add(4);
        if (HasFatalFailure()) return;
      }
      sent_again.fetch_add(client.sent_again());
    });
  }
  for (int kill = 0; kill < kills; ++kill) {
    const int64_t before = adds.load();
    EXPECT_TRUE(Eventually([&] { return adds.load() > before + kAddsBetweenKills; }));
    const Status killed = daemon_->KillDaemonAndWait();
    ASSERT_TRUE(killed.ok()) << killed.ToString();
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(NumberAt("shared"), adds.load());
  int64_t own = 0;
  for (int t = 0; t < kThreads; ++t) own += NumberAt("own/" + std::to_string(t));
  EXPECT_EQ(own, adds.load());
  EXPECT_EQ(NumberAt("left"), transactions.load());
  EXPECT_EQ(NumberAt("right"), transactions.load());
  EXPECT_EQ(Entries(), static_cast<uint64_t>(transactions.load()) + 3 + kThreads);
  EXPECT_GT(sent_again.load(), static_cast<uint64_t>(kills));
  std::printf("%d kills, %lld additions, %lld transactions, %llu sent again\n", kills,
              static_cast<long long>(2 * adds.load()), static_cast<long long>(transactions.load()),
              static_cast<unsigned long long>(sent_again.load()));
}

}  // namespace
}  // namespace statehouse::testing
