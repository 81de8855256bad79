/* Runs plans: a plan with its weights, KV cache and threads, on the target it was compiled for. One thread at
 * a time. */
#ifndef MOEC_EXEC_H
#define MOEC_EXEC_H
#include "runtime/plan.h"
#include "runtime/pool.h"

typedef struct Rt Rt;

/* One step: n tokens, each with its id, position and sequence; out: the n_out of them, in order, whose logits
 * are wanted. n may be more than any phase takes: then the step runs in parts. */
typedef struct Batch {
        u32 n, n_out;
        const i32 *id, *pos, *seq; /* [n] */
        const u32 *out;            /* [n_out], rising */
} Batch;

typedef struct RtMemory {
        u64 weights, kv, scratch, other; /* bytes; other: the target's own, some only while it loads */
} RtMemory;

/* plan outlives the Rt. n_ctx, n_seq: how long and how many sequences the KV cache holds. opt: threads,
 * weights, random_weights, cache_dir ("off" or NULL: none), progress. MOEC_NO_DEVICE: another instruction set
 * or target; MOEC_NO_MEMORY, with the arithmetic; and what weights_open says. */
moec_status rt_open(const Plan *plan, const moec_options *opt, u32 n_ctx, u32 n_seq, Rt **out, moec_error *e);
void rt_close(Rt *rt); /* NULL is fine */

/* logits: [n_out, n_vocab]. Ids below n_vocab, positions below n_ctx and sequences below n_seq: the caller
 * has checked. MOEC_INTERRUPTED, between parts, where the progress callback says so. */
moec_status rt_step(Rt *rt, const Batch *b, float *logits, moec_error *e);

/* Whether the step's logits can stay with the target. rt_step then takes logits NULL; until the next step
 * rt_logits fetches them all, and rt_draw draws from them. */
bool rt_keeps(const Rt *rt, const Batch *b);
moec_status rt_logits(Rt *rt, float *logits, moec_error *e);

/* Tokens of one sequence, drawn and evaluated by the target without the host in between. */
typedef struct Draw {
        const moec_sampling *s; /* has passed sample_check */
        u32 seq, n;             /* at most so many tokens, for which there is room: at least 1 */
        const i32 *said;        /* [n_said], the sequence so far */
        u32 n_said;
        const u32 *end; /* [n_end], at most PLAN_ENDS: after one of these tokens nothing is drawn */
        u32 n_end;
        const float *logits; /* of the last token said; NULL: row `row` of the last step's, which the target
                                kept */
        u32 row;
} Draw;
bool rt_draws(const Rt *rt); /* whether there is rt_draw, as things are: hooks and profiles are for steps */
/* id: room for d->n. *n: how many; fewer than d->n after an end token, an error, or as many as are done at
 * once (PLAN_DRAWS). What sample() would say of the logits behind these tokens is returned when they are
 * drawn. With *n above 0 the last one's logits are kept, row 0; with 0 the last step's logits are lost. */
moec_status rt_draw(Rt *rt, const Draw *d, i32 *id, u32 *n, moec_error *e);

Pool *rt_pool(const Rt *rt);
RtMemory rt_memory(const Rt *rt);
void rt_describe(const Rt *rt, char out[64]); /* the target, for people: "cpu native, 16 threads" */
moec_status rt_bandwidth(Rt *rt, double *bytes_per_s, moec_error *e); /* measured by reading a large buffer */
moec_status cpu_read_bandwidth(Pool *pool, double *bytes_per_s, moec_error *e);

/* ---- looking inside, for verify ----
 * Called when a launch (its index in LAUNCH) of a phase is done; values lie at their arena offsets, and may
 * be changed there. NULL: no hook. */
typedef void RtHook(void *user, u32 phase, u32 launch);
void rt_set_hook(Rt *rt, RtHook *hook, void *user);
void rt_read(Rt *rt, u64 arena_offset, void *dst, u64 bytes); /* all inside the arena; a device that
                                                               * fails tells the next step */
void rt_write(Rt *rt, u64 arena_offset, const void *src, u64 bytes);

/* ---- times ---- */
typedef struct RtSample {
        u32 launch;
        u32 n_tok;
        u64 bytes;
        double start, seconds; /* now_s() */
} RtSample;
typedef struct RtProfile {
        u64 *calls; /* [number of launches] */
        u64 *bytes; /* what the plan says they read and wrote */
        double *seconds;
        RtSample *sample; /* [n_sample], as they ran; at most RT_MAX_SAMPLES */
        u64 n_sample;
} RtProfile;
#define RT_MAX_SAMPLES (1u << 20)

/* From now on every launch is timed, from zero. */
moec_status rt_profile_start(Rt *rt, moec_error *e);
/* No more; what was measured, until the next start or close. NULL: was not started. */
const RtProfile *rt_profile_stop(Rt *rt);

#endif
