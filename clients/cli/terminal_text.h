// Texts of others, keys and owners above all, as a terminal may show them: in one line, and never
// as commands to it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace statehouse::cli {

// The text with control characters (below U+0020, U+007F to U+009F) as "\u001b", which is also
// what JSON calls them, and with bytes that are no UTF-8 as "\x9b".
std::string Visible(std::string_view text);

// The beginning of a text of UTF-8, of at most `bytes_max`, that ends with a whole character.
std::string_view CutAtCharacter(std::string_view text, size_t bytes_max);

}  // namespace statehouse::cli
