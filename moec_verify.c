/* moec_verify: a compiled model against the interpreter. */
#include "moec_verify.h"
#include <stdlib.h>
#include <string.h>
#include "ir/quant.h"

#define DEFAULT_TOKENS 80 /* so that each phase has some */

/* ---- values of the target ---- */

static u64 rows_of(const Vtype *t, u32 n_tok, u32 n_out)
{
        u64 at[N_DIM] = {0}, n = 1;
        at[DIM_n_tok] = n_tok;
        at[DIM_n_out] = n_out;
        for (u32 i = 0; i + 1 < t->rank; i++)
                n *= dim_at(t->dim[i], at);
        return n;
}

void *check_read(Check *c, const Graph *g, u32 val, u32 n_tok, u32 n_out, Arena *a, u64 *count)
{
        const Vtype *t = &g->val[val].type;
        u64 at = g->val[val].offset, cols = (u64)dim_last(t), rows = rows_of(t, n_tok, n_out),
            n = *count = rows * cols;
        if (t->dt == D_f32 || t->dt == D_route) {
                u64 bytes = n * (t->dt == D_route ? sizeof(Pick) : sizeof(float));
                void *p = arena_alloc(a, bytes);
                rt_read(c->rt, at, p, bytes);
                return p;
        }
        if (t->dt != D_q8)
                return NULL;
        i8 *q = arena_alloc(a, n);
        float *d = NEWN(a, float, n / Q8_BLOCK), *x = NEWN(a, float, n);
        rt_read(c->rt, at, q, n);
        rt_read(c->rt, at + n, d, n / Q8_BLOCK * sizeof *d);
        for (u64 i = 0; i < n; i++)
                x[i] = (float)q[i] * d[i / Q8_BLOCK];
        return x;
}

void check_write(Check *c, const Graph *g, u32 val, u32 n_tok, u32 n_out, const Tensor *t, Arena *a)
{
        u64 at = g->val[val].offset,
            n = rows_of(&g->val[val].type, n_tok, n_out) * (u64)dim_last(&g->val[val].type);
        if (t->dt == D_f32 || t->dt == D_route) {
                rt_write(c->rt, at, t->data, n * (t->dt == D_route ? sizeof(Pick) : sizeof(float)));
                return;
        }
        i8 *q = arena_alloc(a, n);
        float *d = NEWN(a, float, n / Q8_BLOCK), *s = NEWN(a, float, n / Q8_BLOCK);
        q8_quantize(t->data, q, d, n);
        for (u64 i = 0; i < n; i++)
                s[i / Q8_BLOCK] += (float)q[i];
        for (u64 i = 0; i < n / Q8_BLOCK; i++)
                s[i] *= d[i];
        rt_write(c->rt, at, q, n);
        rt_write(c->rt, at + n, d, n / Q8_BLOCK * sizeof *d);
        rt_write(c->rt, at + n + n / Q8_BLOCK * sizeof *d, s, n / Q8_BLOCK * sizeof *s);
}

const Graph *check_graph(const Check *c, u32 phase)
{
        return c->s->stage[phase].g;
}

static bool takes(const Stage *st, const CheckStep *s)
{
        return s->n * s->copies <= st->max_tok && (!st->phase->max_seq_tok || s->n <= st->phase->max_seq_tok);
}

/* Where a sequence may have few tokens of a step, several have the same ones. */
CheckStep check_largest(const Check *c, u32 phase)
{
        const Stage *st = &c->s->stage[phase];
        u32 few = st->phase->max_seq_tok;
        CheckStep s = {0, MIN(c->n, few ? few : st->max_tok), 1};
        if (few)
                s.copies = st->max_tok / s.n;
        for (u32 i = 0; i < phase; i++)
                if (takes(&c->s->stage[i], &s))
                        s.n = 0;
        return s;
}

EvalIn check_in(const Check *c, const CheckStep *s, Arena *a)
{
        u32 n = s->n * s->copies;
        i32 *id = NEWN(a, i32, n), *pos = NEWN(a, i32, n), *seq = NEWN(a, i32, n), *out = NEWN(a, i32, n);
        for (u32 i = 0; i < n; i++) {
                pos[i] = (i32)(s->first + i % s->n);
                id[i] = c->id[pos[i]];
                seq[i] = (i32)(i / s->n);
                out[i] = (i32)i;
        }
        return (EvalIn){n, n, id, pos, seq, out};
}

void check_step(Check *c, const CheckStep *s, float *logits)
{
        Arena *a = arena_new();
        EvalIn in = check_in(c, s, a);
        u32 *out = NEWN(a, u32, in.n_out);
        float *all = NEWN(a, float, (u64)in.n_out * c->n_vocab);
        moec_error e = {0};
        for (u32 i = 0; i < in.n_out; i++)
                out[i] = (u32)in.out[i];
        Batch b = {(u32)in.n_tok, (u32)in.n_out, in.ids, in.pos, in.seq, out};
        moec_status st = rt_step(c->rt, &b, all, &e);
        memcpy(logits, all, (u64)s->n * c->n_vocab * sizeof *logits);
        arena_free(a);
        if (st)
                err_rethrow(&e);
}

/* ---- */

static void compile(Check *c, const Front *f, const moec_options *opt)
{
        Stages *s = c->s;
        moec_error e = {0};
        Buf b = {0};
        u32 n_seq = 1;
        stages_open(s, c->arena, f, opt, "native");
        for (u32 i = 0; i < s->n; i++)
                s->stage[i].max_out = s->stage[i].max_tok; /* logits of every position at once */
        for (u32 i = 0; i < s->n; i++)
                n_seq = MAX(n_seq, check_largest(c, i).copies);
        if (cache_open(front_cache_dir(c->arena, opt), &s->cache, &e) != MOEC_OK)
                err_rethrow(&e);
        stages_plan(s, &b);
        moec_status st = plan_copy(b.p, b.len, &c->plan, &e);
        buf_free(&b);
        if (st == MOEC_OK)
                st = rt_open(c->plan, opt, c->n + 1, n_seq, &c->rt, &e);
        if (st)
                err_rethrow(&e);
}

/* The same tokens every time, all over the vocabulary. */
static const i32 *some_tokens(Arena *a, u32 vocab, u32 n)
{
        i32 *id = NEWN(a, i32, n);
        u64 x = 88172645463325252ull;
        for (u32 i = 0; i < n; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                id[i] = (i32)(x % vocab);
        }
        return id;
}

static void give_tokens(Check *c, const moec_model *m, const i32 *ids, int n)
{
        c->n_vocab = (u32)m->info.n_vocab;
        c->n_layer = (u32)m->info.n_layer;
        c->n = n > 0 ? (u32)n : DEFAULT_TOKENS;
        c->id = n > 0 ? ids : some_tokens(c->arena, c->n_vocab, c->n);
        for (u32 i = 0; i < c->n; i++)
                if (c->id[i] < 0 || (u32)c->id[i] >= c->n_vocab)
                        err(MOEC_USAGE, "token %d is outside of the vocabulary of %u", c->id[i], c->n_vocab);
}

static void tell(Check *c, const moec_verify_report *r, const LocalWorst *w, bool json, Buf *out)
{
        if (!json) {
                buf_fmt(out, "%s: %u tokens, %s activations, target %s\n", r->passed ? "passed" : "FAILED",
                        c->n, c->s->opt->act == MOEC_ACT_F32 ? "f32" : "q8", c->s->in.target);
                buf_fmt(out, "  launch by launch: the furthest off is %s, relative error %.2e\n", w->label,
                        w->rel);
                buf_add(out, c->log->p ? c->log->p : "", c->log->len);
                return;
        }
        buf_fmt(out,
                "{\"passed\": %s, \"tokens\": %u, \"act\": \"%s\", \"worst_launch\": \"%s\", "
                "\"worst_launch_error\": %.9g, "
                "\"min_cosine\": %.9g, \"max_rel\": %.9g, \"mean_kl\": %.9g, \"flips\": %d, \"left_out\": "
                "%d, "
                "\"mean_kl_free\": %.9g, \"argmax_agree_free\": %.9g, \"log\": ",
                r->passed ? "true" : "false", c->n, c->s->opt->act == MOEC_ACT_F32 ? "f32" : "q8", w->label,
                w->rel, r->min_cosine, r->max_rel, r->mean_kl, r->n_flips, r->n_left_out, r->mean_kl_free,
                r->argmax_agree_free);
        buf_json(out, c->log->p ? c->log->p : "", c->log->len);
        buf_str(out, "}\n");
}

static void run(Check *c, const moec_model *m, const moec_options *opt, const i32 *ids, int n, bool json,
        moec_verify_report *r, Buf *out)
{
        const Front *f = m->front;
        if (f->model.why.status)
                err_rethrow(&f->model.why);
        if (f->model.info.is_shape)
                err(MOEC_USAGE, "%s is a shape file: it has no weights to verify with", m->path);
        give_tokens(c, m, ids, n);
        moec_options *with = arena_copy(c->arena, opt, sizeof *opt);
        with->debug = true;
        with->n_batch = (int)MAX(c->n, 2);
        with->weights = m->path;
        compile(c, f, with);
        c->cache = eval_cache_new(4ull << 30);
        LocalWorst worst;
        check_local(c, &worst);
        check_logits(c, r);
        r->n_tokens = (int)c->n;
        r->passed = !c->failed;
        tell(c, r, &worst, json, out);
}

/* A plan has no graph to interpret; what it embeds can be checked for damage. */
static moec_status verify_embedded(
        const moec_model *m, moec_verify_report *report, char **text, moec_error *e)
{
        u64 n = plan_count(m->plan, PLAN_WDATA);
        Buf out = {0};
        if (!n)
                return fail(e, MOEC_USAGE,
                        "%s is a plan without weights; give the GGUF, which the interpreter needs too",
                        m->path);
        bool good =
                hash_same(plan_wdata_hash((Hash){0, 0}, m->plan->WDATA, n), m->plan->head->wdata_checksum);
        if (report)
                *report = (moec_verify_report){.passed = good};
        if (!good)
                return fail(
                        e, MOEC_MISMATCH, "%s: the embedded weights are damaged; compile it again", m->path);
        buf_fmt(&out, "passed: %llu bytes of embedded weights are what was compiled\n",
                (unsigned long long)n);
        *text = out.p;
        return MOEC_OK;
}

moec_status moec_verify(const moec_model *m, const moec_options *opt, const int32_t *ids, int n,
        const char *format, moec_verify_report *report, char **text, moec_error *e)
{
        static const moec_options defaults;
        *text = NULL;
        if (!m->front)
                return verify_embedded(m, report, text, e);
        Arena *a = arena_new();
        moec_verify_report *const r = NEW(a, moec_verify_report);
        Check *c = NEW(a, Check);
        Buf *out = NEW(a, Buf);
        moec_status st = MOEC_OK;
        Trap t;
        c->arena = a;
        c->s = NEW(a, Stages);
        c->log = NEW(a, Buf);
        if (TRAP(&t) == 0) {
                run(c, m, opt ? opt : &defaults, ids, n, format && !strcmp(format, "json"), r, out);
                trap_pop(&t);
                *text = out->p;
                if (!r->passed)
                        st = fail(e, MOEC_MISMATCH,
                                "%s: the target differs from the interpreter by more than rounding explains",
                                m->path);
        } else {
                st = t.error.status;
                if (e)
                        *e = t.error;
                buf_free(out);
        }
        if (report)
                *report = *r;
        rt_close(c->rt);
        plan_close(c->plan);
        eval_cache_free(c->cache);
        cache_close(c->s->cache);
        buf_free(c->log);
        arena_free(a);
        return st;
}
