// libFuzzer's way into dict_image.h.
#include "tests/fuzz/dict_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  statehouse::BytesImageSource source(data, size);
  statehouse::LiveWithDamagedDict(source);
  return 0;
}
