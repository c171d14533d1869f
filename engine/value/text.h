// Quoted texts as JSON has them, for paths and for JSON. Internal to engine/value.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace statehouse::internal {

// Appends the text in quotes, escaping what JSON requires. What is not UTF-8 becomes U+FFFD.
void AppendQuoted(std::string* out, std::string_view text);

// Reads a quoted text whose first quote stands at `*at`, and appends what it means: always UTF-8.
// On success `*at` is behind the last quote and nullptr is returned; else `*at` is where it went
// wrong and the answer says how.
const char* ReadQuoted(std::string_view text, size_t* at, std::string* out);

}  // namespace statehouse::internal
