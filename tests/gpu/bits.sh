#!/bin/bash
# The same bits in two runs: logits of a prompt, and what is drawn from them token by token.
. tests/gpu/lib.sh
ids=$(seq -s , 3 53 4000)
while read -r f; do
        n=$(basename "$f")
        for i in 1 2; do
                expect_status "$n: logits, run $i" 0 "$MOEC" logits -m "$f" --target cuda --tokens "$ids" -o "$T/logits$i"
                try "$MOEC" run -m "$f" --target cuda -p "Once upon a time" -n 60 -s 7 --ignore-eos
                mv "$T/out" "$T/text$i"
        done
        expect_same "$n: the same logits" "$T/logits1" "$T/logits2"
        expect_same "$n: the same text" "$T/text1" "$T/text2"
        check "$n: some text" [ "$(wc -c <"$T/text1")" -gt 100 ]
done <<<"$MODELS"
