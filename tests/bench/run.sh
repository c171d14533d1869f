#!/usr/bin/env bash
# Builds the benchmarks and runs all of them against their peers, in turns. Not part of the tests; wants a quiet machine.
#   tests/bench/run.sh [ROUNDS]     default 7. Results also as JSON in build/bench.
# Peers: uwsgi-core and uwsgi-plugin-python3 from Debian; one that is missing is said to be skipped.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/deploy/lib.sh"
ROUNDS=${1:-7}
"$ROOT/deploy/setup.sh" || exit 1
quietly "$BUILD/logs/bench-configure.log" cmake -S "$ROOT" -B "$BUILD" -DSH_BUILD_BENCH=ON
quietly "$BUILD/logs/bench-build.log" cmake --build "$BUILD" -j "$(jobs_max)"
mkdir -p "$BUILD/bench"
MISSED=0
step "areas in C++"
"$BUILD/bin/area_bench" --rounds "$ROUNDS" --json "$BUILD/bench/area.json" || MISSED=1
step "the network door against a bare gRPC echo"
"$BUILD/bin/unary_bench" "$BUILD/bin/echo_server" "$BUILD/bin/statehoused" --rounds "$ROUNDS" || MISSED=1
step "Python against uWSGI"
"$BUILD/venv/bin/python" "$ROOT/tests/bench/python_bench.py" --build "$BUILD" --rounds "$ROUNDS" \
  --json "$BUILD/bench/python.json" || MISSED=1
[ "$MISSED" = 0 ] || die "a bar was missed; see above"
