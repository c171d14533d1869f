#include "clients/c/src/batch_tape.h"

#include <algorithm>
#include <array>

#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

struct Verb {
  std::string_view method;
  uint32_t field;
  uint32_t id_field = 0;
};

constexpr std::array kVerbs = {
    Verb{"/statehouse.v1.Areas/ReadArea", v1::Operation::kReadArea},
    Verb{"/statehouse.v1.Areas/WriteArea", v1::Operation::kWriteArea},
    Verb{"/statehouse.v1.Areas/FillArea", v1::Operation::kFillArea},
    Verb{"/statehouse.v1.Areas/LoadWord", v1::Operation::kLoadWord},
    Verb{"/statehouse.v1.Areas/StoreWord", v1::Operation::kStoreWord},
    Verb{"/statehouse.v1.Areas/AddWord", v1::Operation::kAddWord},
    Verb{"/statehouse.v1.Areas/CompareExchangeWord", v1::Operation::kCompareExchangeWord},
    Verb{"/statehouse.v1.Areas/BitwiseWord", v1::Operation::kBitwiseWord},
    Verb{"/statehouse.v1.Dicts/DescribeDict", v1::Operation::kDescribeDict},
    Verb{"/statehouse.v1.Dicts/ClearDict", v1::Operation::kClearDict},
    Verb{"/statehouse.v1.Dicts/GetEntry", v1::Operation::kGetEntry},
    Verb{"/statehouse.v1.Dicts/GetEntries", v1::Operation::kGetEntries},
    Verb{"/statehouse.v1.Dicts/SetEntry", v1::Operation::kSetEntry,
         v1::SetEntryRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Dicts/SetEntries", v1::Operation::kSetEntries,
         v1::SetEntriesRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Dicts/DeleteEntry", v1::Operation::kDeleteEntry,
         v1::DeleteEntryRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Dicts/DeletePrefix", v1::Operation::kDeletePrefix},
    Verb{"/statehouse.v1.Dicts/IncrementEntry", v1::Operation::kIncrementEntry,
         v1::IncrementEntryRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Dicts/EditEntry", v1::Operation::kEditEntry,
         v1::EditEntryRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Dicts/TouchEntry", v1::Operation::kTouchEntry,
         v1::TouchEntryRequest::kOperationIdFieldNumber},
    Verb{"/statehouse.v1.Locks/AcquireLock", v1::Operation::kAcquireLock},
    Verb{"/statehouse.v1.Locks/ReleaseLock", v1::Operation::kReleaseLock},
};

}  // namespace

Status BatchTape::Call(const std::string& method, const google::protobuf::MessageLite& request,
                       google::protobuf::MessageLite* response, const CallOptions& options) {
  if (!is_noting_) {
    if (answer_.sent_again) options.NoteSentAgain();
    SH_RETURN_IF_ERROR(answer_.status);
    const std::string_view bytes = answer_.response;
    if (response->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Status();
    return Status(Reason::kInternal, "the answer to " + method +
                                         " is no valid message; check that client and service are "
                                         "of the same release");
  }
  const auto verb = std::find_if(kVerbs.begin(), kVerbs.end(),
                                 [&](const Verb& each) { return each.method == method; });
  if (verb == kVerbs.end()) {
    return Status(Reason::kUnimplemented, "batch: " + method + " is no operation of a batch");
  }
  TapedRequest& noted = noted_.emplace();
  noted.field = verb->field;
  noted.id_field = verb->id_field;
  noted.retry = !options.idempotent  ? BatchRetry::kNever
                : verb->id_field > 0 ? BatchRetry::kNamed
                                     : BatchRetry::kSafe;
  noted.bytes = request.SerializeAsString();
  return Status(Reason::kCancelled, "batch: the operation is only noted");
}

}  // namespace statehouse
