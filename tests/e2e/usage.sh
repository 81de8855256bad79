#!/bin/bash
# Help, bad usage, completion, and the man page, which must know every option.
. tests/e2e/lib.sh
F=examples/fables.gguf
commands=$("$MOEC" --help | awk '/^  [a-z]+ / { print $1 }')

expect_output "--version" '^moec [0-9]+\.[0-9]+\.[0-9]+$' "$MOEC" --version
expect_output "--help lists commands" '^  perplexity ' "$MOEC" --help
check "eleven commands" [ "$(wc -w <<<"$commands")" -eq 11 ]
for c in $commands; do
        expect_output "$c --help" "^usage: .* $c " "$MOEC" "$c" --help
        expect_output "$c -h" "^  -h, --help " "$MOEC" "$c" -h
done
"$MOEC" run --help >"$T/help" 2>"$T/err"
check "help leaves stderr alone" [ ! -s "$T/err" ]

# One line says what, one how to learn more; nothing on stdout.
bad() { # NAME REGEX ARG...
        local name=$1 say=$2
        shift 2
        expect_error "$name" 2 "$say" "$MOEC" "$@"
        check "$name: two lines, a hint" [ "$(wc -l <"$T/err") $(grep -c "^Try '.* --help'.$" "$T/err") $(wc -c <"$T/out")" = "2 1 0" ]
}
bad "no command" 'which command'
bad "unknown command" 'unknown command tun' tun
bad "unknown option before a command" 'unknown option --tun' --tun
bad "unknown option" 'unknown option --tun' run -m "$F" --tun
bad "another command's option" 'unknown option --embed' run -m "$F" --embed
bad "no file" 'which file' run
bad "two files" 'another by itself' run -m "$F" "$F"
bad "an argument too many" 'one argument too many' inspect "$F" "$F"
bad "missing value" '-n needs a value' run -m "$F" -n
bad "not a number" '-n x: give a whole number' run -m "$F" -n x
bad "trailing letters" '-n 12x: give' run -m "$F" -n 12x
bad "number too small" '-n -2: give a whole number, at least -1' run -m "$F" -n -2
bad "number too large" '-c 99999999999: give' run -m "$F" -c 99999999999
bad "not finite" '--temp nan: give a number' run -m "$F" --temp nan
bad "top-p" '--top-p 0: ' run -m "$F" --top-p 0
bad "min-p" '--min-p 2: ' run -m "$F" --min-p=2
bad "repeat-penalty" '--repeat-penalty 0: ' run -m "$F" --repeat-penalty 0
bad "seed" '--seed 1x: ' run -m "$F" -s 1x
bad "value of a flag" 'takes no value' run -m "$F" --ignore-eos=1
bad "unknown word" '--act q9: give one of q8\|f32' run -m "$F" --act q9
bad "a word's beginning" '--act q: give one of' run -m "$F" --act q
bad "unknown target" 'target tpu: there are' run -m "$F" --target tpu -p a
bad "two prompts" 'another by -f' run -m "$F" -p a -f Makefile
bad "compile without -o" 'where to' compile "$F"
bad "opt without --pass" 'which passes' opt tests/ir/qwen3moe.ir
bad "opt of an unknown pass" 'no pass tun' opt tests/ir/qwen3moe.ir --pass tun
bad "dump after an unknown pass" 'pass tun is not in' dump "$F" --after tun
bad "dump of an unknown phase" 'phase tun' dump "$F" --phase tun
bad "logits without tokens" 'which tokens' logits -m "$F" -o -
bad "logits of bad tokens" 'not a list of token ids, from ",2" on' logits -m "$F" --tokens 1,,2 -o -
bad "logits outside of the vocabulary" 'token 4096: the vocabulary has 4096' logits -m "$F" --tokens 1,4096 -o -
bad "verify with eval" 'interpreter compiles nothing' verify "$F" --target eval
bad "perplexity without a text" 'over which text' perplexity -m "$F"
bad "nothing to bench" 'nothing to measure' bench -m "$F" -p 0 -n 0
bad "a trace of two tests" 'a trace is of one test' bench -m "$F" --trace "$T/x"
bad "cache without a verb" 'cache what' cache
bad "cache with an unknown verb" 'cache tun: there are' cache tun
bad "cache prune without a size" 'give the size to keep' cache prune

"$MOEC" --completion-bash >"$T/completion"
check "completion is bash" bash -n "$T/completion"
complete_words() { # WORD...: what completes the last
        bash --norc -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _moec; echo "${COMPREPLY[*]}"' "$T/completion" moec "$@"
}
check "completes commands" [ "$(complete_words per)" = perplexity ]
check "completes options" [ "$(complete_words run --ignore)" = --ignore-eos ]
check "completes words" [ "$(complete_words compile --emit '')" = "exe plan" ]
check "completes verbs" [ "$(complete_words cache e)" = explain ]
check "leaves files to bash" [ -z "$(complete_words run -m '')" ]

for c in $commands; do "$MOEC" "$c" --help; done | awk '/^  -|^      --/' | grep -oE -e '^ +(-[a-z]+, )?--[a-z-]+' | tr -d ' ' | tr , '\n' |
        sort -u >"$T/options"
check "there are options" [ "$(wc -l <"$T/options")" -gt 50 ]
sed 's/\\-/-/g' docs/moec.1 >"$T/man"
missing=$(while read -r o; do grep -qE -e "Fl ${o#-}( |\$)" "$T/man" || echo "$o"; done <"$T/options")
check "the man page has every option; missing: $missing" [ -z "$missing" ]
missing=$(for c in $commands; do grep -qE -e "^\.Ss $c\$" "$T/man" || echo "$c"; done)
check "the man page has every command; missing: $missing" [ -z "$missing" ]
if command -v mandoc >/dev/null; then
        check "mandoc finds no fault" mandoc -Tlint -Wwarning docs/moec.1
else
        skip "mandoc finds no fault" "mandoc is not installed"
fi
