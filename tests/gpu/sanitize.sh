#!/bin/bash
# compute-sanitizer's tools over a prompt and a few tokens of the demo model.
. tests/gpu/lib.sh
limit=300 # seconds each
tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /opt/cuda/bin/compute-sanitizer 2>/dev/null | head -n 1)
tools="memcheck racecheck initcheck synccheck"
if [ -z "$tool" ]; then
        for t in $tools; do skip "$t" "no compute-sanitizer"; done
        exit
fi
# A small context and steps of few tokens, as the tools are slow with memory; compiled before, as they are with NVRTC.
run=("$MOEC" run -m examples/fables.gguf --target cuda -c 256 -b 16 -n 4 -s 7 -p "Once upon a time there was a fox who lived in a wood. One day")
expect_status "without a tool" 0 "${run[@]}"
for t in $tools; do
        (
                more=() # synccheck keeps as many barriers in mind as it is told
                [ "$t" != synccheck ] || more=(--num-cuda-barriers 4096)
                timeout -k 5 $limit "$tool" --tool "$t" "${more[@]}" --report-api-errors no --print-limit 10 --error-exitcode 99 "${run[@]}" >"$T/$t" 2>&1 </dev/null
                echo $? >"$T/$t.rc"
        ) &
done
wait
for t in $tools; do
        rc=$(cat "$T/$t.rc")
        case $rc in
        0) check "$t" grep -Eq 'SUMMARY: 0 (errors|hazards)' "$T/$t" ;;
        124 | 137) not_ok "$t" "not done after $limit s" "$(tail -n 5 "$T/$t")" ;;
        *) not_ok "$t" "status $rc" "$(head -n 60 "$T/$t")" ;;
        esac
done
