#!/bin/bash
# Every model, launch by launch and by its logits, against the interpreter; one with a past that many blocks share.
. tests/gpu/lib.sh
while read -r f; do
        for act in q8 f32; do
                expect_status "$(basename "$f"), $act" 0 "$MOEC" verify "$f" --target cuda --act $act
        done
done <<<"$MODELS"
head -c 1600 tests/models/valid.txt >"$T/text"
expect_status "a long past" 0 "$MOEC" verify examples/fables.gguf --target cuda -c 1024 -f "$T/text"
