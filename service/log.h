// What everything of the service that logs includes: spdlog, and that the library has what formats.
// fmt 9 would compile all of it, floating point included, into each file that logs a line: half of
// what such a file costs to compile. Clang has another name for the same function than GCC, with
// which the library was built (fmt's issue 2377), and later versions have another function.
#pragma once

#include <spdlog/spdlog.h>

#if defined(__GNUC__) && !defined(__clang__) && !defined(FMT_HEADER_ONLY) && \
    FMT_VERSION >= 90000 && FMT_VERSION < 100000
FMT_BEGIN_NAMESPACE
namespace detail {
extern template void vformat_to<char>(buffer<char>&, basic_string_view<char>,
                                      basic_format_args<buffer_context<char>>, locale_ref);
}  // namespace detail
FMT_END_NAMESPACE
#endif
