// ShortOperations: the short operations of one batch (get, set, increment, add), carried out
// straight from their bytes.
//
// They are the longer verbs in every respect but speed: whatever does not go the plain way (a
// refusal, a dict that moves or is full, a stripe that is held) is done by the verb itself. That is
// safe, because a refused operation has changed nothing.
//
// Who owns it: the batch. Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "service/api/batch_plan.h"
#include "service/api/batch_result.h"
#include "service/api/verbs.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {

class ShortOperations final {
 public:
  // The fields of Operation.kind that are short.
  static constexpr bool IsShort(uint32_t field) {
    return field >= v1::Operation::kGet && field <= v1::Operation::kAdd;
  }
  // The verb that it is.
  static std::string_view MethodOf(uint32_t field);

  // `plan` outlives it.
  explicit ShortOperations(const BatchPlan* plan) : plan_(plan), found_(plan->names.size()) {}

  // Says that the operation at `index` is the next one: what the ones behind it will look at is on
  // its way from memory then. That takes as long as carrying out one that is near.
  void Approach(const VerbContext& context, size_t index);
  // Carries the operation at `index` out and adds its result. False: nothing happened, and the verb
  // has to do it.
  bool Try(const VerbContext& context, size_t index, BatchResultWriter* results);
  // The verb's request for the operation at `index`. INVALID_ARGUMENT.
  StatusOr<std::string> RequestOf(size_t index) const;
  // Adds the result that the verb's response stands for.
  Status AddResponse(uint32_t field, const std::string& response, BatchResultWriter* results) const;
  // What an operation names; empty where it cannot be read.
  std::string_view NameOf(size_t index) const;

  // How many of a field Try has done since the last call.
  uint64_t TakeCount(uint32_t field);
  // Dicts that Try has changed, each once.
  const std::vector<uint64_t>& changed_dicts() const { return changed_dicts_; }

 private:
  // What a name stands for, where the caller may read or write it.
  struct Found {
    std::shared_ptr<ServedDict> read_dict;
    std::shared_ptr<ServedDict> write_dict;
    std::shared_ptr<ServedArea> write_area;
  };
  // So many operations ahead the bucket, and then the entry, is fetched.
  static constexpr size_t kBucketAhead = 6;
  static constexpr size_t kEntryAhead = 3;
  // An operation whose bucket is on its way.
  struct Coming {
    const Dict* dict = nullptr;  // Of found_; null: it has none.
    uint64_t hash = 0;
  };
  static constexpr size_t kComing = 8;
  static_assert(kComing > kBucketAhead);

  void FetchBucket(const VerbContext& context, size_t index);
  void FetchEntry(size_t index) const;
  Dict* DictAt(const VerbContext& context, uint32_t place, Verb verb);
  DictOperationId OperationIdOf(size_t index) const;
  void Changed(uint32_t place);

  bool TryGet(const VerbContext& context, std::string_view bytes, BatchResultWriter* results);
  bool TrySet(const VerbContext& context, size_t index, BatchResultWriter* results);
  bool TryIncrement(const VerbContext& context, size_t index, BatchResultWriter* results);
  bool TryAdd(const VerbContext& context, std::string_view bytes, BatchResultWriter* results);
  template <typename Short>
  StatusOr<std::string_view> Read(const BatchOperation& operation, Short* read,
                                  std::string* storage) const;

  const BatchPlan* const plan_;
  std::vector<Found> found_;  // By place in plan_->names.
  std::vector<uint64_t> changed_dicts_;
  size_t fetched_ = 0;                  // Operations whose bucket is on its way.
  std::array<Coming, kComing> coming_;  // By their index, modulo.
  std::array<uint64_t, v1::Operation::kAdd + 1> counts_{};
};

}  // namespace statehouse
