/* A plan on a CUDA device: what cuda.c and cuda_weights.c load, exec_cuda.c and cuda_draw.c run, and
 * cuda_look.c measures. */
#ifndef MOEC_CUDA_H
#define MOEC_CUDA_H
#include "runtime/driver.h"
#include "runtime/exec_part.h"

#define CUDA_MAX_ARG 64 /* of a launch: what plan_open lets pass */

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
        CuGraphExec *draw_graph; /* a draw, then phase 0 */
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
        double *span;        /* [LAUNCH]: seconds from the end of the launch before to its own, in a step */
        u8 *timed;           /* [PHASE]: how a profile times it */
} CudaRt;

/* Launches the plan's kernel of a role, which it has, in as many blocks as have that many threads. arg: its
 * arguments, at most CUDA_MAX_ARG; the step's sizes are added. The driver's status. */
int cuda_util(const CudaRt *c, PlanRole role, CuStream *stream, u64 threads, const u64 *arg, u32 n_arg);

/* ---- cuda_weights.c ---- */
u64 cuda_weight_room(const PlanWeight *w); /* from a weight's start on the device to the next one's */
u64 cuda_load_room(void);                  /* bytes of the device while weights are loaded */
/* To c->weights, in the plan's order. c's kernels and the pool are there. */
moec_status cuda_load_weights(CudaRt *c, moec_error *e);

/* ---- cuda.c ---- */
moec_status cuda_open(Rt *rt, const moec_options *opt, moec_error *e);
void cuda_close(Rt *rt);
void cuda_inputs(const CudaRt *c, u64 at[N_PLAN_INPUT]); /* on the device */

/* ---- exec_cuda.c ---- */
moec_status cuda_ready(CudaRt *c, moec_error *e); /* before anything is sent: nothing has failed yet */
/* The driver's status. early: may start when the launch in front of it on the stream still runs; the kernel
 * waits for that itself. */
int cuda_launch(const CudaRt *c, u32 phase, u32 i, bool early);
moec_status cuda_bad_launch(const CudaRt *c, int rc, u32 i, moec_error *e); /* OK where rc is */
/* The phase's first n launches as a graph, the caller's. draw: with a draw in front. */
moec_status cuda_capture(CudaRt *c, u32 phase, bool draw, u32 n, CuGraphExec **x, moec_error *e);
moec_status cuda_run_graph(CudaRt *c, u32 phase, moec_error *e);

/* ---- cuda_draw.c ---- */
u64 cuda_draw_room(u32 n_ctx);                        /* bytes of the device */
moec_status cuda_draw_open(CudaRt *c, moec_error *e); /* cuda_close frees */
moec_status cuda_draw_launch(const CudaRt *c, moec_error *e);
moec_status cuda_draw(Rt *rt, const Draw *w, i32 *id, u32 *n, moec_error *e);

/* ---- cuda_look.c ---- */
moec_status cuda_look(CudaRt *c, const Part *p, moec_error *e); /* a part of a step, with hook or profile */
moec_status cuda_bandwidth(Rt *rt, double *bytes_per_s, moec_error *e);

#endif
