#!/bin/bash
# Executables for each instruction set say the same as the interpreter's greedy choice. Slow: without AVX2 the compiler has much to do.
. tests/e2e/lib.sh
F=examples/fables.gguf
same=(-p "Once upon a time" -n 12 --temp 0)
export TRY_TIMEOUT=900
try "$MOEC" run -m "$F" "${same[@]}" --target eval
cp "$T/out" "$T/text"
check "the interpreter" grep -q '^Once upon a time.' "$T/text"
for march in x86-64 x86-64-v3 native; do
        expect_status "compile for $march" 0 "$MOEC" compile "$F" --march $march -o "$T/$march"
        try "$T/$march" "${same[@]}"
        expect_same "$march says the same" "$T/text" "$T/out"
done
