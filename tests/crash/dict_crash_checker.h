// Says whether what a killed lane left can be lived with: before its recovery, after it, and by
// those who go on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/crash/dict_crash_operations.h"
#include "tests/crash/dict_crash_scene.h"

namespace statehouse {

class DictCrashChecker final {
 public:
  DictCrashChecker(const CrashOperation& operation, DictScene& scene);

  // Copies `image`, recovers the copy as the daemon does and uses it. Empty when all is right, else
  // the violation. Call it for the boundaries of one run in their order.
  std::string Check(const DictSegment& image, bool finished);

 private:
  // What readers are given before the recovery: the entries as they were or as they will be.
  std::string ReadUnrecovered();
  // What others write before the recovery outlives it.
  std::string WriteUnrecovered(const DictSegment& image);
  std::string Recover(Dict& dict) const;
  std::string Entries(bool finished);
  std::vector<SeenChange> Records(bool* sound) const;
  std::string Changes() const;
  std::string Told() const;
  std::string Remembered() const;
  std::string FollowUp();
  std::string FollowUpOn(const Lane& lane, const std::string& key, bool present);
  std::string Sound(const Dict& dict) const;

  bool Fits(const SeenEntry& expected, const std::string& key, const SeenEntry& seen) const;
  bool FitsState(size_t state, const SeenDict& seen) const;
  bool MayRefuse(const Status& status) const;

  const CrashOperation& operation_;
  DictScene& scene_;
  std::vector<CrashOutcome> outcomes_;
  std::vector<SeenDict> states_;  // What the dict may be; the first: as before.
  std::vector<std::string> keys_;
  size_t state_ = 0;     // The one that the last image showed.
  size_t accepted_ = 0;  // No earlier one is right any more: a reader has seen what it has.
  SeenDict seen_;
};

}  // namespace statehouse
