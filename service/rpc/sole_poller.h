// SolePoller: while one lives, gRPC's backup thread does not poll.
//
// When a socket takes no more of what is sent, gRPC 1.51 has a thread of its executor poll until it
// does: somebody might have sent without polling afterwards. That thread and the door's then take
// turns at one epoll descriptor: each event is handed from one to the other, which wakes a thread.
// One reader that does not read made every call take twice as long. The door's thread polls all the
// time, so the backup has nothing to see to; with this it looks a few times a second whether it is
// still wanted, and sleeps.
//
// Threads: any. Always true: who owns one polls, or will do so soon, until it is gone; then the
// backup polls as gRPC means it to. Failure: with another version of gRPC nothing is done, and
// IsInForce says no.
#pragma once

#include <cstdint>

namespace statehouse {

inline constexpr uint64_t kBackupPauseNs = 20'000'000;

class SolePoller final {
 public:
  // REQUIRES: gRPC has been initialised.
  SolePoller();
  ~SolePoller();
  SolePoller(const SolePoller&) = delete;
  SolePoller& operator=(const SolePoller&) = delete;

  static bool IsInForce();
  // How often the backup came and was sent to sleep. For tests.
  static uint64_t pauses();
};

}  // namespace statehouse
