// libFuzzer's way into lock_image.h.
#include <cstring>

#include "tests/fuzz/lock_image.h"

namespace {

class Bytes final : public statehouse::ImageSource {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t Next(bool* more) override {
    uint64_t word = 0;
    const size_t take = size_ < sizeof word ? size_ : sizeof word;
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes source(data, size);
  statehouse::LiveWithDamagedLocks(source);
  return 0;
}
