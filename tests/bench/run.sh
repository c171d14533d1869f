#!/usr/bin/env bash
# Builds the benchmarks and runs all of them against their peers, in turns. Not part of the tests; wants a quiet machine.
#   tests/bench/run.sh [--install] [ROUNDS]     default 7. Results also as JSON in build/bench.
# The peers are what deploy/packages-bench.txt names. --install installs those that are missing; without it each is said to be skipped.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/deploy/lib.sh"
INSTALL=()
if [ "${1:-}" = --install ]; then
  INSTALL=(--bench)
  shift
fi
ROUNDS=${1:-7}
"$ROOT/deploy/setup.sh" "${INSTALL[@]}" || exit 1
mapfile -t MISSING < <(missing_packages "$ROOT/deploy/packages-bench.txt")
[ ${#MISSING[@]} = 0 ] || step "peers are missing and skipped: apt-get install --no-install-recommends ${MISSING[*]}"
quietly "$BUILD/logs/bench-configure.log" cmake -S "$ROOT" -B "$BUILD" -DSH_BUILD_BENCH=ON
quietly "$BUILD/logs/bench-build.log" cmake --build "$BUILD" -j "$(jobs_max)"
quietly "$BUILD/logs/bench-pip.log" "$BUILD/venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
  -r "$ROOT/tests/bench/requirements.txt"
mkdir -p "$BUILD/bench"

# In memory, so that no contender writes to a disk; and gone whatever happens.
TMPDIR=$(mktemp -d -p /dev/shm sh-bench-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

MISSED=()
# bench TITLE NAME COMMAND…: one program, whose figures go to build/bench/NAME.json.
bench() {
  local title=$1 name=$2
  shift 2
  step "$title: $* --rounds $ROUNDS"
  "$@" --rounds "$ROUNDS" --json "$BUILD/bench/$name.json" || MISSED+=("$name")
}
bench "watches against etcd" watch "$BUILD/bin/watch_bench" "$BUILD/bin/statehoused"
bench "watches in a storm of changes" watch_storm "$BUILD/bin/watch_storm_bench" "$BUILD/bin/statehoused"
bench "one event to many streams against bare gRPC" fanout "$BUILD/bin/fanout_bench" "$BUILD/bin/bare_server" "$BUILD/bin/statehoused"
PYTHON="$BUILD/venv/bin/python"
bench "areas in C++" area "$BUILD/bin/area_bench"
bench "dicts in C++ against LMDB, Redis, nginx and APCu" dict "$BUILD/bin/dict_bench"
bench "waiting for an entry in mapped memory" wait "$BUILD/bin/wait_bench"
bench "locks in C++" lock "$BUILD/bin/lock_bench"
bench "locks through both doors against etcd" lock_service "$BUILD/bin/lock_service_bench" "$BUILD/bin/statehoused"
bench "the network door against bare gRPC" unary "$BUILD/bin/unary_bench" "$BUILD/bin/bare_server" "$BUILD/bin/door_server" \
  "$BUILD/bin/statehoused"
bench "calls beside floods" flood "$BUILD/bin/flood_bench" "$BUILD/bin/statehoused"
bench "idle connections" connections "$BUILD/bin/connections_bench" "$BUILD/bin/statehoused"
bench "areas in Python against uWSGI" python "$PYTHON" "$ROOT/tests/bench/python_bench.py" --build "$BUILD"
bench "watches in Python" python_watch "$PYTHON" "$ROOT/tests/bench/python_watch_bench.py" --build "$BUILD"
bench "sharedarea_wait in Python against uWSGI" python_wait "$PYTHON" "$ROOT/tests/bench/python_wait_bench.py" --build "$BUILD"
bench "dicts in Python against BaseManager and Redis" python_dict "$PYTHON" "$ROOT/tests/bench/python_dict_bench.py" --build "$BUILD"
bench "batches against pipelines of Redis" batch "$BUILD/bin/batch_bench" "$BUILD/bin/statehoused"
bench "small calls over the attach socket against a bare echo" socket "$BUILD/bin/socket_bench" "$BUILD/bin/statehoused"
bench "batches in Python against pipelines of Redis" python_batch "$PYTHON" "$ROOT/tests/bench/python_batch_bench.py" --build "$BUILD"
bench "contended locks in Python against BaseManager" python_lock "$PYTHON" "$ROOT/tests/bench/python_lock_bench.py" --build "$BUILD"
bench "a Flask counter against BaseManager and Redis" flask "$PYTHON" "$ROOT/tests/bench/flask_bench.py" --build "$BUILD"
[ ${#MISSED[@]} = 0 ] || die "a bar was missed in: ${MISSED[*]}; see above"
