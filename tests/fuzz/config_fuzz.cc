// libFuzzer target: the configuration reader never crashes, a refusal names the file, and what it
// takes describes itself as something that it takes again, unchanged.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "service/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using statehouse::Config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = statehouse::ParseConfigToml(text, "fuzz.toml", Config());
  if (!parsed.ok()) {
    const bool is_told = parsed.status().reason() == statehouse::Reason::kConfigInvalid &&
                         parsed.status().message().starts_with("fuzz.toml:");
    if (!is_told) abort();
    return 0;
  }
  auto again =
      statehouse::ParseConfigToml(statehouse::DescribeConfig(*parsed), "again.toml", Config());
  if (!again.ok()) abort();
  again->origins = parsed->origins;
  if (*again != *parsed) abort();
  return 0;
}
