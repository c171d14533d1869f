#!/usr/bin/env bash
# Builds each fuzz target with libFuzzer and the address and undefined-behaviour sanitizers, and runs it for a while.
#   tests/fuzz/run.sh [SECONDS]      for each target; default 15
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/deploy/lib.sh"
SECONDS_EACH=${1:-15}
OUT="$BUILD/fuzz"
mkdir -p "$OUT"
command -v clang++-14 >/dev/null || die "clang++-14 is missing; run tests/run.sh, which installs it"

BASE="engine/base/reason.cc engine/base/status.cc"
OS="engine/os/barrier.cc engine/os/fault_guard.cc engine/os/futex.cc engine/os/memory.cc engine/os/unique_fd.cc"
AREA="engine/shm/owned_lock.cc engine/state/area.cc engine/state/area_ranges.cc engine/state/area_recovery.cc
  engine/state/area_wait.cc engine/state/area_words.cc"
DICT="tests/fuzz/dict_image.cc engine/shm/owned_lock.cc $(cd "$ROOT" && ls engine/state/dict*.cc |
  grep -Ev '_test.cc|dict_(catalogue|edit|feed|store).cc')"
LOCKS="tests/fuzz/lock_image.cc engine/shm/owned_lock.cc $(cd "$ROOT" && ls engine/state/lock_*.cc | grep -v _test.cc)"
TOKENS="service/auth/identity.cc service/auth/token_file.cc service/auth/token_text.cc"
VALUE="engine/value/testing/value_invariants.cc $(cd "$ROOT" && ls engine/value/*.cc | grep -v _test.cc)"
CONFIG=$(cd "$ROOT" && ls service/config/*.cc | grep -v _test.cc)

# fuzz NAME SOURCES…: builds tests/fuzz/NAME.cc with the sources and runs it.
fuzz() {
  local name=$1
  shift
  step "fuzzing $name for $SECONDS_EACH s"
  (cd "$ROOT" && clang++-14 -std=c++20 -O1 -g1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I. \
    -o "$OUT/$name" "tests/fuzz/$name.cc" "$@" -lpthread)
  mkdir -p "$OUT/corpus-$name"
  # -timeout: one input that takes longer hangs.
  "$OUT/$name" -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=4096 -artifact_prefix="$OUT/$name-" \
    "$OUT/corpus-$name" >"$OUT/$name.log" 2>&1 || {
    tail -n 40 "$OUT/$name.log"
    die "$name found an input that breaks its target; it is kept as $OUT/$name-*"
  }
  tail -n 2 "$OUT/$name.log"
}

fuzz attach_protocol_fuzz engine/attach/protocol.cc $BASE
fuzz area_image_fuzz $AREA $OS $BASE
fuzz dict_image_fuzz $DICT $OS $BASE
fuzz lock_image_fuzz $LOCKS $OS $BASE
fuzz feed_image_fuzz engine/state/dict_feed.cc $DICT $OS $BASE
fuzz follow_log_fuzz engine/state/follow_log.cc $OS $BASE
fuzz config_fuzz $CONFIG $BASE
fuzz tokens_fuzz $TOKENS $BASE -lcrypto
fuzz value_fuzz $VALUE $BASE
fuzz import_line_fuzz clients/cli/import_line.cc $VALUE $BASE
# The messages as the build has them: only what reads bytes by itself is instrumented.
fuzz batch_plan_fuzz tests/fuzz/batch_bytes.cc service/api/batch_plan.cc engine/value/wire.cc $BASE -I"$BUILD/proto" \
  "$BUILD/proto/libsh_proto.a" -lprotobuf
fuzz area_until_fuzz clients/cli/area_until.cc $BASE
