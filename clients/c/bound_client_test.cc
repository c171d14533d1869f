// Entries that end with their client, through the C library and each door, against a real service.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "clients/c/testing/dict_client.h"

namespace statehouse {
namespace {

sh_write_options Bound() {
  sh_write_options options{};
  options.bound = 1;
  return options;
}

uint64_t SessionOf(sh_dict* dict, const std::string& key) {
  sh_entry entry{};
  EXPECT_EQ(sh_dict_get(dict, Bytes(key), nullptr, 0, &entry, nullptr), SH_OK);
  const uint64_t session = entry.found ? entry.bound_session : 0;
  sh_entry_free(&entry);
  return session;
}

bool Gone(sh_dict* dict, const std::string& key) {
  return testing::Eventually([&] { return Get(dict, key) == "absent"; });
}

class BoundClientTest : public DictClientTest {
 protected:
  void SetUp() override {
    DictClientTest::SetUp();
    dict_ = Open("d");
    other_client_ = Connect(daemon_->token());
    other_ = Open(other_client_.get(), "d", nullptr);
  }
  void TearDown() override {
    other_.reset();
    other_client_.reset();
    dict_.reset();
  }

  DictPtr dict_;  // Of client_.
  ClientPtr other_client_;
  DictPtr other_;
};

TEST_P(BoundClientTest, EntriesEndWithTheClientThatBoundThem) {
  const sh_write_options bound = Bound();
  sh_outcome outcome{};
  ASSERT_EQ(Set(other_.get(), "mine", "1", &bound, &outcome), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  ASSERT_EQ(sh_dict_set_string(other_.get(), sh_text("text"), sh_text("x"), &bound, nullptr),
            SH_OK);
  ASSERT_EQ(Set(dict_.get(), "theirs", "1", &bound), SH_OK);
  ASSERT_EQ(Set(other_.get(), "plain", "1"), SH_OK);
  const uint64_t session = SessionOf(dict_.get(), "mine");
  EXPECT_NE(session, 0u);
  EXPECT_EQ(SessionOf(dict_.get(), "text"), session) << "a client has one session";
  EXPECT_NE(SessionOf(dict_.get(), "theirs"), session);
  EXPECT_EQ(SessionOf(dict_.get(), "plain"), 0u);
  sh_dict_info info{};
  ASSERT_EQ(sh_dict_describe(client_.get(), "d", &info, nullptr), SH_OK);
  EXPECT_EQ(info.bound_entries, 3u);

  other_client_.reset();

  EXPECT_EQ(sh_dict_set_int(other_.get(), sh_text("late"), 1, &bound, nullptr), SH_CLIENT_CLOSED);
  EXPECT_TRUE(Gone(dict_.get(), "mine"));
  EXPECT_TRUE(Gone(dict_.get(), "text"));
  EXPECT_EQ(Get(dict_.get(), "theirs"), "1");
  EXPECT_EQ(Get(dict_.get(), "plain"), "1");
}

TEST_P(BoundClientTest, TheNextSetDecidesAnewAndWhatChangesAPartKeepsIt) {
  const sh_write_options bound = Bound();
  for (const char* key : {"n", "list", "t", "unbound"}) {
    ASSERT_EQ(Set(other_.get(), key, key == std::string("list") ? "[1]" : "1", &bound), SH_OK);
  }
  ASSERT_EQ(sh_dict_add(dict_.get(), sh_text("n"), 4, nullptr, nullptr), SH_OK);
  EXPECT_EQ(Edit(dict_.get(), "list", EditOf(SH_EDIT_APPEND), {}, "2"), "done 2");
  ASSERT_EQ(sh_dict_touch(dict_.get(), sh_text("t"), 60'000, nullptr, nullptr), SH_OK);
  ASSERT_EQ(Set(dict_.get(), "unbound", "2"), SH_OK);
  for (const char* key : {"n", "list", "t"}) EXPECT_NE(SessionOf(dict_.get(), key), 0u) << key;
  EXPECT_EQ(SessionOf(dict_.get(), "unbound"), 0u);

  sh_entry previous{};
  ASSERT_EQ(Set(dict_.get(), "n", "7", &bound, nullptr, &previous), SH_OK);
  EXPECT_EQ(Json(previous.value), "5");
  EXPECT_NE(previous.bound_session, SessionOf(dict_.get(), "n")) << "it is this client's now";
  sh_entry_free(&previous);
  other_client_.reset();
  for (const char* key : {"list", "t"}) EXPECT_TRUE(Gone(dict_.get(), key)) << key;
  EXPECT_EQ(Get(dict_.get(), "n"), "7");
  EXPECT_EQ(Get(dict_.get(), "unbound"), "2");
}

TEST_P(BoundClientTest, SetsOfManyAndTransactionsBindAndConditionsHold) {
  const sh_write_options bound = Bound();
  const std::string one = Wire("1");
  const sh_bytes keys[] = {sh_text("a"), sh_text("b")};
  const sh_bytes values[] = {Bytes(one), Bytes(one)};
  uint64_t versions[2] = {};
  ASSERT_EQ(sh_dict_set_many(other_.get(), keys, values, 2, &bound, versions, nullptr), SH_OK);
  EXPECT_NE(versions[1], 0u);
  sh_step steps[2] = {};
  steps[0].kind = SH_STEP_SET;
  steps[0].key = sh_text("c");
  steps[0].value = Bytes(one);
  steps[0].options = &bound;
  steps[1] = steps[0];
  steps[1].key = sh_text("a");
  steps[1].options = nullptr;
  sh_transaction transaction{};
  transaction.then = steps;
  transaction.then_count = 2;
  int compared = 0;
  sh_entries results{};
  ASSERT_EQ(sh_dict_transact(other_.get(), &transaction, &compared, &results, versions, nullptr),
            SH_OK);
  EXPECT_EQ(compared, 1);
  ASSERT_EQ(results.count, 2u);
  EXPECT_EQ(results.items[0].found, 0);
  EXPECT_NE(results.items[1].bound_session, 0u);
  sh_entries_free(&results);
  sh_write_options absent = Bound();
  absent.condition.kind = SH_IF_ABSENT;
  sh_outcome outcome{};
  ASSERT_EQ(Set(other_.get(), "a", "9", &absent, &outcome), SH_OK);
  EXPECT_EQ(outcome.applied, 0);

  EXPECT_EQ(SessionOf(dict_.get(), "a"), 0u);
  other_client_.reset();
  EXPECT_TRUE(Gone(dict_.get(), "b"));
  EXPECT_TRUE(Gone(dict_.get(), "c"));
  EXPECT_EQ(Get(dict_.get(), "a"), "1");
}

TEST_P(BoundClientTest, ARestartOfTheDaemonKeepsWhatIsBoundToTheLiving) {
  const sh_write_options bound = Bound();
  ASSERT_EQ(Set(other_.get(), "k", "1", &bound), SH_OK);
  const uint64_t session = SessionOf(dict_.get(), "k");
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  ASSERT_EQ(Set(other_.get(), "l", "1", &bound), SH_OK);
  EXPECT_EQ(SessionOf(dict_.get(), "l"), session) << "the session lives on";
  EXPECT_EQ(SessionOf(dict_.get(), "k"), session);
  other_client_.reset();
  EXPECT_TRUE(Gone(dict_.get(), "k"));
  EXPECT_TRUE(Gone(dict_.get(), "l"));
}

TEST_P(BoundClientTest, ASessionThatTheServiceEndedIsFollowedByAnother) {
  const sh_write_options bound = Bound();
  ASSERT_EQ(Set(other_.get(), "k", "1", &bound), SH_OK);
  const uint64_t first = SessionOf(dict_.get(), "k");
  const std::string method = "/statehouse.v1.Sessions/CloseSession";
  std::string request("\x08", 1);  // session_id
  for (uint64_t rest = first; rest != 0; rest >>= 7) {
    request.push_back(static_cast<char>((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0)));
  }
  void* response = nullptr;
  size_t response_size = 0;
  ASSERT_EQ(sh_call(client_.get(), method.c_str(), request.data(), request.size(), 1, &response,
                    &response_size, nullptr),
            SH_OK);
  sh_call_free(response);
  EXPECT_TRUE(Gone(dict_.get(), "k"));
  ASSERT_EQ(Set(other_.get(), "k", "2", &bound), SH_OK);
  EXPECT_NE(SessionOf(dict_.get(), "k"), first);
  EXPECT_EQ(Get(dict_.get(), "k"), "2");
}

// A child that uses its parent's client, until it is told to end by closing the pipe.
class Child final {
 public:
  template <typename Work>
  explicit Child(const Work& work) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      const char done = work() ? 'y' : 'n';
      if (write(ready[1], &done, 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char done = 0;
    EXPECT_EQ(read(ready[0], &done, 1), 1);
    EXPECT_EQ(done, 'y');
    close(ready[0]);
  }
  void Kill() {
    kill(pid_, SIGKILL);
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
  }

 private:
  pid_t pid_ = 0;
};

TEST_P(BoundClientTest, AKilledChildEndsItsOwnEntriesAndNotItsParents) {
  const sh_write_options bound = Bound();
  ASSERT_EQ(Set(other_.get(), "parent", "1", &bound), SH_OK);
  // Over the network the child of a process that made calls makes none.
  const sh_reason wanted = local() ? SH_OK : SH_CLIENT_FORKED;
  Child child([&] { return Set(other_.get(), "child", "1", &bound) == wanted; });
  if (local()) {
    EXPECT_NE(SessionOf(dict_.get(), "child"), 0u);
    EXPECT_NE(SessionOf(dict_.get(), "child"), SessionOf(dict_.get(), "parent"));
  }
  Child idle([] { return true; });

  child.Kill();
  idle.Kill();

  EXPECT_TRUE(Gone(dict_.get(), "child"));
  ASSERT_EQ(Set(other_.get(), "again", "1", &bound), SH_OK);
  EXPECT_EQ(SessionOf(dict_.get(), "again"), SessionOf(dict_.get(), "parent"));
  EXPECT_EQ(Get(dict_.get(), "parent"), "1");
}

INSTANTIATE_TEST_SUITE_P(Doors, BoundClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
