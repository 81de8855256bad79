/* Libraries that pretend to be CUDA's: a test loads one by its path, and then tells it through `fake` how to
 * behave. A command is told by words in its environment, FAKE_CUDA="version=11080 fails=cuMemAlloc rc=2",
 * FAKE_NVRTC="major=11". */
#ifndef FAKE_H
#define FAKE_H
#include "runtime/driver.h"

typedef struct FakeCuda {
        int version, n_device, major, minor;
        /* What a kernel that is launched outside a graph does, with its arguments; NULL: nothing. */
        void (*kernel)(const char *name, const CuLaunch *how, void *const *arg);
        bool lazy;        /* what a stream is asked for is done when somebody waits for it, and no sooner */
        int init;         /* what cuInit returns */
        u64 memory, used; /* bytes of the device */
        const char *missing; /* a function that it lacks; NULL */
        const char *fails;   /* a function that returns `rc` from its (after + 1)-th call on; NULL */
        int after, rc;
        int lost; /* the number of the call from which on all return `rc`; 0: none */
        int calls;
        int live;                                              /* things made and not destroyed yet */
        int graphs, launches, captured, programmatic, fetches; /* fetches: copies to the host */
        void (*on_graph)(void *draw); /* a graph runs; draw: what its kernel k_draw_... is given first; NULL:
                                         it has none */
        double launch_ms;             /* what a launch takes */
} FakeCuda;

typedef struct FakeNvrtc {
        int major, minor;
        int n_arch, arch[8];
        const char *fails; /* a part of a source that does not compile; NULL */
        u32 shared; /* bytes of shared memory that every kernel wants; 0: the code is not that of a kernel */
        int compiled;
        char options[512]; /* of the last */
} FakeNvrtc;

#endif
