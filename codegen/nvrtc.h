/* Compiles kernels for CUDA devices: Keys to CUDA C by m4, that to machine code by NVRTC, which is loaded
 * when needed. */
#ifndef MOEC_NVRTC_H
#define MOEC_NVRTC_H
#include "codegen/jobs.h"

/* Where to look, besides what the process has loaded and the loader's own places. All may be NULL. */
typedef struct NvrtcPaths {
        const char *file;  /* $MOEC_NVRTC: this library and no other */
        const char *conda; /* $CONDA_PREFIX */
        const char *home;  /* $CUDA_HOME */
        const char *path;  /* $CUDA_PATH */
} NvrtcPaths;

typedef struct Nvrtc Nvrtc;
/* In the arena; the library stays loaded, which it needs. MOEC_TOOLCHAIN: not found (where it was looked
 * for), or too old. */
moec_status nvrtc_open(Arena *a, const NvrtcPaths *paths, Nvrtc **out, moec_error *e);
const char *nvrtc_version(const Nvrtc *n); /* "13.0" */

/* Architectures: "sm_90a" (machine code) and "compute_90" (PTX, for devices that this NVRTC does not know). A
 * list has commas. err: MOEC_USAGE where a word is none; *n of them, in the arena. */
#define MAX_ARCH 16
const char **nvrtc_archs(Arena *a, const char *list, u32 *n);
/* MOEC_TOOLCHAIN, naming what it does know, where the architecture is too new for it or too old. */
moec_status nvrtc_knows(const Nvrtc *n, const char *arch, moec_error *e);
/* PTX of the newest that it knows: what a device that is newer still can run. */
const char *nvrtc_newest(const Nvrtc *n, Arena *a);

/* image[i * n_arch + j]: key i for architecture j. source[i]: for the first architecture. err as jobs_run's.
 */
void nvrtc_build(Arena *a, Key *const key[], u32 n, const Nvrtc *nvrtc, const char *const arch[], u32 n_arch,
        const BuildOpt *opt, Image *image, const char **source);

/* The expanded sources alone: needs no NVRTC. */
void nvrtc_sources(
        Arena *a, Key *const key[], u32 n, const char *arch, const BuildOpt *opt, const char **source);

#endif
