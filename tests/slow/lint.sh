#!/bin/bash
# What the linters say: format, static analysis, man pages, shell syntax.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1
rc=0
lint() { # NAME COMMAND...: silence is success
        local name=$1 out
        shift
        if out=$("$@" 2>&1) && [ -z "$out" ]; then
                echo "ok $name"
        else
                echo "not ok $name"
                tail -n 60 <<<"$out" | sed 's/^/  /'
                rc=1
        fi
}
mapfile -t c < <(git ls-files '*.c' '*.h')
mapfile -t man < <(git ls-files '*.[1357]')
mapfile -t sh < <(git ls-files '*.sh' .ci/run)

lint clang-format clang-format-14 --dry-run -Werror "${c[@]}"

# What is suppressed, and why:
#   missingIncludeSystem, unmatchedSuppression: about the tool's own run
#   unknownMacro: X-macro tables expand to nothing that it knows
#   preprocessorErrorDirective: xxhash.h's, for compilers that nobody has
#   uninitvar: false on arrays of functions and on `i ? a : b` of arrays; valgrind and the compilers look for these
lint cppcheck cppcheck -q -j "$(nproc)" --std=c11 -I. -D_GNU_SOURCE -D__x86_64__ --library=tests/cppcheck.cfg \
        --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --max-configs=4 \
        --suppress=missingIncludeSystem --suppress=unmatchedSuppression --suppress=unknownMacro \
        '--suppress=preprocessorErrorDirective:*xxhash.h' --suppress=uninitvar --suppress=legacyUninitvar "${c[@]}"

if [ ${#man[@]} -gt 0 ]; then
        lint mandoc mandoc -T lint -W warning "${man[@]}"
fi
for f in "${sh[@]}"; do
        bash -n "$f" || rc=1
done
[ $rc -ne 0 ] || echo "ok shell syntax"
exit $rc
