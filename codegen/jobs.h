/* Builds kernels on threads: each Key's template is expanded by m4, and what comes out handed to a compiler.
 */
#ifndef MOEC_JOBS_H
#define MOEC_JOBS_H
#include <stdatomic.h>
#include "codegen/key.h"
#include "runtime/cache.h"

typedef struct BuildOpt {
        const char *templates; /* a folder that overrides the built-in templates; NULL */
        const char *keep;      /* a folder for the generated sources; NULL: they go when done */
        const char *march;     /* for the CPU: "native", "x86-64-v3", "x86-64" */
        int threads;
        Cache *cache; /* of objects; NULL: none */
        moec_progress progress;
        void *user;
} BuildOpt;

/* A piece of code as it goes into a plan; in the arena. */
typedef struct Image {
        const char *arch; /* "so", "sm_90a", "compute_90" */
        u32 kind;         /* enum PlanCode */
        const void *p;
        u64 bytes;
} Image;

/* One kernel for one processor. */
typedef struct Unit {
        const Key *key;
        const char *const *search; /* folders of templates, the most special first; ends in NULL */
        const char *file;          /* its source's name in the work folder */
        Buf source;
        moec_error error;
} Unit;

typedef struct Jobs Jobs;
struct Jobs {
        const BuildOpt *opt;
        const char *suffix; /* of templates */
        Unit *unit;
        u32 n;
        moec_status (*begin)(Jobs *j, moec_error *e); /* the work folder is there; NULL: nothing */
        moec_status (*build)(Jobs *j, u32 i,
                moec_error *e); /* unit i's source is there; called from threads. NULL: nothing */
        moec_status (*finish)(Jobs *j, moec_error *e); /* all are built; NULL: nothing */
        void *self;
        const char *work; /* folder, set by jobs_run */
        moec_status (*step)(Jobs *, u32, moec_error *);
        u32 *order; /* of the units' turns */
        _Atomic u32 next, done;
        _Atomic bool stop;
};

/* source[i] (in the arena): what unit i was compiled from. err: what build and finish say; a failing
 * compiler's with the folder where the sources were kept; MOEC_INTERRUPTED. */
void jobs_run(Arena *a, Jobs *j, const char **source);

moec_status jobs_write(
        const char *path, const void *p, size_t n, moec_error *e); /* no file_write: scratch needs no sync */

#endif
