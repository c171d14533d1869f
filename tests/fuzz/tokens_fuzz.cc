// libFuzzer target: the reader of tokens.toml never crashes, a refusal names the file, and what it
// takes keeps the limits that docs/formats/tokens.md promises. The rest of the input is tried as a
// grant, a timestamp and a token.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "engine/base/limits.h"
#include "service/auth/token_file.h"

namespace {

using statehouse::Grant;
using statehouse::Reason;
using statehouse::TokenRecord;

void Require(bool holds) {
  if (!holds) abort();
}

// A grant that was taken is written as something that is taken as the same grant.
void CheckGrant(const Grant& grant) {
  Require(grant.pattern.size() <= statehouse::kNameBytesMax);
  const std::string text = statehouse::FormatGrant(grant);
  const auto again = statehouse::ParseGrant(text);
  Require(again.ok() && statehouse::FormatGrant(*again) == text);
}

void CheckFile(std::string_view text) {
  const auto records = statehouse::ParseTokens(text, "fuzz.toml");
  if (!records.ok()) {
    Require(records.status().reason() == Reason::kConfigInvalid);
    Require(records.status().message().starts_with("fuzz.toml:"));
    return;
  }
  Require(records->size() <= statehouse::kTokensMax);
  std::set<std::string> ids;
  for (const TokenRecord& record : *records) {
    Require(record.id.size() == statehouse::kTokenIdBytes && ids.insert(record.id).second);
    Require(record.description.size() <= statehouse::kTokenDescriptionBytesMax);
    Require(record.expires_unix_s >= 0 && record.grants.size() <= statehouse::kTokenGrantsMax);
    for (const Grant& grant : record.grants) CheckGrant(grant);
  }
}

void CheckTexts(std::string_view text) {
  if (const auto grant = statehouse::ParseGrant(text); grant.ok()) CheckGrant(*grant);
  if (const auto time = statehouse::ParseTimestamp(text); time.ok()) {
    const auto again = statehouse::ParseTimestamp(statehouse::FormatTimestamp(*time));
    Require(again.ok() && *again == *time);
  }
  statehouse::TokenParts parts;
  if (statehouse::SplitToken(text, &parts)) {
    Require(parts.id.size() == statehouse::kTokenIdBytes && !parts.secret.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckFile(text);
  CheckTexts(text);
  return 0;
}
