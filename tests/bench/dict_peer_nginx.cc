// nginx's lua_shared_dict as a peer, measured inside its workers by nginx_peer.lua: what HTTP costs
// is not in it, what a turn of LuaJIT's loop costs is.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "engine/os/futex.h"
#include "tests/bench/dict_peers.h"
#include "tests/bench/peer_process.h"

namespace statehouse::bench {
namespace {

constexpr int kWorkers = 4;
constexpr int kTriesMax = 5;
// Between two requests: the worker that took the one before is then busy and cannot take this, too.
constexpr uint64_t kStaggerNs = 10'000'000;

// When a loop ran, in seconds.
struct Times {
  double begin = 0;
  double end = 0;
};

class Nginx final : public Peer {
 public:
  static std::unique_ptr<Nginx> Start(const PeerOptions& options) {
    auto folder = std::make_unique<BenchFolder>();
    WriteConfiguration(options, folder->path());
    std::unique_ptr<Nginx> nginx(new Nginx(options.prefix, std::move(folder)));
    for (const uint32_t keys : options.sizes) {
      nginx->bytes_per_entry_ = std::atof(nginx->Ask(Request("fill", keys)).c_str());
      if (nginx->bytes_per_entry_ <= 0) return nullptr;
    }
    return nginx;
  }
  std::string name() const override { return kNginxName; }
  double BytesPerEntry() override { return bytes_per_entry_; }
  Contender Enter(Operation operation, uint32_t keys, int processes) override {
    const char* const what = operation == Operation::kGet   ? "get"
                             : operation == Operation::kSet ? "set"
                                                            : "incr";
    return {name(),
            [this, what, keys, processes](uint64_t n) { return Measure(what, keys, processes, n); },
            1'000'000};
  }

 private:
  Nginx(const std::string& prefix, std::unique_ptr<BenchFolder> folder)
      : folder_(std::move(folder)),
        process_({prefix + "/sbin/nginx", "-p", folder_->path(), "-c", "nginx.conf", "-e",
                  "error.log"}) {}

  static void WriteConfiguration(const PeerOptions& options, const std::string& folder) {
    std::ofstream file(folder + "/nginx.conf");
    const std::string modules = options.prefix + "/lib/nginx/modules/";
    const std::string lua = options.prefix + "/share/lua/5.1/";
    file << "daemon off;\nworker_processes " << kWorkers << ";\npid nginx.pid;\n"
         << "load_module " << modules << "ndk_http_module.so;\n"
         << "load_module " << modules << "ngx_http_lua_module.so;\n"
         << (geteuid() == 0 ? "user root;\n" : "") << "events { }\nhttp {\n  access_log off;\n"
         << "  lua_package_path '" << lua << "?.lua;" << lua << "?/init.lua;;';\n"
         << "  lua_shared_dict gate 1m;\n";
    // A store of its own for each size: the depth of nginx's tree depends on it.
    for (const uint32_t keys : options.sizes) {
      file << "  lua_shared_dict keys_" << keys << " " << 8 + keys / 2500 << "m;\n";
    }
    for (const char* const path : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
      file << "  " << path << "_temp_path " << path << ";\n";
    }
    file << "  server {\n    listen unix:" << folder << "/s;\n    location / {\n"
         << "      content_by_lua_file " << SH_BENCH_FOLDER << "/nginx_peer.lua;\n    }\n  }\n}\n";
  }

  static std::string Request(const std::string& what, uint32_t keys) {
    return "do=" + what + "&keys=" + std::to_string(keys) + "&bytes=" + std::to_string(kValueBytes);
  }

  // The body of the answer; empty where it is none of success.
  std::string Ask(const std::string& query) {
    const std::string answer = AskOnce(folder_->path() + "/s", &process_,
                                       "GET /?" + query + " HTTP/1.0\r\nHost: bench\r\n\r\n");
    const size_t body = answer.find("\r\n\r\n");
    const bool good = answer.find(" 200 ") != std::string::npos && body != std::string::npos;
    return good ? answer.substr(body + 4) : "";
  }

  double Measure(const char* what, uint32_t keys, int processes, uint64_t n) {
    for (int i = 0; i < kTriesMax; ++i) {
      const std::vector<Times> times = RunTogether(what, keys, processes, n);
      if (times.empty()) continue;
      Times all = times[0];
      for (const Times& each : times) {
        all = {std::min(all.begin, each.begin), std::max(all.end, each.end)};
      }
      return (all.end - all.begin) * 1e9 / static_cast<double>(n);
    }
    PeerFailed("nginx's workers did not run at once");
  }

  // Empty where two requests came to one worker, so that they could not run at once.
  std::vector<Times> RunTogether(const char* what, uint32_t keys, int processes, uint64_t n) {
    const std::string query = Request(what, keys) + "&n=" + std::to_string(n) +
                              "&gate=" + std::to_string(gate_++) +
                              "&parties=" + std::to_string(processes);
    std::vector<std::string> answers(static_cast<size_t>(processes));
    std::vector<std::thread> threads;
    for (std::string& answer : answers) {
      threads.emplace_back([this, &query, &answer] { answer = Ask(query); });
      SleepNs(kStaggerNs);
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<Times> times;
    for (const std::string& answer : answers) {
      if (answer.starts_with("alone")) return {};
      Times each;
      if (std::sscanf(answer.c_str(), "%lf %lf", &each.begin, &each.end) != 2) {
        PeerFailed("nginx's worker failed: " + answer);
      }
      times.push_back(each);
    }
    return times;
  }

  std::unique_ptr<BenchFolder> folder_;
  BenchProcess process_;
  double bytes_per_entry_ = 0;
  uint64_t gate_ = 0;
};

}  // namespace

std::unique_ptr<Peer> StartNginx(const PeerOptions& options) {
  if (access((options.prefix + "/sbin/nginx").c_str(), X_OK) != 0 ||
      access((options.prefix + "/lib/nginx/modules/ngx_http_lua_module.so").c_str(), R_OK) != 0) {
    std::printf("nginx: skipped: not installed (nginx, libnginx-mod-http-lua)\n");
    return nullptr;
  }
  std::unique_ptr<Peer> nginx = Nginx::Start(options);
  if (nginx == nullptr) std::printf("nginx: skipped: it does not start or answer\n");
  return nginx;
}

}  // namespace statehouse::bench
