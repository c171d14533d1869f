// Any line that an import takes is written as a line that means the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "clients/cli/import_line.h"
#include "engine/value/value.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using statehouse::cli::FormatImportLine;
  using statehouse::cli::ImportLine;
  using statehouse::cli::ParseImportLine;
  ImportLine line;
  if (!ParseImportLine(std::string_view(reinterpret_cast<const char*>(data), size), &line).ok()) {
    return 0;
  }
  if (!statehouse::CheckValue(line.value).ok()) abort();
  std::string text;
  if (!FormatImportLine(line, &text).ok()) return 0;  // One level too deep inside the line.
  ImportLine again;
  if (!ParseImportLine(text, &again).ok()) abort();
  if (again.key != line.key || again.value != line.value || again.ttl_ms != line.ttl_ms) abort();
  if (again.for_ever != line.for_ever || again.fence != line.fence) abort();
  return 0;
}
