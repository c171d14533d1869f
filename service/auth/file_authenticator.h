// FileAuthenticator: the Authenticator over a tokens file, with its clock injected.
// NewFileAuthenticator makes one with the system's clock.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "service/auth/authenticator.h"
#include "service/auth/token_file.h"

namespace statehouse {

inline constexpr size_t kFailingPeersMax = 1024;  // Peers whose failures are counted.

// FailureLimit: counts failed authentications for each peer in windows of one minute.
// Threads: any. Always true: at most kFailingPeersMax peers are remembered; a new one takes the
// place of the one whose window began first.
class FailureLimit final {
 public:
  explicit FailureLimit(uint32_t per_minute_max) : per_minute_max_(per_minute_max) {}
  // Counts one failure; true when the peer is beyond the limit.
  bool CountFailure(std::string_view peer, int64_t now_s);
  // Whether a further failure of the peer would be.
  bool IsBeyond(std::string_view peer, int64_t now_s) const;
  size_t peers() const;

 private:
  struct Window {
    int64_t began_s = 0;
    uint32_t failures = 0;
  };

  const uint32_t per_minute_max_;  // 0: no limit.
  mutable std::mutex mutex_;
  std::map<std::string, Window, std::less<>> windows_;
};

// Now, by the system's clock.
int64_t UnixSecondsNow();
// What a peer beyond the limit is told: RATE_LIMITED.
Status RefuseFailingPeer(std::string_view peer);

// What it is: a table of token ids, replaced as a whole by Reload. Owned by the composition root.
// Threads: Authenticate and Revalidate from any; Reload from one at a time.
// Always true: readers see one whole table. Failure: a broken file leaves the table as it was.
class FileAuthenticator final : public Authenticator {
 public:
  struct Options {
    std::string tokens_file;
    uint32_t failures_per_minute_max = 60;
    std::function<int64_t()> unix_s;  // Now, in seconds.
    CallLimits token_limits = {};     // Of tokens whose entry says nothing else.
  };
  static StatusOr<std::unique_ptr<Authenticator>> Open(Options options);

  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view token,
                                                         std::string_view peer) override;
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) override;
  uint64_t generation() const override { return generation_.load(std::memory_order_acquire); }
  bool AnyExpired(int64_t after_unix_s, int64_t until_unix_s) const override;
  void SetTokenLimits(const CallLimits& limits) override { token_limits_ = limits; }
  Status Reload() override;

 private:
  struct Entry {
    TokenHash hash;
    std::shared_ptr<const Identity> identity;
  };
  using Table = std::unordered_map<std::string, Entry>;

  explicit FileAuthenticator(Options options);
  std::shared_ptr<const Table> table() const;
  Status Refuse(Reason reason, std::string_view why, std::string_view peer);
  std::shared_ptr<CallLimit> LimitOf(const Table& before, const TokenRecord& record) const;

  const Options options_;
  CallLimits token_limits_;
  FailureLimit failures_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Table>
      table_;  // Guarded by mutex_; shared because calls still look while it is replaced.
  // Release in Reload, acquire in generation(): who sees the number finds the table that belongs to
  // it.
  std::atomic<uint64_t> generation_{0};
};

}  // namespace statehouse
