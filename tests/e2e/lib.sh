# What the scripts of this folder share: `. tests/e2e/lib.sh`. A script runs at the root of the repository, prints `ok NAME`,
# `not ok NAME` (then why) or `skip NAME: REASON` lines, and leaves its files in $T, which is removed at its end.
# shellcheck shell=bash
set -u -o pipefail
MOEC=${B:-build}/moec
T=$(mktemp -d "${TMPDIR:-/tmp}/moec-e2e.XXXXXX") || exit 1
export XDG_CACHE_HOME=$T/cache
unset MOEC_CACHE_DIR
failures=0
status=0
trap 'rc=$?; chmod -R u+w "$T"; rm -rf "$T"; [ $rc -ne 0 ] || [ $failures -eq 0 ] || rc=1; exit $rc' EXIT

ok() { echo "ok $1"; }
not_ok() { # NAME [WHY]...
        failures=$((failures + 1))
        echo "not ok $1"
        shift
        [ $# -eq 0 ] || printf '  %s\n' "$@"
}
skip() { echo "skip $1: $2"; } # NAME REASON
check() { # NAME COMMAND...: the command says whether
        local name=$1
        shift
        if "$@" >"$T/check" 2>&1; then ok "$name"; else not_ok "$name" "$* failed: $(tail -n 20 "$T/check")"; fi
}

# Runs a command; its status is in $status, what it wrote in $T/out and $T/err. A hang is status 124.
try() {
        status=0
        timeout "${TRY_TIMEOUT:-300}" "$@" >"$T/out" 2>"$T/err" </dev/null || status=$?
}
report() { # NAME WHY: not ok, with what the last command wrote
        not_ok "$1" "$2" "status $status" "out: $(head -c 600 "$T/out")" "err: $(tail -c 1200 "$T/err")"
}

# NAME STATUS COMMAND...
expect_status() {
        local name=$1 want=$2
        shift 2
        try "$@"
        if [ "$status" -eq "$want" ]; then ok "$name"; else report "$name" "expected status $want of: $*"; fi
}
# NAME STATUS REGEX COMMAND...: a failure with a message on stderr that matches, in one or a few lines
expect_error() {
        local name=$1 want=$2 say=$3
        shift 3
        try "$@"
        if [ "$status" -eq "$want" ] && grep -Eq -e "$say" "$T/err"; then
                ok "$name"
        else
                report "$name" "expected status $want and /$say/ of: $*"
        fi
}
# NAME REGEX COMMAND...: success, with output that matches
expect_output() {
        local name=$1 say=$2
        shift 2
        try "$@"
        if [ "$status" -eq 0 ] && grep -Eq -e "$say" "$T/out"; then ok "$name"; else report "$name" "expected /$say/ of: $*"; fi
}
# NAME FILE: what is in it is JSON, and nothing else is
expect_json() {
        local why
        if why=$(awk -f tests/e2e/json.awk "$2"); then ok "$1"; else not_ok "$1" "$why in: $(head -c 400 "$2")"; fi
}
# NAME FILE FILE
expect_same() {
        if cmp -s "$2" "$3"; then ok "$1"; else not_ok "$1" "$(cmp "$2" "$3" 2>&1)"; fi
}
