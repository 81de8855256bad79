/* The reference interpreter: gives every operation its meaning, one plain function each (ir/eval_*.c). Slow,
 * obvious, exact: the oracle for all targets.
 *
 * Numbers. Values are f32 between operations; within one, sums and transcendental functions are double,
 * rounded once. A fused operation rounds to f32 wherever the chain of plain ones would, so both give the same
 * bits: a product's sum is rounded, then bias, then res are added in f32; a norm's and a rope's result is
 * rounded; experts: gate, up and down are rounded as products are, glu is rounded; the weighted sum over the
 * slots is accumulated in double in slot order and rounded once; then res is added in f32. As quantised,
 * activations are rounded where attributes act and out or a quantize say so, keys and values to the state's
 * types; weights are dequantised exactly in either mode.
 *
 * YaRN: a pair i turns at rate f = rbase^(-2i/rdim) / freqs[i]; with ext != 0 at f * (ext * r + (1 - ext * r)
 * / rfactor), where r falls from 1 to 0 between the pair that turns `fast` times in octx positions and the
 * one that turns `slow` times (rounded down and up to whole pairs). rattn is the whole magnitude: a caller
 * that wants YaRN's 1 + 0.1 ln(rfactor) puts it there.
 *
 * NaN and infinity propagate as C's arithmetic has them. route treats a NaN score as below every number, so
 * it always names k different experts in range, and the lowest-numbered ones where all are NaN. */
#ifndef MOEC_EVAL_H
#define MOEC_EVAL_H
#include "ir/graph.h"

/* A value. f32, q8: float (q8: already rounded, code * d). route: Pick. i32: i32. order: no data. kv: no data
 * of use outside. */
typedef struct Tensor {
        Dtype dt;
        u32 rank;
        u64 dim[MAX_RANK];
        void *data;
} Tensor;
typedef struct Pick {
        i32 id; /* the expert */
        float w;
} Pick;
u64 tensor_len(const Tensor *t);
u64 tensor_rows(const Tensor *t); /* all dimensions but the last */

/* Keys and values of every state, by the state's name: phases of one model share it. Grows with the positions
 * used. */
typedef struct EvalKv EvalKv;
EvalKv *eval_kv_new(u32 n_seq, u32 n_ctx);
void eval_kv_free(EvalKv *kv); /* NULL is fine */

/* Dequantised weights, kept from one eval to the next while they fit in max_bytes; the rest is dequantised as
 * it is used. Keyed by the address of the packed data, which must not change meanwhile. */
typedef struct EvalCache EvalCache;
EvalCache *eval_cache_new(u64 max_bytes);
void eval_cache_free(EvalCache *c);

/* What a step is given. pos < n_ctx, seq < n_seq, out < n_tok; ids < rows of the table (err otherwise). */
typedef struct EvalIn {
        u32 n_tok, n_out;
        const i32 *ids, *pos, *seq; /* [n_tok] */
        const i32 *out;             /* [n_out] tokens whose logits are wanted */
} EvalIn;

/* What the hook sees of a node just evaluated. Valid until it returns. */
typedef struct EvalSeen {
        const Graph *g;
        u32 node, n_in, n_out;
        const Tensor *in; /* [n_in] its operands that are values, as node.in; data NULL for weights,
                             dequantised or not */
        Tensor *out; /* [n_out] its results; their data may be changed (routes pinned to another's); dequant's
                        is NULL */
        const Tensor *logits; /* route: z [n_tok, experts]; else NULL */
        const Tensor *select; /* route: what the k largest were taken of, -inf outside of the chosen groups;
                                 else NULL */
} EvalSeen;

/* Zero-initialise, then set what differs. */
typedef struct EvalOpt {
        bool exact; /* ignore act, out, quantize and the states' types: nothing but weights is ever rounded
                       below f32 */
        EvalCache *cache; /* NULL: none */
        void (*hook)(void *user, const EvalSeen *s);
        void *user;
} EvalOpt;

/* Runs one step. ret: [g->n_ret], the graph's results, in arena `a` as all else it needs; kv may be NULL if g
 * has no state. */
void eval(const Graph *g, EvalKv *kv, const EvalIn *in, const EvalOpt *opt, Arena *a, Tensor *ret);

#endif
