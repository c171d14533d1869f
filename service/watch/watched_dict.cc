#include "service/watch/watched_dict.h"

#include <spdlog/spdlog.h>

#include <utility>

namespace statehouse {

bool WatchedDict::JoinFollowLog() {
  if (follow_log == nullptr) {
    auto made = FollowLogWriter::Create(id, follow_log_bytes / kPageBytes * kPageBytes);
    if (!made.ok()) {
      // Its watches stay with their streams.
      spdlog::warn("no follow log for dict \"{}\": {}", name, made.status().message());
      return false;
    }
    follow_log = *std::move(made);
    follow_position = 0;
  }
  ++followers;
  return true;
}

void WatchedDict::LetGo(WatchHistory* history_out) {
  while (!history.empty()) {
    previous.Leave(history.front()->change);
    history_out->push_back(std::move(history.front()));
    history.pop_front();
  }
}

std::shared_ptr<FollowLogWriter> WatchedDict::LeaveFollowLog() {
  return --followers == 0 ? std::exchange(follow_log, nullptr) : nullptr;
}

}  // namespace statehouse
