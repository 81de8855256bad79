#!/bin/bash
# run: prompts of every kind, when it stops, what it prints.
. tests/e2e/lib.sh
export XDG_CACHE_HOME=${LOG:-$T}/cache
F=examples/fables.gguf
run() { try "$MOEC" run -m "$F" "$@"; }

run -p "" -n 4 -s 1
check "an empty prompt starts from BOS" [ "$status" = 0 -a "$(grep -c '^prompt: 1 tokens' "$T/err")" = 1 ]
run -n 4 -s 1
check "so does none" grep -q '^prompt: 1 tokens' "$T/err"
# key, u32 type, then the bool
bos=$(grep -abo 'tokenizer.ggml.add_bos_token' "$F" | cut -d: -f1)
if [ -n "$bos" ]; then
        { head -c $((bos + 28 + 4)) "$F"; printf '\0'; tail -c +$((bos + 28 + 4 + 2)) "$F"; } >"$T/nobos.gguf"
        expect_error "an empty prompt without BOS" 2 'prompt is empty, and the model has no BOS' "$MOEC" run -m "$T/nobos.gguf" -p ""
        expect_status "some text will do" 0 "$MOEC" run -m "$T/nobos.gguf" -p a -n 1
else
        not_ok "the demo model says whether BOS is added"
fi

expect_error "a prompt longer than the context" 2 'prompt has [0-9]+ tokens, the context 4;' "$MOEC" run -m "$F" -c 4 -p "one two three four five six"
run -c 16 -n -1 --ignore-eos -p "Once upon a time"
check "until the context is full" grep -q '^stopped: the context of 16 tokens is full' "$T/err"
check "that many tokens" [ "$(awk '/^prompt:/ { p = $2 } /^decode:/ { d = $2 } END { print p + d }' "$T/err")" = 16 ]

run -p "Once upon a time" -n 0
check "-n 0 evaluates the prompt" [ "$status" = 0 -a "$(cat "$T/out")" = "Once upon a time" ]
check "-n 0 generates nothing" grep -q '^decode: 0 tokens' "$T/err"
run -p "Once upon a time" -n 1
check "-n 1 takes no further step" grep -q '^decode: 0 tokens' "$T/err"

run -p $'a\xff\xc3(\xe2\x82z' -n 3 --temp 0
check "invalid UTF-8 is taken" [ "$status" = 0 ]
check "and shown as valid" iconv -f UTF-8 -t UTF-8 -o /dev/null "$T/out"
printf 'a\377\303(\342\202z\0b' | "$MOEC" tokenize -m "$F" --no-bos >"$T/ids"
"$MOEC" tokenize -m "$F" --decode <"$T/ids" >"$T/back"
printf 'a\377\303(\342\202z\0b' >"$T/bytes"
expect_same "byte for byte" "$T/bytes" "$T/back"

printf 'Once upon a time\n' >"$T/prompt"
run -p "Once upon a time" -n 20 -s 7
cp "$T/out" "$T/text"
run -f "$T/prompt" -n 20 -s 7
expect_same "-f FILE" "$T/text" "$T/out"
"$MOEC" run -m "$F" -p - -n 20 -s 7 <"$T/prompt" >"$T/out" 2>"$T/err"
expect_same "-p -" "$T/text" "$T/out"
"$MOEC" run -m "$F" -f - -n 20 -s 7 <"$T/prompt" >"$T/out" 2>"$T/err"
expect_same "-f -" "$T/text" "$T/out"
run -p "Once upon a time" -n 20 -s 8
check "another seed, another text" [ "$(cat "$T/out")" != "$(cat "$T/text")" ]
check "the seed is printed" grep -q '^seed: 8$' "$T/err"
run -p "Once upon a time" -n 20
seed=$(awk '/^seed:/ { print $2 }' "$T/err")
cp "$T/out" "$T/random"
run -p "Once upon a time" -n 20 -s "$seed"
expect_same "a random seed, given again" "$T/random" "$T/out"
run -p "Once upon a time" -n 20 -s 7 --no-display-prompt
check "--no-display-prompt" [ "Once upon a time$(cat "$T/out")" = "$(cat "$T/text")" ]

for t in 1 2 3; do
        run -p "The king said to his daughter" -n 40 --temp 0 -s 1 -t $t
        cp "$T/out" "$T/threads$t"
done
expect_same "the same on one thread and two" "$T/threads1" "$T/threads2"
expect_same "and on three" "$T/threads1" "$T/threads3"
seq -f 'The king had %g daughters.' 200 | head -c 3000 >"$T/long"
run -f "$T/long" -n 8 --temp 0
cp "$T/out" "$T/text"
check "a prompt of more than one step" [ "$(awk '/^prompt:/ { print $2 }' "$T/err")" -gt 512 ]
run -f "$T/long" -n 8 --temp 0 -t 1
expect_same "the same on one thread" "$T/text" "$T/out"

# The model ends its stories itself.
run -p "And they lived happily ever after." -n 2000 -s 3
check "stops at an end token" [ "$(awk '/^decode:/ { print $2 }' "$T/err")" -lt 1500 ]
run -p "The end.<|endoftext|>" -n 3 --temp 0 -o json
check "a special token in the prompt is one" grep -q '"prompt_tokens": [1-6],' "$T/out"
check "-o json ends with one line of JSON" grep -Eq '^\{"target": "cpu .*", "seed": [0-9]+, .*"stop": "(limit|end)"\}$' <(tail -n 1 "$T/out")

run -p "Once upon a time" -n 10 --temp 0 --target eval
check "the interpreter runs, too" grep -q '^target: eval' "$T/err"
run -p "Once upon a time" -n 10 --temp 0 --act f32
check "so do f32 activations" [ "$status" = 0 ]
run -p "Once upon a time" -n 10 --temp 0 -ctk f32 -ctv f32
check "and an f32 cache" [ "$status" = 0 ]
"$MOEC" run -m "$F" -p a -n 2 >/dev/full 2>"$T/err"
check "a full disk behind stdout" [ $? = 7 -a "$(grep -c 'cannot write' "$T/err")" = 1 ]
