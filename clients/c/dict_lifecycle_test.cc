// Dicts of the C library against a real service, through each door: what happens when clients
// close, processes fork, daemons die and dicts move, and who may do what.
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "clients/c/testing/dict_client.h"

namespace statehouse {
namespace {

class DictLifecycleTest : public DictClientTest {};

TEST_P(DictLifecycleTest, DictsAreMadeDescribedListedAndDeleted) {
  sh_dict_spec spec{};
  spec.max_entries = 100;
  spec.max_bytes = 1 << 20;
  spec.default_ttl_ms = 1500;
  spec.evict = 1;
  sh_dict_info info{};
  int created = 0;
  ASSERT_EQ(sh_dict_create(client_.get(), "a/1", &spec, &info, &created, nullptr), SH_OK);
  EXPECT_EQ(created, 1);
  EXPECT_STREQ(info.name, "a/1");
  EXPECT_EQ(info.max_entries, 100u);
  EXPECT_EQ(info.max_bytes, 1u << 20);
  EXPECT_EQ(info.default_ttl_ms, 1500u);
  EXPECT_EQ(info.evict, 1);
  ASSERT_EQ(sh_dict_create(client_.get(), "a/1", nullptr, &info, &created, nullptr), SH_OK);
  EXPECT_EQ(created, 0);
  spec.exclusive = 1;
  EXPECT_EQ(sh_dict_create(client_.get(), "a/1", &spec, nullptr, nullptr, nullptr), SH_DICT_EXISTS);
  spec.exclusive = 0;
  spec.max_entries = 101;
  EXPECT_EQ(sh_dict_create(client_.get(), "a/1", &spec, nullptr, nullptr, nullptr), SH_DICT_EXISTS);
  EXPECT_EQ(sh_dict_create(client_.get(), "bad name", nullptr, nullptr, nullptr, nullptr),
            SH_NAME_INVALID);
  spec.max_entries = uint64_t{1} << 40;
  EXPECT_EQ(sh_dict_create(client_.get(), "b", &spec, nullptr, nullptr, nullptr), SH_SIZE_INVALID);
  ASSERT_EQ(sh_dict_create(client_.get(), "a/2", nullptr, nullptr, nullptr, nullptr), SH_OK);
  sh_dict_info* infos = nullptr;
  size_t count = 0;
  ASSERT_EQ(sh_dict_list(client_.get(), "a/", &infos, &count, nullptr), SH_OK);
  ASSERT_EQ(count, 2u);
  EXPECT_STREQ(infos[0].name, "a/1");
  EXPECT_STREQ(infos[1].name, "a/2");
  sh_dict_list_free(infos);
  sh_dict* dict = nullptr;
  EXPECT_EQ(sh_dict_open(client_.get(), "none", nullptr, &dict, nullptr), SH_DICT_NOT_FOUND);
  const DictPtr by_index = Open(client_.get(), "#1", nullptr);
  EXPECT_STREQ(sh_dict_name(by_index.get()), "a/2");
  ASSERT_EQ(sh_dict_delete(client_.get(), "a/2", nullptr), SH_OK);
  EXPECT_EQ(Get(by_index.get(), "k"), "DICT_NOT_FOUND");
  EXPECT_EQ(Set(by_index.get(), "k", "1"), SH_DICT_NOT_FOUND);
  EXPECT_EQ(sh_dict_describe(client_.get(), "a/2", nullptr, nullptr), SH_DICT_NOT_FOUND);
}

TEST_P(DictLifecycleTest, ADictGrowsUnderItsOpenHandlesAndKeepsEverything) {
  const DictPtr dict = Open("d");
  const ClientPtr other_client = Connect(daemon_->token());
  const DictPtr other = Open(other_client.get(), "d", nullptr);
  constexpr int kBatches = 40;
  constexpr size_t kBatch = 500;
  const std::string wire = Wire(R"("value")");
  ASSERT_EQ(Set(other.get(), "first", "1"), SH_OK);
  for (int batch = 0; batch < kBatches; ++batch) {
    std::vector<std::string> names;
    for (size_t i = 0; i < kBatch; ++i) {
      names.push_back(std::to_string(batch) + "/" + std::to_string(i));
    }
    std::vector<sh_bytes> keys;
    for (const std::string& name : names) keys.push_back(Bytes(name));
    const std::vector<sh_bytes> values(kBatch, Bytes(wire));
    ASSERT_EQ(
        sh_dict_set_many(dict.get(), keys.data(), values.data(), kBatch, nullptr, nullptr, nullptr),
        SH_OK);
  }
  sh_dict_info info{};
  ASSERT_EQ(sh_dict_describe(client_.get(), "d", &info, nullptr), SH_OK);
  EXPECT_EQ(info.entries, kBatches * kBatch + 1);
  EXPECT_GE(info.moves, 1u);
  EXPECT_EQ(Get(other.get(), "39/499"), R"("value")");
  EXPECT_EQ(sh_dict_add(other.get(), sh_text("first"), 1, nullptr, nullptr), SH_OK);
  EXPECT_EQ(Get(dict.get(), "first"), "2");
}

TEST_P(DictLifecycleTest, AtItsLimitsADictRefusesWhatIsNew) {
  sh_dict_spec spec{};
  spec.max_entries = 10;
  const DictPtr dict = Open("small", spec);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(sh_dict_set_int(dict.get(), Bytes("k" + std::to_string(i)), i, nullptr, nullptr),
              SH_OK);
  }
  sh_error* error = nullptr;
  EXPECT_EQ(sh_dict_set_int(dict.get(), sh_text("k10"), 1, nullptr, &error), SH_LIMIT_EXCEEDED);
  EXPECT_STRNE(sh_error_message(error), "");
  EXPECT_STREQ(sh_error_name(error), "small");
  sh_error_free(error);
  EXPECT_EQ(sh_dict_set_int(dict.get(), sh_text("k9"), 1, nullptr, nullptr), SH_OK);
}

TEST_P(DictLifecycleTest, AReadOnlyTokenReadsAndEveryMutationIsRefused) {
  const DictPtr owner = Open("d");
  ASSERT_EQ(Set(owner.get(), "k", "1"), SH_OK);
  const ClientPtr client = Connect(AddToken("dict:*:read"));
  const DictPtr reader = Open(client.get(), "d", nullptr);
  sh_dict* const d = reader.get();
  EXPECT_EQ(Get(d, "k"), "1");
  const sh_step step = {SH_STEP_DELETE, sh_text("k"), {}, nullptr, {}, nullptr};
  const sh_transaction transaction = {nullptr, 0, &step, 1, nullptr, 0};
  const std::vector<std::pair<const char*, std::function<sh_reason()>>> mutations = {
      {"set", [&] { return Set(d, "k", "2"); }},
      {"add", [&] { return sh_dict_add(d, sh_text("k"), 1, nullptr, nullptr); }},
      {"delete",
       [&] { return sh_dict_delete_entry(d, sh_text("k"), nullptr, nullptr, nullptr, nullptr); }},
      {"touch", [&] { return sh_dict_touch(d, sh_text("k"), 5, nullptr, nullptr); }},
      {"transact",
       [&] { return sh_dict_transact(d, &transaction, nullptr, nullptr, nullptr, nullptr); }},
      {"clear", [&] { return sh_dict_clear(d, nullptr, nullptr); }},
      {"delete_prefix", [&] { return sh_dict_delete_prefix(d, sh_text("k"), nullptr, nullptr); }},
  };
  for (const auto& [name, mutate] : mutations) {
    const sh_reason reason = mutate();
    EXPECT_TRUE(reason == SH_READ_ONLY || reason == SH_PERMISSION_DENIED)
        << name << " " << sh_reason_name(reason);
  }
  EXPECT_EQ(Get(owner.get(), "k"), "1");
  EXPECT_EQ(sh_dict_create(client.get(), "new", nullptr, nullptr, nullptr, nullptr),
            SH_PERMISSION_DENIED);
}

TEST_P(DictLifecycleTest, BadArgumentsAreRefusedBeforeAnythingHappens) {
  const DictPtr dict = Open("d");
  sh_dict* const d = dict.get();
  ASSERT_EQ(Set(d, "k", "1"), SH_OK);
  const std::string one = Wire("1");
  const std::string long_key(1025, 'k');
  sh_entry entry{};
  for (const std::string& key : {std::string(), long_key, std::string("\xff")}) {
    EXPECT_EQ(Get(d, key), "KEY_INVALID");
    EXPECT_EQ(Set(d, key, "1"), SH_KEY_INVALID);
    EXPECT_EQ(sh_dict_add(d, Bytes(key), 1, nullptr, nullptr), SH_KEY_INVALID);
    EXPECT_EQ(sh_dict_touch(d, Bytes(key), 1, nullptr, nullptr), SH_KEY_INVALID);
    EXPECT_EQ(Edit(d, key, EditOf(SH_EDIT_CLEAR)), "KEY_INVALID");
  }
  EXPECT_EQ(Set(d, long_key.substr(1), "1"), SH_OK);
  for (const char* wire : {"", "\x42", "\x18", "\x08\x00\x08\x00"}) {
    EXPECT_EQ(sh_dict_set(d, sh_text("k"), sh_text(wire), nullptr, nullptr, nullptr, nullptr),
              SH_VALUE_INVALID);
  }
  const sh_bytes null_bytes = {nullptr, 5};
  EXPECT_EQ(sh_dict_get(d, null_bytes, nullptr, 0, &entry, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_set(d, sh_text("k"), null_bytes, nullptr, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_get(d, sh_text("k"), nullptr, 0, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_get(d, sh_text("k"), nullptr, 1, &entry, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_get(nullptr, sh_text("k"), nullptr, 0, &entry, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_open(nullptr, "d", nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_open(client_.get(), nullptr, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_transact(d, nullptr, nullptr, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_dict_edit(d, sh_text("k"), nullptr, nullptr, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  sh_write_options options{};
  options.condition.kind = static_cast<sh_condition_kind>(5);
  EXPECT_EQ(Set(d, "k", "2", &options), SH_INVALID_ARGUMENT);
  sh_step step{};
  step.key = sh_text("k");
  sh_transaction transaction = {nullptr, 0, &step, 1, nullptr, 0};
  EXPECT_EQ(sh_dict_transact(d, &transaction, nullptr, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  sh_compare compare{};
  compare.key = sh_text("k");
  transaction = {&compare, 1, nullptr, 0, nullptr, 0};
  EXPECT_EQ(sh_dict_transact(d, &transaction, nullptr, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  const std::vector<sh_path_step> deep(33, sh_path_step{0, sh_text("x"), 0});
  EXPECT_EQ(sh_dict_get(d, sh_text("k"), deep.data(), deep.size(), &entry, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(Get(d, "k"), "1");
  EXPECT_EQ(sh_dict_scan(d, sh_text(""), 1, nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  sh_buffer buffer{};
  EXPECT_EQ(sh_value_from_json(sh_text("{"), &buffer, nullptr), SH_VALUE_INVALID);
  EXPECT_EQ(sh_value_to_json(sh_text("\x42"), &buffer, nullptr), SH_VALUE_INVALID);
  sh_entry_free(&entry);
  sh_entry_free(nullptr);
  sh_entries_free(nullptr);
  sh_cursor_free(nullptr);
  sh_dict_close(nullptr);
}

TEST_P(DictLifecycleTest, ADictOfAClosedClientAnswersClientClosed) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "k", "1"), SH_OK);
  client_.reset();
  uint64_t number = 0;
  EXPECT_EQ(Get(dict.get(), "k"), "CLIENT_CLOSED");
  EXPECT_EQ(Set(dict.get(), "k", "2"), SH_CLIENT_CLOSED);
  EXPECT_EQ(sh_dict_length(dict.get(), &number, nullptr), SH_CLIENT_CLOSED);
  EXPECT_EQ(sh_dict_clear(dict.get(), &number, nullptr), SH_CLIENT_CLOSED);
}

// Whether the process has ended; its keeper may not have waited for it yet.
bool HasEnded(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  std::getline(file, stat);
  const size_t name_end = stat.rfind(')');
  return name_end == std::string::npos || stat.substr(name_end + 2, 1) == "Z";
}

TEST_P(DictLifecycleTest, AKilledDaemonCostsNoEntryAndTheLocalDoorDoesNotNotice) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "k", "1"), SH_OK);
  const pid_t victim = daemon_->daemon_pid();
  const pid_t keeper = daemon_->keeper_pid();
  ASSERT_TRUE(testing::StopProcess(keeper));  // So that no other daemon starts.
  const bool ended =
      kill(victim, SIGKILL) == 0 && testing::Eventually([&] { return HasEnded(victim); });
  int added = 0;
  if (local()) {
    while (added < 1000 && sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) == SH_OK) {
      ++added;
    }
    EXPECT_EQ(Get(dict.get(), "k"), "1");
  }
  ASSERT_EQ(kill(keeper, SIGCONT), 0);
  ASSERT_TRUE(ended);
  EXPECT_EQ(added, local() ? 1000 : 0);
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr), SH_OK);
  EXPECT_EQ(Get(dict.get(), "k"), "1");
  EXPECT_EQ(Get(dict.get(), "n"), std::to_string(added + 1));
  // The next daemon makes it grow, too.
  for (int i = 0; i < 9000; ++i) {
    ASSERT_EQ(sh_dict_set_int(dict.get(), Bytes("k" + std::to_string(i)), i, nullptr, nullptr),
              SH_OK);
  }
  sh_dict_info info{};
  ASSERT_EQ(sh_dict_describe(client_.get(), "d", &info, nullptr), SH_OK);
  EXPECT_GE(info.moves, 1u);
}

TEST_P(DictLifecycleTest, AChildOfAForkGoesOnThroughTheLocalDoorAndIsToldToConnectOnTheOther) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr), SH_OK);
  const sh_reason wanted = survives_fork() ? SH_OK : SH_CLIENT_FORKED;
  const pid_t child = fork();
  if (child == 0) {
    _exit(sh_dict_add(dict.get(), sh_text("n"), 10, nullptr, nullptr) == wanted ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  EXPECT_EQ(testing::WaitForExit(child), 0);
  int64_t sum = 0;
  EXPECT_EQ(sh_dict_add(dict.get(), sh_text("n"), 100, &sum, nullptr), SH_OK);
  EXPECT_EQ(sum, survives_fork() ? 111 : 101);
}

TEST_P(DictLifecycleTest, ThreadsThatShareOneDictLoseNoAddition) {
  const DictPtr dict = Open("d");
  constexpr int kThreads = 10;
  constexpr int kAdds = 300;
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      sh_entry entry{};
      for (int i = 0; i < kAdds; ++i) {
        if (sh_dict_add(dict.get(), sh_text("n"), 1, nullptr, nullptr) != SH_OK) ++failures;
        const std::string own = std::to_string(t) + "/" + std::to_string(i);
        if (sh_dict_set_string(dict.get(), Bytes(own), Bytes(own), nullptr, nullptr) != SH_OK ||
            sh_dict_get(dict.get(), Bytes(own), nullptr, 0, &entry, nullptr) != SH_OK ||
            !entry.found) {
          ++failures;
        }
      }
      sh_entry_free(&entry);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(Get(dict.get(), "n"), std::to_string(kThreads * kAdds));
}

INSTANTIATE_TEST_SUITE_P(Doors, DictLifecycleTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
