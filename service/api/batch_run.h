// BatchRun: one batch (batch.proto) from its call to its answer.
//
// Operations run one after another on the thread that dispatched the batch. One that cannot end
// there (its verb makes system calls, or a stripe is held) takes the batch with it: the rest goes
// on on the slow thread, as does what a long batch has not done after a millisecond.
//
// Who owns it: itself, until it has answered. Threads: one at a time.
// Always true: each operation has one result, in their order; one whose turn has not come when the
// call's time is over (looked at once a turn) or the service stops is refused with that reason, and
// nothing of it happened.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "service/api/batch_plan.h"
#include "service/api/batch_result.h"
#include "service/api/dispatcher_core.h"
#include "service/api/short_operations.h"

namespace statehouse {

// How a batch carries out a verb: as its own call.
struct BatchVerb {
  std::string_view path;  // Empty: no operation has this field.
  std::shared_ptr<PendingCall> (*run)(DispatcherCore&, const Lane&, std::string_view,
                                      Call) = nullptr;
};

// By field of Operation.kind; for the short operations their longer verbs.
class BatchVerbs final {
 public:
  void Add(uint32_t field, BatchVerb verb) { verbs_[field] = verb; }
  const BatchVerb* Find(uint32_t field) const {
    return field < verbs_.size() && !verbs_[field].path.empty() ? &verbs_[field] : nullptr;
  }

 private:
  std::array<BatchVerb, 128> verbs_{};
};

class BatchRun final {
 public:
  static void Begin(DispatcherCore& core, const Lane& lane, std::string_view bytes, Call call);

 private:
  class Turn;

  BatchRun(DispatcherCore& core, Call call);
  // Carries out operations until the batch has ended or its turn is over.
  void Continue(const Lane& lane);
  bool IsShortAt(size_t index) const {
    return ShortOperations::IsShort(plan_.operations[index].field);
  }
  // False where the operation goes on elsewhere.
  bool Step(const VerbContext& context);
  bool RunVerb(const VerbContext& context, const BatchVerb& verb, std::string_view request);
  void OnAnswer(StatusOr<std::string> answer);
  void TakeAnswer();
  void RefuseOne(const Status& why);
  void Refuse(const Status& why);
  void RefuseRest(const Status& why);
  // The request does not outlive the thread's call to Begin.
  void KeepRequest();
  void Finish();

  DispatcherCore& core_;
  Call call_;
  std::string_view request_;
  std::string kept_request_;
  BatchPlan plan_;
  std::optional<ShortOperations> short_;
  std::optional<BatchResultWriter> results_;
  size_t next_ = 0;  // The operation that is under way.
  CallClock::time_point turn_until_;

  // Of the operation that runs as a call. Whoever comes second of its answer and the return of its
  // thread goes on with the batch.
  std::atomic<uint32_t> meeting_{0};
  std::optional<StatusOr<std::string>> answer_;
  std::string verb_request_;  // That a short operation is lengthened to.
};

// Method table: RunBatch.
std::shared_ptr<PendingCall> RunBatch(DispatcherCore& core, const Lane& lane,
                                      std::string_view bytes, Call call);

}  // namespace statehouse
