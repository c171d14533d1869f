// The C library against a real service, through each door: who may do what, and what happens when
// clients close, processes fork and daemons die.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "service/auth/token_file.h"
#include "statehouse/statehouse.h"
#include "tests/support/daemon.h"

namespace statehouse {
namespace {

using testing::Daemon;

constexpr uint64_t kAreaBytes = 4096;
constexpr uint64_t kPatienceMs = 60'000;  // Of calls that succeed.
constexpr uint64_t kBriefMs = 300;        // Of calls to a service that is not there.

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};
using ClientPtr = std::unique_ptr<sh_client, ClientCloser>;
using AreaPtr = std::unique_ptr<sh_area, AreaCloser>;

// One call that changes the area unless it is refused.
struct Mutation {
  const char* name;
  std::function<sh_reason(sh_area*, sh_error**)> call;
};

std::vector<Mutation> Mutations() {
  return {
      {"write", [](sh_area* a, sh_error** e) { return sh_write(a, 0, "new", 3, e); }},
      {"fill", [](sh_area* a, sh_error** e) { return sh_fill(a, 0, 8, 9, e); }},
      {"store", [](sh_area* a, sh_error** e) { return sh_store(a, SH_U32, 0, 9, e); }},
      {"add", [](sh_area* a, sh_error** e) { return sh_add(a, SH_I64, 0, -1, nullptr, e); }},
      {"compare_exchange",
       [](sh_area* a, sh_error** e) {
         int exchanged = 0;
         return sh_compare_exchange(a, SH_U8, 0, 'o', 9, &exchanged, nullptr, e);
       }},
      {"bitwise",
       [](sh_area* a, sh_error** e) { return sh_bitwise(a, SH_XOR, SH_U8, 0, 1, nullptr, e); }},
  };
}

// The child's exit code: 0 when `claim` holds there.
int InChild(const std::function<bool()>& claim) {
  const pid_t child = fork();
  if (child == 0) _exit(claim() ? 0 : 1);
  return child < 0 ? -1 : testing::WaitForExit(child);
}

class ClientTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
  }

  bool local() const { return GetParam() == SH_TRANSPORT_LOCAL; }
  bool survives_fork() const { return GetParam() != SH_TRANSPORT_NETWORK; }

  // A client through the door under test.
  ClientPtr Connect(const std::string& token, sh_reason* reason, uint64_t timeout_ms) {
    sh_options options{};
    options.token = token.c_str();  // Empty: none, and the environment is not asked.
    options.timeout_ms = timeout_ms;
    options.transport = GetParam();
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    *reason = sh_connect(url.c_str(), &options, &client, nullptr);
    return ClientPtr(client);
  }
  ClientPtr Connect(uint64_t timeout_ms = kPatienceMs) {
    sh_reason reason = SH_OK;
    ClientPtr client = Connect(daemon_->token(), &reason, timeout_ms);
    EXPECT_EQ(reason, SH_OK);
    return client;
  }
  static AreaPtr Open(sh_client* client, const char* name, uint64_t size = kAreaBytes) {
    sh_area* area = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_area_open(client, name, size, &area, &error), SH_OK) << sh_error_message(error);
    sh_error_free(error);
    return AreaPtr(area);
  }
  static std::string Bytes(sh_area* area, uint64_t count) {
    std::string bytes(count, '\0');
    EXPECT_EQ(sh_read(area, 0, bytes.data(), count, nullptr), SH_OK);
    return bytes;
  }
  static uint64_t Updates(sh_area* area) {
    uint64_t updates = 0;
    EXPECT_EQ(sh_updates(area, &updates, nullptr), SH_OK);
    return updates;
  }

  // A token that the service knows when it returns.
  std::string AddToken(const std::string& grant, int64_t expires_unix_s = 0) {
    TokenSpec spec;
    spec.description = "client_test";
    auto parsed = ParseGrant(grant);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    if (!parsed.ok()) return "";
    spec.grants.push_back(std::move(parsed).value());
    spec.expires_unix_s = expires_unix_s;
    auto token = CreateToken(daemon_->tokens_file(), spec);
    EXPECT_TRUE(token.ok()) << token.status().message();
    if (!token.ok()) return "";
    EXPECT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);  // It reads the file again.
    const sh_reason wanted = expires_unix_s == 0 ? SH_OK : SH_TOKEN_EXPIRED;
    EXPECT_TRUE(testing::Eventually([&] { return FirstUse(*token) == wanted; }));
    return *token;
  }
  // What a client with this token is told: at once by the local door, at the first call by the
  // other.
  sh_reason FirstUse(const std::string& token) {
    sh_reason reason = SH_OK;
    const ClientPtr client = Connect(token, &reason, kPatienceMs);
    if (reason != SH_OK) return reason;
    sh_area_info* infos = nullptr;
    size_t count = 0;
    reason = sh_area_list(client.get(), nullptr, &infos, &count, nullptr);
    if (reason == SH_OK) sh_area_list_free(infos);
    return reason;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_P(ClientTest, MissingUnknownAndExpiredTokensAreRefused) {
  EXPECT_EQ(FirstUse(""), SH_UNAUTHENTICATED);
  std::string wrong = daemon_->token();
  wrong.back() = wrong.back() == 'A' ? 'B' : 'A';
  wrong[wrong.size() - 2] = wrong[wrong.size() - 2] == 'A' ? 'B' : 'A';
  EXPECT_EQ(FirstUse(wrong), SH_UNAUTHENTICATED);
  constexpr int64_t kLongAgo = 1'577'836'800;  // 2020.
  const std::string expired = AddToken("area:*:read,write,create", kLongAgo);
  EXPECT_EQ(FirstUse(expired), SH_TOKEN_EXPIRED);
  EXPECT_EQ(FirstUse(daemon_->token()), SH_OK);
}

TEST_P(ClientTest, ReadOnlyTokenReadsAndEveryMutationIsRefusedAndChangesNothing) {
  const ClientPtr owner_client = Connect();
  const AreaPtr owner = Open(owner_client.get(), "a");
  ASSERT_EQ(sh_write(owner.get(), 0, "old bytes", 9, nullptr), SH_OK);
  sh_reason reason = SH_OK;
  const ClientPtr reader_client = Connect(AddToken("area:*:read"), &reason, kPatienceMs);
  ASSERT_EQ(reason, SH_OK);
  const AreaPtr reader = Open(reader_client.get(), "a", 0);
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(Bytes(reader.get(), 9), "old bytes");
  const uint64_t updates = Updates(reader.get());
  for (const Mutation& mutation : Mutations()) {
    sh_error* error = nullptr;
    const sh_reason refused = mutation.call(reader.get(), &error);
    EXPECT_TRUE(refused == SH_READ_ONLY || refused == SH_PERMISSION_DENIED)
        << mutation.name << " " << sh_reason_name(refused);
    EXPECT_STRNE(sh_error_message(error), "") << mutation.name;
    sh_error_free(error);
    EXPECT_EQ(Bytes(owner.get(), 9), "old bytes") << mutation.name;
    EXPECT_EQ(Updates(owner.get()), updates) << mutation.name;
  }
  EXPECT_EQ(sh_area_delete(reader_client.get(), "a", nullptr), SH_PERMISSION_DENIED);
  const sh_area_spec spec{.size = 8, .pages = 0, .file = nullptr, .offset = 0, .exclusive = 0};
  EXPECT_EQ(sh_area_create(reader_client.get(), "b", &spec, nullptr, nullptr, nullptr),
            SH_PERMISSION_DENIED);
  EXPECT_EQ(sh_area_describe(owner_client.get(), "b", nullptr, nullptr), SH_AREA_NOT_FOUND);
}

TEST_P(ClientTest, NamesWithoutAGrantAreRefusedAndNotListed) {
  const ClientPtr owner = Connect();
  const AreaPtr area = Open(owner.get(), "mine");
  sh_reason reason = SH_OK;
  const ClientPtr other = Connect(AddToken("area:other/*:read,write,create"), &reason, kPatienceMs);
  ASSERT_EQ(reason, SH_OK);
  sh_area* opened = nullptr;
  EXPECT_EQ(sh_area_open(other.get(), "mine", 0, &opened, nullptr), SH_PERMISSION_DENIED);
  EXPECT_EQ(sh_area_open(other.get(), "mine", kAreaBytes, &opened, nullptr), SH_PERMISSION_DENIED);
  EXPECT_EQ(sh_area_describe(other.get(), "#0", nullptr, nullptr), SH_AREA_NOT_FOUND);
  EXPECT_EQ(sh_area_delete(other.get(), "mine", nullptr), SH_PERMISSION_DENIED);
  EXPECT_EQ(opened, nullptr);
  sh_area_info* infos = nullptr;
  size_t count = 1;
  ASSERT_EQ(sh_area_list(other.get(), nullptr, &infos, &count, nullptr), SH_OK);
  EXPECT_EQ(count, 0u);
  sh_area_list_free(infos);
  EXPECT_EQ(Updates(Open(other.get(), "other/1").get()), 0u);
}

TEST_P(ClientTest, ThreadsThatShareOneClientLoseNoAdd) {
  const ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "shared");
  constexpr int kThreads = 8;
  constexpr int kAdds = 300;
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kAdds; ++i) {
        if (sh_add(area.get(), SH_U64, 4092, 1, nullptr, nullptr) != SH_OUT_OF_BOUNDS) ++failures;
        if (sh_add(area.get(), SH_U64, 3, 1, nullptr, nullptr) != SH_OK) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t total = 0;
  EXPECT_EQ(sh_load(area.get(), SH_U64, 3, &total, nullptr), SH_OK);
  EXPECT_EQ(total, uint64_t{kThreads} * kAdds);
  EXPECT_EQ(failures, 0);
}

TEST_P(ClientTest, AreaOfAClosedClientAnswersClientClosed) {
  ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "a");
  ASSERT_EQ(sh_write(area.get(), 0, "old", 3, nullptr), SH_OK);
  client.reset();
  for (const Mutation& mutation : Mutations()) {
    EXPECT_EQ(mutation.call(area.get(), nullptr), SH_CLIENT_CLOSED) << mutation.name;
  }
  uint64_t value = 0;
  char byte = 0;
  int changed = 0;
  EXPECT_EQ(sh_load(area.get(), SH_U8, 0, &value, nullptr), SH_CLIENT_CLOSED);
  EXPECT_EQ(sh_read(area.get(), 0, &byte, 1, nullptr), SH_CLIENT_CLOSED);
  EXPECT_EQ(sh_updates(area.get(), &value, nullptr), SH_CLIENT_CLOSED);
  EXPECT_EQ(sh_wait(area.get(), 1, 0, &changed, nullptr, nullptr), SH_CLIENT_CLOSED);
  const ClientPtr second = Connect();
  EXPECT_EQ(Bytes(Open(second.get(), "a", 0).get(), 3), "old");
}

TEST_P(ClientTest, CallsAfterTheDaemonWasKilledReachTheNextOneAndTheBytesAreThere) {
  const ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "a");
  ASSERT_EQ(sh_write(area.get(), 0, "kept", 4, nullptr), SH_OK);
  sh_status before{};
  ASSERT_EQ(sh_get_status(client.get(), &before, nullptr), SH_OK);
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_EQ(Bytes(area.get(), 4), "kept");
  sh_status after{};
  ASSERT_EQ(sh_get_status(client.get(), &after, nullptr), SH_OK);
  EXPECT_GT(after.generation, before.generation);
  EXPECT_NE(after.daemon_pid, before.daemon_pid);
  EXPECT_EQ(sh_add(area.get(), SH_U8, 100, 5, nullptr, nullptr), SH_OK);
  EXPECT_EQ(Updates(area.get()), 2u);
}

TEST_P(ClientTest, ServiceThatIsGoneIsUnavailable) {
  const ClientPtr client = Connect(kBriefMs);
  const AreaPtr area = Open(client.get(), "a");
  EXPECT_EQ(daemon_->Stop(), 0);
  sh_error* error = nullptr;
  EXPECT_EQ(sh_area_describe(client.get(), "a", nullptr, &error), SH_UNAVAILABLE);
  EXPECT_EQ(sh_error_retryable(error), 1);
  EXPECT_STRNE(sh_error_message(error), "");
  sh_error_free(error);
  EXPECT_EQ(sh_area_delete(client.get(), "a", nullptr), SH_UNAVAILABLE);
  if (!local()) {
    EXPECT_EQ(sh_add(area.get(), SH_U8, 0, 1, nullptr, nullptr), SH_UNAVAILABLE);
  }
}

TEST_P(ClientTest, ViewShowsTheBytesOnTheLocalDoorAndIsUnimplementedOnTheOther) {
  const ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "a");
  ASSERT_EQ(sh_write(area.get(), 8, "seen", 4, nullptr), SH_OK);
  void* data = nullptr;
  if (!local()) {
    EXPECT_EQ(sh_area_data(area.get(), 0, &data, nullptr), SH_UNIMPLEMENTED);
    EXPECT_EQ(data, nullptr);
    return;
  }
  ASSERT_EQ(sh_area_data(area.get(), 1, &data, nullptr), SH_OK);
  EXPECT_EQ(std::memcmp(static_cast<char*>(data) + 8, "seen", 4), 0);
  const uint64_t updates = Updates(area.get());
  static_cast<char*>(data)[8] = 'S';
  EXPECT_EQ(Bytes(area.get(), 12).substr(8), "Seen");
  EXPECT_EQ(Updates(area.get()), updates);
}

TEST_P(ClientTest, ChildOfAForkGoesOnThroughTheLocalDoorAndIsToldToConnectOnTheOther) {
  const ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "a");
  ASSERT_EQ(sh_add(area.get(), SH_U64, 0, 1, nullptr, nullptr), SH_OK);
  const sh_reason wanted = survives_fork() ? SH_OK : SH_CLIENT_FORKED;
  EXPECT_EQ(InChild([&] { return sh_add(area.get(), SH_U64, 0, 10, nullptr, nullptr) == wanted; }),
            0);
  uint64_t value = 0;
  EXPECT_EQ(sh_add(area.get(), SH_U64, 0, 100, &value, nullptr), SH_OK);
  EXPECT_EQ(value, survives_fork() ? 111u : 101u);
}

// Messages as they are on the wire: this client leaves them to its caller.
std::string NextMessage(sh_stream* stream, sh_reason* reason) {
  void* response = nullptr;
  size_t bytes = 0;
  *reason = sh_stream_next(stream, &response, &bytes, nullptr);
  std::string message(static_cast<const char*>(response), bytes);
  sh_call_free(response);
  return message;
}

TEST_P(ClientTest, AnAreaIsWatchedByEncodedMessages) {
  const ClientPtr client = Connect();
  const AreaPtr area = Open(client.get(), "a", 64);
  ASSERT_EQ(sh_write(area.get(), 0, "hello", 5, nullptr), SH_OK);
  const std::string request =
      "\x0a\x01"
      "a"
      "\x18\x05";  // name: "a", len: 5
  sh_stream* opened = nullptr;
  ASSERT_EQ(sh_stream_open(client.get(), "/statehouse.v1.Areas/WatchArea", request.data(),
                           request.size(), &opened, nullptr),
            SH_OK);
  const std::unique_ptr<sh_stream, void (*)(sh_stream*)> stream(opened, sh_stream_close);
  sh_reason reason = SH_OK;
  // snapshot: {range: {len: 5, data: "hello"}}
  EXPECT_EQ(NextMessage(opened, &reason), "\x12\x0b\x0a\x09\x10\x05\x1a\x05hello");
  EXPECT_EQ(NextMessage(opened, &reason).substr(0, 3), "\x08\x01\x22");  // updates: 1, synced
  ASSERT_EQ(sh_write(area.get(), 0, "J", 1, nullptr), SH_OK);
  // updates: 2, changes: {ranges: [{len: 1, data: "J"}]}
  EXPECT_EQ(NextMessage(opened, &reason), "\x08\x02\x1a\x07\x0a\x05\x10\x01\x1a\x01J");
  ASSERT_EQ(sh_area_delete(client.get(), "a", nullptr), SH_OK);
  EXPECT_EQ(NextMessage(opened, &reason), "");
  EXPECT_EQ(reason, SH_AREA_NOT_FOUND);
}

INSTANTIATE_TEST_SUITE_P(Doors, ClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         [](const auto& door) {
                           return door.param == SH_TRANSPORT_LOCAL    ? "local"
                                  : door.param == SH_TRANSPORT_SOCKET ? "socket"
                                                                      : "network";
                         });

}  // namespace
}  // namespace statehouse
