/* Draws tokens on a CUDA device. One graph holds a draw and the step of the token that was drawn; it is
 * launched as often as tokens are wanted, and the host looks once. After an end token the draws left do
 * nothing, and their steps repeat the last one with the same results. */
#include "runtime/cuda.h"
#include "runtime/sample.h"
#include <string.h>

u64 cuda_draw_room(u32 n_ctx)
{
        return sizeof(PlanDraw) + 4ull * n_ctx;
}

moec_status cuda_draw_open(CudaRt *c, moec_error *e)
{
        void *host = NULL;
        u64 bytes = cuda_draw_room(c->rt.n_ctx);
        int rc = c->d->cuMemAlloc(&c->draw, bytes);
        if (rc == CU_OK)
                rc = c->d->cuMemsetD8Async(c->draw, 0, bytes, c->stream);
        if (rc == CU_OK)
                rc = c->d->cuMemHostAlloc(&host, sizeof(PlanDraw), 0);
        c->host_draw = host;
        return driver_check(c->d, rc, "memory to draw tokens in", e);
}

static u32 group_of(u32 n_vocab)
{
        u32 group = 64;
        while ((u64)group * PLAN_GROUPS < n_vocab)
                group *= 2;
        return group;
}

moec_status cuda_draw_launch(const CudaRt *c, moec_error *e)
{
        u32 n = c->rt.plan->META->n_vocab, group = group_of(n);
        u64 input[N_PLAN_INPUT];
        cuda_inputs(c, input);
        const u64 arg[] = {c->draw, input[PLAN_ids], input[PLAN_pos]};
        int rc = cuda_util(c, PLAN_draw, c->stream, 32ull * ((n + group - 1) / group), arg, COUNT(arg));
        return driver_check(c->d, rc, "launching the draw of a token", e);
}

static void fill(const CudaRt *c, const Draw *w, PlanDraw *d)
{
        const Plan *p = c->rt.plan;
        CuPtr next = c->arena + p->PHASE[0].logits,
              row = c->arena + p->PHASE[c->rt.kept_phase].logits + 4ull * w->row * p->META->n_vocab;
        *d = (PlanDraw){.seed = w->s->seed,
                .seq = w->seq,
                .logits = w->logits ? next : row,
                .next = next,
                .n_vocab = p->META->n_vocab,
                .group = group_of(p->META->n_vocab),
                .temp = w->s->temp,
                .top_p = w->s->top_p,
                .min_p = w->s->min_p,
                .repeat_penalty = w->s->repeat_penalty,
                .top_k = w->s->top_k,
                .repeat_last = w->s->repeat_last,
                .len = w->n_said,
                .n_end = w->n_end};
        for (u32 i = 0; i < w->n_end; i++)
                d->end[i] = (i32)w->end[i];
}

/* Settings, of the tokens so far those that are penalised, and a step of one token: which token, and where,
 * is for the first draw to say. */
static int send(CudaRt *c, const Draw *w)
{
        const Driver *d = c->d;
        u32 last = w->s->repeat_penalty == 1 ? 0
                   : w->s->repeat_last < 0   ? w->n_said
                                             : MIN((u32)w->s->repeat_last, w->n_said);
        u64 from = w->n_said - last;
        fill(c, w, c->host_draw);
        *c->host_dim = (KernelDim){1, 1, c->rt.n_seq, c->rt.n_ctx};
        *c->host_input[PLAN_ids] = 0;
        *c->host_input[PLAN_pos] = (i32)w->n_said;
        *c->host_input[PLAN_seq] = (i32)w->seq;
        *c->host_input[PLAN_out] = 0;
        int rc = d->cuMemcpyHtoDAsync(c->dim, c->host_dim, c->input_bytes, c->stream);
        if (rc == CU_OK)
                rc = d->cuMemcpyHtoDAsync(c->draw, c->host_draw, sizeof(PlanDraw), c->stream);
        if (rc == CU_OK && last)
                rc = d->cuMemcpyHtoDAsync(
                        c->draw + sizeof(PlanDraw) + 4 * from, w->said + from, 4ull * last, c->stream);
        if (rc == CU_OK && w->logits)
                rc = d->cuMemcpyHtoDAsync(
                        c->host_draw->next, w->logits, 4ull * c->rt.plan->META->n_vocab, c->stream);
        return rc;
}

static moec_status result(const CudaRt *c, const Draw *w, i32 *id, u32 *n, moec_error *e)
{
        const PlanDraw *d = c->host_draw;
        if (d->n > w->n || (d->n < w->n && d->state == DRAW_GOING_ON))
                return fail(e, MOEC_RUNTIME, "the device drew %u tokens of %u; compile the model again", d->n,
                        w->n);
        memcpy(id, d->id, d->n * sizeof *id);
        *n = d->n;
        if (d->state == DRAW_NO_LOGIT)
                return sample_no_logit(c->rt.plan->META->n_vocab, e);
        return d->state == DRAW_BAD_LOGIT ? sample_bad_logit(d->bad, d->value, e) : MOEC_OK;
}

moec_status cuda_draw(Rt *rt, const Draw *w, i32 *id, u32 *n, moec_error *e)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        const Driver *d = c->d;
        moec_status st = cuda_ready(c, e);
        if (st == MOEC_OK && !c->draw_graph)
                st = cuda_capture(c, 0, true, c->rt.plan->PHASE[0].n_launch, &c->draw_graph, e);
        if (st == MOEC_OK)
                st = driver_check(d, send(c, w), "sending what to draw from", e);
        for (u32 i = 0; st == MOEC_OK && i < w->n; i++)
                st = driver_check(d, d->cuGraphLaunch(c->draw_graph, c->stream), "launching a graph", e);
        if (st == MOEC_OK)
                st = driver_check(d, d->cuMemcpyDtoHAsync(c->host_draw, c->draw, sizeof(PlanDraw), c->stream),
                        "fetching tokens", e);
        if (st == MOEC_OK)
                st = driver_check(d, d->cuStreamSynchronize(c->stream), "drawing tokens", e);
        return st == MOEC_OK ? result(c, w, id, n, e) : st;
}
