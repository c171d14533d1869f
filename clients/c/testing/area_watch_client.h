// For tests of watches of areas through the C library: events as text, and a replayer.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "clients/c/testing/watch_client.h"

namespace statehouse {

struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};
using AreaPtr = std::unique_ptr<sh_area, AreaCloser>;

inline AreaPtr OpenArea(sh_client* client, const char* name, uint64_t size) {
  sh_area* area = nullptr;
  sh_error* error = nullptr;
  EXPECT_EQ(sh_area_open(client, name, size, &area, &error), SH_OK) << sh_error_message(error);
  sh_error_free(error);
  return AreaPtr(area);
}

inline WatchPtr WatchArea(sh_area* area, uint64_t pos = 0, uint64_t len = SH_TO_END,
                          const sh_area_watch_options& options = {}) {
  sh_watch* watch = nullptr;
  sh_error* error = nullptr;
  EXPECT_EQ(sh_area_watch(area, pos, len, &options, &watch, &error), SH_OK)
      << sh_error_message(error);
  sh_error_free(error);
  return WatchPtr(watch);
}

// "change 3+2 ab" with " more" behind it, "snapshot 0+4", "synced", "resync replaced", "nothing",
// or the reason of an error. Bytes that are no letters are dots; long ones are left out.
inline std::string Show(const sh_area_watch_event& event) {
  constexpr const char* kNames[] = {"nothing", "snapshot", "change",
                                    "synced",  "resync",   "progress"};
  constexpr uint64_t kShownMax = 16;
  std::string text = kNames[event.kind];
  if (event.kind == SH_AREA_WATCH_RESYNC) {
    text += std::string(" ") + sh_resync_reason_text(event.reason);
  }
  if (event.kind == SH_AREA_WATCH_SNAPSHOT || event.kind == SH_AREA_WATCH_CHANGE) {
    text += " " + std::to_string(event.pos) + "+" + std::to_string(event.len);
  }
  if (event.bytes.data != nullptr && event.len <= kShownMax) {
    text += " ";
    for (const char byte : Text(event.bytes)) text += std::isalpha(byte) != 0 ? byte : '.';
  }
  return event.more != 0 ? text + " more" : text;
}
inline std::string NextOfArea(sh_watch* watch, uint64_t timeout_ms = kPatienceMs,
                              sh_area_watch_event* event = nullptr) {
  sh_area_watch_event own{};
  if (event == nullptr) event = &own;
  const sh_reason reason = sh_area_watch_next(watch, timeout_ms, event, nullptr);
  return reason == SH_OK ? Show(*event) : sh_reason_name(reason);
}
inline std::vector<std::string> TakeOfArea(sh_watch* watch, int count) {
  std::vector<std::string> events;
  for (int i = 0; i < count; ++i) events.push_back(NextOfArea(watch));
  return events;
}

inline sh_reason Write(sh_area* area, uint64_t pos, const std::string& bytes) {
  return sh_write(area, pos, bytes.data(), bytes.size(), nullptr);
}

// What a watcher of a range knows: each event is put over what was told before. The range is one of
// words that only grow; whenever a moment is told whole, none is less than before.
class AreaReplayer final {
 public:
  AreaReplayer(uint64_t pos, uint64_t len) : pos_(pos), bytes_(len), before_(len / 8) {}

  void Apply(const sh_area_watch_event& event) {
    if (event.kind == SH_AREA_WATCH_RESYNC) ++resyncs_;
    if (event.kind == SH_AREA_WATCH_SYNCED) is_synced_ = true;
    if (event.kind != SH_AREA_WATCH_SNAPSHOT && event.kind != SH_AREA_WATCH_CHANGE) return;
    ASSERT_GE(event.pos, pos_);
    ASSERT_LE(event.pos - pos_ + event.len, bytes_.size());
    ASSERT_EQ(event.bytes.size, event.len);
    std::memcpy(bytes_.data() + (event.pos - pos_), event.bytes.data, event.len);
    if (event.more != 0) return;
    if (event.kind == SH_AREA_WATCH_CHANGE) ++changes_;
    std::vector<uint64_t> now(before_.size());
    std::memcpy(now.data(), bytes_.data(), now.size() * sizeof(uint64_t));
    for (size_t i = 0; i < now.size(); ++i) EXPECT_GE(now[i], before_[i]) << "word " << i;
    before_ = std::move(now);
  }
  bool is_synced() const { return is_synced_; }
  int changes() const { return changes_; }
  int resyncs() const { return resyncs_; }
  // Whether it has what the area holds now.
  bool Equals(sh_area* area) const {
    std::vector<char> now(bytes_.size());
    EXPECT_EQ(sh_read(area, pos_, now.data(), now.size(), nullptr), SH_OK);
    return now == bytes_;
  }

 private:
  const uint64_t pos_;
  std::vector<char> bytes_;
  std::vector<uint64_t> before_;
  bool is_synced_ = false;
  int changes_ = 0;
  int resyncs_ = 0;
};

}  // namespace statehouse
