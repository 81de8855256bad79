/* Small graphs by hand: values are rows of f32 weights, embedded by ids 0, 1, 2, ... */
#ifndef MOEC_EVAL_HELP_H
#define MOEC_EVAL_HELP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include "ir/eval.h"
#include "ir/quant.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { MAX_TOK = 64, N_SEQ = 3, N_CTX = 40 };
static Arena *arena;
static Graph *g;
static EvalKv *kv;
static u32 n_tok, cur, n_name;
static i32 ids[MAX_TOK], pos[MAX_TOK], seq[MAX_TOK], out[MAX_TOK];
static u64 rng;
static EvalOpt opt;

static float rnd(void) /* -1 .. 1 */
{
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        return (float)(i32)(rng >> 32) / 2147483648.0f;
}

static float *fill(u64 n, float scale)
{
        float *p = NEWN(arena, float, n);
        for (u64 i = 0; i < n; i++)
                p[i] = scale * rnd();
        return p;
}

static void begin(u32 tokens)
{
        arena = arena_new();
        g = graph_new(arena, "test");
        kv = eval_kv_new(N_SEQ, N_CTX);
        n_tok = tokens;
        n_name = 0;
        rng = 1;
        memset(&opt, 0, sizeof opt);
        for (i32 i = 0; i < MAX_TOK; i++) {
                ids[i] = pos[i] = out[i] = i;
                seq[i] = 0;
        }
}

static void end(void)
{
        eval_kv_free(kv);
        arena_free(arena);
}

static Ref weight_of(Wtype t, const void *data, u32 rank, u64 a, u64 b, u64 c)
{
        u64 dim[MAX_RANK] = {a, b, c};
        return graph_weight(g, arena_fmt(arena, "w%u", n_name++), t, rank, dim, data);
}

#define W1(p, a)       weight_of(W_F32, (p), 1, (a), 0, 0)
#define W2(p, a, b)    weight_of(W_F32, (p), 2, (a), (b), 0)
#define W3(p, a, b, c) weight_of(W_F32, (p), 3, (a), (b), (c))

static inline u32 op(Op o)
{
        return cur = node_new(g, o);
}
static inline Ref done(void)
{
        return node_done(g, cur);
}
#define IN(slot, r)  node_in(g, cur, S_##slot, (r))
#define INT(attr, v) node_int(g, cur, A_##attr, (v))
#define FLT(attr, v) node_flt(g, cur, A_##attr, (v))
#define INPUT(name)  REF(R_INPUT, IN_##name)

static Ref value(const float *p, u64 cols)
{
        Ref w = W2(p, n_tok, cols);
        op(OP_embed);
        IN(w, w);
        IN(ids, INPUT(ids));
        return done();
}

static const void *run(Ref r) /* in `arena` */
{
        EvalIn in = {n_tok, n_tok, ids, pos, seq, out};
        Tensor ret;
        g->n_ret = 0;
        graph_return(g, r);
        eval(g, kv, &in, &opt, arena, &ret);
        return ret.data;
}

static inline void assert_close(const float *a, const double *b, u64 n, double tol)
{
        for (u64 i = 0; i < n; i++)
                if (!(fabs((double)a[i] - b[i]) <= tol * (1 + fabs(b[i]))))
                        fail_msg("[%llu] is %.9g, not %.9g", (unsigned long long)i, (double)a[i], b[i]);
}

static inline void assert_floats(const float *a, const float *b, u64 n)
{
        for (u64 i = 0; i < n; i++)
                if (memcmp(a + i, b + i, sizeof *a))
                        fail_msg("[%llu] is %a, not %a", (unsigned long long)i, (double)a[i], (double)b[i]);
}

/* The same bits, of n values. */
static inline void assert_same(Ref a, Ref b, u64 n)
{
        assert_floats(run(a), run(b), n);
}

/* The status that running r ends with, and that its message has the words. */
static inline void assert_err(Ref r, moec_status st, const char *words)
{
        Trap t;
        if (TRAP(&t) == 0) {
                run(r);
                trap_pop(&t);
                fail_msg("no error; expected: %s", words);
        }
        assert_int_equal(t.error.status, st);
        assert_non_null(strstr(t.error.msg, words));
}

#endif
