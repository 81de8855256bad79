/* The interpreter as a target: a context whose steps are ir/eval.h's, as quantised as the options say. */
#include <string.h>
#include <stdlib.h>
#include "ir/eval.h"
#include "moec_front.h"

#define CACHE_BYTES (2ull << 30) /* dequantised weights kept */

typedef struct Self {
        Arena *arena;
        Graph *g;
        EvalKv *kv;
        EvalCache *cache;
        bool exact;
} Self;

static void eval_free(void *p)
{
        Self *s = p;
        eval_kv_free(s->kv);
        eval_cache_free(s->cache);
        arena_free(s->arena);
}

static moec_status eval_step(void *p, const Batch *b, float *logits, moec_error *e)
{
        Self *s = p;
        Arena *a = arena_new();
        Trap t;
        moec_status st = MOEC_OK;
        if (TRAP(&t) == 0) {
                i32 *out = NEWN(a, i32, b->n_out + 1);
                for (u32 i = 0; i < b->n_out; i++)
                        out[i] = (i32)b->out[i];
                EvalIn in = {b->n, b->n_out, b->id, b->pos, b->seq, out};
                EvalOpt opt = {.exact = s->exact, .cache = s->cache};
                Tensor *ret = NEWN(a, Tensor, s->g->n_ret);
                eval(s->g, s->kv, &in, &opt, a, ret);
                memcpy(logits, ret[0].data, tensor_len(&ret[0]) * sizeof *logits);
                trap_pop(&t);
        } else {
                st = t.error.status;
                if (e)
                        *e = t.error;
        }
        arena_free(a);
        return st;
}

static const Backend backend = {.step = eval_step, .free = eval_free};

/* The graph as built: exact. Its products know no rounding, so q8 activations need the pass that chooses
 * them. */
static void prepare(Self *s, const Front *f, const moec_options *opt)
{
        if (f->model.info.is_shape)
                err(MOEC_USAGE, "%s is a shape file: it has no weights to interpret", f->model.path);
        s->g = model_graph(
                &f->model, s->arena, front_cache_type(opt->ctk, "-ctk"), front_cache_type(opt->ctv, "-ctv"));
        check(s->g);
        if (!s->exact) {
                PassOpt po = {.act = ACT_q8};
                run_passes(s->g, "fold, dce, experts, qmatmul", &po, NULL, NULL);
        }
}

moec_status front_load_eval(const moec_model *m, const moec_options *opt, moec_context *ctx, moec_error *e)
{
        Arena *a = arena_new();
        Self *s = NEW(a, Self);
        double start = now_s();
        Trap t;
        s->arena = a;
        s->exact = opt->act == MOEC_ACT_F32;
        if (TRAP(&t) == 0) {
                prepare(s, m->front, opt);
                trap_pop(&t);
        } else {
                if (e)
                        *e = t.error;
                arena_free(a);
                return t.error.status;
        }
        s->kv = eval_kv_new(ctx->n_seq, ctx->n_ctx);
        s->cache = eval_cache_new(CACHE_BYTES);
        ctx->back = &backend;
        ctx->self = s;
        ctx->timing.load_s = now_s() - start;
        ctx->timing.weight_bytes = m->info.weight_bytes;
        ctx->timing.threads = 1;
        snprintf(ctx->timing.target, sizeof ctx->timing.target, "eval, the interpreter (%s activations)",
                s->exact ? "exact" : "q8");
        return MOEC_OK;
}
