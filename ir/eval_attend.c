/* Rotation, keys and values, attention. */
#include <math.h>
#include <string.h>
#include "ir/eval_part.h"
#include "ir/quant.h"
#include "ir/rope.h"

/* ---- rope ---- */

typedef struct Turn {
        u64 rdim;
        bool neox;
        double *rate;      /* [rdim / 2] radians a position */
        double *cos, *sin; /* [rdim / 2] of one position, times rattn */
        double rattn;
} Turn;

static Turn turn_open(Eval *e, const Node *n)
{
        Turn t = {.rdim = attr_i(n, A_rstyle) == ROPE_none ? 0 : (u64)attr_i(n, A_rdim),
                .neox = attr_i(n, A_rstyle) == ROPE_neox,
                .rattn = attr_f(n, A_rattn)};
        u64 pairs = t.rdim / 2;
        const float *freqs = ev_vec(e, n, S_freqs);
        t.rate = SCRATCH(e, double, pairs);
        t.cos = SCRATCH(e, double, pairs);
        t.sin = SCRATCH(e, double, pairs);
        for (u64 i = 0; i < pairs; i++)
                t.rate[i] = rope_rate(n, i) / (freqs ? (double)freqs[i] : 1);
        return t;
}

static void turn_to(Turn *t, i32 pos)
{
        for (u64 i = 0; i < t->rdim / 2; i++) {
                t->cos[i] = cos(pos * t->rate[i]) * t->rattn;
                t->sin[i] = sin(pos * t->rate[i]) * t->rattn;
        }
}

static void turn(const Turn *t, float *x)
{
        u64 half = t->rdim / 2;
        for (u64 i = 0; i < half; i++) {
                float *p = t->neox ? x + i : x + 2 * i, *q = t->neox ? x + i + half : p + 1;
                double a = (double)*p, b = (double)*q;
                *p = (float)(a * t->cos[i] - b * t->sin[i]);
                *q = (float)(b * t->cos[i] + a * t->sin[i]);
        }
}

/* rope(norm(x)) in place: x [rows, heads, d], norm [d] or NULL. */
static void place_heads(
        Eval *e, const Node *n, float *x, u64 rows, u64 heads, u64 d, const float *norm, const i32 *pos)
{
        Turn t = turn_open(e, n);
        if (norm)
                ev_norm_rows(x, rows * heads * d, norm, d, attr_f(n, A_eps));
        for (u64 r = 0; r < rows; r++) {
                turn_to(&t, pos[r]);
                for (u64 h = 0; h < heads; h++)
                        turn(&t, x + (r * heads + h) * d);
        }
}

void eval_rope(Eval *e, const Node *n)
{
        Tensor x = arg(e, n, S_x), pos = arg(e, n, S_pos);
        u64 heads = (u64)attr_i(n, A_heads);
        float *y = result(e, n, 0)->data;
        memcpy(y, x.data, tensor_len(&x) * sizeof *y);
        place_heads(e, n, y, tensor_rows(&x), heads, width(&x) / heads, NULL, pos.data);
}

/* ---- keys and values ---- */

static const State *state_of(Eval *e, const Node *n)
{
        return &e->g->state[ref_idx(ref_state(e->g, in_get(n, S_kv)))];
}

static void keep(Eval *e, float *to, const float *from, u64 n, Dtype dt)
{
        memcpy(to, from, n * sizeof *to);
        if (dt == D_q8_0 && !e->opt->exact)
                q8_0_round(to, n);
        for (u64 i = 0; i < n && dt == D_f16 && !e->opt->exact; i++)
                to[i] = f16_to_f32(f32_to_f16(to[i]));
}

static void append(Eval *e, const Node *n, Slot norm)
{
        const State *st = state_of(e, n);
        Store *s = arg(e, n, S_kv).data;
        Tensor k = arg(e, n, S_k), pos_t = arg(e, n, S_pos), seq_t = arg(e, n, S_seq);
        const i32 *pos = pos_t.data, *seq = seq_t.data;
        const float *v = ev_vec(e, n, S_v);
        u64 rows = tensor_rows(&k);
        float *kk = SCRATCH(e, float, rows * s->kw);
        memcpy(kk, k.data, rows * s->kw * sizeof *kk);
        place_heads(e, n, kk, rows, (u64)st->heads, (u64)st->dk, ev_vec(e, n, norm), pos);
        for (u64 r = 0; r < rows; r++) {
                ev_store_room(e->kv, s, (u64)seq[r], (u64)pos[r]);
                keep(e, s->k[seq[r]] + (u64)pos[r] * s->kw, kk + r * s->kw, s->kw, st->ktype);
                if (v)
                        keep(e, s->v[seq[r]] + (u64)pos[r] * s->vw, v + r * s->vw, s->vw, st->vtype);
        }
}

void eval_kv_append(Eval *e, const Node *n)
{
        append(e, n, S_norm);
        result(e, n, 0)->data = arg(e, n, S_kv).data;
}

/* ---- attention ---- */

typedef struct Head { /* one query head of one token */
        const float *q;
        const float *k, *v;           /* of position 0; next position: kw, vw further */
        u64 kw, vw, dk, dv, from, to; /* positions from <= p < to */
        double scale, softcap;
        const float *sink;
        double *s; /* [to] */
} Head;

static void scores(Head *h)
{
        double max = h->sink ? (double)*h->sink : -INFINITY, sum;
        for (u64 p = h->from; p < h->to; p++) {
                double z = h->scale * ev_dotf(h->q, h->k + p * h->kw, h->dk);
                if (h->softcap != 0)
                        z = h->softcap * tanh(z / h->softcap);
                h->s[p] = z;
                max = z > max ? z : max;
        }
        sum = h->sink ? exp((double)*h->sink - max) : 0;
        for (u64 p = h->from; p < h->to; p++)
                sum += h->s[p] = exp(h->s[p] - max);
        for (u64 p = h->from; p < h->to; p++)
                h->s[p] /= sum;
}

static void attend_head(Head *h, double *acc, float *y)
{
        scores(h);
        for (u64 i = 0; i < h->dv; i++)
                acc[i] = 0;
        for (u64 p = h->from; p < h->to; p++)
                for (u64 i = 0; i < h->dv; i++)
                        acc[i] += h->s[p] * (double)h->v[p * h->vw + i];
        for (u64 i = 0; i < h->dv; i++)
                y[i] = (float)acc[i];
}

void eval_attend(Eval *e, const Node *n)
{
        const State *st = state_of(e, n);
        Store *s = arg(e, n, S_kv).data;
        if (in_get(n, S_k) != REF_NONE) {
                append(e, n, S_knorm);
                result(e, n, 1)->data = s;
        }
        Tensor q = arg(e, n, S_q), pos_t = arg(e, n, S_pos), seq_t = arg(e, n, S_seq);
        const i32 *pos = pos_t.data, *seq = seq_t.data;
        const float *sinks = ev_vec(e, n, S_sinks);
        u64 rows = tensor_rows(&q), heads = (u64)attr_i(n, A_heads), dk = (u64)st->dk,
            window = (u64)attr_i(n, A_window);
        u64 dv = attr_i(n, A_dv) ? (u64)attr_i(n, A_dv) : (u64)st->dv, share = heads / (u64)st->heads;
        float *qq = SCRATCH(e, float, rows *heads *dk), *y = result(e, n, 0)->data;
        double *acc = SCRATCH(e, double, dv), *prob = SCRATCH(e, double, e->at[DIM_n_ctx]);
        memcpy(qq, q.data, rows * heads * dk * sizeof *qq);
        place_heads(e, n, qq, rows, heads, dk, ev_vec(e, n, S_norm), pos);
        for (u64 r = 0; r < rows; r++) {
                u64 end = (u64)pos[r] + 1;
                ev_store_room(e->kv, s, (u64)seq[r], (u64)pos[r]);
                const float *k = s->k[seq[r]], *v = s->v[seq[r]];
                for (u64 i = 0; i < heads; i++) {
                        u64 kvh = i / share;
                        Head h = {.q = qq + (r * heads + i) * dk,
                                .k = k + kvh * dk,
                                .v = st->dv ? v + kvh * (u64)st->dv : k + kvh * dk,
                                .kw = s->kw,
                                .vw = st->dv ? s->vw : s->kw,
                                .dk = dk,
                                .dv = dv,
                                .from = window && end > window ? end - window : 0,
                                .to = end,
                                .scale = attr_f(n, A_scale),
                                .softcap = attr_f(n, A_softcap),
                                .sink = sinks ? sinks + i : NULL,
                                .s = prob};
                        attend_head(&h, acc, y + (r * heads + i) * dv);
                }
        }
        if (attr_i(n, A_out) == ACT_q8)
                ev_round_in(e, y, rows * heads * dv, heads * dv, true);
}
