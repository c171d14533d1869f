#include "service/api/batch_refusal.h"

#include "service/api/error_detail.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

constexpr size_t kMessageTextBytesMax = 1024;

}  // namespace

std::string EncodeBatchRefusal(const Status& why) {
  v1::RunBatchesResponse response;
  FillErrorDetail(why, "", response.mutable_failure()->mutable_detail());
  response.mutable_failure()->set_message(PresentableText(why.message(), kMessageTextBytesMax));
  return response.SerializeAsString();
}

}  // namespace statehouse
