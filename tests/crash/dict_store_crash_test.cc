// The daemon is killed at every instruction that changes the catalogue of dicts, the old segment or
// the vault while it makes, moves or deletes a dict. The next daemon serves the dict as it was or
// as it was to be, whoever still maps the old segment is told, and no segment is left over.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "engine/os/memory.h"
#include "engine/state/dict_store.h"
#include "engine/state/test_dict.h"
#include "gtest/gtest.h"
#include "tests/crash/stepper.h"

namespace statehouse {
namespace {

constexpr int kEntries = 5;
constexpr size_t kCatalogueBytes = 8 << 10;  // The part in which the first records stand.
const Lane kLane{1, kOperationTimeoutNsDefault};

// What the child tells about its vault, in memory that both see.
struct VaultNotes {
  std::atomic<int> pid{0};
  std::atomic<int> stored_fd{-1};
  std::atomic<int> removals{0};
  char stored[64] = {};
  char removed[64] = {};
};

// Keeps duplicates, as the keeper does. In the child it begins the steps once it has something.
class NotingVault final : public DescriptorVault {
 public:
  explicit NotingVault(VaultNotes* notes_in) : notes(notes_in) {}

  Status Store(const std::string& name, int fd) override {
    kept[name] = UniqueFd(dup(fd));
    if (!in_child) return Status();
    std::strncpy(notes->stored, name.c_str(), sizeof notes->stored - 1);
    notes->stored_fd = kept[name].get();
    if (steps_begin_here) BeginSteps();
    return Status();
  }
  Status Remove(const std::string& name) override {
    kept.erase(name);
    if (!in_child) return Status();
    std::strncpy(notes->removed, name.c_str(), sizeof notes->removed - 1);
    ++notes->removals;
    return Status();
  }

  VaultNotes* const notes;
  std::map<std::string, UniqueFd> kept;
  bool in_child = false;
  bool steps_begin_here = false;
};

// One daemon that has a dict "a", and its end.
class Daemon final {
 public:
  Daemon() {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(page, MAP_FAILED);
    notes_ = new (page) VaultNotes;
    vault_ = std::make_unique<NotingVault>(notes_);
    Start({});
    DictSpec spec;
    spec.name = "a";
    spec.max_entries = 100;
    spec.max_bytes = 1 << 20;
    before = store->Create(spec)->dict;
    for (int i = 0; i < kEntries; ++i) {
      DictResult result;
      EXPECT_TRUE(before->dict()
                      .Set(kLane, "k" + std::to_string(i), DictValue::Int64(i), {}, &result)
                      .ok());
    }
    auto mapped = MapShared(vault_->kept.at("dicts").get(), 0, kCatalogueBytes, false);
    EXPECT_TRUE(mapped.ok());
    catalogue_ = *mapped;
  }
  ~Daemon() {
    Unmap(catalogue_, kCatalogueBytes);
    munmap(notes_, 4096);
  }

  // Runs `work` in a child until it has changed something for the n-th time. False: it was done
  // before. `from_vault`: nothing matters before the first descriptor is stored.
  bool RunUntilChange(const std::function<Status(DictStore&)>& work, bool from_vault, int n) {
    int changes = 0;
    bool was_finished = false;
    const auto child = [&] {
      vault_->in_child = true;
      vault_->steps_begin_here = from_vault;
      notes_->pid = getpid();
      if (!from_vault) BeginSteps();
      if (!work(*store).ok()) _exit(4);
    };
    std::string last = Look();
    const int64_t boundaries = StepThroughFrom(child, [&](bool finished) {
      was_finished = finished;
      std::string now = Look();
      if (now != last) ++changes;
      last = std::move(now);
      const bool stop = changes == n || finished;
      if (stop) TakeOver();
      return !stop;
    });
    EXPECT_GT(boundaries, 0) << "the daemon could not be stepped; allow ptrace";
    store.reset();
    return boundaries > 0 && !was_finished;
  }

  // The next daemon.
  void Restart() {
    std::map<std::string, UniqueFd> inherited;
    for (const auto& [name, fd] : vault_->kept) inherited[name] = UniqueFd(dup(fd.get()));
    Start(std::move(inherited));
  }
  size_t segments() const { return vault_->kept.size() - 1; }  // Beside the catalogue.

  std::unique_ptr<DictStore> store;
  std::shared_ptr<ServedDict> before;
  std::vector<std::string> warnings;

 private:
  void Start(std::map<std::string, UniqueFd> inherited) {
    auto started = DictStore::Start({}, &inherited, vault_.get(), &warnings);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    store = std::move(*started);
    // As Engine does with what no record claims.
    for (const auto& [name, fd] : inherited) {
      if (fd.valid()) vault_->kept.erase(name);
    }
  }
  std::string Look() const {
    std::string seen(reinterpret_cast<const char*>(catalogue_), kCatalogueBytes);
    seen += std::to_string(static_cast<int>(before->dict().state()));
    seen += notes_->stored_fd.load() >= 0 ? 's' : '-';
    seen += std::to_string(notes_->removals.load());
    return seen;
  }
  // The vault of the child becomes the parent's.
  void TakeOver() {
    if (notes_->removals.load() > 0) vault_->kept.erase(notes_->removed);
    const int fd = notes_->stored_fd.load();
    if (fd < 0) return;
    const std::string path =
        "/proc/" + std::to_string(notes_->pid.load()) + "/fd/" + std::to_string(fd);
    UniqueFd segment(open(path.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(segment.valid()) << path;
    vault_->kept[notes_->stored] = std::move(segment);
  }

  VaultNotes* notes_ = nullptr;
  std::unique_ptr<NotingVault> vault_;
  std::byte* catalogue_ = nullptr;
};

// Every entry and its version, or none of them.
void ExpectEntries(ServedDict& served, const ServedDict& before, bool all) {
  for (int i = 0; i < kEntries; ++i) {
    DictEntry entry;
    bool found = false;
    ASSERT_TRUE(served.dict().Get("k" + std::to_string(i), &entry, &found).ok());
    ASSERT_EQ(found, all);
    if (all) {
      EXPECT_EQ(entry.bits, static_cast<uint64_t>(i));
    }
    DictResult result;
    ASSERT_TRUE(
        served.dict().Set(kLane, "k" + std::to_string(i), DictValue::Int64(-1), {}, &result).ok());
    EXPECT_GT(result.version, entry.version);
  }
  for (const std::string& fault : served.dict().Check(true).faults) ADD_FAILURE() << fault;
  EXPECT_GE(served.Stats().revision, before.Stats().revision);
}

void StepMoves(DictStore::Move how) {
  int moved = 0;
  int stayed = 0;
  bool cut = true;
  for (int n = 1; cut; ++n) {
    SCOPED_TRACE("killed at change " + std::to_string(n));
    Daemon daemon;
    cut = daemon.RunUntilChange(
        [&](DictStore& store) { return store.MoveDict(kLane, daemon.before, how); }, true, n);

    daemon.Restart();

    EXPECT_TRUE(daemon.warnings.empty());
    auto after = daemon.store->Find("a");
    ASSERT_TRUE(after.ok()) << after.status().ToString();
    const bool is_next = (*after)->record().generation > daemon.before->record().generation;
    ++(is_next ? moved : stayed);
    EXPECT_TRUE(is_next || cut) << "a move that was complete is lost";
    EXPECT_EQ(daemon.before->dict().state(), is_next ? DictState::kMoved : DictState::kLive)
        << "who maps the old segment is not told";
    EXPECT_EQ(daemon.segments(), 1u);
    ExpectEntries(**after, *daemon.before, !is_next || how != DictStore::Move::kClear);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(moved, 3);
  EXPECT_GT(stayed, 10);
}

TEST(DictStoreCrashTest, AMoveThatIsCutShortAnywhereHappenedOrDidNot) {
  StepMoves(DictStore::Move::kSalvage);
}

TEST(DictStoreCrashTest, AClearThatIsCutShortAnywhereHappenedOrDidNot) {
  StepMoves(DictStore::Move::kClear);
}

TEST(DictStoreCrashTest, ADeletionThatIsCutShortAnywhereHappenedOrDidNot) {
  bool cut = true;
  for (int n = 1; cut; ++n) {
    SCOPED_TRACE("killed at change " + std::to_string(n));
    Daemon daemon;
    cut = daemon.RunUntilChange([](DictStore& store) { return store.Delete("a"); }, false, n);

    daemon.Restart();

    const auto after = daemon.store->Find("a");
    EXPECT_FALSE(after.ok()) << "its first change says that it is deleted";
    EXPECT_EQ(daemon.before->dict().state(), DictState::kDeleted);
    EXPECT_EQ(daemon.segments(), 0u);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DictStoreCrashTest, ACreationThatIsCutShortAnywhereHappenedOrDidNot) {
  DictSpec spec;
  spec.name = "b";
  spec.max_bytes = 1 << 20;
  bool cut = true;
  for (int n = 1; cut; ++n) {
    SCOPED_TRACE("killed at change " + std::to_string(n));
    Daemon daemon;
    cut = daemon.RunUntilChange(
        [&](DictStore& store) {
          const auto made = store.Create(spec);
          return made.ok() ? Status() : made.status();
        },
        true, n);

    daemon.Restart();

    const auto after = daemon.store->Find("b");
    EXPECT_TRUE(after.ok() || cut) << "a dict that was made is lost";
    EXPECT_EQ(daemon.segments(), after.ok() ? 2u : 1u);
    const auto made = daemon.store->Create(spec);
    ASSERT_TRUE(made.ok());
    EXPECT_EQ(made->created, !after.ok());
    ExpectEntries(**daemon.store->Find("a"), *daemon.before, true);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace statehouse
