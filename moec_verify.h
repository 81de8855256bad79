/* moec_verify's parts. A Check compares one compiled model with the interpreter; verify_local.c launch by
 * launch, verify_free.c on logits. */
#ifndef MOEC_VERIFY_H
#define MOEC_VERIFY_H
#include "ir/eval.h"
#include "moec_front.h"

/* Where the bounds come from: the design's figures for what rounding may cost. */
#define F32_COSINE  0.9999
#define Q8_COSINE   0.9995
#define Q8_KL       4e-4
#define Q8_KL_Q2_K  1e-3
#define NEAR_TIE    1e-3 /* router logits this close may change places by rounding */
#define FREE_ARGMAX 0.97

typedef struct Route { /* of one layer, from one run */
        Pick *pick;    /* [n, k] */
        float *gap;    /* [n] exact run: between the last chosen and the first not chosen */
        u32 k;
} Route;

typedef struct Check {
        Arena *arena;
        Stages *s;
        Plan *plan;
        Rt *rt;
        EvalCache *cache;
        const i32 *id;
        u32 n, n_vocab, n_layer;
        Buf *log; /* what is told, a line each */
        bool failed;
} Check;

/* A value of the target in plain form: f32 and q8 as floats, route as Picks; NULL for others. rows: of the
 * step. */
void *check_read(Check *c, const Graph *g, u32 val, u32 n_tok, u32 n_out, Arena *a, u64 *count);
void check_write(Check *c, const Graph *g, u32 val, u32 n_tok, u32 n_out, const Tensor *t, Arena *a);

/* A step of tokens first .. first + n - 1 at those positions, in each of so many sequences, one after the
 * other. */
typedef struct CheckStep {
        u32 first, n, copies;
} CheckStep;
/* The interpreter's input, of all of the step's tokens, logits of each. */
EvalIn check_in(const Check *c, const CheckStep *s, Arena *a);
/* logits: of the first sequence's tokens. */
void check_step(Check *c, const CheckStep *s, float *logits);
const Graph *check_graph(const Check *c, u32 phase);
/* The largest step of this phase from token 0 on; n 0: with so few none is of this phase. */
CheckStep check_largest(const Check *c, u32 phase);

/* Every launch of a prefill of all tokens and of n decode steps, each given the interpreter's inputs. */
typedef struct LocalWorst {
        double rel;
        const char *label; /* of the launch that was furthest off */
} LocalWorst;
void check_local(Check *c, LocalWorst *worst);

/* Logits with the target's own routes and with eval's. */
void check_logits(Check *c, moec_verify_report *r);

#endif
