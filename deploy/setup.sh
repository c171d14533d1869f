#!/usr/bin/env bash
# Installs what is missing on Debian 12, builds Statehouse into build/, and makes build/venv. Can be run again at any time.
#   deploy/setup.sh [--tests] [--bench]     with --tests also what the tests need, and the tests themselves are built; with --bench also
#                                           the peers of the benchmarks
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/deploy/lib.sh"

TESTS=OFF
LISTS=("$ROOT/deploy/packages.txt")
for argument in "$@"; do
  case "$argument" in
    --tests)
      TESTS=ON
      LISTS+=("$ROOT/deploy/packages-test.txt")
      ;;
    --bench) LISTS+=("$ROOT/deploy/packages-bench.txt") ;;
    *) die "deploy/setup.sh: unknown argument '$argument'; only --tests and --bench are known" ;;
  esac
done

install_packages() {
  command -v dpkg-query >/dev/null ||
    die "this set-up is for Debian 12: dpkg-query is missing. Install what deploy/packages.txt names by hand and run cmake."
  local missing=()
  mapfile -t missing < <(missing_packages "${LISTS[@]}")
  if [ ${#missing[@]} -eq 0 ]; then
    step "every Debian package is there"
    return
  fi
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
      die "these packages are missing: ${missing[*]}. Install them as root (apt-get install …) and run this again."
    as_root=(sudo)
  fi
  step "installing ${#missing[@]} Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly "$BUILD/logs/apt-update.log" "${as_root[@]}" apt-get update
  quietly "$BUILD/logs/apt-install.log" "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
}

build_all() {
  step "configuring $BUILD (tests: $TESTS)"
  quietly "$BUILD/logs/configure.log" cmake -S "$ROOT" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DSH_BUILD_TESTS="$TESTS" -DPython3_EXECUTABLE=/usr/bin/python3 $(launcher_options)
  step "building with $(jobs_max) jobs (the first time takes a few minutes)"
  quietly "$BUILD/logs/build.log" cmake --build "$BUILD" -j "$(jobs_max)"
}

# Before the build is configured: the tests that need a Python name this one.
create_venv() {
  [ -x "$BUILD/venv/bin/python" ] || quietly "$BUILD/logs/venv.log" /usr/bin/python3 -m venv "$BUILD/venv"
}

fill_venv() {
  local venv="$BUILD/venv"
  if ! cmp -s "$ROOT/deploy/requirements.txt" "$venv/requirements.done"; then
    step "installing the Python packages of deploy/requirements.txt into $venv"
    quietly "$BUILD/logs/pip.log" "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
      -r "$ROOT/deploy/requirements.txt"
    cp "$ROOT/deploy/requirements.txt" "$venv/requirements.done"
  fi
  step "installing the statehouse package into $venv"
  local extension
  extension=$(find "$BUILD/python/statehouse" -name '_local.*.so' | head -n 1)
  [ -n "$extension" ] || die "the build made no Python extension in $BUILD/python/statehouse"
  STATEHOUSE_EXTENSION="$extension" quietly "$BUILD/logs/pip-statehouse.log" "$venv/bin/python" -m pip install \
    --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall "$ROOT/clients/python"
}

install_packages
create_venv
build_all
fill_venv
step "built: $BUILD/bin/statehoused, $BUILD/bin/statehouse, $BUILD/lib/libstatehouse.so, $BUILD/venv"
