// libFuzzer's way into lock_image.h.
#include "tests/fuzz/lock_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  statehouse::BytesImageSource source(data, size);
  statehouse::LiveWithDamagedLocks(source);
  return 0;
}
