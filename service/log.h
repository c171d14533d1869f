// What everything of the service that logs includes: spdlog, whose formatting the library has.
// fmt 9 would compile all of it, floating point included, into each file that logs a line: half of
// what such a file costs to compile.
#pragma once

#include <spdlog/spdlog.h>

FMT_BEGIN_NAMESPACE
namespace detail {
extern template void vformat_to<char>(buffer<char>&, basic_string_view<char>,
                                      basic_format_args<buffer_context<char>>, locale_ref);
}  // namespace detail
FMT_END_NAMESPACE
