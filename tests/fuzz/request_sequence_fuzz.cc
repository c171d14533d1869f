// libFuzzer target: no sequence of valid requests leaves a state that is not sound, or answers with
// something else than the model. Two bytes are a choice; what comes after the last one is not asked
// for.
#include <gtest/gtest.h>
#include <spdlog/sinks/null_sink.h>

#include <cstddef>
#include <cstdint>

#include "service/api/request_sequence.h"
#include "service/log.h"

namespace {

constexpr int kStepsMax = 300;
constexpr int kInputsForAll = 100;  // The whole lock space is looked through after so many.

class Choices final {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint64_t Below(uint64_t bound) {
    uint64_t choice = 0;
    for (int i = 0; i < 2 && left_ > 0; ++i, ++data_, --left_) choice = choice << 8 | *data_;
    return choice % bound;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  spdlog::set_default_logger(spdlog::null_logger_mt("none"));  // Not the audit of each input.
  testing::GTEST_FLAG(break_on_failure) = true;  // A failure is a crash, which libFuzzer keeps.
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Choices choices(data, size);
  // One for all inputs: it takes longer to start than a sequence. Never destroyed.
  static auto* const service = new statehouse::TestService;
  statehouse::RequestSequence sequence(service,
                                       [&choices](uint64_t bound) { return choices.Below(bound); });
  for (int step = 0; step < kStepsMax && !choices.empty(); ++step) {
    sequence.Step();
    sequence.CheckAll(/*thoroughly=*/false);
  }
  static int inputs = 0;
  sequence.CheckAll(/*thoroughly=*/++inputs % kInputsForAll == 0);
  return 0;
}
