/* Compiles kernels for the CPU: Keys to C by m4, C to one shared object by the system's cc, on threads. */
#ifndef MOEC_CC_H
#define MOEC_CC_H
#include "codegen/key.h"
#include "runtime/cache.h"

typedef struct CcOpt {
        const char *templates; /* a folder that overrides the built-in templates; NULL */
        const char *keep;      /* a folder for the generated sources; NULL: they go when done */
        const char *march;     /* "native", "x86-64-v3", "x86-64" */
        int threads;
        Cache *cache; /* of objects; NULL: none */
        moec_progress progress;
        void *user;
} CcOpt;

/* key[i]: distinct Keys. *so: the shared object with a symbol a Key; source[i] (in the arena): what was
 * compiled for it. err: MOEC_TOOLCHAIN with the compiler's first words and the folder where the sources were
 * kept, MOEC_INTERRUPTED. */
void cc_build(Arena *a, Key *const key[], u32 n, const CcOpt *opt, Buf *so, const char **source);

/* The expanded sources alone. */
void cc_sources(Arena *a, Key *const key[], u32 n, const CcOpt *opt, const char **source);

#endif
