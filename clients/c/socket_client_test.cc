// Clients of the host that map no memory: what goes over the attach socket, what does not, and when
// a client comes by that door. What the calls mean is tested with the other doors.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "clients/c/testing/batch_client.h"
#include "clients/c/testing/fake_daemon.h"

namespace statehouse {
namespace {

class SocketClientTest : public BatchClientTest {
 protected:
  sh_reason TryConnect(const std::string& url, const std::string& token, sh_client** client) {
    sh_options options{};
    options.token = token.c_str();
    options.timeout_ms = 5000;
    return sh_connect(url.c_str(), &options, client, nullptr);
  }
  std::string Url(const char* query = "") const {
    return "statehouse+unix://" + daemon_->runtime_dir() + query;
  }
  // A token of the same service, which reads it at the next reload.
  std::string AddLimited(uint32_t calls_per_second) {
    TokenSpec spec;
    spec.description = "socket_client_test";
    spec.calls_per_second = calls_per_second;
    for (const char* grant : {"dict:*:read,write,create", "service:*:admin"}) {
      auto parsed = ParseGrant(grant);
      EXPECT_TRUE(parsed.ok()) << parsed.status().message();
      spec.grants.push_back(std::move(parsed).value());
    }
    auto token = CreateToken(daemon_->tokens_file(), spec);
    EXPECT_TRUE(token.ok()) << token.status().message();
    EXPECT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);
    return *token;
  }
  // The count of a method's calls through a door, as the metrics say.
  double Calls(const std::string& door, const std::string& method) {
    const std::string all = daemon_->HttpGet("/metrics");
    double sum = 0;
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find('\n', at), all.size());
      const std::string line = all.substr(at, end - at);
      at = end + 1;
      if (line.rfind("statehouse_calls_total{", 0) != 0) continue;
      if (line.find("door=\"" + door + "\"") == std::string::npos) continue;
      if (line.find(method) == std::string::npos) continue;
      sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
    return sum;
  }
};

TEST_P(SocketClientTest, SmallCallsGoOverTheSocketAndLongRequestsByGrpc) {
  EXPECT_EQ(sh_transport_of(client_.get()), SH_TRANSPORT_SOCKET);
  const DictPtr dict = Open("d");
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr), SH_OK);
  EXPECT_TRUE(testing::Eventually([&] { return Calls("local", "IncrementEntry") == 1; }));
  const double by_grpc = Calls("network", "SetEntry");
  // Around what a packet has room for, and the largest value that there is.
  for (const size_t bytes :
       {size_t{100'000}, size_t{130'600}, size_t{130'800}, size_t{131'072}, size_t{1'000'000}}) {
    const std::string text(bytes, 'x');
    ASSERT_EQ(sh_dict_set_string(dict.get(), sh_text("k"), Bytes(text), nullptr, nullptr), SH_OK)
        << bytes;
    sh_entry entry{};
    ASSERT_EQ(sh_dict_get(dict.get(), sh_text("k"), nullptr, 0, &entry, nullptr), SH_OK) << bytes;
    sh_bytes back{};
    ASSERT_EQ(sh_value_as_text(entry.value, &back), 1);
    EXPECT_EQ(Text(back), text) << bytes;
    sh_entry_free(&entry);
  }
  EXPECT_TRUE(testing::Eventually([&] { return Calls("network", "SetEntry") >= by_grpc + 2; }));
  EXPECT_EQ(Calls("network", "GetEntry"), 0);  // Answers of any size come over the socket.
}

// They would keep others from the socket; looks do not.
TEST_P(SocketClientTest, WaitsGoByGrpcAndLooksOverTheSocket) {
  sh_area* opened = nullptr;
  ASSERT_EQ(sh_area_open(client_.get(), "a", 64, &opened, nullptr), SH_OK);
  const AreaPtr area(opened);
  uint64_t updates = 0;
  int changed = 1;
  ASSERT_EQ(sh_wait(area.get(), 0, 1, &changed, &updates, nullptr), SH_OK);
  EXPECT_EQ(changed, 0);
  const DictPtr dict = Open("d");
  sh_entry_wait wait{};
  wait.timeout_ms = 1;
  int met = 1;
  ASSERT_EQ(sh_dict_wait(dict.get(), sh_text("k"), &wait, &met, nullptr, nullptr), SH_OK);
  EXPECT_EQ(met, 0);
  EXPECT_TRUE(testing::Eventually(
      [&] { return Calls("network", "WaitArea") == 1 && Calls("network", "WaitEntry") == 1; }));
  EXPECT_EQ(Calls("local", "WaitArea"), 0);
  EXPECT_EQ(Calls("local", "WaitEntry"), 0);
  ASSERT_EQ(sh_wait(area.get(), 0, 0, &changed, &updates, nullptr), SH_OK);
  wait.timeout_ms = 0;
  ASSERT_EQ(sh_dict_wait(dict.get(), sh_text("k"), &wait, &met, nullptr, nullptr), SH_OK);
  EXPECT_TRUE(testing::Eventually(
      [&] { return Calls("local", "WaitArea") == 1 && Calls("local", "WaitEntry") == 1; }));
}

TEST_P(SocketClientTest, ABatchWithALongAnswerIsAnsweredInParts) {
  const DictPtr dict = Open("d");
  const std::string text(300'000, 'y');
  ASSERT_EQ(sh_dict_set_string(dict.get(), sh_text("k"), Bytes(text), nullptr, nullptr), SH_OK);
  const BatchPtr batch = Begin();
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(sh_batch_dict_get(batch.get(), dict.get(), sh_text("k"), nullptr, nullptr), SH_OK);
  }
  ASSERT_EQ(sh_batch_dict_increment(batch.get(), dict.get(), sh_text("n"), sh_int(1), nullptr,
                                    nullptr, nullptr),
            SH_OK);
  ASSERT_EQ(RunAll(batch.get()), SH_OK);
  const sh_entry* entry = nullptr;
  ASSERT_EQ(sh_batch_result_entry(batch.get(), 4, &entry, nullptr), SH_OK);
  EXPECT_EQ(entry->value.size, Wire('"' + text + '"').size());
  EXPECT_EQ(Get(dict.get(), "n"), "1");
  EXPECT_EQ(Calls("network", "RunBatch"), 0);
}

TEST_P(SocketClientTest, TheLimitOfATokenHoldsAsOverGrpc) {
  const std::string token = AddLimited(20);
  sh_client* limited = nullptr;
  ASSERT_TRUE(testing::Eventually(
      [&] { return TryConnect(Url("?transport=socket"), token, &limited) == SH_OK; }));
  const ClientPtr client(limited);
  const sh_dict_spec spec{};
  const DictPtr dict = Open(client.get(), "d", &spec);
  sh_reason reason = SH_OK;
  sh_error* error = nullptr;
  for (int i = 0; i < 1000 && reason == SH_OK; ++i) {
    reason = sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, &error);
  }
  EXPECT_EQ(reason, SH_RATE_LIMITED);
  EXPECT_GT(sh_error_retry_after_ms(error), 0u);
  sh_error_free(error);
}

TEST_P(SocketClientTest, ARevokedTokenEndsItsClients) {
  const std::string token = AddToken("dict:*:read,write,create");
  const ClientPtr client = Connect(token, 2000);
  const sh_dict_spec spec{};
  const DictPtr dict = Open(client.get(), "d", &spec);
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr), SH_OK);
  TokenParts parts;
  ASSERT_TRUE(SplitToken(token, &parts));
  ASSERT_TRUE(RevokeToken(daemon_->tokens_file(), parts.id).ok());
  ASSERT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);
  EXPECT_TRUE(testing::Eventually([&] {
    return sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) == SH_UNAUTHENTICATED;
  }));
}

TEST_P(SocketClientTest, AdditionsOfThreadsCountOnceOverKilledDaemons) {
  const DictPtr dict = Open("d");
  std::atomic<bool> killed{false};
  std::atomic<int64_t> added{0};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!killed) {
        if (sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) == SH_OK) {
          added.fetch_add(1);
        } else {
          failures.fetch_add(1);
        }
      }
    });
  }
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(daemon_->KillDaemonAndWait().ok());
  killed = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(Get(dict.get(), "n"), std::to_string(added.load()));
}

TEST_P(SocketClientTest, ThreadsOfAForkedChildWhoseParentUsedGrpcTakeTurns) {
  const DictPtr dict = Open("d");
  const std::string text(800'000, 'x');  // By gRPC.
  ASSERT_EQ(sh_dict_set_string(dict.get(), sh_text("k"), Bytes(text), nullptr, nullptr), SH_OK);
  constexpr int kBatches = 20;
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<bool> is_over{false};
    std::atomic<int> failures{0};
    std::thread adder([&] {
      while (!is_over) {
        if (sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) != SH_OK) ++failures;
      }
    });
    for (int i = 0; i < kBatches; ++i) {  // Each keeps the socket busy for long.
      const BatchPtr batch = Begin();
      for (int k = 0; k < 10; ++k) {
        sh_batch_dict_get(batch.get(), dict.get(), sh_text("k"), nullptr, nullptr);
      }
      if (sh_batch_run(batch.get(), nullptr, nullptr) != SH_OK) ++failures;
    }
    is_over = true;
    adder.join();
    _exit(failures == 0 ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  EXPECT_EQ(testing::WaitForExit(child), 0);
}

TEST_P(SocketClientTest, WaitsOfAForkedChildWhoseParentUsedGrpcHaveTheirOwnConnections) {
  sh_area* opened = nullptr;
  ASSERT_EQ(sh_area_open(client_.get(), "a", 64, &opened, nullptr), SH_OK);
  const AreaPtr area(opened);
  const DictPtr dict = Open("d");
  sh_entry_wait wait{};
  wait.timeout_ms = kPatienceMs;
  const auto wait_for_both = [&](int* both) {
    int changed = 0;
    int met = 0;
    const bool ok = sh_wait(area.get(), 0, kPatienceMs, &changed, nullptr, nullptr) == SH_OK &&
                    sh_dict_wait(dict.get(), sh_text("k"), &wait, &met, nullptr, nullptr) == SH_OK;
    *both = ok && changed == 1 && met == 1 ? 1 : 0;
  };
  int told = 0;
  const pid_t child = [&] {
    int changed = 0;
    EXPECT_EQ(sh_wait(area.get(), 0, 1, &changed, nullptr, nullptr), SH_OK);  // By gRPC.
    return fork();
  }();
  if (child == 0) {
    std::thread waits([&] { wait_for_both(&told); });
    ::poll(nullptr, 0, 20);  // Most likely it waits, which keeps nobody from the socket.
    const bool ok =
        sh_fill(area.get(), 0, 1, 1, nullptr) == SH_OK &&
        sh_dict_set_string(dict.get(), sh_text("k"), sh_text("v"), nullptr, nullptr) == SH_OK;
    waits.join();
    _exit(ok && told == 1 ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  EXPECT_EQ(testing::WaitForExit(child), 0);
}

TEST_P(SocketClientTest, AProcessThatGetsNoMoreLanesComesByTheSocket) {
  std::vector<ClientPtr> clients;
  sh_client* client = nullptr;
  while (clients.size() < 17) {
    ASSERT_EQ(TryConnect(Url(), daemon_->token(), &client), SH_OK) << clients.size();
    clients.emplace_back(client);
    if (sh_transport_of(client) != SH_TRANSPORT_LOCAL) break;
  }
  EXPECT_EQ(clients.size(), 17u);  // One past attach.leases_per_process_max.
  EXPECT_EQ(sh_transport_of(client), SH_TRANSPORT_SOCKET);
  const sh_dict_spec spec{};
  const DictPtr dict = Open(client, "d", &spec);
  EXPECT_EQ(sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr), SH_OK);
  // Who asks for memory is told that there is none.
  EXPECT_EQ(TryConnect(Url("?transport=local"), daemon_->token(), &client), SH_LANES_EXHAUSTED);
}

TEST(SocketChoiceTest, IsOfNoLimitButThatOfLanes) {
  struct Case {
    Reason refusal;
    sh_reason told;  // SH_OK: it came by the socket.
    int by_socket;
  };
  const Case cases[] = {
      {Reason::kLanesExhausted, SH_OK, 1},
      {Reason::kLimitExceeded, SH_LIMIT_EXCEEDED, 0},
      {Reason::kMemoryExhausted, SH_MEMORY_EXHAUSTED, 0},
      {Reason::kPermissionDenied, SH_PERMISSION_DENIED, 0},
  };
  for (const Case& one : cases) {
    FakeDaemon daemon;
    daemon.RefuseLanes(one.refusal);
    const std::string url = "statehouse+unix://" + daemon.runtime_dir() + "?timeout=60s";
    sh_client* client = nullptr;
    sh_error* error = nullptr;

    EXPECT_EQ(sh_connect(url.c_str(), nullptr, &client, &error), one.told);

    EXPECT_EQ(daemon.hellos_without_lanes(), one.by_socket);
    if (one.told == SH_OK) {
      ASSERT_NE(client, nullptr);
      EXPECT_EQ(sh_transport_of(client), SH_TRANSPORT_SOCKET);
    } else {
      ASSERT_NE(error, nullptr);
      EXPECT_STREQ(sh_error_message(error), "no lanes for this one");
    }
    sh_error_free(error);
    sh_close(client);
  }
}

INSTANTIATE_TEST_SUITE_P(Doors, SocketClientTest, ::testing::Values(SH_TRANSPORT_SOCKET), DoorName);

}  // namespace
}  // namespace statehouse
