// BatchTape: stands in for the service while an operation of a batch is noted, and again while its
// answer is read, so that the code that makes a call of its own makes the batch's operation too.
//
// Who owns it: a batch. Threads: one at a time. Failure: a method that no operation stands for is
// UNIMPLEMENTED.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "clients/c/src/caller.h"

namespace statehouse {

// Whether an operation may be sent again.
enum class BatchRetry : uint8_t {
  kSafe,   // As it is.
  kNamed,  // Under a name.
  kNever,
};

// The request of a verb as an operation of a batch.
struct TapedRequest {
  uint32_t field = 0;     // Of Operation.kind and OperationResult.kind.
  uint32_t id_field = 0;  // Of the request's operation_id; 0: it has none.
  BatchRetry retry = BatchRetry::kSafe;
  std::string bytes;
};

class BatchTape final : public Caller {
 public:
  // Call keeps the request, and fails.
  void Note() {
    noted_.reset();
    is_noting_ = true;
  }
  // What was called since Note.
  std::optional<TapedRequest>& noted() { return noted_; }
  // What came of the operation.
  struct Answer {
    Status status;
    std::string_view response;
    // As of CallOptions; where it failed, that it may have been carried out.
    bool sent_again = false;
  };
  // Call gives this. The bytes stay where they are until then.
  void Give(const Answer& answer) {
    is_noting_ = false;
    answer_ = answer;
  }

  Status Call(const std::string& method, const google::protobuf::MessageLite& request,
              google::protobuf::MessageLite* response, const CallOptions& options) override;

 private:
  bool is_noting_ = true;
  std::optional<TapedRequest> noted_;
  Answer answer_;
};

}  // namespace statehouse
