#include "service/watch/watched_dict.h"

#include <utility>

#include "service/log.h"

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

void WatchedDict::ShowRings(FollowLogWriter& log) {
  const uint64_t next = feed->head_revision() + 1;
  if (log.cursors_next() != next) {
    log.ShowCursors(feed->cursors(), feed->served()->dict().lane_high(), next);
  }
  feed->OpenClaims();
}

// Whoever follows is woken by this alone. Nobody can say in the log that he sleeps, so each batch
// pays for the call, but for a change that one of those who follow the rings took early: its writer
// has woken them all. A worker of an older release wakes none of them, and one that was killed may
// have been about to: so the call is made up for by a later look.
std::shared_ptr<FollowLogWriter> WatchedDict::TellFollowers(const std::vector<DictChange>& fresh,
                                                            uint64_t now_ns) {
  std::shared_ptr<FollowLogWriter> log;
  bool is_known = fresh.size() == 1 && feed->has_claimed();
  {
    const std::lock_guard<std::mutex> lock(mutex);
    log = follow_log;
    is_known = is_known && ring_followers == followers;
  }
  if (log == nullptr) return log;
  if (!fresh.empty()) {
    for (const DictChange& change : fresh) log->Append(change);
    log->Commit();
    ShowRings(*log);
    if (owes_wake_ns == 0) owes_wake_ns = std::max<uint64_t>(now_ns, 1);
    if (is_known) return log;
  }
  const bool is_due = owes_wake_ns != 0 && now_ns - owes_wake_ns >= kOwedWakeNs;
  if (fresh.empty() && !is_due) return log;
  owes_wake_ns = 0;
  log->Wake();
  return log;
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
