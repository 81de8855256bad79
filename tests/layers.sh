#!/bin/bash
# The house rules that a grep can enforce: includes go one way, and what is forbidden where.
set -u -o pipefail
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1

# What the files of the left may include of this project. The first line that matches a file counts; a folder ends in /.
rules='
ir/util.[ch]         ir/util.h moec.h
ir/types.[ch]        ir/types.h ir/util.h
ir/*                 ir/ moec.h
frontend/model.*     frontend/ ir/ runtime/token.h
frontend/*           frontend/ ir/
passes/*             passes/ ir/ frontend/tab.h
codegen/*            codegen/ ir/ passes/passes.h frontend/tab.h frontend/embed.h runtime/plan.h runtime/pack.h runtime/piece.h runtime/isa.h runtime/cache.h
runtime/*            runtime/ ir/util.h ir/types.h moec.h
cli/*                cli/ moec.h
examples/*           moec.h
moec.h
*                    moec*.h ir/ frontend/ passes/ codegen/ runtime/
'
c_files() { git ls-files -co --exclude-standard "$@" -- '*.c' '*.h' | sort -u | while read -r f; do
        [ -f "$f" ] && echo "$f"
done; }
lib=$(c_files | grep -v '^\(tests\|cli\|examples\|tools\)/')
sources=$(git ls-files -co --exclude-standard -- '*.c' '*.h' '*.lua' '*.m4' '*.sh' '*.mk' Makefile .ci | grep -v '^tests/layers.sh$')
failed=0

# What the function prints are violations.
rule() {
        local out
        out=$("$2")
        if [ -z "$out" ]; then
                echo "ok $1"
        else
                echo "not ok $1"
                echo "$out"
                failed=1
        fi
}

includes() {
        local f inc pat allowed ok a
        set -f
        grep -Ho '^ *# *include *"[^"]*"' $lib $(c_files | grep '^\(cli\|examples\)/') | sed 's/: *# *include *"/ /; s/"$//' |
                while read -r f inc; do
                        while read -r pat allowed; do
                                [ -n "$pat" ] || continue
                                # shellcheck disable=SC2254
                                case $f in $pat) break ;; esac
                        done <<<"$rules"
                        ok=
                        for a in $allowed; do
                                # shellcheck disable=SC2053
                                [[ $inc == $a || ($a == */ && $inc == "$a"*) ]] && ok=1
                        done
                        [ "$ok" ] || echo "$f includes $inc; allowed: $allowed"
                done
}
lua_only() { grep -Hn '# *include *<lua' $lib | grep -v '^frontend/lua[a-z_]*\.[ch]:'; }
environment() { grep -Hnw 'getenv\|secure_getenv' $lib | grep -v '^moec\.c:'; }
prints() { grep -HnE '\b(v?printf|puts|putchar|perror|_?exit)\(|\b(stdout|stderr)\b' $lib | grep -v '^ir/util\.c:'; }
# The runtime returns statuses. The plan's writer stands there beside its reader, and is the compiler's.
jumps() { grep -HnE '\b(err|die|err_rethrow|longjmp|setjmp)\(|\babort\(' $lib | grep '^runtime/' | grep -v '^runtime/plan_write\.c:'; }
long_files() { wc -l $sources | awk '$1 > 600 && $2 != "total" { print $2 ": " $1 " lines, 600 at most" }'; }
long_functions() {
        awk 'FNR == 1 { open = 0 }
                /^[{]$/ { open = FNR }
                /^}/ { if (open && FNR - open > 60) print FILENAME ":" open ": a function of " FNR - open " lines, 60 at most"; open = 0 }' $(c_files)
}
unfinished() { grep -HnwE 'TODO|FIXME|XXX|HACK' $sources; }
guards() { # a header's guard is its own
        c_files | grep '\.h$' | while read -r f; do
                awk '/^#ifndef MOEC_/ { print $2; exit }' "$f" | sed "s|^|$f |"
        done | sort -k 2 | awk '{ if ($2 == last) print $1 ": guard " $2 " is used twice"; last = $2; n[$1] = 1 }'
}

rule "includes go one way" includes
rule "lua.h in frontend/lua*.c alone" lua_only
rule "no getenv in the library but in moec.c" environment
rule "the library neither prints nor exits" prints
rule "the runtime does not jump" jumps
rule "files of at most 600 lines" long_files
rule "functions of at most 60 lines" long_functions
rule "nothing unfinished" unfinished
rule "header guards differ" guards
exit $failed
