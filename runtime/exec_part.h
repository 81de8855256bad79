/* What the files that run plans share: exec.c, which is the same for every target, and one file a target. */
#ifndef MOEC_EXEC_PART_H
#define MOEC_EXEC_PART_H
#include "runtime/exec.h"
#include "runtime/memory.h"
#include "runtime/weights.h"

/* A part of a step: tokens from .. from + n - 1, and the outs among them: out .. out + n_out - 1. past: the
 * positions that the tokens look back on, together. */
typedef struct Part {
        u32 phase, from, n, out, n_out;
        u64 past;
} Part;

/* What a target does. open fills what close frees, however far it came; rt_open has set the rest. */
typedef struct RtTarget {
        const char *name; /* as PlanMeta.target */
        size_t bytes;     /* of its struct, which begins with an Rt */
        moec_status (*open)(Rt *rt, const moec_options *opt, moec_error *e);
        void (*close)(Rt *rt);
        /* logits: [p->n_out, n_vocab]; NULL: they stay, for `logits` */
        moec_status (*run)(Rt *rt, const Batch *b, const Part *p, float *logits, moec_error *e);
        void (*read)(Rt *rt, u64 arena_offset, void *dst, u64 bytes);
        void (*write)(Rt *rt, u64 arena_offset, const void *src, u64 bytes);
        moec_status (*bandwidth)(Rt *rt, double *bytes_per_s, moec_error *e);
        void (*describe)(const Rt *rt, char out[64]);
        /* The first n rows that the phase's last part left. NULL: nothing ever stays. */
        moec_status (*logits)(Rt *rt, u32 phase, u32 n, float *logits, moec_error *e);
        /* As rt_draw, where rt_draws says so; at most PLAN_DRAWS. Leaves a row of phase 0. NULL:
         * cannot. */
        moec_status (*draw)(Rt *rt, const Draw *d, i32 *id, u32 *n, moec_error *e);
} RtTarget;
extern const RtTarget rt_cpu, rt_cuda;

struct Rt {
        const RtTarget *target;
        const Plan *plan;
        moec_progress progress;
        void *user;
        u32 n_ctx, n_seq;
        u32 max_tok;               /* the largest phase's tokens or rows of logits */
        u32 kept_phase, kept_rows; /* the last part's: where its logits are */
        Pool *pool;
        Weights weights;
        RtMemory mem;
        RtHook *hook;
        void *hook_user;
        RtProfile profile;
        bool profiling;
};

u64 rt_round(u64 n);                           /* up to PLAN_ALIGN */
const char *rt_human(u64 bytes, char out[32]); /* "1.50 GiB" */
/* Whether all fits; sets mem. m: what there is; other: bytes beside weights, KV cache, arena and inputs, and
 * `each` a position. MOEC_NO_MEMORY with the arithmetic. */
moec_status rt_check_memory(Rt *rt, Memory m, u64 other, u64 each, moec_error *e);
/* Resolves every PlanArg: where things are. at: [ARG]. kv: of all states' planes; input[i]: of each input;
 * weight: [WEIGHT]. MOEC_NO_MEMORY. */
typedef struct RtPlaces {
        u64 arena, kv, input[N_PLAN_INPUT];
        const u64 *weight;
} RtPlaces;
moec_status rt_resolve(const Rt *rt, const RtPlaces *places, u64 *at, moec_error *e);
void rt_fill_inputs(const Batch *b, const Part *p, i32 *const input[N_PLAN_INPUT]);
void rt_record(Rt *rt, u32 launch, const Part *p, double start, double seconds); /* for a profile */

#endif
