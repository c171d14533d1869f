// Random operations of several processes on one dict, through every door, against plain maps: each
// process compares what its own keys hold with a map of its own after every operation, all of them
// add to what they share, and meanwhile the dict grows and the daemon is killed. The seed is
// printed; STATEHOUSE_MODEL_SEED=<seed> gives the same operations again.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <statehouse/client.hpp>

#include "tests/support/daemon.h"
#include "tests/support/long_runs.h"

namespace statehouse::testing {
namespace {

using client::Condition;
using client::Dict;
using client::Edit;
using client::Entry;
using client::List;
using client::Map;
using client::Ttl;
using client::Value;

constexpr int kProcesses = 6;   // Two through each door.
constexpr int kKeys = 30;       // Of each process.
constexpr int kFillers = 2500;  // Of each process, set at once: together they make the dict grow.

// What the processes tell each other.
struct Board {
  std::atomic<int> operations{0};
  std::atomic<int64_t> added{0};
  std::atomic<int64_t> appended{0};
  std::atomic<uint64_t> entries{0};  // Left behind by the processes that have ended.
};

struct Known {
  Value value;
  uint64_t version = 0;
};

// One process: its keys, and what they must hold. Ends the process where something is otherwise.
class Walker final {
 public:
  Walker(int index, uint64_t seed, Dict dict, Board* board)
      : prefix_("p" + std::to_string(index) + "/"),
        random_(seed + static_cast<uint64_t>(index)),
        dict_(std::move(dict)),
        board_(board) {}

  void Run(int operations) {
    const int fill_at = static_cast<int>(Below(static_cast<uint64_t>(operations)));
    for (int i = 0; i < operations; ++i) {
      what_ = "operation " + std::to_string(i);
      if (i == fill_at) Fill();
      Step();
      if (i % 100 == 99) CompareAll();
      ++board_->operations;
    }
    CompareAll();
    board_->entries += model_.size();
  }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  std::string Key() { return prefix_ + "k" + std::to_string(Below(kKeys)); }

  void Expect(bool holds, const std::string& why) const {
    if (holds) return;
    std::fprintf(stderr, "%s %s: %s\n", prefix_.c_str(), what_.c_str(), why.c_str());
    _exit(1);
  }
  // The result of a call that must succeed. STALLED says that nothing happened: the dict moves.
  template <typename Call>
  auto Must(const Call& call) const {
    for (;;) {
      auto result = call();
      if (result.ok()) return *std::move(result);
      Expect(result.error().reason() == SH_STALLED, result.error().message());
    }
  }

  Value RandomValue() {
    switch (Below(6)) {
      case 0: return Value(static_cast<int64_t>(random_()));
      case 1: return Value(0.5 * static_cast<double>(Below(1000)));
      case 2: return Value(std::string(Below(20) == 0 ? Below(150'000) : Below(200), 'x'));
      case 3: return Value(List{1, "two", nullptr});
      case 4: return Value(Map{{"n", static_cast<int64_t>(Below(9))}, {"list", List{}}});
      default: return Value(Below(2) == 0);
    }
  }

  void Step() {
    const std::string key = Key();
    switch (Below(12)) {
      case 0: return Get(key);
      case 1:
      case 2:
      case 3: return Set(key);
      case 4: return Delete(key);
      case 5: return Increment(key);
      case 6: return AppendTo(key);
      case 7: return Many();
      case 8: return Transact(key);
      case 9: return Touch(key);
      case 10: return GetOrSet(key);
      default: return Share();
    }
  }

  void ExpectEntry(const std::string& key, const std::optional<Entry>& entry) const {
    const auto at = model_.find(key);
    Expect(entry.has_value() == (at != model_.end()), key + " is there, or is not");
    if (!entry.has_value()) return;
    Expect(entry->value == at->second.value, key + " holds another value");
    Expect(entry->version == at->second.version, key + " has another version");
  }

  void Keep(const std::string& key, Value value, uint64_t version) {
    uint64_t& highest = highest_[key];
    Expect(version > highest, key + ": a version that does not grow");
    highest = version;
    model_[key] = {std::move(value), version};
  }

  void Get(const std::string& key) {
    ExpectEntry(key, Must([&] { return dict_.GetEntry(key); }));
  }

  void Set(const std::string& key) {
    const auto at = model_.find(key);
    const bool present = at != model_.end();
    client::WriteOptions options;
    bool holds = true;
    switch (Below(6)) {
      case 0:
        options.condition = Condition::Absent();
        holds = !present;
        break;
      case 1:
        options.condition = Condition::Present();
        holds = present;
        break;
      case 2: options.condition = Condition::Version(present ? at->second.version : 0); break;
      case 3:
        options.condition = Condition::Version((present ? at->second.version : 0) + 1);
        holds = false;
        break;
      case 4:
        options.condition = Condition::Holds(present ? at->second.value : Value("nothing"));
        holds = present;
        break;
      default: break;
    }
    Value value = RandomValue();
    std::optional<Entry> previous;
    const client::Outcome outcome = Must([&] { return dict_.Set(key, value, options, &previous); });
    ExpectEntry(key, previous);
    Expect(outcome.applied == holds, key + ": a condition was decided otherwise");
    if (outcome.applied) Keep(key, std::move(value), outcome.version);
  }

  void Delete(const std::string& key) {
    std::optional<Entry> previous;
    const client::Outcome outcome = Must([&] { return dict_.Delete(key, {}, &previous); });
    ExpectEntry(key, previous);
    Expect(outcome.applied == (model_.erase(key) == 1), key + ": deleting what was not there");
  }

  void Increment(const std::string& key) {
    const auto at = model_.find(key);
    const int64_t* const number = at == model_.end() ? nullptr : at->second.value.IfInt();
    if (at != model_.end() && (number == nullptr || *number > INT64_MAX - 100)) return;
    const auto delta = static_cast<int64_t>(Below(100));
    const int64_t sum = Must([&] { return dict_.Increment(key, delta); });
    Expect(sum == (number == nullptr ? 0 : *number) + delta, key + ": another sum");
    const auto entry = Must([&] { return dict_.GetEntry(key); });
    Expect(entry.has_value() && entry->value == Value(sum), key + " does not hold the sum");
    Keep(key, sum, entry->version);
  }

  void AppendTo(const std::string& key) {
    const auto at = model_.find(key);
    if (at == model_.end() || at->second.value.Find("list") == nullptr) return;
    Value next = at->second.value;
    (*next.IfMap())["list"].IfList()->push_back("more");
    const client::EditOutcome outcome =
        Must([&] { return dict_.EditAt(key, {"list"}, Edit::Append("more")); });
    Expect(outcome.length == next.Find("list")->IfList()->size(), key + ": another length");
    Keep(key, std::move(next), outcome.version);
  }

  void Many() {
    std::map<std::string, Value> values;
    for (int i = 0; i < 4; ++i) values[Key()] = RandomValue();
    const std::vector<std::pair<std::string, Value>> entries(values.begin(), values.end());
    const auto versions = Must([&] { return dict_.SetMany(entries); });
    std::vector<std::string> keys;
    for (size_t i = 0; i < entries.size(); ++i) {
      Keep(entries[i].first, entries[i].second, versions[i]);
      keys.push_back(entries[i].first);
    }
    keys.push_back(Key());
    const bool consistent = Below(2) == 0;  // Some key may be there twice.
    const auto found = Must([&] { return dict_.GetMany(keys, consistent); });
    for (size_t i = 0; i < keys.size(); ++i) ExpectEntry(keys[i], found[i]);
  }

  // Moves a value from one key to another, if it is as it must be.
  void Transact(const std::string& from) {
    std::string to = Key();
    if (to == from) return;
    const auto at = model_.find(from);
    const bool present = at != model_.end();
    const Value value = present ? at->second.value : Value();
    client::Transaction move;
    move.If(from, present ? Condition::Holds(value) : Condition::Present());
    move.Set(to, value).Delete(from).Get(prefix_ + "none");
    move.Otherwise().Get(to);
    const auto outcome = Must([&] { return dict_.Transact(move); });
    Expect(outcome.compared == present, from + ": a transaction was decided otherwise");
    ExpectEntry(to, outcome.results[0]);
    if (!present) return;
    ExpectEntry(from, outcome.results[1]);
    model_.erase(from);
    Keep(to, value, outcome.versions[0]);
  }

  void Touch(const std::string& key) {
    const bool present = model_.count(key) == 1;
    const bool for_ever = Below(2) == 0;
    const client::Outcome outcome = Must([&] {
      return dict_.Touch(key, for_ever ? Ttl::Forever() : Ttl::For(std::chrono::hours(1)));
    });
    Expect(outcome.applied == present, key + ": touching what is not there");
    if (!present) return;
    Keep(key, model_[key].value, outcome.version);
    const auto entry = Must([&] { return dict_.GetEntry(key); });
    ExpectEntry(key, entry);
    Expect(entry->ttl.has_value() != for_ever, key + " has another time to live");
  }

  void GetOrSet(const std::string& key) {
    const auto at = model_.find(key);
    const Value value = Must([&] { return dict_.GetOrSet(key, "set"); });
    Expect(value == (at == model_.end() ? Value("set") : at->second.value), key + ": get or set");
    if (at != model_.end()) return;
    const auto entry = Must([&] { return dict_.GetEntry(key); });
    Expect(entry.has_value(), key + " was set and is not there");
    Keep(key, "set", entry->version);
  }

  void Share() {
    if (Below(2) == 0) {
      Must([&] { return dict_.Increment("shared/counter"); });
      ++board_->added;
    } else {
      Must([&] { return dict_.EditAt("shared/log", {}, Edit::Append(1).CreateParents()); });
      ++board_->appended;
    }
  }

  void Fill() {
    for (int i = 0; i < kFillers; i += 500) {
      std::vector<std::pair<std::string, Value>> entries;
      for (int j = i; j < i + 500; ++j) entries.emplace_back(prefix_ + "f" + std::to_string(j), j);
      const auto versions = Must([&] { return dict_.SetMany(entries); });
      for (size_t j = 0; j < entries.size(); ++j) {
        Keep(entries[j].first, entries[j].second, versions[j]);
      }
    }
  }

  // Everything that is there under this process's prefix is what it has put there.
  void CompareAll() {
    std::set<std::string> seen;
    Must([&] {
      return dict_.Scan(prefix_, [&](Entry entry) {
        seen.insert(entry.key);
        ExpectEntry(entry.key, entry);
        return true;
      });
    });
    Expect(seen.size() == model_.size(), "a scan missed entries");
  }

  const std::string prefix_;
  std::mt19937_64 random_;
  Dict dict_;
  Board* const board_;
  std::map<std::string, Known> model_;
  std::map<std::string, uint64_t> highest_;
  std::string what_;
};

// In a process of its own: nothing of the test runs in it.
[[noreturn]] void Walk(int index, uint64_t seed, int operations, const Daemon& daemon,
                       Board* board) {
  const int door = index % 3;
  client::Options options;
  options.token = daemon.token();
  options.timeout = std::chrono::minutes(1);
  options.transport = door == 0 ? SH_TRANSPORT_LOCAL : SH_TRANSPORT_NETWORK;
  const std::string url = door == 2 ? "statehouse://" + daemon.tcp_address()
                                    : "statehouse+unix://" + daemon.runtime_dir();
  auto client = client::Client::Connect(url, options);
  if (!client.ok()) _exit(2);
  auto dict = client->OpenDict("model");
  if (!dict.ok()) _exit(3);
  Walker(index, seed, *std::move(dict), board).Run(operations);
  _exit(0);
}

TEST(DictModelTest, ProcessesThroughEveryDoorAgreeWithTheirMaps) {
  const char* const given = std::getenv("STATEHOUSE_MODEL_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::printf("seed %llu; STATEHOUSE_MODEL_SEED=%llu gives the same operations\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
  const int operations = Rounds(600, 20'000);
  auto started = Daemon::Start();
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  Daemon& daemon = **started;
  void* const page =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* const board = new (page) Board;
  std::vector<pid_t> processes;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) Walk(i, seed, operations, daemon, board);
    processes.push_back(pid);
  }
  for (int kill = 1; kill <= 3; ++kill) {
    ASSERT_TRUE(Eventually([&] { return board->operations > kProcesses * operations * kill / 5; }));
    ASSERT_TRUE(daemon.KillDaemonAndWait().ok());
  }
  for (const pid_t pid : processes) {
    EXPECT_EQ(WaitForExit(pid), 0)
        << "a process met something else than its map says; seed " << seed;
  }
  client::Options options;
  options.token = daemon.token();
  auto client = client::Client::Connect("statehouse+unix://" + daemon.runtime_dir(), options);
  ASSERT_TRUE(client.ok()) << client.error().message();
  auto dict = client->OpenDict("model");
  ASSERT_TRUE(dict.ok());
  EXPECT_EQ(dict->Get<int64_t>("shared/counter").value(), board->added.load());
  EXPECT_EQ(static_cast<int64_t>(dict->Get<List>("shared/log").value()->size()),
            board->appended.load());
  EXPECT_EQ(dict->Length().value(), board->entries + 2);
  munmap(page, sizeof(Board));
}

}  // namespace
}  // namespace statehouse::testing
