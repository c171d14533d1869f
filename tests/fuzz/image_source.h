// Where the changes of a damaged image come from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace statehouse {

// A fuzzer's bytes, or a generator of random numbers.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // 64 bits; *more false once there are none left.
  virtual uint64_t Next(bool* more) = 0;
};

class BytesImageSource final : public ImageSource {
 public:
  BytesImageSource(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t Next(bool* more) override {
    uint64_t word = 0;
    const size_t take = std::min(size_, sizeof word);
    std::memcpy(&word, data_, take);
    data_ += take;
    size_ -= take;
    *more = size_ > 0;
    return word;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace statehouse
