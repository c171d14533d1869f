#include "service/api/error_detail.h"

#include "engine/base/limits.h"
#include "engine/value/wire.h"

namespace statehouse {
std::string PresentableText(std::string_view text, size_t bytes_max) {
  std::string result(text);
  if (!internal::IsUtf8(text)) {
    for (char& c : result) {
      if ((c & 0x80) != 0) c = '?';
    }
  }
  if (result.size() > bytes_max) {
    size_t end = bytes_max;
    while (end > 0 && (result[end] & 0xc0) == 0x80) --end;
    result.resize(end);
  }
  return result;
}

void FillErrorDetail(const Status& refusal, std::string_view name, v1::ErrorDetail* detail) {
  detail->set_reason(static_cast<v1::ErrorReason>(refusal.reason()));
  detail->set_name(PresentableText(name, kNameBytesMax));
  detail->set_retryable(ReasonIsRetryable(refusal.reason()));
  detail->set_retry_after_ms(refusal.retry_after_ms());
}

}  // namespace statehouse
