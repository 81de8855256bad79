#!/bin/bash
# tests/run.sh [-t TOTALS] TEST...: runs tests side by side, prints a line for each, then the sum, which goes to TOTALS too.
# tests/run.sh -s TOTALS...: prints the sum of sums.
# A test is a cmocka program or a script that prints `ok NAME`, `not ok NAME` and `skip NAME: REASON` lines; a cmocka test
# that skips prints its reason on the line before. A test that crashes, hangs or reports nothing counts as a failure.
set -u -o pipefail
totals=
sum() { # of lines "passed failed skipped"
        awk -v totals="$totals" '
                { p += $1; f += $2; s += $3 }
                END {
                        if (totals) print p + 0, f + 0, s + 0 >totals
                        printf "%d passed, %d failed, %d skipped\n", p, f, s
                        exit f > 0 || NR == 0
                }' "$@"
}
while getopts t:s o; do
        case $o in
        t) totals=$OPTARG ;;
        s) shift && sum "$@" && exit; exit 1 ;;
        *) exit 2 ;;
        esac
done
shift $((OPTIND - 1))
export B=${B:-build} LOG TEST_TIMEOUT=${TEST_TIMEOUT:-1200}
export CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C
unset MOEC_CACHE_DIR
LOG=$(mktemp -d "${TMPDIR:-/tmp}/moec-tests.XXXXXX") || exit 1
trap 'rm -rf "$LOG"' EXIT
# Compiled kernels are shared by all tests that do not ask for a cache of their own; CACHE keeps them for another suite.
if [ -n "${CACHE:-}" ]; then
        mkdir -p "$CACHE" && ln -s "$(realpath "$CACHE")" "$LOG/cache" || exit 1
fi
export XDG_CACHE_HOME=$LOG/cache

one() {
        local name log start rc n
        name=${1#"$B"/}
        name=${name#tests/}
        log=$LOG/${name//\//.}
        start=$(date +%s%N)
        timeout -k 5 "$TEST_TIMEOUT" "$1" >"$log" 2>&1 </dev/null
        rc=$?
        n=$(awk -v rc=$rc '
                /^(not )?ok [0-9]+ # SKIP/ { skip++; print "  skip " $NF ": " last; next }
                /^skip / { skip++; print "  " $0; next }
                /^ok / { pass++; next }
                /^not ok / { fail++; print "  " $0; next }
                /^1\.\.[0-9]+$/ { plan += substr($0, 4); next }
                { last = $0 }
                END {
                        if (plan && plan != pass + fail + skip) { fail++; print "  not ok: " plan " tests planned" }
                        else if (rc && !fail) { fail++; print "  not ok: exit status " rc }
                        else if (!(pass + fail + skip)) { fail++; print "  not ok: no results" }
                        print pass + 0, fail + 0, skip + 0
                }' "$log")
        set -- "$1" $(tail -n 1 <<<"$n")
        {
                printf '%-32s %5d passed %4d failed %4d skipped %7.1f s\n' "$name" "$2" "$3" "$4" \
                        "$(($(date +%s%N) - start))e-9"
                sed '$d' <<<"$n"
                if [ "$3" -gt 0 ]; then
                        grep -v '^ok \|# SKIP' "$log" | tail -n 40 | sed 's/^/    | /'
                fi
        } >"$log.out"
        (
                flock 9
                cat "$log.out"
                echo "$2 $3 $4" >>"$LOG/sums"
        ) 9<"$LOG"
}
export -f one

printf '%s\0' "$@" | xargs -0 -r -n 1 -P "${JOBS:-$(nproc)}" bash -c 'one "$0"'
touch "$LOG/sums"
sum "$LOG/sums"
