/* What the files of the interpreter share. */
#ifndef MOEC_EVAL_PART_H
#define MOEC_EVAL_PART_H
#include "ir/eval.h"

typedef struct Block { /* memory of a step, reused by size class; its bytes follow */
        struct Block *next;
        u64 cls;
} Block;
enum { N_CLASS = 48 };

typedef struct Store { /* one state's keys and values */
        const char *name;
        u64 kw, vw;     /* values a position: heads * dk, heads * dv */
        float **k, **v; /* [n_seq] -> [cap, kw], [cap, vw]; zero where nothing was stored */
        u64 *cap;       /* [n_seq] positions */
        struct Store *next;
} Store;
Store *ev_store_get(EvalKv *kv, const State *s);
void ev_kv_dims(const EvalKv *kv, u64 *n_seq, u64 *n_ctx);
void ev_store_room(EvalKv *kv, Store *s, u64 seq, u64 pos); /* makes position pos of seq exist */

const float *ev_cache_find(EvalCache *c, const Weight *w); /* NULL if not there and no room */

typedef struct Eval {
        const Graph *g;
        const EvalIn *in;
        const EvalOpt *opt;
        EvalKv *kv;
        Arena *arena;
        Store **state; /* [g->n_state] */
        Tensor *val;   /* [g->n_val]; kv: data is the Store */
        u32 *last;     /* [g->n_val] the last node that uses it */
        u64 at[N_DIM];
        Block *free[N_CLASS], *scratch; /* scratch: taken by the node being evaluated */
        Tensor logits, select;          /* of the route being evaluated */
} Eval;

#define O(name, slots, attrs, results) void eval_##name(Eval *e, const Node *n);
OPS(O)
#undef O

/* ---- memory: gone after this node ---- */
void *ev_scratch(Eval *e, u64 n, u64 size); /* n * size bytes, not cleared */
#define SCRATCH(e, T, n) ((T *)ev_scratch((e), (n), sizeof(T)))

/* ---- operands ---- */
Ref ev_source(const Eval *e, Ref r);                 /* r, or the weight that it is the dequant of */
Tensor ev_operand(Eval *e, Ref r);                   /* a weight's values dequantised */
const float *ev_vec(Eval *e, const Node *n, Slot s); /* its values; NULL if absent */
static inline Tensor arg(Eval *e, const Node *n, Slot s)
{
        return ev_operand(e, in_get(n, s));
}
static inline Tensor *result(Eval *e, const Node *n, u32 i)
{
        return &e->val[n->out + i];
}
static inline u64 width(const Tensor *t)
{
        return t->dim[t->rank - 1];
}

/* ---- products (eval_linear.c) ---- */
typedef struct Mat {     /* a matrix or a stack of them, row by row */
        const Weight *w; /* packed, dequantised as used; NULL: f holds all values */
        const float *f;
        u64 rows, cols, row_bytes;
        float *fbuf;  /* [cols] */
        double *dbuf; /* [cols] */
} Mat;
Mat ev_mat_open(Eval *e, Ref r);
const double *ev_mat_row(Mat *m, u64 row); /* good until the next call */
double ev_dot(const double *a, const double *b, u64 n);
double ev_dotf(const float *a, const float *b, u64 n);
void ev_norm_row(float *x, const float *w, u64 n, double eps); /* in place */
void ev_quantize(Eval *e, const Node *n, float *y);            /* norm(x) in q8 */
void ev_norm_rows(float *x, u64 n, const float *w, u64 group, double eps);
/* x of node n as a product takes it: normed by slot norm if present, rounded as act says; [rows, width]. */
const double *ev_product_in(Eval *e, const Node *n, Slot x, i64 act);
const double *ev_round_in(Eval *e, float *x, u64 n, u64 w, bool q8); /* rounds x itself, then widens it */
void ev_add_res(Eval *e, const Node *n, float *y, u64 len);

float ev_glu_one(const Node *n, float gate, float up);

#endif
