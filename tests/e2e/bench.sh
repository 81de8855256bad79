#!/bin/bash
# bench: tables, CSV and JSON of tests, of sequences that decode together, and of where the time goes; its trace.
. tests/e2e/lib.sh
F=examples/fables.gguf

try "$MOEC" bench -m "$F" -p 8,16 -n 4 -d 0,8 -r 2
check "a table" [ "$(grep -c '^| Fables' "$T/out")" = 6 ]
for t in pp8 pp16 tg4 'pp8 @ d8' 'tg4 @ d8'; do check "$t" grep -q " $t | .* ± " "$T/out"; done
check "a share of the roofline" grep -Eq 'tg4 \|.* [0-9.]+ % \|$' "$T/out"
check "operations a second" grep -Eq 'pp8 \|.* [0-9.]+ [GT]FLOP/s \|$' "$T/out"
try "$MOEC" bench -m "$F" -p 0 -n 4 -r 2 -o csv --profile
check "a profile as CSV" grep -Eq '^tg4 at depth 0,k_experts_up_[0-9a-f]+,"experts_up ARG_out0=0 .*",16,[0-9]+,[0-9]+,[0-9]+,[0-9.]+$' "$T/err"
check "CSV" [ "$(wc -l <"$T/out") $(head -n 1 "$T/out" | tr , '\n' | wc -l)" = "2 24" ]

try "$MOEC" bench -m "$F" -p 8 -n 0 -r 3 -o json --profile --trace "$T/trace.json"
expect_json "JSON" "$T/out"
check "its samples" [ "$(grep -o '"samples_ns": \[[0-9]*, [0-9]*, [0-9]*\]' "$T/out" | wc -l)" = 1 ]
# 5.7 M values a token in the layers and 1 M in the output matrix, the last token's alone
awk -v RS=, '{ gsub(/[^a-z_0-9.:]/, ""); split($0, f, ":"); if (!(f[1] in v)) v[f[1]] = f[2] }
        END {
                n = (v["params_per_token"] - 4096 * 256) * 8 + 4096 * 256
                r = v["flop_per_s"] * v["avg_ns"] * 1e-9 / (2 * n)
                exit !(v["roofline"] == "null" && r > 0.999 && r < 1.001)
        }' "$T/out" >"$T/check" && ok "operations of a prompt" || not_ok "operations of a prompt" "$(cat "$T/out")"
check "a profile in JSON, with whole Keys" grep -q '"key": "experts_up ARG_out0=0 .* F=256", "calls": 4, "ns": ' "$T/out"
check "and no table" [ "$(grep -c ceiling "$T/err")" = 0 ]
expect_json "a trace" "$T/trace.json"
check "with every launch" [ "$(grep -c '"ph":"X"' "$T/trace.json")" = \
        "$(grep -o '"calls": [0-9]*' "$T/out" | awk '{ n += $2 } END { print n }')" ]
check "its layer, its operation, its bytes" grep -Eq '"name":"blk.3.experts_up","cat":"experts_up",.*"bytes":[0-9]+,"GB/s":[0-9.]+' "$T/trace.json"

try "$MOEC" bench -m "$F" -p 0 -n 4 -r 2 --profile
check "a profile: a line a kernel" grep -Eq '^ +16 +[0-9.]+ +[0-9.]+ +[0-9.]+% .* experts_up Q4_K Q4_K E=16 KTOP=4 K=256 F=256$' "$T/err"
awk '/ all$/ { all = $3; share = $4 } / [A-Za-z_]+=/ { n += $3 } /outside of kernels/ { rest = $1; run = $3 }
        END { d = all - n; e = run - all - rest; exit !(share == "100.0%" && d * d < 1e-4 && e * e < 1e-4) }' "$T/err" &&
        ok "adds up" || not_ok "adds up" "$(cat "$T/err")"

try "$MOEC" bench -m "$F" --batched -npp 8,5 -ntg 4 -npl 1,3
check "batched: a table" [ "$(sed 's/[ 0-9.]*$//' "$T/out" | awk -F '|' 'NR == 1 || NR > 2 { print $2 + 0, $3 + 0, $4 + 0, $5 + 0 }' |
        tr '\n' ,)" = "0 0 0 0,8 4 1 12,8 4 3 36,5 4 1 9,5 4 3 27," ]
check "its columns" grep -Eq '^\| +PP \| +TG \| +B \| +N_KV \| +T_PP s \| +S_PP t/s \| +T_TG s \| +S_TG t/s \| +T s \| +S t/s \|$' "$T/out"
try "$MOEC" bench -m "$F" --batched -npp 8 -ntg 4 -npl 3,5 -b 4 -o csv
# S is N_KV / T, and so on; 8 * 3 tokens in steps of at most 5
awk -F , 'function same(a, b) { return a > b * 0.999 && a < b * 1.001 }
        NR > 1 { ok += $4 == $3 * 12 && same($6 * $5, $3 * 8) && same($8 * $7, $3 * 4) && same($10 * $9, $4) }
        END { exit !(ok == 2 && NF == 10) }' "$T/out" && ok "CSV: the speeds" || not_ok "CSV: the speeds" "$(cat "$T/out" "$T/err")"
try "$MOEC" bench -m "$F" --batched -npp 4 -ntg 2 -npl 2 -o json --profile
expect_json "batched as JSON" "$T/out"
check "with a profile" grep -q '"speed_tg": .*"profile": \[{"kernel": "k_' "$T/out"
expect_error "no sequences" 2 '-npl 0: give 1 to' "$MOEC" bench -m "$F" --batched -npl 0
expect_error "no prompt" 2 '-npp 0: a prompt has' "$MOEC" bench -m "$F" --batched -npp 0
expect_error "no list" 2 '-ntg x: give a number' "$MOEC" bench -m "$F" --batched -ntg x
expect_error "no trace" 2 'a trace is of one test' "$MOEC" bench -m "$F" --batched --trace "$T/x"
