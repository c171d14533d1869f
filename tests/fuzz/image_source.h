// Where the changes of a damaged image come from.
#pragma once

#include <cstdint>

namespace statehouse {

// A fuzzer's bytes, or a generator of random numbers.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // 64 bits; *more false once there are none left.
  virtual uint64_t Next(bool* more) = 0;
};

}  // namespace statehouse
