#!/usr/bin/env bash
# Sets everything up and passes all tests: unit, crash, model, integration, conformance, Python, stubs in other languages, lint, then the
# engine and the parts of the service that need no gRPC under the sanitizers. Can be run again at any time; it leaves no process and no
# file outside build/.
#   tests/run.sh [--quick]      without the sanitizer builds, the fuzzers and the stubs in other languages
#   tests/run.sh --long         with the long soaks too (hours)
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/deploy/lib.sh"

QUICK=no
LONG=no
for argument in "$@"; do
  case "$argument" in
    --quick) QUICK=yes ;;
    --long) LONG=yes ;;
    *) die "tests/run.sh: unknown argument '$argument'; --quick and --long are known" ;;
  esac
done
[ "$LONG" = no ] || export STATEHOUSE_LONG=1

FAILED=()
PASSED=0

# check NAME COMMAND…: runs a part of the tests, shows its output, and goes on to the next part when it fails.
check() {
  local name=$1
  shift
  step "$name"
  if "$@"; then
    PASSED=$((PASSED + 1))
  else
    FAILED+=("$name")
    printf 'FAILED: %s\n' "$name"
  fi
}

# without_tests: what a user configures has no tests, and none of it may need them.
without_tests() {
  local folder="$BUILD/without-tests" bench
  rm -rf "$folder"
  for bench in OFF ON; do
    cmake -S "$ROOT" -B "$folder" -G Ninja -DSH_BUILD_TESTS=OFF -DSH_BUILD_BENCH="$bench" >"$folder.log" 2>&1 &&
      cmake --build "$folder" -- -n >>"$folder.log" 2>&1 || {
      tail -n 40 "$folder.log"
      return 1
    }
  done
}

# sanitized KIND: builds the tests of what needs no gRPC with a sanitizer and runs them.
sanitized() {
  local kind=$1 folder="$BUILD/sanitizer-$1"
  shift
  cmake -S "$ROOT" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -DNDEBUG" \
    -DSH_SANITIZER="$kind" -DSH_BUILD_SERVICE=OFF $(launcher_options) >"$folder.log" 2>&1 &&
    cmake --build "$folder" -j "$(jobs_max)" >>"$folder.log" 2>&1 || {
    tail -n 40 "$folder.log"
    return 1
  }
  step "$kind: built"
  ctest --test-dir "$folder" -j "$(jobs_max)" --output-on-failure --no-tests=error
}

"$ROOT/deploy/setup.sh" --tests
check "tidy: layout, names, arrows" "$BUILD/venv/bin/python" -B "$ROOT/tests/tidy/tidy.py"
check "configuring without tests" without_tests
check "proto lint" "$BUILD/venv/bin/python" -B "$ROOT/tests/proto_lint/lint.py" "$ROOT/proto"
# Conformance is a check of its own, further down.
check "unit, crash, model and integration tests" ctest --test-dir "$BUILD" -LE conformance -j "$(jobs_max)" \
  --output-on-failure --no-tests=error
check "Python client" env STATEHOUSED="$BUILD/bin/statehoused" "$BUILD/venv/bin/python" -B -m pytest -q \
  -p no:cacheprovider --basetemp="$BUILD/pytest" "$ROOT/clients/python/tests"
# Quick runs fetch nothing from the registries of four languages.
[ "$QUICK" = yes ] || check "stub programs: Go, Java, Node, Rust" "$BUILD/venv/bin/python" -B "$ROOT/tests/stubs/run.py" --build "$BUILD"
check "conformance: each client through each door" "$BUILD/venv/bin/python" -B "$ROOT/tests/conformance/run.py" \
  --build "$BUILD"
if [ "$QUICK" = no ]; then
  check "engine and service under the address and undefined-behaviour sanitizers" sanitized address,undefined
  check "engine and service under the thread sanitizer" sanitized thread
  check "fuzz targets, a short run each" "$ROOT/tests/fuzz/run.sh"
fi

step "done"
printf '%d passed, %d failed\n' "$PASSED" "${#FAILED[@]}"
[ ${#FAILED[@]} -eq 0 ] || die "failed: ${FAILED[*]}"
