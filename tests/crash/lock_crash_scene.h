// What the lock space's crash test steps: a small space with parties that hold and wait, copies of
// it, and the operations that are killed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/os/unique_fd.h"
#include "engine/state/lock_space.h"

namespace statehouse {

// Processes by their first lane. The daemon that is stepped, and the one after it, share lane 1.
inline const Lane kDaemonLane{1, 1};
inline const Lane kRecoveryLane{2, 1};  // A recovery that is itself killed uses this.
inline const Lane kVictimLane{1 * kLanesPerBlock, kOperationTimeoutNsDefault};
inline const Lane kOtherLane{2 * kLanesPerBlock, 1};  // Survivors give up at once.
inline const Lane kThirdLane{3 * kLanesPerBlock, 1};
inline constexpr uint32_t kLockLanes = 4 * kLanesPerBlock;
inline constexpr uint32_t kLocksInScene = 8;
inline constexpr uint64_t kSecondNs = 1'000'000'000;
inline constexpr uint64_t kSessionInScene = 77;

// Ends the program where a test cannot go on.
void Must(bool holds, const char* what);

struct LockSegment {
  LockSegment();

  LockGeometry geometry;
  UniqueFd fd;
  std::unique_ptr<LockSpace> space;
};

// A request of the scene.
struct LockPartySeen {
  std::string name;
  std::string lock;
  Lane lane;
  LockPlace place = 0;
  bool holds = false;
  bool remote = false;
  bool sleeps = false;
  uint64_t token = 0;
  uint32_t event = 0;
};

class LockScene;

struct LockCrashOperation {
  const char* name;
  std::function<void(LockScene&)> prepare;
  std::function<Status(LockScene&, LockSpace&)> run;
  std::function<bool(const LockScene&, LockSpace&)> done = nullptr;  // Its effect is there.
  Reason answer = Reason::kOk;
  uint32_t lane = kVictimLane.id;  // Whose death it is.
  uint32_t dead_block = 1;         // Whose requests end; 0: nobody's.
  // What the next daemon does beside recovering lanes and ending the dead block's requests.
  std::function<void(LockSpace&)> next_daemon = nullptr;
  std::vector<std::string> gone = {};   // Parties that are no more, beside the dead block's;
  std::vector<std::string> loses = {};  // that may have lost what they had;
  std::vector<std::string> holds = {};  // that hold once the dead are gone;
  std::vector<std::string> waits = {};  // that still wait then.
  bool damaged = false;                 // The space is not sound before.
};

class LockScene final {
 public:
  explicit LockScene(const LockCrashOperation& operation);

  // For `prepare`. `name` is the party's.
  LockPlace Ask(std::string_view name, const Lane& lane, std::string_view lock,
                LockRequest request = {});
  LockPlace AskShared(std::string_view name, const Lane& lane, std::string_view lock);
  LockPlace AskRemote(std::string_view name, std::string_view lock, bool shared = false,
                      uint64_t session = kSessionInScene);
  // Asks and gives back, so that the lock and the request are known.
  void Use(const Lane& lane, std::string_view lock);
  void Sleeps(std::string_view name);  // The party sleeps on its word.
  void Pass(uint64_t ns);              // For every copy.

  static void Copy(const LockSegment& from, const LockSegment& to);
  // Whether `live` differs from what it was when this said so last.
  bool Changed();

  const LockPartySeen& party(std::string_view name) const;
  LockPlace place(std::string_view name) const { return party(name).place; }

  LockSegment live;
  LockSegment clone;                   // Recovered and used.
  LockSegment between;                 // Used by others first, then recovered.
  LockSegment last;                    // What Changed compares with.
  std::vector<LockPartySeen> parties;  // In the order of their arrival.
  std::vector<std::string> locks;
  uint64_t last_token = 0;
  uint32_t daemon_event = 0;

 private:
  void FinishPast();
  uint64_t passed_ns_ = 0;
};

std::vector<LockCrashOperation> LockCrashOperations();

// Says whether what a killed lane left can be lived with.
class LockCrashChecker final {
 public:
  // `burying`: the images are of a recovery, which ends what the dead process had.
  LockCrashChecker(const LockCrashOperation& operation, LockScene& scene, bool burying)
      : operation_(operation), scene_(scene), burying_(burying) {}

  // Copies `image`, recovers the copy as the daemon does and uses it. Empty when all is right, else
  // the violation. Call it for the boundaries of one run in their order.
  std::string Check(const LockSegment& image, bool finished);

 private:
  std::string Between(const LockSegment& image);
  std::string RecoverLanes(LockSpace& space) const;
  void Bury(LockSpace& space) const;
  std::string Parties(LockSpace& space) const;
  std::string Queues(LockSpace& space) const;
  std::string Leaks(LockSpace& space) const;
  std::string FollowUp(LockSpace& space) const;
  bool IsGone(const LockPartySeen& party) const;

  const LockCrashOperation& operation_;
  LockScene& scene_;
  const bool burying_;
  bool was_done_ = false;
};

}  // namespace statehouse
