/* CUDA kernels on the CPU: templates expanded with tests/lib/cuda_host.hpp for their primitives, compiled as
 * C++, run with threads as fibres, in memory with guard pages. */
#ifndef ONCUDA_H
#define ONCUDA_H
#include "codegen/select.h"

/* One kernel's memory: every argument has pages of its own, its end (up to 64 bytes) at a page that nobody
 * may touch. */
typedef enum Access {
        MEM_WEIGHT,
        MEM_IN,
        MEM_OUT
} Access; /* weights may be read before pdl_wait, others where the Sel says early */
typedef struct Mem {
        u8 *p, *page;
        u64 bytes, mapped;
        Access access;
} Mem;
/* One without a page is a number: its p. */
Mem mem_new(u64 bytes, Access access); /* all bytes 0xff: NaN */
void mem_free(Mem *m);

typedef const char *Fibred(
        void *const *arg, const void *dim, const u32 *grid, bool backward, void *stacks, void (*gate)(bool));

/* Compiles one kernel a key, on all processors; fn[i]: of key i. NULL if there is no C++ compiler. Fails the
 * test that runs if a template or its code is wrong. */
typedef struct OnCuda OnCuda;
OnCuda *oncuda_new(Arena *a, Key *const key[], u32 n, Fibred **fn);
/* scale: a template in place of the built-in one of that name; NULL. */
OnCuda *oncuda_with(Arena *a, Key *const key[], u32 n, Fibred **fn, const char *scale);
void oncuda_free(OnCuda *o);

/* Runs one launch. NULL, or what went wrong: what the scheduler says, or a touch of what may not be touched.
 */
const char *oncuda_run(Fibred *fn, const Sel *s, Mem *const arg[], const KernelDim *dim, bool backward);

#endif
