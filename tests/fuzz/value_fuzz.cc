// libFuzzer target: no bytes make a value, a path, an edit or JSON read outside, hang or disagree
// with itself, and an edit of a well-formed value makes one.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/value/testing/value_invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  statehouse::testing::CheckValueInvariants({reinterpret_cast<const char*>(data), size});
  return 0;
}
