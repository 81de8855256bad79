#include "runtime/api.h"
#include "runtime/sample.h"

/* The logits behind the last token of seq, or why there are none. */
static moec_status last_logits(const moec_context *c, int seq, const float **logits, moec_error *e)
{
        if (!kv_has(c->kv, seq))
                return fail(e, MOEC_USAGE, "no sequence %d: there are %u, from 0", seq, c->n_seq);
        const Last *l = &c->last[seq];
        if (l->where == LAST_NONE || l->len != kv_len(c->kv, (u32)seq))
                return fail(e, MOEC_USAGE, "no logits were kept of the last position of sequence %d", seq);
        *logits = l->where == LAST_STEP ? c->logits + (u64)l->row * c->n_vocab : l->saved;
        return MOEC_OK;
}

moec_status moec_sample(moec_context *c, int seq, const moec_sampling *s, int32_t *id, moec_error *e)
{
        const float *logits = NULL;
        moec_status st;
        if ((st = sample_check(s, e)) != MOEC_OK || (st = last_logits(c, seq, &logits, e)) != MOEC_OK)
                return st;
        u32 len = kv_len(c->kv, (u32)seq);
        return sample(logits, c->n_vocab, s, kv_ids(c->kv, (u32)seq), len, (u64)seq, len, c->scratch, id, e);
}

moec_status moec_generate(moec_context *c, int seq, const moec_sampling *s, int n, bool ignore_end,
        int32_t *ids, int *n_out, moec_error *e)
{
        *n_out = 0;
        while (*n_out < n) {
                moec_token t = {.seq = seq, .logits = true};
                moec_status st = moec_sample(c, seq, s, &t.id, e);
                if (st == MOEC_OK)
                        st = moec_step(c, &t, 1, NULL, e);
                if (st != MOEC_OK)
                        return st;
                ids[(*n_out)++] = t.id;
                if (!ignore_end && moec_is_end(c->model, t.id))
                        return MOEC_OK;
                if (*n_out < n && c->progress && !c->progress(c->user, "generating", (u64)*n_out, (u64)n))
                        return fail(e, MOEC_INTERRUPTED, "stopped after %d of %d tokens", *n_out, n);
        }
        return MOEC_OK;
}
