// What --until takes, it compares: a word that is told byte by byte is known only at its last one.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "clients/cli/area_until.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto until = statehouse::cli::AreaUntil::Parse(text);
  if (!until.ok()) return 0;
  statehouse::cli::AreaUntil word = *until;
  for (uint64_t i = 0; i < word.len(); ++i) {
    if (word.IsMet()) abort();
    if (word.pos() + i < word.pos()) return 0;  // No area is so long.
    word.Take(word.pos() + i, std::string_view("\0", 1));
  }
  (void)word.IsMet();
  return 0;
}
