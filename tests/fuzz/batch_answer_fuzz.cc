// libFuzzer target: no bytes of an answer to a batch make the C library read outside of them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "clients/c/src/batch_answer.h"

namespace {

void NeedInside(std::string_view part, std::string_view all) {
  if (part.empty()) return;
  if (part.data() < all.data() || part.data() + part.size() > all.data() + all.size()) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  std::vector<statehouse::BatchAnswered> answered;
  (void)statehouse::ReadBatchAnswer(all, &answered);
  answered.push_back({size > 0 ? data[0] % 8u : 0u, all});
  for (const statehouse::BatchAnswered& each : answered) {
    NeedInside(each.message, all);
    statehouse::ShortResult result;
    if (statehouse::ReadShortResult(each.field, each.message, &result)) {
      NeedInside(result.value, each.message);
    }
  }
  return 0;
}
