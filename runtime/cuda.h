/* A plan on a CUDA device: what exec_cuda.c runs, and cuda.c and cuda_weights.c load. */
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
        CuModule **module;   /* [KERNEL] */
        CuFunction **kernel; /* [KERNEL] */
        u32 *shared;         /* [KERNEL]: bytes of dynamic shared memory */
        CuGraphExec **graph; /* [PHASE]; NULL until first needed */
        CuPtr weights, kv, arena;
        CuPtr dim; /* KernelDim, and behind it the inputs: input_bytes together */
        u64 input_bytes;
        u64 *arg;            /* [ARG]: device pointers */
        KernelDim *host_dim; /* the same on the host, pinned */
        i32 *host_input[N_PLAN_INPUT];
        float *host_logits; /* pinned, for the most rows of a phase */
        moec_error late;    /* what could not be told when it happened */
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

#endif
