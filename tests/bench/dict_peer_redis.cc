// Redis as a peer: each process has one connection over a unix socket, with one operation at a
// time.
#ifdef SH_BENCH_HIREDIS
#include <hiredis/hiredis.h>
#endif

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/bench/dict_peers.h"
#include "tests/bench/peer_process.h"
#include "tests/bench/processes.h"

namespace statehouse::bench {

#ifdef SH_BENCH_HIREDIS
namespace {

using Connection = std::shared_ptr<redisContext>;

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

template <typename... Arguments>
Reply Ask(const Connection& connection, const char* format, Arguments... arguments) {
  Reply reply(static_cast<redisReply*>(redisCommand(connection.get(), format, arguments...)));
  if (reply == nullptr || reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_NIL) {
    PeerFailed(std::string("Redis refused ") + format);
  }
  return reply;
}

class Redis final : public Peer {
 public:
  // Null where it does not start.
  static std::unique_ptr<Redis> Start(const std::string& program, uint32_t keys) {
    std::unique_ptr<Redis> redis(new Redis(program));
    Connection connection = redis->Connect();
    if (connection == nullptr) return nullptr;
    const double before = redis->UsedBytes(connection);
    redis->Fill(connection, keys);
    redis->bytes_per_entry_ = (redis->UsedBytes(connection) - before) / keys;
    return redis;
  }
  std::string name() const override { return "Redis, hiredis, unix socket"; }
  double BytesPerEntry() override { return bytes_per_entry_; }
  // One store has the keys of all sizes: what takes time is the way to it.
  Contender Enter(Operation operation, uint32_t keys, int processes) override {
    const auto make_loop = [this, operation, keys](int process) {
      Connection connection = Connect();
      if (connection == nullptr) PeerFailed("Redis takes no connection");
      return LoopOf(operation, std::move(connection), Drawn(keys), FirstDraw(process));
    };
    return {name(), InProcesses(processes, make_loop), 5'000};
  }

 private:
  explicit Redis(const std::string& program)
      : socket_(folder_.path() + "/s"),
        process_({program, "--port", "0", "--unixsocket", socket_, "--save", "", "--appendonly",
                  "no", "--dir", folder_.path()}) {}

  Connection Connect() {
    // Not the process: in a child it is no child.
    const int fd = ConnectTo(socket_, nullptr);
    return fd < 0 ? nullptr : Connection(redisConnectFd(fd), redisFree);
  }

  Loop LoopOf(Operation operation, Connection connection, const std::vector<Key>& drawn,
              uint64_t first) const {
    switch (operation) {
      case Operation::kGet:
        return [connection, &drawn, first](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) {
            const std::string_view key = drawn[(first + i) % kDraws].view();
            Ask(connection, "GET %b", key.data(), key.size());
          }
        };
      case Operation::kSet:
        return [this, connection, &drawn, first](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) {
            const std::string_view key = drawn[(first + i) % kDraws].view();
            Ask(connection, "SET %b %b", key.data(), key.size(), value_.data(), value_.size());
          }
        };
      case Operation::kIncrement:
        return [connection](uint64_t n) {
          for (uint64_t i = 0; i < n; ++i) Ask(connection, "INCR hits");
        };
    }
    return nullptr;
  }

  double UsedBytes(const Connection& connection) const {
    const Reply reply = Ask(connection, "INFO memory");
    const char* const found = std::strstr(reply->str, "used_memory:");
    return found == nullptr ? 0 : std::atof(found + std::strlen("used_memory:"));
  }

  void Fill(const Connection& connection, uint32_t keys) const {
    constexpr uint32_t kBatch = 1000;
    for (uint32_t begin = 0; begin < keys; begin += kBatch) {
      const uint32_t end = std::min(keys, begin + kBatch);
      for (uint32_t i = begin; i < end; ++i) {
        const Key key = KeyOf(i);
        redisAppendCommand(connection.get(), "SET %b %b", key.text.data(), key.text.size(),
                           value_.data(), value_.size());
      }
      for (uint32_t i = begin; i < end; ++i) {
        void* reply = nullptr;
        if (redisGetReply(connection.get(), &reply) != REDIS_OK) PeerFailed("filling Redis failed");
        freeReplyObject(reply);
      }
    }
  }

  BenchFolder folder_;
  const std::string socket_;
  BenchProcess process_;
  const std::string value_ = std::string(kValueBytes, 'v');
  double bytes_per_entry_ = 0;
};

}  // namespace

std::unique_ptr<Peer> StartRedis(const PeerOptions& options) {
  const std::string program = options.prefix + "/bin/redis-server";
  if (access(program.c_str(), X_OK) != 0) {
    std::printf("Redis: skipped: not installed (redis-server)\n");
    return nullptr;
  }
  std::unique_ptr<Peer> redis = Redis::Start(program, options.sizes.back());
  if (redis == nullptr) std::printf("Redis: skipped: %s does not start\n", program.c_str());
  return redis;
}

#else

std::unique_ptr<Peer> StartRedis(const PeerOptions&) {
  std::printf("Redis: skipped: not installed (libhiredis-dev)\n");
  return nullptr;
}

#endif

}  // namespace statehouse::bench
