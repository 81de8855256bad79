#!/bin/bash
# Compiling where something fails: cc or m4 missing or broken (11, with the sources kept), no room (7), an interrupt (130).
# None leaves a partial file.
. tests/e2e/lib.sh
F=examples/fables.gguf
path() { # of a folder with these tools alone
        rm -rf "${T:?}/bin"
        mkdir "$T/bin"
        for t in "$@"; do ln -s "$(command -v "$t")" "$T/bin/$t"; done
}
fails() { # NAME REGEX: without the cache, so that every tool is wanted
        expect_error "$1" 11 "$2" env PATH="$T/bin" "$MOEC" compile "$F" --cache-dir off -o "$T/out.exe"
        local kept
        kept=$(sed -n 's/^The sources are kept in //p' "$T/err")
        check "$1: the sources are kept" [ -n "$kept" -a -d "$kept" ]
        [ -z "$kept" ] || rm -rf "$kept"
        check "$1: no file" [ -z "$(find "$T" -name 'out.exe*')" ]
}
broken() { printf '#!/bin/sh\necho "%s is broken" >&2\nexit 3\n' "$1" >"$T/bin/$1" && chmod +x "$T/bin/$1"; }

path cc as ld
fails "no m4" 'cannot run m4: '
broken m4
fails "m4 fails" 'm4 failed \(status 3\) on templates/c/.*: m4 is broken'
path m4
fails "no cc" 'cannot run cc: '
broken cc
fails "cc fails" 'cc .*failed \(status 3\).*: cc is broken'
path m4 as ld
cat >"$T/bin/cc" <<EOC
#!/bin/sh
case "\$*" in *--version*) exec $(command -v cc) "\$@" ;; esac
echo "no kernels today" >&2
exit 1
EOC
chmod +x "$T/bin/cc"
fails "cc fails on a kernel" 'no kernels today'

mkdir -p "$T/over/templates/c/generic"
sed 's/MOE_K/MOE_NO_SUCH_FACT/g' templates/c/generic/rmsnorm.c.m4 >"$T/over/templates/c/generic/rmsnorm.c.m4"
expect_error "a template with a mistake" 11 'MOE_NO_SUCH_FACT.*rmsnorm' "$MOEC" compile "$F" --templates "$T/over" --cache-dir off --keep "$T/keep" -o "$T/out.exe"
sed 's/norm_row(/norm_row(no_such_name, /' templates/c/generic/rmsnorm.c.m4 >"$T/over/templates/c/generic/rmsnorm.c.m4"
expect_error "a mistake in its C is shown there" 11 'rmsnorm.c.m4:[0-9]+:.*no_such_name' "$MOEC" compile "$F" --templates "$T/over" --cache-dir off --keep "$T/keep" -o "$T/out.exe"
expect_error "no such templates" 3 "nodir: No such" "$MOEC" compile "$F" --templates "$T/nodir" -o "$T/out.exe"
check "--keep has the sources" [ -n "$(find "$T/keep" -name '*rmsnorm*')" ]

# Room for every object and for their link, but not for the executable.
expect_status "compile, for the cache" 0 "$MOEC" compile "$F" -o "$T/whole"
limited() { # FILE
        (
                ulimit -f 1000
                exec "$MOEC" compile "$F" -o "$1"
        )
}
try true # for $T/out
status=0
limited "$T/out.exe" >"$T/out" 2>"$T/err" || status=$?
check "no room for the executable" [ "$status" = 7 -a "$(grep -c 'out.exe: cannot write: File too large' "$T/err")" = 1 ]
check "no partial executable" [ -z "$(find "$T" -name 'out.exe*')" ]
cp "$T/whole" "$T/out.exe"
limited "$T/out.exe" >"$T/out" 2>"$T/err"
expect_same "the file that was there is whole" "$T/whole" "$T/out.exe"
rm "$T/out.exe"
status=0
(
        ulimit -f 10
        exec "$MOEC" logits -m "$F" --tokens 1,2,3 -o "$T/logits"
) 2>"$T/err" || status=$?
check "no room for logits" [ "$status" = 7 -a -z "$(find "$T" -name 'logits*')" ]
expect_error "a folder that is not there" 7 'cannot write' "$MOEC" compile "$F" -o "$T/nodir/out.exe"

# Ctrl-C. A shell's background processes ignore it, unless told.
wait_for() { # SECONDS COMMAND...
        local n=$(($1 * 20))
        shift
        until "$@"; do
                [ $((n -= 1)) -gt 0 ] || return 1
                sleep 0.05
        done
}
some_sources() { [ -n "$(find "$T/kept" -name '*.c' 2>/dev/null | head -n 1)" ]; }
"$MOEC" compile "$F" --cache-dir off --keep "$T/kept" --march x86-64 -o "$T/out.exe" >"$T/out" 2>"$T/err" &
pid=$!
wait_for 60 some_sources && kill -INT $pid
status=0
wait $pid || status=$?
check "Ctrl-C while compiling" [ "$status" = 130 -a "$(grep -c interrupted "$T/err")" = 1 ]
check "no partial file after it" [ -z "$(find "$T" -name 'out.exe*')" ]

some_text() { [ "$(wc -c <"$T/out")" -gt 40 ]; }
"$MOEC" run -m "$F" --target eval -c 16000 -n -1 --ignore-eos -p "Once upon a time" -o json >"$T/out" 2>"$T/err" &
pid=$!
wait_for 60 some_text && kill -INT $pid
status=0
wait $pid || status=$?
check "Ctrl-C while generating" [ "$status" = 130 ]
check "the timings are there" grep -q '^decode: [1-9]' "$T/err"
check "so is the summary, on a line of its own" grep -Eq '^\{.*"stop": "interrupt"\}$' <(tail -n 1 "$T/out")
