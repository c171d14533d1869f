// What the command line of `statehouse watch` says, and what watches of every kind share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "clients/cli/commands.h"
#include "statehouse/statehouse.h"

namespace statehouse::cli {

struct WatchArguments {
  std::vector<std::string> words;  // As they were given: [dict] DICT [PREFIX], or area AREA.
  bool of_area = false;
  std::string name;
  // Dicts.
  std::string prefix;
  std::string key;
  std::vector<std::string> kinds;
  std::string slow = "resync";
  uint64_t from_revision = 0;
  bool keys_only = false;
  bool previous = false;
  CLI::Option* key_option = nullptr;
  // Areas.
  uint64_t pos = 0;
  uint64_t len = 0;
  uint64_t from_updates = 0;
  bool ranges_only = false;
  CLI::Option* len_option = nullptr;
  CLI::Option* from_updates_option = nullptr;
  // Both.
  std::string window;
  std::string progress;
  std::string command;
  std::string until;
  uint64_t count = 0;
  bool no_snapshot = false;
};

// Runs the command of --exec to its end, with these variables. What it says of itself is the
// user's business; that it failed is said, with `what`.
using Environment = std::vector<std::pair<const char*, std::string>>;
void Execute(const std::string& command, const Environment& variables, const std::string& what);

// Writes a line at once.
void PrintLine(const std::string& line);

// One stream after another, until it came to the end that was asked for. Throws Failed for every
// other one. `Kind` has Request() (serialized), Take(message) (true: this was the end) and
// Reconnect().
template <typename Message, typename Kind>
class Streams final {
 public:
  Streams(const Globals& globals, const char* method, Kind& kind)
      : globals_(globals), method_(method), kind_(kind) {}

  void Run() {
    const Client client = Connect(globals_);
    std::minstd_rand random(std::random_device{}());
    for (int pause_ms = 10;; pause_ms = std::min(pause_ms * 2, 500)) {
      const uint64_t before = messages_;
      sh_error* error = nullptr;
      const sh_reason reason = Read(client.get(), &error);
      if (reason != SH_OK && reason != SH_UNAVAILABLE && reason != SH_DRAINING) {
        Check(reason, error);
      }
      sh_error_free(error);
      if (reason == SH_OK) return;
      if (messages_ != before) pause_ms = 10;
      kind_.Reconnect();
      std::uniform_int_distribution<int> draw(pause_ms / 2, pause_ms);
      std::this_thread::sleep_until(std::chrono::steady_clock::now() +
                                    std::chrono::milliseconds(draw(random)));
    }
  }

 private:
  // SH_OK: it came to the end that was asked for.
  sh_reason Read(sh_client* client, sh_error** error) {
    const std::string bytes = kind_.Request();
    sh_stream* opened = nullptr;
    sh_reason reason = sh_stream_open(client, method_, bytes.data(), bytes.size(), &opened, error);
    if (reason != SH_OK) return reason;
    const std::unique_ptr<sh_stream, void (*)(sh_stream*)> stream(opened, sh_stream_close);
    for (;;) {
      void* response = nullptr;
      size_t response_bytes = 0;
      reason = sh_stream_next(stream.get(), &response, &response_bytes, error);
      // The service never ends a watch without a reason.
      if (response == nullptr) return reason == SH_OK ? SH_UNAVAILABLE : reason;
      ++messages_;
      Message message;
      const bool good = message.ParseFromArray(response, static_cast<int>(response_bytes));
      sh_call_free(response);
      if (!good) throw Failed{kExitError, "the watch's answer is no message of this release"};
      if (kind_.Take(message)) return SH_OK;
    }
  }

  const Globals& globals_;
  const char* const method_;
  Kind& kind_;
  uint64_t messages_ = 0;
};

void WatchArea(const Globals& globals, const WatchArguments& arguments);

}  // namespace statehouse::cli
