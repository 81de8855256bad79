/* Child processes: no shell, nothing inherited but the environment, standard input from memory, both outputs
 * collected. */
#ifndef MOEC_CHILD_H
#define MOEC_CHILD_H
#include "ir/util.h"

/* Runs argv[0], found in PATH, in folder cwd. *out, *errors: what it wrote (at most CHILD_MAX bytes each).
 * *code: its exit status, 128 + signal if one ended it. MOEC_TOOLCHAIN if it could not be started. Usable
 * from any thread. */
#define CHILD_MAX (64u << 20)
moec_status child_run(const char *const argv[], const char *cwd, const char *in, size_t n_in, Buf *out,
        Buf *errors, int *code, moec_error *e);

#endif
