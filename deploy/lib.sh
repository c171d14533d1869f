# Shared by deploy/setup.sh, deploy/quickstart.sh, tests/run.sh and tests/bench/run.sh: progress, clear failures, the folders. Source
# it; it needs ROOT to be the checkout.
BUILD="${STATEHOUSE_BUILD:-$ROOT/build}"
STARTED=$(date +%s)

# step TEXT…: one line of progress with the seconds since the start.
step() { printf '==> [%4ds] %s\n' "$(($(date +%s) - STARTED))" "$*"; }

# die TEXT…: says what is missing or wrong and what to do, and stops.
die() {
  printf 'statehouse: %s\n' "$*" >&2
  exit 1
}

# missing_packages LIST…: the Debian packages of these files that are not installed, one a line.
missing_packages() {
  local package
  sed -s 's/#.*//' "$@" | while read -r package; do
    [ -z "$package" ] || dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

# jobs: how many compilers at once: one for each core, and never more than the memory carries (2 GiB each).
jobs_max() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)
  [ "$memory" -ge 1 ] || memory=1
  echo $((cores < memory ? cores : memory))
}

# launcher_options: what cmake is told so that a compiler cache is used where there is one.
launcher_options() {
  ! command -v ccache >/dev/null || echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache
}

# quietly LOG COMMAND…: runs the command with its output in LOG; on failure shows the end of it and stops.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "failed: $* (the whole output is in $log)"
  fi
}
