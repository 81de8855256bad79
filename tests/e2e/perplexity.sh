#!/bin/bash
# Perplexity over the whole of valid.txt: within 0.5 % of what llama.cpp measures of the same files.
. tests/e2e/lib.sh
export XDG_CACHE_HOME=${LOG:-$T}/cache TRY_TIMEOUT=600
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; exit !(d > -0.005 && d < 0.005) }'; }
while read -r file want; do
        try "$MOEC" perplexity -m "$file" -f tests/models/valid.txt -c 512
        got=$(sed -n 's/^Final estimate: PPL = \([0-9.]*\) .*/\1/p' "$T/out")
        check "$file: $got, llama.cpp $want" near "${got:-0}" "$want"
done <<'EOT'
examples/fables.gguf 30.418
tests/models/fables-Q2_K.gguf 33.600
EOT
head -c 3000 tests/models/valid.txt >"$T/text"
try "$MOEC" perplexity -m examples/fables.gguf -f "$T/text" -c 64
cp "$T/out" "$T/steps"
try "$MOEC" perplexity -m examples/fables.gguf -f "$T/text" -c 64 -o json
check "as JSON" grep -Eq '^\{"ppl": [0-9.]+, "error": [0-9.]+, "window": 64, ' "$T/out"
check "the same figure" [ "$(sed 's/.*"ppl": \([0-9]*\.[0-9][0-9]\).*/\1/' "$T/out")" = "$(sed -n 's/^Final.*= \([0-9]*\.[0-9][0-9]\).*/\1/p' "$T/steps")" ]
check "a running figure for each window" [ "$(grep -o '\[[0-9]*\]' "$T/steps" | wc -l)" = "$(sed 's/.*"windows": \([0-9]*\).*/\1/' "$T/out")" ]
expect_error "a text too short" 2 'two windows of 4000' "$MOEC" perplexity -m examples/fables.gguf -f "$T/text" -c 4000
