// PHP's APCu as a peer, measured inside PHP by apcu_peer.php: what a turn of PHP's loop costs is in
// it. A cache belongs to one PHP process and its children, so there is a server for each size.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "tests/bench/dict_peers.h"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

class Apcu final : public Peer {
 public:
  // Null where a server does not start.
  static std::unique_ptr<Apcu> Start(const std::string& php, const std::vector<uint32_t>& sizes) {
    std::unique_ptr<Apcu> apcu(new Apcu);
    for (const uint32_t keys : sizes) {
      apcu->servers_[keys] = StartServer(php, apcu->PathOf(keys), keys);
      apcu->bytes_per_entry_ = apcu->Ask(keys, "bytes 0 0\n");
      if (apcu->bytes_per_entry_ <= 0) return nullptr;
    }
    return apcu;
  }
  std::string name() const override { return "APCu, in PHP"; }
  double BytesPerEntry() override { return bytes_per_entry_; }
  Contender Enter(Operation operation, uint32_t keys, int processes) override {
    const std::string what = operation == Operation::kGet   ? "get "
                             : operation == Operation::kSet ? "set "
                                                            : "inc ";
    return {name(),
            [this, what, keys, processes](uint64_t n) {
              const double ns =
                  Ask(keys, what + std::to_string(processes) + " " + std::to_string(n) + "\n");
              if (ns <= 0) PeerFailed("APCu's server failed");
              return ns;
            },
            200'000};
  }

 private:
  Apcu() = default;

  static std::unique_ptr<BenchProcess> StartServer(const std::string& php, const std::string& path,
                                                   uint32_t keys) {
    return std::make_unique<BenchProcess>(std::vector<std::string>{
        php, "-d", "apc.enable_cli=1", "-d",
        "apc.shm_size=" + std::to_string(32 + keys / 2500) + "M", "-d",
        "apc.entries_hint=" + std::to_string(keys), "-d", "memory_limit=-1",
        SH_BENCH_FOLDER "/apcu_peer.php", path, std::to_string(keys), std::to_string(kValueBytes)});
  }

  std::string PathOf(uint32_t keys) const { return folder_.path() + "/" + std::to_string(keys); }

  double Ask(uint32_t keys, const std::string& request) {
    return std::atof(AskOnce(PathOf(keys), servers_.at(keys).get(), request).c_str());
  }

  BenchFolder folder_;
  std::map<uint32_t, std::unique_ptr<BenchProcess>> servers_;
  double bytes_per_entry_ = 0;
};

}  // namespace

std::unique_ptr<Peer> StartApcu(const PeerOptions& options) {
  const std::string php = options.prefix + "/bin/php";
  if (access(php.c_str(), X_OK) != 0) {
    std::printf("APCu: skipped: not installed (php-cli, php-apcu)\n");
    return nullptr;
  }
  std::unique_ptr<Peer> apcu = Apcu::Start(php, options.sizes);
  if (apcu == nullptr) std::printf("APCu: skipped: not installed (php-apcu)\n");
  return apcu;
}

}  // namespace statehouse::bench
