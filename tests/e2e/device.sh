#!/bin/bash
# CUDA's failures as a user of the command meets them: each says what to do and has its exit code, nothing hangs, and files and
# cache are as they were. The driver and NVRTC are fakes (tests/fake), whose kernels do nothing.
. tests/e2e/lib.sh
F=examples/fables.gguf
export LD_LIBRARY_PATH=$T/lib MOEC_NVRTC=$PWD/${B:-build}/tests/fake/nvrtc.so TRY_TIMEOUT=60
case ${B:-build} in /*) MOEC_NVRTC=$B/tests/fake/nvrtc.so ;; esac
mkdir "$T/lib"
ln -s "${MOEC_NVRTC%nvrtc.so}cuda.so" "$T/lib/libcuda.so.1"

# NAME STATUS REGEX FAKE_CUDA: of a run on the device
run() {
        expect_error "$1" "$2" "$3" env FAKE_CUDA="$4" "$MOEC" run -m "$F" --target cuda -p a -n 4
}
cached() { (cd "$XDG_CACHE_HOME/moec" && sha256sum -- * | sort); }

try "$MOEC" bench -m "$F" --target cuda -p 4 -n 0 -r 1
check "the fake device works" [ "$status" = 0 ]
cached >"$T/cache.before"
check "its plan is in the cache" [ -s "$T/cache.before" ]

run "a driver too old" 9 'is for CUDA 11.8, but 12.0 or newer is needed; install a newer driver, or use --target cpu' version=11080
run "a driver that lacks something" 9 'has no cuLaunchKernelEx.*install a newer driver' missing=cuLaunchKernelEx
run "no device" 9 'sees no device; use --target cpu' devices=0
run "a device too old" 9 'compute capability 7.5, but the kernels need 8.0 or newer; use --target cpu' 'major=7 minor=5'
run "code that the driver is too old for" 9 'install a newer driver, or compile' 'fails=cuModuleLoadData rc=209'
run "no memory to load" 10 'out of device memory: .*nvidia-smi' 'fails=cuMemAlloc after=1 rc=2'
run "no memory to run" 10 'out of device memory: launching a graph.*nvidia-smi' 'fails=cuGraphLaunch rc=2'
run "no memory for a graph" 10 'out of device memory: .*nvidia-smi' 'fails=cuGraphInstantiate rc=2'
run "a launch that fails" 8 'launching a graph: unspecified launch failure.*start again' 'fails=cuGraphLaunch rc=719'
for after in 6 60 120; do
        run "a device lost at call $after" '8' 'start again, and if that fails too, see what nvidia-smi says' "lost=$after rc=719"
done
expect_error "a device lost in bench" 8 'launching a graph: .*start again' \
        env FAKE_CUDA="fails=cuGraphLaunch after=3 rc=719" "$MOEC" bench -m "$F" --target cuda -p 4 -n 0 -r 8

# NVRTC
printf 'mine' >"$T/out.plan"
# NAME STATUS REGEX TARGET COMMAND...: of a compilation to $T/out.plan
compile() {
        local name=$1 want=$2 say=$3 target=$4
        shift 4
        expect_error "$name" "$want" "$say" "$@" "$MOEC" compile "$F" --target "$target" --emit plan -o "$T/out.plan"
        check "$name: the file is as it was" [ "$(cat "$T/out.plan")" = mine ]
}
compile "no NVRTC" 11 'MOEC_NVRTC: ' cuda:sm_90a env MOEC_NVRTC=/nowhere
compile "NVRTC too old" 11 'NVRTC 11.0 is too old: install CUDA 12 or newer' cuda:sm_90a env FAKE_NVRTC=major=11
compile "an architecture that it does not know" 11 'does not know sm_120a; it knows sm_75 sm_80 sm_90. Install a newer CUDA' cuda:sm_120a env
compile "an architecture too old for the kernels" 9 'need sm_80 or newer' cuda:sm_75 env
compile "no architecture" 2 'is no architecture' cuda:gfx942 env
compile "a kernel that NVRTC refuses" 11 'failed on kernel k_route.* for sm_80: line 7: no such thing' cuda:sm_80 env FAKE_NVRTC=fails=k_route
kept=$(sed -n 's/^The sources are kept in //p' "$T/err")
check "its source is kept" [ -n "$(find "$kept" -name 'k_route*.cu')" ]
rm -r "$kept"
check "nothing left beside the file" [ -z "$(find "$T" -name 'out.plan.*')" ]
expect_output "NVRTC too old for the device: PTX" ' kernels' env FAKE_CUDA='major=12' "$MOEC" compile "$F" --target cuda --emit plan -o "$T/ptx.plan"
expect_output "of the newest that it knows" 'needs .*compute_90' "$MOEC" inspect "$T/ptx.plan"
check "a plan runs without NVRTC" env MOEC_NVRTC=/nowhere "$MOEC" bench -m "$T/ptx.plan" -p 4 -n 0 -r 1

# A plan elsewhere
expect_output "a plan for two" ' kernels' "$MOEC" compile "$F" --target cuda:sm_80,sm_90a --emit plan -o "$T/two.plan"
for v in 'major=7 minor=5' 'major=10' version=11080 devices=0; do
        expect_error "a plan where there is $v" 9 '(use|target) ?-?-?(target )?(cpu|cuda)|newer driver' \
                env FAKE_CUDA="$v" "$MOEC" run -m "$T/two.plan" -p a -n 2
done
expect_error "a plan without a driver" 9 'no CUDA driver here' env LD_LIBRARY_PATH= "$MOEC" run -m "$T/two.plan" -p a

cached | grep -Fxf "$T/cache.before" >"$T/cache.after"
expect_same "the cache is as it was" "$T/cache.before" "$T/cache.after"
check "with nothing half done" [ -z "$(find "$XDG_CACHE_HOME" -name '*.tmp*')" ]
