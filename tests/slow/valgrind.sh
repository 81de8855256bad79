#!/bin/bash
# Reads of what nobody wrote, which the sanitizers do not see: programs whose data goes through every layer but the kernels.
set -u -o pipefail
B=${B:-build}
rc=0
# Timing tests fail as they must here: only valgrind's own status counts. Nothing that runs PCRE2's compiled code, which it
# cannot follow.
for t in util gguf graph lua plan passes token_blob; do
        valgrind -q --error-exitcode=99 --exit-on-first-error=yes "$B/tests/unit/$t" >"$B/valgrind.$t" 2>&1
        if [ $? -ne 99 ] && grep -q '^1\.\.' "$B/valgrind.$t"; then
                echo "ok valgrind $t"
        else
                echo "not ok valgrind $t"
                grep -v '^ok ' "$B/valgrind.$t" | tail -n 40 | sed 's/^/  /'
                rc=1
        fi
done
exit $rc
