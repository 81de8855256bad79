/* A plan on a CUDA device: what exec_cuda.c runs and cuda.c loads. */
#ifndef MOEC_CUDA_H
#define MOEC_CUDA_H
#include "runtime/driver.h"
#include "runtime/exec_part.h"

#define CUDA_MAX_ARG 256 /* of a launch */

typedef struct CudaRt {
        Rt rt;
        Driver *d;
        Device device;
        CuContext *context;
        CuStream *stream;
        CuEvent *event[2];
        CuModule **module;       /* [KERNEL] */
        CuFunction **kernel;     /* [KERNEL] */
        u32 *shared;             /* [KERNEL]: bytes of dynamic shared memory */
        CuGraphExec **graph;     /* [PHASE]; NULL until first needed */
        CuGraphExec *draw_graph; /* META's draws, then phase 0 */
        CuPtr weights, kv, arena;
        CuPtr dim; /* KernelDim, and behind it the inputs: input_bytes together */
        u64 input_bytes;
        CuPtr draw;          /* PlanDraw, and the tokens that it is told or draws */
        u64 *arg;            /* [ARG]: device pointers */
        KernelDim *host_dim; /* the same on the host, pinned */
        i32 *host_input[N_PLAN_INPUT];
        float *host_logits;  /* pinned, for the most rows of a phase */
        PlanDraw *host_draw; /* pinned */
        moec_error late;     /* what could not be told when it happened */
} CudaRt;

moec_status cuda_open(Rt *rt, const moec_options *opt, moec_error *e);
void cuda_close(Rt *rt);

/* ---- exec_cuda.c ---- */
moec_status cuda_ready(CudaRt *c, moec_error *e); /* before anything is sent: nothing has failed yet */
/* draw: META's draws go first. */
moec_status cuda_capture(CudaRt *c, u32 phase, bool draw, CuGraphExec **graph, moec_error *e);

/* ---- cuda_draw.c ---- */
moec_status cuda_draw_open(CudaRt *c, moec_error *e); /* cuda_close frees */
moec_status cuda_draw(Rt *rt, const Draw *w, i32 *id, u32 *n, moec_error *e);

#endif
