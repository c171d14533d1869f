// RefusedTokens: who was refused for an access token, for the log: a line for each host at most
// once a minute, with how many there were since its last line. Never the token.
//
// Who owns it: the composition root. Threads: any.
// Always true: it remembers kRefusedHostsMax hosts; those of further ones are counted together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/base/reason.h"
#include "service/api/dispatcher.h"

namespace statehouse {

inline constexpr size_t kRefusedHostsMax = 256;
inline constexpr int64_t kRefusedLineIntervalS = 60;

class RefusedTokens final {
 public:
  // `peer` as a door names it: "ipv4:10.0.0.7:51234", "unix:uid=1000,pid=4711". `now_s`, here and
  // below, is the steady clock's.
  void Add(Door door, std::string_view peer, Reason reason, int64_t now_s);
  // Logs what waits for its minute to be over; to be called now and then.
  void Tell(int64_t now_s);
  // Logs all that was not yet.
  void TellAll();

 private:
  struct Host {
    int64_t told_s = 0;                 // When it had its last line.
    std::map<Reason, uint64_t> counts;  // Since then.
    Door door = Door::kNetwork;
    std::string latest;           // Peer, and …
    Reason reason = Reason::kOk;  // … why.
  };
  // REQUIRES: mutex_ held.
  static void TellOne(const std::string& name, Host* host);
  void TellOthers();

  std::mutex mutex_;
  std::map<std::string, Host> hosts_;  // "10.0.0.7 at the network door" …
  uint64_t others_ = 0;                // Of hosts beyond the limit …
  int64_t others_told_s_ = 0;          // … since then.
};

}  // namespace statehouse
