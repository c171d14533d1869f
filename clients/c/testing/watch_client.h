// For tests of watches through the C library: events as text, a replayer, and what a watch costs
// its process.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "clients/c/testing/dict_client.h"

namespace statehouse {

struct WatchCloser {
  void operator()(sh_watch* watch) const { sh_watch_close(watch); }
};
using WatchPtr = std::unique_ptr<sh_watch, WatchCloser>;

inline WatchPtr Watch(sh_dict* dict, const sh_watch_options& options = {}) {
  sh_watch* watch = nullptr;
  sh_error* error = nullptr;
  EXPECT_EQ(sh_dict_watch(dict, &options, &watch, &error), SH_OK) << sh_error_message(error);
  sh_error_free(error);
  return WatchPtr(watch);
}

// "put a=1", "delete a", "synced", "resync replaced", "nothing", or the reason of an error.
inline std::string Show(const sh_watch_event& event) {
  constexpr const char* kNames[] = {"nothing", "put",    "delete", "expire",  "evict",
                                    "entry",   "synced", "resync", "progress"};
  std::string text = kNames[event.kind];
  if (event.kind == SH_WATCH_RESYNC) text += std::string(" ") + sh_resync_reason_text(event.reason);
  if (event.key.size > 0) text += " " + Text(event.key);
  if (event.value.data != nullptr) text += "=" + Json(event.value);
  return text;
}
inline std::string Next(sh_watch* watch, uint64_t timeout_ms = kPatienceMs,
                        sh_watch_event* event = nullptr) {
  sh_watch_event own{};
  if (event == nullptr) event = &own;
  const sh_reason reason = sh_watch_next(watch, timeout_ms, event, nullptr);
  return reason == SH_OK ? Show(*event) : sh_reason_name(reason);
}
inline std::vector<std::string> Take(sh_watch* watch, int count) {
  std::vector<std::string> events;
  for (int i = 0; i < count; ++i) events.push_back(Next(watch));
  return events;
}
// Everything up to the next "synced", or what is no event.
inline std::vector<std::string> UntilSynced(sh_watch* watch) {
  std::vector<std::string> events = Take(watch, 1);
  while (events.back() != "synced" && events.back().find(' ') != std::string::npos) {
    events.push_back(Next(watch));
  }
  return events;
}

// What happened to each key, in order: the values that it got, "deleted" in between.
using KeyLogs = std::map<std::string, std::vector<std::string>>;

// Takes down what a watch tells. Revisions grow, and versions of each key; a gap or a repeat shows
// when the logs are compared with the writer's.
class Replayer final {
 public:
  void Apply(const sh_watch_event& event) {
    const std::string key = Text(event.key);
    switch (event.kind) {
      case SH_WATCH_RESYNC:
        entries_.clear();
        versions_.clear();
        revision_ = 0;
        ++resyncs_;
        return;
      case SH_WATCH_ENTRY:
        entries_[key] = Json(event.value);
        versions_[key] = event.version;
        return;
      case SH_WATCH_PUT:
      case SH_WATCH_DELETE: break;
      default: return;
    }
    EXPECT_GT(event.revision, revision_) << key;
    revision_ = event.revision;
    EXPECT_GT(event.version, versions_[key]) << key;
    versions_[key] = event.version;
    if (event.kind == SH_WATCH_PUT) {
      entries_[key] = Json(event.value);
      logs_[key].push_back(entries_[key]);
    } else {
      entries_.erase(key);
      logs_[key].push_back("deleted");
    }
    ++changes_;
  }
  const std::map<std::string, std::string>& entries() const { return entries_; }
  const KeyLogs& logs() const { return logs_; }
  int changes() const { return changes_; }
  int resyncs() const { return resyncs_; }

 private:
  std::map<std::string, std::string> entries_;
  std::map<std::string, uint64_t> versions_;
  KeyLogs logs_;
  uint64_t revision_ = 0;
  int changes_ = 0;
  int resyncs_ = 0;
};

inline bool IsReadable(int fd) {
  pollfd waits{fd, POLLIN, 0};
  return poll(&waits, 1, 0) == 1 && (waits.revents & POLLIN) != 0;
}

// Threads that the library has, by their name: of streams ("statehouse-read"), of what is followed
// ("statehouse-flw").
inline std::vector<pid_t> ThreadsNamed(const std::string& name) {
  std::vector<pid_t> threads;
  std::error_code gone;  // Threads end meanwhile.
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", gone)) {
    std::ifstream file(task.path() / "comm");
    std::string comm;
    std::getline(file, comm);
    if (comm == name) threads.push_back(std::stoi(task.path().filename()));
  }
  return threads;
}
inline int ReaderThreads() { return static_cast<int>(ThreadsNamed("statehouse-read").size()); }
inline int FollowThreads() { return static_cast<int>(ThreadsNamed("statehouse-flw").size()); }

// Follow logs that this process has mapped.
inline int MappedLogs() {
  std::ifstream file("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.find("statehouse-follow") == std::string::npos) continue;
    EXPECT_NE(line.find(" r--s "), std::string::npos) << line;
    ++count;
  }
  return count;
}

inline uint64_t PrivateKiB() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    uint64_t kib = 0;
    if (word == "RssAnon:" && file >> kib) return kib;
  }
  ADD_FAILURE() << "/proc/self/status has no RssAnon";
  return 0;
}

inline int InChild(const std::function<bool()>& claim) {
  const pid_t child = fork();
  if (child == 0) _exit(claim() ? 0 : 1);
  return child < 0 ? -1 : testing::WaitForExit(child);
}

}  // namespace statehouse
