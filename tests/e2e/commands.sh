#!/bin/bash
# dump, opt, verify, logits, tokenize, inspect: what they print, and that it fits together.
. tests/e2e/lib.sh
export XDG_CACHE_HOME=${LOG:-$T}/cache
F=examples/fables.gguf

expect_output "inspect" 'qwen3moe' "$MOEC" inspect "$F"
expect_output "inspect as JSON" '^\{' "$MOEC" inspect "$F" -o json

for phase in decode prefill; do
        "$MOEC" dump "$F" --after "" --phase $phase >"$T/built.ir"
        "$MOEC" dump "$F" --phase $phase >"$T/passed.ir"
        check "dump of $phase" grep -q "^graph $phase" "$T/passed.ir"
        check "passes do something" [ "$(wc -l <"$T/passed.ir")" -lt "$(wc -l <"$T/built.ir")" ]
done
"$MOEC" dump "$F" --after "" >"$T/built.ir"
"$MOEC" dump "$F" --after fold >"$T/folded.ir"
try "$MOEC" opt "$T/built.ir" --pass fold
expect_same "opt does what the pipeline does" "$T/folded.ir" "$T/out"
"$MOEC" opt - --pass fold <"$T/built.ir" >"$T/out"
expect_same "opt of standard input" "$T/folded.ir" "$T/out"
"$MOEC" dump "$F" --after dce >"$T/dce.ir"
try "$MOEC" opt "$T/built.ir" --pass fold,dce
expect_same "two passes" "$T/dce.ir" "$T/out"
expect_output "dump of a layer" 'blk\.2\.' "$MOEC" dump "$F" --layer 2
check "of that alone" [ "$(grep -c 'blk\.[013]\.' "$T/out")" = 0 ]
expect_output "dump as a graph" '^digraph' "$MOEC" dump "$F" -o dot
if command -v dot >/dev/null; then
        expect_output "dump as a picture" '<svg' "$MOEC" dump "$F" -o svg --layer 0
else
        expect_error "dump as a picture, without graphviz" 11 'install graphviz' "$MOEC" dump "$F" -o svg
fi
expect_output "dump of Keys" '^k_experts_down_[0-9a-f]+  x[0-9]+  ' "$MOEC" dump "$F" -o keys
expect_output "dump of sources" '^#line ' "$MOEC" dump "$F" -o kernels
expect_output "dump of CUDA sources" '__global__.* k_experts_up_' "$MOEC" dump "$F" --target cuda:sm_90a -o kernels
check "with the templates' lines" grep -q '^#line 1 "templates/cuda/generic/experts_up' "$T/out"
check "with their facts" grep -q '^//   .*MOE_' "$T/out"

expect_output "verify" '^passed: 80 tokens, q8 activations' "$MOEC" verify "$F"
expect_output "verify f32, as JSON" '^\{"passed": true, "tokens": 5, "act": "f32"' "$MOEC" verify "$F" --act f32 --tokens 1,2,3,4,5 -o json
expect_output "verify with a cache of q8_0" '^passed: 80 tokens' "$MOEC" verify "$F" -ctk q8_0 -ctv q8_0
expect_output "and activations in f32" '^passed: 80 tokens, f32' "$MOEC" verify "$F" -ctk q8_0 -ctv f32 --act f32
mkdir -p "$T/near"
cat >"$T/near/pipeline.lua" <<'E'
local passes = { "fold", "dce", "experts grouped", "qmatmul", "fuse quantize", "layout panel", "order", "buffers" }
return { cpu = {
        { name = "decode", max_tok = 1, max_out = 1, passes = passes },
        { name = "near", max_tok = 16, max_seq_tok = 3, passes = passes },
        { name = "far", max_tok = 16, passes = passes },
        { name = "prefill", passes = passes },
} }
E
expect_output "verify of a phase for tokens near each other" 'near +routes pinned' "$MOEC" verify "$F" --templates "$T/near"
check "and of one for as many that are not" grep -q 'far  *routes pinned' "$T/out"
expect_output "verify over a text" '^passed: ' "$MOEC" verify "$F" -f <(head -c 400 tests/models/valid.txt)
mkdir -p "$T/over/templates/c/generic"
sed 's/exp8(-g)/exp8(g)/' templates/c/generic/glu_fn.m4 >"$T/over/templates/c/generic/glu_fn.m4"
expect_error "verify finds a wrong template" 5 'differs' "$MOEC" verify "$F" --templates "$T/over"
check "and names the launch" grep -Eq '^FAILED.*|blk\.0\.experts_up' "$T/out"

expect_status "logits" 0 "$MOEC" logits -m "$F" --tokens 1,2,3 -o "$T/cpu.f32"
check "of every position" [ "$(wc -c <"$T/cpu.f32")" = $((3 * 4096 * 4)) ]
"$MOEC" logits -m "$F" --tokens "[1, 2, 3]" -o - >"$T/out.f32"
expect_same "on standard output" "$T/cpu.f32" "$T/out.f32"
"$MOEC" logits -m "$F" --tokens 1,2,3 -b 1 -t 1 --target eval --act f32 -o "$T/eval.f32"
check "exact ones" [ "$(wc -c <"$T/eval.f32")" = $((3 * 4096 * 4)) ]
check "which differ by rounding" [ "$(cmp -l "$T/cpu.f32" "$T/eval.f32" | wc -l)" -gt 0 ]
for kept in f16 q8_0; do
        "$MOEC" logits -m "$F" --tokens 1,2,3 --target eval -ctk $kept -ctv $kept -o "$T/$kept.f32"
done
check "eval rounds keys and values, too" [ -s "$T/f16.f32" -a -n "$(cmp "$T/f16.f32" "$T/q8_0.f32")" ]
expect_error "more tokens than context" 2 '3 tokens, and the context holds 2' "$MOEC" logits -m "$F" --tokens 1,2,3 -c 2 -o "$T/x"

text='Über <|endoftext|> 東京 🙂 it'"'"'s 3.14'
printf '%s' "$text" | "$MOEC" tokenize -m "$F" --no-bos >"$T/ids"
check "tokenize" grep -Eq '^\[[0-9]+(, [0-9]+)*\]$' "$T/ids"
check "and back" [ "$("$MOEC" tokenize -m "$F" --decode <"$T/ids")" = "$text" ]
check "nothing is an empty array" [ "$(printf '' | "$MOEC" tokenize -m "$F" --no-bos)" = "[]" ]
check "which is nothing" [ -z "$(echo '[]' | "$MOEC" tokenize -m "$F" --decode)" ]
check "BOS" [ "$(printf '' | "$MOEC" tokenize -m "$F")" = "[4093]" ]
status=0
echo '[1, x]' | "$MOEC" tokenize -m "$F" --decode >"$T/out" 2>"$T/err" || status=$?
check "no array of ids" [ "$status" = 2 -a "$(grep -c 'not a JSON array' "$T/err")" = 1 ]
