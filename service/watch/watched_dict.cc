#include "service/watch/watched_dict.h"

#include <spdlog/spdlog.h>

#include <utility>

namespace statehouse {

bool WatchedDict::JoinFollowLog() {
  if (follow_log == nullptr) {
    auto made = FollowLogWriter::Create(id, follow_log_bytes / kPageBytes * kPageBytes);
    if (!made.ok()) {
      // Its watches stay with their streams.
      spdlog::warn("no follow log for dict \"{}\": {}", served->record().name,
                   made.status().message());
      return false;
    }
    follow_log = *std::move(made);
    follow_position = 0;
  }
  ++followers;
  return true;
}

std::shared_ptr<FollowLogWriter> WatchedDict::LeaveFollowLog() {
  return --followers == 0 ? std::exchange(follow_log, nullptr) : nullptr;
}

}  // namespace statehouse
