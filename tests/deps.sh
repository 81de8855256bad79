#!/bin/sh
# tests/deps.sh [build] [check]: installs, with apt-get, those packages of the named groups that are missing. Says nothing
# when none is.
set -eu
list() {
        cat <<'EOT'
build gcc                the C compiler, which moec needs to compile models too
build libc6-dev          the C library's headers
build m4                 expands the kernel templates
build liblua5.4-dev      architectures, pipelines and tuning tables are Lua
build libpcre2-dev       pre-tokenizers are regular expressions
build libxxhash-dev      hashes of files, keys and plans
build libcmocka-dev      the unit tests
build g++                runs the CUDA kernels on the CPU, in tests
check clang              the second compiler
check libclang-rt-dev    its sanitizers and libFuzzer
check clang-format-14    the one version that the format is defined by
check cppcheck           static analysis
check valgrind           uninitialised memory
check mandoc             checks the man page
check graphviz           checks the graphs that moec dumps
EOT
}
missing=
for group in "$@"; do
        for p in $(list | awk -v g="$group" '$1 == g { print $2 }'); do
                dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
        done
done
[ -n "$missing" ] || exit 0

as=
[ "$(id -u)" -eq 0 ] || as=sudo
if ! command -v apt-get >/dev/null || { [ "$as" ] && ! command -v sudo >/dev/null; }; then
        echo "missing packages, and no way to install them from here; as root: apt-get install$missing" >&2
        exit 1
fi
echo "installing with apt-get:"
for p in $missing; do
        list | awk -v p="$p" '$2 == p { $1 = ""; print " " $0 }'
done
$as apt-get update -qq
# shellcheck disable=SC2086
$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
