// Text as TOML, for the files that this project writes.
#pragma once

#include <string>
#include <string_view>

namespace statehouse {

// A basic string of TOML 1.0, quotes included: quotes, backslashes and control characters escaped.
std::string QuoteToml(std::string_view text);

}  // namespace statehouse
