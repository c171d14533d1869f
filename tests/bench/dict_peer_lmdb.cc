// LMDB as a peer: a store in memory (tmpfs), without syncing, one transaction for each operation.
#ifdef SH_BENCH_LMDB
#include <lmdb.h>
#endif
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "tests/bench/dict_peers.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/processes.h"

namespace statehouse::bench {

#ifdef SH_BENCH_LMDB
namespace {

constexpr size_t kMapBytes = size_t{1} << 30;

void Require(int result, const char* what) {
  if (result != 0) [[unlikely]]
    PeerFailed(std::string("LMDB: ") + what + ": " + mdb_strerror(result));
}

MDB_val ValueOf(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }

// One process's view of a store. A child opens its own: an environment does not survive a fork.
class Store {
 public:
  explicit Store(const std::string& path) {
    Require(mdb_env_create(&environment_), "making an environment");
    Require(mdb_env_set_mapsize(environment_, kMapBytes), "setting its size");
    Require(mdb_env_open(environment_, path.c_str(),
                         MDB_NOSUBDIR | MDB_NOSYNC | MDB_WRITEMAP | MDB_NOMETASYNC, 0600),
            "opening it");
    Begin();
    Require(mdb_dbi_open(writer_, nullptr, 0, &table_), "opening its table");
    Commit();
    Require(mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &reader_), "reading");
    mdb_txn_reset(reader_);
  }
  ~Store() {
    mdb_txn_abort(reader_);
    mdb_env_close(environment_);
  }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  void Begin() { Require(mdb_txn_begin(environment_, nullptr, 0, &writer_), "writing"); }
  void Put(std::string_view key, std::string_view value) {
    MDB_val name = ValueOf(key);
    MDB_val bytes = ValueOf(value);
    Require(mdb_put(writer_, table_, &name, &bytes, 0), "putting");
  }
  void Commit() { Require(mdb_txn_commit(writer_), "committing"); }

  void Get(std::string_view key) {
    MDB_val name = ValueOf(key);
    MDB_val found;
    char copy[kValueBytes];
    Require(mdb_txn_renew(reader_), "renewing");
    Require(mdb_get(reader_, table_, &name, &found), "getting");
    std::memcpy(copy, found.mv_data, sizeof(copy));  // The pointer is good in the transaction only.
    asm volatile("" : : "r"(copy) : "memory");
    mdb_txn_reset(reader_);
  }
  void Set(std::string_view key, std::string_view value) {
    Begin();
    Put(key, value);
    Commit();
  }
  void Increment(std::string_view key) {
    Begin();
    MDB_val name = ValueOf(key);
    MDB_val found;
    uint64_t number = 0;
    const int result = mdb_get(writer_, table_, &name, &found);
    if (result != MDB_NOTFOUND) {
      Require(result, "getting");
      std::memcpy(&number, found.mv_data, sizeof(number));
    }
    ++number;
    Put(key, {reinterpret_cast<const char*>(&number), sizeof(number)});
    Commit();
  }

 private:
  MDB_env* environment_ = nullptr;
  MDB_dbi table_ = 0;
  MDB_txn* reader_ = nullptr;
  MDB_txn* writer_ = nullptr;
};

class Lmdb final : public Peer {
 public:
  explicit Lmdb(const std::vector<uint32_t>& sizes) {
    for (const uint32_t keys : sizes) {
      auto& store = stores_[keys] = std::make_shared<Store>(PathOf(keys));
      store->Begin();
      for (uint32_t i = 0; i < keys; ++i) store->Put(KeyOf(i).view(), value_);
      store->Commit();
    }
    // Before any other operation: what a long run of them leaves free is not counted.
    const uint32_t most = stores_.rbegin()->first;
    struct stat status;
    if (stat(PathOf(most).c_str(), &status) == 0) {
      bytes_per_entry_ = static_cast<double>(status.st_blocks) * 512 / most;
    }
  }
  std::string name() const override { return "LMDB, one transaction each"; }
  double BytesPerEntry() override { return bytes_per_entry_; }
  Contender Enter(Operation operation, uint32_t keys, int processes) override {
    const auto make_loop = [this, operation, keys](int process) {
      auto store = process == 0 ? stores_.at(keys) : std::make_shared<Store>(PathOf(keys));
      return LoopOf(operation, std::move(store), Drawn(keys), FirstDraw(process));
    };
    return {name(), InProcesses(processes, make_loop),
            operation == Operation::kGet ? uint64_t{500'000} : uint64_t{50'000}};
  }

 private:
  std::string PathOf(uint32_t keys) const { return folder_.path() + "/" + std::to_string(keys); }

  Loop LoopOf(Operation operation, std::shared_ptr<Store> store, const std::vector<Key>& drawn,
              uint64_t first) const {
    switch (operation) {
      case Operation::kGet:
        return [store, &drawn, first](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) store->Get(drawn[(first + i) % kDraws].view());
        };
      case Operation::kSet:
        return [this, store, &drawn, first](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) store->Set(drawn[(first + i) % kDraws].view(), value_);
        };
      case Operation::kIncrement:
        return [store](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) store->Increment("hits");
        };
    }
    return nullptr;
  }

  BenchFolder folder_;
  const std::string value_ = std::string(kValueBytes, 'v');
  std::map<uint32_t, std::shared_ptr<Store>> stores_;
  double bytes_per_entry_ = 0;
};

}  // namespace

std::unique_ptr<Peer> StartLmdb(const PeerOptions& options) {
  return std::make_unique<Lmdb>(options.sizes);
}

#else

std::unique_ptr<Peer> StartLmdb(const PeerOptions&) {
  std::printf("LMDB: skipped: not installed (liblmdb-dev)\n");
  return nullptr;
}

#endif

}  // namespace statehouse::bench
