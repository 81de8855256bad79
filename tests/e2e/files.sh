#!/bin/bash
# Files that are missing, damaged, of something unsupported, or not what a plan was made for: exit 3 to 6, 9, 10, 12.
. tests/e2e/lib.sh
export XDG_CACHE_HOME=${LOG:-$T}/cache
F=examples/fables.gguf

expect_error "missing file" 3 'nofile: No such file' "$MOEC" run -m "$T/nofile" -p a
expect_error "missing prompt file" 3 'noprompt: No such file' "$MOEC" run -m "$F" -f "$T/noprompt"
expect_error "missing text" 3 'notext: No such file' "$MOEC" perplexity -m "$F" -f "$T/notext"
expect_error "missing graph" 3 'no.ir: No such file' "$MOEC" opt "$T/no.ir" --pass fold
expect_error "a folder" 2 'is a directory' "$MOEC" run -m "$T" -p a

expect_error "not a GGUF" 4 'not a GGUF' "$MOEC" run -m Makefile -p a
head -c 100000 "$F" >"$T/short.gguf"
expect_error "a GGUF cut in its tensor table" 4 'short.gguf: ' "$MOEC" run -m "$T/short.gguf" -p a
head -c 5000000 "$F" >"$T/half.gguf"
expect_error "a GGUF cut in its data" 4 'half.gguf: .*tensor' "$MOEC" run -m "$T/half.gguf" -p a
: >"$T/empty"
expect_error "an empty file" 4 'empty' "$MOEC" run -m "$T/empty" -p a
expect_error "a damaged graph" 4 'Makefile:[0-9]+' "$MOEC" opt Makefile --pass fold
printf 'a\0b' >"$T/nul.ir"
expect_error "a graph with NUL" 4 'NUL' "$MOEC" opt "$T/nul.ir" --pass fold

# Words of the same length, so that nothing else moves.
LC_ALL=C sed 's/qwen3moe/qwen9moe/g' "$F" >"$T/arch.gguf"
expect_error "unknown architecture" 6 'qwen9moe.*qwen3moe' "$MOEC" run -m "$T/arch.gguf" -p a
expect_output "inspect says why" 'qwen9moe' "$MOEC" inspect "$T/arch.gguf"
pre=$(grep -abo 'tokenizer.ggml.pre' "$F" | cut -d: -f1)
# key, u32 type, u64 length, then the name
{
        head -c $((pre + 18 + 12)) "$F"
        printf 'qwen9'
        tail -c +$((pre + 18 + 12 + 5 + 1)) "$F"
} >"$T/token.gguf"
expect_error "unknown tokenizer" 6 'qwen9' "$MOEC" run -m "$T/token.gguf" -p a
expect_status "which only text needs" 0 "$MOEC" logits -m "$T/token.gguf" --tokens 1,2 -o "$T/logits"

# The header of a model, ending where its data would start, is a shape file.
try "$MOEC" inspect "$F" -o json
head -c "$(awk -F '[:,]' '/^  "file_bytes"/ { a = $2 } /^  "weight_bytes"/ { b = $2 } END { print a - b }' "$T/out")" "$F" >"$T/shape.gguf"
expect_output "inspect of a shape file" '"shape_file": true' "$MOEC" inspect "$T/shape.gguf" -o json
expect_error "a shape file has no weights to run" 2 'random.weights' "$MOEC" run -m "$T/shape.gguf" -p a
expect_output "but random ones will do" '"avg_ts"' "$MOEC" bench -m "$T/shape.gguf" --random-weights -p 4 -n 2 -r 1 -o json
expect_error "nor any to embed" 2 'no weights to embed' "$MOEC" compile "$T/shape.gguf" --embed -o "$T/x"
expect_error "nor to interpret" 2 'no weights to interpret' "$MOEC" logits -m "$T/shape.gguf" --target eval --tokens 1 -o "$T/x"

expect_status "a plan" 0 "$MOEC" compile "$F" --emit plan -o "$T/plan"
expect_error "another model's file" 5 'fables-Q2_K.gguf' "$MOEC" run -m "$T/plan" --weights tests/models/fables-Q2_K.gguf -p a
expect_status "its own, elsewhere" 0 "$MOEC" run -m "$T/plan" --weights "$PWD/examples/../$F" -p a -n 1
expect_error "a missing one" 3 'nofile' "$MOEC" run -m "$T/plan" --weights "$T/nofile" -p a
head -c -1000 "$T/plan" >"$T/shortplan"
expect_error "a plan cut short" 4 'shortplan' "$MOEC" run -m "$T/shortplan" -p a
{
        head -c 20000 "$T/plan"
        printf 'xxxx'
        tail -c +20005 "$T/plan"
} >"$T/badplan"
expect_error "a plan that was changed" 4 'badplan' "$MOEC" run -m "$T/badplan" -p a
expect_error "what a plan has settled" 2 '--act says how' "$MOEC" run -m "$T/plan" --act f32 -p a
expect_error "a KV type that there is not" 2 'f16|f32|q8_0' "$MOEC" run -m examples/fables.gguf -ctk q8 -p a
expect_error "a plan's KV type" 2 'keys kept as f16' "$MOEC" run -m "$T/plan" -ctk f32 -p a
expect_error "a plan for the interpreter" 2 'needs the GGUF' "$MOEC" run -m "$T/plan" --target eval -p a
expect_error "a plan to compile" 2 'compiled already' "$MOEC" compile "$T/plan" -o "$T/x"
expect_error "a plan to dump" 2 'give the GGUF' "$MOEC" dump "$T/plan"
expect_error "a plan to verify" 2 'give the GGUF' "$MOEC" verify "$T/plan"
expect_output "inspect of a plan" 'x86-64-v3' "$MOEC" inspect "$T/plan"

expect_error "no such device" 9 'no CUDA.*use --target cpu' "$MOEC" run -m "$F" --target cuda -p a
expect_error "too much context with keys of q8_0" 10 'KV cache 42.00 GiB ' "$MOEC" run -m "$F" -c 16777216 -ctk q8_0 -ctv f32 -p a
expect_error "too much context for the memory" 10 'weights .* KV cache .* = ' "$MOEC" run -m "$F" -c 16000000 -p a
cp "$F" "$T/own.gguf"
expect_error "compile over the model" 12 'not overwritten' "$MOEC" compile "$T/own.gguf" -o "$T/own.gguf"
ln "$T/own.gguf" "$T/link.gguf"
expect_error "compile over the model by another name" 12 'not overwritten' "$MOEC" compile "$T/own.gguf" -o "$T/link.gguf"
expect_same "the model is as it was" "$F" "$T/own.gguf"
