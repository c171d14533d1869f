#!/usr/bin/env bash
# From nothing to a shared counter: installs what is missing, builds, starts the service, and runs the main job (README.md tells
# what it shows). Can be run again at any time; it stops everything that it started.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/deploy/lib.sh"
[ $# -eq 0 ] || die "deploy/quickstart.sh takes no arguments"

"$ROOT/deploy/setup.sh"
step "the main job"
"$BUILD/venv/bin/python" "$ROOT/deploy/quickstart/main_job.py" --build "$BUILD"
step "done. Try it yourself: $BUILD/bin/statehoused --dev"
