#!/bin/bash
# What bench shows of a device.
. tests/gpu/lib.sh
F=examples/fables.gguf
for test in '-p 64 -n 0' '-p 0 -n 8'; do
        # shellcheck disable=SC2086
        try "$MOEC" bench -m "$F" --target cuda $test -r 2 -o json --profile --trace "$T/trace.json"
        expect_json "bench $test" "$T/out"
        expect_json "its trace" "$T/trace.json"
        check "every launch" [ "$(grep -c '"ph":"X"' "$T/trace.json")" = \
                "$(grep -o '"calls": [0-9]*' "$T/out" | awk '{ n += $2 } END { print n + 0 }')" ]
        awk -v RS=, '$1 == "\"ns\":" { all += $2 } $1 == "\"avg_ns\":" { run = $2 } $1 == "\"read_bandwidth\":" { read = $2 }
                END { print all, run, read; exit !(all > 0 && run > 0 && read > 1e10) }' "$T/out" >"$T/sum" &&
                ok "its times" || report "its times" "of launches, of the run, read bandwidth: $(cat "$T/sum")"
done
try "$MOEC" bench -m "$F" --target cuda --batched -npp 16 -ntg 4 -npl 1,3,8 -o csv
check "batched" [ "$(wc -l <"$T/out")" = 4 ]
