#!/bin/bash
# make install, and a host program that is built with nothing but what it installed.
. tests/e2e/lib.sh
unset MAKEFLAGS MFLAGS MAKELEVEL
root=$T/root
check "make install" make -s install B="$B" DESTDIR="$root" PREFIX=/usr
check "what is installed" test -x "$root/usr/bin/moec" -a -s "$root/usr/include/moec.h" -a -s "$root/usr/share/man/man1/moec.1"
expect_output "the installed command runs" '[0-9]+\.[0-9]+\.[0-9]+' "$root/usr/bin/moec" --version

cat >"$T/host.c" <<'C'
#include <moec.h>
#include <stdio.h>
int main(int argc, char **argv)
{
        moec_model *m;
        moec_error e;
        moec_info info;
        if (argc != 2 || moec_open(argv[1], NULL, &m, &e) != MOEC_OK)
                return 1;
        moec_get_info(m, &info);
        printf("%s, %d experts\n", info.arch, info.n_expert);
        moec_close(m);
        return 0;
}
C
# shellcheck disable=SC2086
check "a host program links" ${CC:-cc} ${OPT:-} -Wall -Werror -I"$root/usr/include" "$T/host.c" -L"$root/usr/lib" -lmoec -llua5.4 \
        -lpcre2-8 -lm -ldl -pthread -o "$T/host"
expect_output "a host program opens a model" '^qwen3moe, [0-9]+ experts$' "$T/host" examples/fables.gguf
