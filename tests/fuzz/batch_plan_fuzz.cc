// libFuzzer target: no bytes make the reader of batches read outside, or understand something else
// than protobuf does.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/batch_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  statehouse::testing::CheckBatchBytes({reinterpret_cast<const char*>(data), size});
  return 0;
}
