# The helpers that every CMakeLists.txt of the project uses: one short list of sources and dependencies for each
# target, so that a wrong arrow between layers is visible where it is added.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

find_package(Threads REQUIRED)
# GCC 12 mistakes a short std::string for an overrun at -O1.
set(SH_TEST_OPTIMIZATION $<$<CONFIG:Release>:-O1> $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds>)

# Compile settings that every target of ours carries; third-party code never sees them.
add_library(sh_settings INTERFACE)
target_include_directories(sh_settings INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(sh_settings INTERFACE -Wall -Wextra -Wshadow -Wno-unused-parameter $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> -fvisibility=hidden
  $<$<BOOL:${SH_WARNINGS_AS_ERRORS}>:-Werror>)
target_compile_definitions(sh_settings INTERFACE $<$<BOOL:${SH_FAILPOINTS}>:STATEHOUSE_FAILPOINTS=1>)
if(SH_SANITIZER)
  target_compile_options(sh_settings INTERFACE -fsanitize=${SH_SANITIZER} -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all)
  target_link_options(sh_settings INTERFACE -fsanitize=${SH_SANITIZER})
endif()

# sh_cc_library(NAME x SRCS … DEPS …): a static library of ours, with the alias statehouse::x.
function(sh_cc_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  set(target sh_${ARG_NAME})
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_SRCS})
    target_link_libraries(${target} PUBLIC sh_settings ${ARG_DEPS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE sh_settings ${ARG_DEPS})
  endif()
  add_library(statehouse::${ARG_NAME} ALIAS ${target})
endfunction()

# GoogleTest's headers are a good part of what a test costs to compile, so the tests share one precompiled header.
if(SH_BUILD_TESTS)
  find_package(GTest REQUIRED)
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/test_headers/main.cc CONTENT "int main() { return 0; }\n")
  add_executable(sh_test_headers ${CMAKE_BINARY_DIR}/test_headers/main.cc)
  set_target_properties(sh_test_headers PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test_headers)
  target_link_libraries(sh_test_headers PRIVATE sh_settings GTest::gmock)
  target_compile_options(sh_test_headers PRIVATE -pthread ${SH_TEST_OPTIMIZATION})
  target_precompile_headers(sh_test_headers PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
endif()

# sh_cc_test(NAME x_test SRCS … DEPS … [LABELS …] [TIMEOUT s] [COST s]): one GoogleTest program, registered with CTest. The libraries that
# it tests are built as they are shipped; its own sources are optimised less, unless they do the work (crash tests, histories, soaks).
# COST: about how long it takes; the longest is started first.
function(sh_cc_test)
  if(NOT SH_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT;COST" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${ARG_NAME} PRIVATE sh_settings ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  if(NOT ARG_LABELS MATCHES "crash|history|soak")
    # -pthread: it defines a macro, which the header's users must have as the header has it.
    target_compile_options(${ARG_NAME} PRIVATE -pthread ${SH_TEST_OPTIMIZATION})
    target_precompile_headers(${ARG_NAME} REUSE_FROM sh_test_headers)
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME})
  set_tests_properties(${ARG_NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
  if(ARG_COST)
    set_tests_properties(${ARG_NAME} PROPERTIES COST ${ARG_COST})
  endif()
endfunction()

# sh_cc_binary(NAME x SRCS … DEPS …): a program that users run; it lands in build/bin.
function(sh_cc_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE sh_settings ${ARG_DEPS})
endfunction()
