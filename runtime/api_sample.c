#include "runtime/api.h"
#include "runtime/sample.h"
#include <string.h>

/* What was kept of the last token of seq, or why there is nothing. */
static moec_status last_of(const moec_context *c, int seq, const Last **last, moec_error *e)
{
        if (!kv_has(c->kv, seq))
                return fail(e, MOEC_USAGE, "no sequence %d: there are %u, from 0", seq, c->n_seq);
        *last = &c->last[seq];
        if ((*last)->where == LAST_NONE || (*last)->len != kv_len(c->kv, (u32)seq))
                return fail(e, MOEC_USAGE, "no logits were kept of the last position of sequence %d", seq);
        return MOEC_OK;
}

static const float *logits_of(const moec_context *c, const Last *l)
{
        return l->where == LAST_STEP ? c->logits + (u64)l->row * c->n_vocab : l->saved;
}

moec_status moec_sample(moec_context *c, int seq, const moec_sampling *s, int32_t *id, moec_error *e)
{
        const Last *l = NULL;
        moec_status st;
        if ((st = sample_check(s, e)) != MOEC_OK || (st = last_of(c, seq, &l, e)) != MOEC_OK ||
                (l->where == LAST_STEP && (st = fetch_logits(c, e)) != MOEC_OK))
                return st;
        u32 len = kv_len(c->kv, (u32)seq);
        return sample(logits_of(c, l), c->n_vocab, s, kv_ids(c->kv, (u32)seq), len, (u64)seq, len, c->scratch,
                id, e);
}

/* ---- several tokens ---- */

/* Tokens that the target draws and evaluates by itself. */
static moec_status draw(moec_context *c, int seq, const moec_sampling *s, int n, bool ignore_end,
        int32_t *ids, u32 *did, moec_error *e)
{
        const Last *l = NULL;
        moec_token t = {.seq = seq};
        moec_status st;
        if ((st = sample_check(s, e)) != MOEC_OK || (st = last_of(c, seq, &l, e)) != MOEC_OK)
                return st;
        u32 len = kv_len(c->kv, (u32)seq);
        const Last was = *l;
        if ((st = save_others(c, &t, 1, e)) != MOEC_OK)
                return st;
        Draw d = {.s = s,
                .seq = (u32)seq,
                .n = MIN((u32)n, c->n_ctx - len),
                .said = kv_ids(c->kv, (u32)seq),
                .n_said = len,
                .logits = was.where == LAST_STEP && c->kept ? NULL : logits_of(c, &was),
                .row = was.row};
        if (!ignore_end && c->model->tok)
                d.end = token_ends(c->model->tok, &d.n_end);
        st = c->back->draw(c->self, &d, ids, did, e);
        for (u32 i = 0; i < *did; i++) {
                t.id = ids[i];
                kv_append(c->kv, &t, 1);
        }
        c->last[seq] = (Last){*did ? LAST_STEP : LAST_NONE, len + *did, 0, was.saved};
        c->kept = true;
        c->kept_rows = 1;
        return st;
}

static moec_status sample_and_step(
        moec_context *c, int seq, const moec_sampling *s, int32_t *id, moec_error *e)
{
        moec_token t = {.seq = seq, .logits = true};
        moec_status st = moec_sample(c, seq, s, &t.id, e);
        if (st == MOEC_OK)
                st = moec_step(c, &t, 1, NULL, e);
        *id = t.id;
        return st;
}

static bool can_draw(const moec_context *c, int seq)
{
        return c->back->draw && c->back->draws(c->self) && kv_has(c->kv, seq) &&
               kv_len(c->kv, (u32)seq) < c->n_ctx;
}

moec_status moec_generate(moec_context *c, int seq, const moec_sampling *s, int n, bool ignore_end,
        int32_t *ids, int *n_out, moec_error *e)
{
        *n_out = 0;
        while (*n_out < n) {
                u32 did = 0;
                moec_status st;
                if (can_draw(c, seq))
                        st = draw(c, seq, s, n - *n_out, ignore_end, ids + *n_out, &did, e);
                else if ((st = sample_and_step(c, seq, s, ids + *n_out, e)) == MOEC_OK)
                        did = 1;
                *n_out += (int)did;
                if (st != MOEC_OK)
                        return st;
                if (!ignore_end && moec_is_end(c->model, ids[*n_out - 1]))
                        return MOEC_OK;
                if (*n_out < n && c->progress && !c->progress(c->user, "generating", (u64)*n_out, (u64)n))
                        return fail(e, MOEC_INTERRUPTED, "stopped after %d of %d tokens", *n_out, n);
        }
        return MOEC_OK;
}
