/* Compiles kernels for the CPU: Keys to C by m4, C to one shared object by the system's cc, on threads. */
#ifndef MOEC_CC_H
#define MOEC_CC_H
#include "codegen/jobs.h"

/* key[i]: distinct Keys. *so: the shared object with a symbol a Key;
 * source[i] (in the arena): what was compiled for it. err as jobs_run's. */
void cc_build(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, Image *so, const char **source);

/* The expanded sources alone. */
void cc_sources(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, const char **source);

#endif
