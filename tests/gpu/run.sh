#!/bin/bash
# tests/gpu/run.sh BUILD: what needs a CUDA device, with the programs in BUILD, which `make check-gpu` makes before. The machine
# needs the driver, NVRTC and m4. MODELS=DIR: the models there, too. Status 9: no device.
cd "$(dirname "$0")/../.." || exit 1
export B=${1:-build}
if [ ! -x "$B/moec" ] || [ ! -x "$B/tests/gpu/shapes" ]; then
        echo "check-gpu: $B/moec or $B/tests/gpu/shapes is not there; make check-gpu makes them" >&2
        exit 3
fi
export CACHE=${CACHE:-$B/gpu/cache} # of kernels, for the next time
mkdir -p "$CACHE" || exit 7
env -u MOEC_CACHE_DIR XDG_CACHE_HOME="$CACHE" "$B/moec" run -m examples/fables.gguf --target cuda -p "A fox" -n 1 >/dev/null
rc=$?
if [ $rc -ne 0 ]; then
        echo "check-gpu: no model runs on a CUDA device here" >&2
        exit $rc
fi
JOBS=${JOBS:-4} exec tests/run.sh "$B/tests/gpu/shapes" tests/gpu/sanitize.sh tests/gpu/verify.sh tests/gpu/bits.sh tests/gpu/look.sh
