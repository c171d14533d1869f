// libFuzzer target: no bytes that come as a request of any method crash or hang the service's core,
// are answered with something that is no message, or leave a state that is not sound. It writes its
// seeds, one request of each method, into the folder of inputs that it is given.
#include <gtest/gtest.h>
#include <spdlog/sinks/null_sink.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>

#include "service/log.h"
#include "tests/fuzz/dispatch_bytes.h"

namespace {

constexpr int kInputsForAll = 500;  // The whole lock space is looked through after so many.

// One for all inputs: it takes longer to start than a request. Never destroyed.
statehouse::testing::DispatchBytes& Bytes() {
  static auto* const bytes = new statehouse::testing::DispatchBytes;
  return *bytes;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  spdlog::set_default_logger(spdlog::null_logger_mt("none"));  // Not the audit of each input.
  testing::GTEST_FLAG(break_on_failure) = true;  // A failure is a crash, which libFuzzer keeps.
  for (int i = 1; i < *argc; ++i) {
    const std::filesystem::path folder = (*argv)[i];
    if (!std::filesystem::is_directory(folder)) continue;
    int number = 0;
    for (const std::string& seed : Bytes().Seeds()) {
      std::ofstream(folder / ("seed-" + std::to_string(number++))) << seed;
    }
    break;  // The first one is where new inputs go.
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static int inputs = 0;
  Bytes().Run({reinterpret_cast<const char*>(data), size}, ++inputs % kInputsForAll == 0);
  return 0;
}
