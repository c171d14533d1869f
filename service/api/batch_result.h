// BatchResultWriter: the answer to a batch (RunBatchResponse, and so RunBatchesResponse), written
// result by result without building messages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/state/dict.h"

namespace statehouse {

class BatchResultWriter final {
 public:
  // Each result has so much room, whatever those before it take: enough for what changes a number,
  // a word or a lock, and for a brief failure.
  static constexpr size_t kResultBytes = 64;

  // `bytes_max`: of the whole response. REQUIRES: that is room for so many results.
  BatchResultWriter(uint64_t bytes_max, size_t results) : bytes_max_(bytes_max), left_(results) {
    bytes_.reserve(kHeadBytes + results * kShortResultBytes);
  }
  static bool HasRoomFor(uint64_t bytes_max, size_t results) {
    return results * kResultBytes + kHeadBytes <= bytes_max;
  }
  size_t bytes() const { return bytes_.size(); }

  // The next result: `message` as the field `field` of OperationResult.kind. What has no room any
  // more becomes a failure that says so.
  void Add(uint32_t field, std::string_view message);
  void AddGet(std::string_view value, uint64_t version);
  void AddSet(uint64_t version);
  // `bits`: of an int64 or a float64.
  void AddIncrement(DictKind kind, uint64_t bits, uint64_t version);
  void AddFailure(const Status& refusal, std::string_view name);
  // The response. Once.
  std::string Finish();

 private:
  // Room for the tag and the length of the result in front of it.
  static constexpr size_t kHeadBytes = 6;
  // What a short operation's takes, mostly.
  static constexpr size_t kShortResultBytes = 16;

  // Whether a message of so many bytes leaves the others their room.
  bool HasRoom(size_t message_bytes) const;
  void Begin(uint32_t field, size_t message_bytes);
  void AddNoRoom();

  const uint64_t bytes_max_;
  size_t left_;  // Results that are to come.
  std::string bytes_ = std::string(kHeadBytes, '\0');
};

}  // namespace statehouse
