#!/bin/bash
# From a GGUF to an executable or a plan, and what these need to run: no compiler, no m4, no cache.
. tests/e2e/lib.sh
F=examples/fables.gguf
same=(-p "Once upon a time" -n 24 --temp 0)

# The cache: the first run compiles, the second does not; a damaged entry is made again.
try "$MOEC" run -m "$F" "${same[@]}" --march x86-64-v3
cp "$T/out" "$T/text"
check "the first run compiles" grep -q 'compiled in' "$T/err"
check "text begins with the prompt" grep -q '^Once upon a time.' "$T/text"
check "says the target and why" grep -Eq '^target: cpu x86-64-v3, .* \(auto: ' "$T/err"
try "$MOEC" run -m "$F" "${same[@]}" --march x86-64-v3
check "the second run does not" grep -q ', cached; ' "$T/err"
expect_same "and says the same" "$T/text" "$T/out"
expect_output "cache list" '^[0-9]+ entries' "$MOEC" cache list
expect_output "cache list as JSON" '^\[.*"bytes": [0-9]+.*\]$' "$MOEC" cache list -o json
plan=$("$MOEC" cache list | awk '/\.plan/ { print $1; exit }')
expect_output "cache explain" '^model: qwen3moe' "$MOEC" cache explain "$plan"
for f in "$XDG_CACHE_HOME"/moec/*; do [ ! -f "$f" ] || printf 'damaged' >"$f"; done
try "$MOEC" run -m "$F" "${same[@]}" --march x86-64-v3
expect_same "damaged entries are made again" "$T/text" "$T/out"
check "by compiling" grep -q 'compiled in' "$T/err"

for emit in exe plan; do
        for embed in "" --embed; do
                name=$emit$embed
                # shellcheck disable=SC2086
                expect_output "compile $name says what" 'qwen3moe, 4 layers, 16 experts: [0-9]+ kernels, [0-9]+ launches a token, .* of code, ' \
                        "$MOEC" compile "$F" --emit $emit $embed -o "$T/$name"
                check "$name: nothing left beside it" [ -z "$(find "$T" -name '*.tmp')" ]
        done
done
mkdir "$T/no"
for exe in exe exe--embed; do
        try env -i PATH="$T/no" HOME="$T/no" "$T/$exe" "${same[@]}"
        expect_same "$exe runs without cc and m4" "$T/text" "$T/out"
        check "$exe leaves nothing behind" [ -z "$(ls -A "$T/no")" ]
        expect_output "$exe --help" "^usage: $exe " "$T/$exe" --help
        expect_error "$exe refuses operands" 2 'too many' "$T/$exe" x
        expect_error "$exe refuses what was settled" 2 '--march says how' "$T/$exe" -p a --march native
        try "$MOEC" run -m "$T/$exe" "${same[@]}"
        expect_same "$exe is a model too" "$T/text" "$T/out"
done
for plan in plan plan--embed; do
        try env PATH="$T/no" "$MOEC" run -m "$T/$plan" "${same[@]}"
        expect_same "$plan runs" "$T/text" "$T/out"
done

# Elsewhere: what is embedded runs; what is not names the file that it wants, and takes it by option.
cp "$F" "$T/moved.gguf"
expect_status "compile of a file that moves" 0 "$MOEC" compile "$T/moved.gguf" -o "$T/moved"
mv "$T/moved.gguf" "$T/elsewhere.gguf"
expect_error "the weights are gone" 3 'moved.gguf' "$T/moved" -p a
for o in --weights -m; do
        try "$T/moved" $o "$T/elsewhere.gguf" "${same[@]}"
        expect_same "found by $o" "$T/text" "$T/out"
done
expect_error "another model's weights" 5 'fables-Q2_K' "$T/moved" -m tests/models/fables-Q2_K.gguf -p a
{
        head -c -20 "$T/exe"
        printf xxxx
        tail -c 16 "$T/exe"
} >"$T/damaged"
chmod +x "$T/damaged"
expect_error "a damaged executable" 4 'damaged' "$T/damaged" -p a
expect_error "the bare stub" 4 'plan' "$B/moec-stub" -p a

expect_output "cache prune" '^[0-9]+ entries removed, [0-9]+ bytes left' "$MOEC" cache prune 200K
check "cache is small now" [ "$(du -sk "$XDG_CACHE_HOME/moec" | cut -f1)" -le 300 ]
expect_output "cache clear" ' 0 bytes left' "$MOEC" cache clear
expect_output "--cache-dir" "0 bytes in $T/other" "$MOEC" cache list --cache-dir "$T/other"
expect_output "MOEC_CACHE_DIR" "0 bytes in $T/third" env MOEC_CACHE_DIR="$T/third" "$MOEC" cache list
