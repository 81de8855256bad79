#include "runtime/api.h"
#include "runtime/sample.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CTX   4096
#define DEFAULT_BATCH 512

/* ---- loading ---- */

static void rt_backend_free(void *self)
{
        rt_close(self);
}

static moec_status rt_backend_step(void *self, const Batch *b, float *logits, moec_error *e)
{
        return rt_step(self, b, logits, e);
}

static bool rt_backend_keeps(void *self, const Batch *b)
{
        return rt_keeps(self, b);
}

static moec_status rt_backend_logits(void *self, float *logits, moec_error *e)
{
        return rt_logits(self, logits, e);
}

static bool rt_backend_draws(void *self)
{
        return rt_draws(self);
}

static moec_status rt_backend_draw(void *self, const Draw *d, i32 *id, u32 *n, moec_error *e)
{
        return rt_draw(self, d, id, n, e);
}

static const Backend rt_backend = {rt_backend_step, NULL, rt_backend_free, rt_backend_keeps,
        rt_backend_logits, rt_backend_draws, rt_backend_draw};

/* A positive option, or its default. */
static moec_status positive(int value, u32 def, u32 max, const char *name, u32 *out, moec_error *e)
{
        if (value < 0 || (u32)value > max)
                return fail(e, MOEC_USAGE, "%s %d: give 1 to %u, or 0 for the default", name, value, max);
        *out = value ? (u32)value : def;
        return MOEC_OK;
}

static moec_status context_sizes(moec_context *c, const moec_options *opt, moec_error *e)
{
        int trained = c->model->info.n_ctx_train;
        u32 n_ctx = trained > 0 ? MIN((u32)trained, DEFAULT_CTX) : DEFAULT_CTX;
        u32 threads;
        moec_status st;
        if ((st = positive(opt->n_ctx, n_ctx, 1u << 24, "context size", &c->n_ctx, e)) != MOEC_OK ||
                (st = positive(opt->max_seqs, 1, 1u << 16, "number of sequences", &c->n_seq, e)) != MOEC_OK ||
                (st = positive(opt->n_batch, DEFAULT_BATCH, 1u << 20, "batch size", &c->n_batch, e)) !=
                        MOEC_OK ||
                (st = positive(opt->threads, 0, 1024, "number of threads", &threads, e)) != MOEC_OK)
                return st;
        c->n_vocab = (u32)c->model->info.n_vocab;
        c->progress = opt->progress;
        c->user = opt->user;
        c->id = calloc(c->n_batch, sizeof *c->id);
        c->pos = calloc(c->n_batch, sizeof *c->pos);
        c->seq = calloc(c->n_batch, sizeof *c->seq);
        c->out = calloc(c->n_batch, sizeof *c->out);
        c->last = calloc(c->n_seq, sizeof *c->last);
        c->scratch = malloc(sample_scratch(c->n_vocab));
        if (!c->id || !c->pos || !c->seq || !c->out || !c->last || !c->scratch)
                return fail(e, MOEC_NO_MEMORY, "out of memory for a batch of %u tokens", c->n_batch);
        return kv_new(c->n_seq, c->n_ctx, &c->kv, e);
}

/* A plan's target and types were settled when it was compiled: asking for others is a mistake worth telling.
 */
static moec_status plan_agrees(const Plan *p, const moec_options *opt, moec_error *e)
{
        const char *target = plan_str(p, p->META->target), *want = opt->target;
        size_t n = strlen(target);
        if (want && strcmp(want, "auto") != 0 &&
                (strncmp(want, target, n) != 0 || (want[n] && want[n] != ':')))
                return fail(e, MOEC_USAGE,
                        "the plan was compiled for %s and cannot run on %s; give the GGUF instead", target,
                        want);
        const struct {
                const char *want, *what;
                u32 type;
        } kv[] = {{opt->ctk, "keys", p->META->ctk}, {opt->ctv, "values", p->META->ctv}};
        for (size_t i = 0; i < COUNT(kv); i++)
                if (kv[i].want && strcmp(kv[i].want, dtype_info[kv[i].type].name) != 0)
                        return fail(e, MOEC_USAGE,
                                "the plan was compiled with %s kept as %s, not %s; compile it again",
                                kv[i].what, dtype_info[kv[i].type].name, kv[i].want);
        return MOEC_OK;
}

static moec_status load_plan(moec_context *c, const moec_options *opt, moec_error *e)
{
        const Plan *p = c->model->plan;
        moec_timing *t = &c->timing;
        moec_status st = MOEC_OK;
        char why[PLAN_WHY] = "", what[64];
        double start = now_s();
        if (p)
                st = plan_agrees(p, opt, e);
        else {
                bool from_cache = false;
                st = c->model->make_plan(c->model, opt, &c->plan, &from_cache, why, e);
                p = c->plan;
                t->compiled = st == MOEC_OK && !from_cache;
                t->compile_s = now_s() - start;
                start = now_s();
        }
        if (st != MOEC_OK)
                return st;
        if (p->META->n_vocab != c->n_vocab)
                return fail(e, MOEC_MISMATCH, "the plan is for a vocabulary of %u, the model has %u",
                        p->META->n_vocab, c->n_vocab);
        moec_options with = *opt;
        if (!with.weights && !c->model->plan)
                with.weights = c->model->path; /* a cached plan may remember where the same file was before */
        if ((st = rt_open(p, &with, c->n_ctx, c->n_seq, &c->rt, e)) != MOEC_OK)
                return st;
        c->back = &rt_backend;
        c->self = c->rt;
        RtMemory m = rt_memory(c->rt);
        t->load_s = now_s() - start;
        t->weight_bytes = m.weights;
        t->kv_bytes = m.kv;
        t->scratch_bytes = m.scratch;
        t->threads = (int)pool_threads(rt_pool(c->rt));
        rt_describe(c->rt, what);
        snprintf(t->target, sizeof t->target, *why ? "%.*s (%s)" : "%.*s%s",
                (int)(sizeof t->target - PLAN_WHY - 4), what, why);
        return MOEC_OK;
}

moec_status moec_load(const moec_model *model, const moec_options *opt, moec_context **out, moec_error *e)
{
        static const moec_options defaults;
        *out = NULL;
        if (!opt)
                opt = &defaults;
        moec_context *c = calloc(1, sizeof *c);
        if (!c)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading %s", model->path);
        c->model = model;
        moec_status st = context_sizes(c, opt, e);
        if (st == MOEC_OK) {
                if (!opt->target || strcmp(opt->target, "eval") != 0)
                        st = load_plan(c, opt, e);
                else if (model->load_eval)
                        st = model->load_eval(model, opt, c, e);
                else
                        st = fail(e, MOEC_USAGE,
                                "%s is a compiled plan; the interpreter (eval) needs the GGUF", model->path);
        }
        if (st == MOEC_OK)
                *out = c;
        else
                moec_unload(c);
        return st;
}

void moec_unload(moec_context *c)
{
        if (!c)
                return;
        if (c->back)
                c->back->free(c->self);
        plan_close(c->plan);
        for (u32 s = 0; c->last && s < c->n_seq; s++)
                free(c->last[s].saved);
        free(c->last);
        free(c->id);
        free(c->pos);
        free(c->seq);
        free(c->out);
        free(c->logits);
        free(c->scratch);
        free(c->rows);
        kv_free(c->kv);
        free(c);
}

void moec_get_timing(const moec_context *c, moec_timing *t)
{
        *t = c->timing;
}

int moec_n_ctx(const moec_context *c)
{
        return (int)c->n_ctx;
}

/* ---- steps ---- */

static moec_status logits_room(moec_context *c, u32 rows, moec_error *e)
{
        if (rows <= c->cap_rows)
                return MOEC_OK;
        free(c->logits);
        c->cap_rows = 0;
        c->logits = malloc((size_t)rows * c->n_vocab * sizeof *c->logits);
        if (!c->logits)
                return fail(e, MOEC_NO_MEMORY, "out of memory for %u rows of logits", rows);
        c->cap_rows = rows;
        return MOEC_OK;
}

moec_status fetch_logits(moec_context *c, moec_error *e)
{
        moec_status st;
        if (!c->kept)
                return MOEC_OK;
        if ((st = logits_room(c, c->kept_rows, e)) != MOEC_OK ||
                (st = c->back->logits(c->self, c->logits, e)) != MOEC_OK)
                return st;
        c->kept = false;
        return MOEC_OK;
}

moec_status save_others(moec_context *c, const moec_token *tok, u32 n, moec_error *e)
{
        moec_status st;
        for (u32 i = 0; i < n; i++)
                if (c->last[tok[i].seq].where == LAST_STEP)
                        c->last[tok[i].seq].where = LAST_NONE;
        size_t bytes = sizeof(float) * c->n_vocab;
        for (u32 s = 0; s < c->n_seq; s++) {
                Last *l = &c->last[s];
                if (l->where != LAST_STEP)
                        continue;
                if ((st = fetch_logits(c, e)) != MOEC_OK)
                        return st;
                if (!l->saved && !(l->saved = malloc(bytes)))
                        return fail(e, MOEC_NO_MEMORY, "out of memory for the logits of sequence %u", s);
                memcpy(l->saved, c->logits + (u64)l->row * c->n_vocab, bytes);
                l->where = LAST_SAVED;
        }
        return MOEC_OK;
}

/* Fills the batch; nothing else changes. */
static moec_status make_batch(moec_context *c, const moec_token *tok, u32 n, Batch *b, moec_error *e)
{
        u32 n_out = 0;
        for (u32 i = 0; i < n; i++) {
                if (tok[i].id < 0 || (u32)tok[i].id >= c->n_vocab)
                        return fail(e, MOEC_USAGE, "token %d: the vocabulary has %u", tok[i].id, c->n_vocab);
                c->id[i] = tok[i].id;
                c->seq[i] = tok[i].seq;
                if (tok[i].logits)
                        c->out[n_out++] = i;
        }
        *b = (Batch){.n = n, .n_out = n_out, .id = c->id, .pos = c->pos, .seq = c->seq, .out = c->out};
        return kv_place(c->kv, tok, n, c->pos, e);
}

moec_status moec_step(moec_context *c, const moec_token *tok, int n, const float **logits, moec_error *e)
{
        Batch b;
        moec_status st;
        if (logits)
                *logits = NULL;
        if (n < 0)
                return fail(e, MOEC_USAGE, "a step of %d tokens", n);
        if ((u32)n > c->n_batch)
                return fail(e, MOEC_REFUSED, "a step of %d tokens: the batch size is %u", n, c->n_batch);
        if (n == 0)
                return MOEC_OK;
        if ((st = make_batch(c, tok, (u32)n, &b, e)) != MOEC_OK ||
                (st = save_others(c, tok, b.n, e)) != MOEC_OK)
                return st;
        c->kept = !logits && c->back->keeps && c->back->keeps(c->self, &b);
        c->kept_rows = b.n_out;
        if ((!c->kept && (st = logits_room(c, b.n_out, e)) != MOEC_OK) ||
                (st = c->back->step(c->self, &b, c->kept ? NULL : c->logits, e)) != MOEC_OK)
                return st;
        kv_append(c->kv, tok, b.n);
        for (u32 i = 0; i < b.n_out; i++) {
                Last *l = &c->last[c->seq[c->out[i]]];
                l->where = LAST_STEP;
                l->row = i;
                l->len = (u32)c->pos[c->out[i]] + 1;
        }
        if (logits && b.n_out)
                *logits = c->logits;
        return MOEC_OK;
}

int moec_seq_len(const moec_context *c, int seq)
{
        return kv_has(c->kv, seq) ? (int)kv_len(c->kv, (u32)seq) : 0;
}

moec_status moec_seq_trim(moec_context *c, int seq, int len, moec_error *e)
{
        moec_status st = kv_trim(c->kv, seq, len, e);
        if (st != MOEC_OK)
                return st;
        if (c->last[seq].len > (u32)len)
                c->last[seq].where = LAST_NONE;
        if (c->back->trim)
                c->back->trim(c->self, (u32)seq, (u32)len);
        return MOEC_OK;
}
