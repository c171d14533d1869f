#!/usr/bin/env bash
# Builds the fuzz targets with libFuzzer and the address and undefined-behaviour sanitizers, and runs each for a while. It takes the
# messages' classes from build/, so build that first.
#   tests/fuzz/run.sh [SECONDS]      for each target; default 15
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/deploy/lib.sh"
FOLDER="$BUILD/fuzz"
command -v clang++-14 >/dev/null || die "clang++-14 is missing; run tests/run.sh, which installs it"
[ -f "$BUILD/proto/libsh_proto.a" ] || die "$BUILD/proto/libsh_proto.a is missing; run deploy/setup.sh first"

step "building the fuzz targets"
mkdir -p "$FOLDER"
quietly "$FOLDER/configure.log" cmake -S "$ROOT" -B "$FOLDER" -G Ninja -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14 \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" -DSH_SANITIZER=fuzzer-no-link,address,undefined \
  -DSH_BUILD_FUZZERS=ON -DSH_PRECOMPILED_HEADERS=OFF -DSH_BUILD_TESTS=OFF -DSH_BUILD_SERVICE=OFF \
  -DSH_FUZZ_SECONDS="${1:-15}" -DSH_FUZZ_PROTO="$BUILD/proto" $(launcher_options)
quietly "$FOLDER/build.log" cmake --build "$FOLDER" -j "$(jobs_max)" --target fuzz_targets
step "fuzzing, each target for ${1:-15} s"
ctest --test-dir "$FOLDER" -L fuzz -j "$(jobs_max)" --output-on-failure --no-tests=error
