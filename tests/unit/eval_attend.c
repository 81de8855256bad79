/* The interpreter: rotation, keys and values, attention. */
#include "tests/unit/eval_help.h"

/* ---- rope ---- */

typedef struct Rot {
        enum Rope style;
        u32 rdim, octx;
        double base, factor, ext, attn, fast, slow;
        const float *freqs;
} Rot;
static const Rot plain = {.style = ROPE_neox, .base = 10000, .factor = 1, .attn = 1, .fast = 32, .slow = 1};

static void rot_attrs(const Rot *r)
{
        INT(rstyle, r->style);
        INT(rdim, r->rdim);
        INT(octx, r->octx);
        FLT(rbase, r->base);
        FLT(rfactor, r->factor);
        FLT(ext, r->ext);
        FLT(rattn, r->attn);
        FLT(fast, r->fast);
        FLT(slow, r->slow);
        if (r->freqs)
                IN(freqs, W1(r->freqs, r->rdim / 2));
}

static Ref rope(Ref x, i64 heads, const Rot *r)
{
        op(OP_rope);
        IN(x, x);
        IN(pos, INPUT(pos));
        INT(heads, heads);
        rot_attrs(r);
        return done();
}

/* The pair (a, b) turned by an angle. */
static void turned(double a, double b, double angle, double by, double *p, double *q)
{
        *p = by * (a * cos(angle) - b * sin(angle));
        *q = by * (a * sin(angle) + b * cos(angle));
}

static void test_rope_styles(void **state)
{
        (void)state;
        begin(2);
        enum { HEADS = 2, D = 6, RDIM = 4 }; /* two values a head are left alone */
        float *x = fill(2 * HEADS * D, 1);
        pos[0] = 0, pos[1] = 7;
        Rot r = plain;
        r.rdim = RDIM;
        r.attn = 1.5;
        for (u32 neox = 0; neox < 2; neox++) {
                double want[2 * HEADS * D];
                for (u32 i = 0; i < COUNT(want); i++)
                        want[i] = (double)x[i];
                for (u32 t = 0; t < 2; t++)
                        for (u32 h = 0; h < HEADS; h++)
                                for (u32 i = 0; i < RDIM / 2; i++) {
                                        u32 o = (t * HEADS + h) * D, a = o + (neox ? i : 2 * i),
                                            b = neox ? a + RDIM / 2 : a + 1;
                                        double angle = pos[t] * (i ? 0.01 : 1); /* 10000^(-2i/4) */
                                        turned((double)x[a], (double)x[b], angle, 1.5, &want[a], &want[b]);
                                }
                r.style = neox ? ROPE_neox : ROPE_norm;
                assert_close(run(rope(value(x, HEADS * D), HEADS, &r)), want, COUNT(want), 1e-6);
        }
        end();
}

/* The angle, in radians, by which a pair at position p turns, read off the pair (1, 0). */
static void angles(const Rot *r, i32 p, double *out_angle, double *magnitude)
{
        begin(1);
        float x[64] = {0};
        for (u32 i = 0; i < r->rdim / 2; i++)
                x[i] = 1;
        pos[0] = p;
        const float *y = run(rope(value(x, r->rdim), 1, r));
        for (u32 i = 0; i < r->rdim / 2; i++)
                out_angle[i] = atan2((double)y[i + r->rdim / 2], (double)y[i]);
        *magnitude = hypot((double)y[0], (double)y[r->rdim / 2]);
        end();
}

static void test_rope_scaling(void **state)
{
        (void)state;
        static const float freqs[] = {1, 2, 4, 8};
        double a[4], m;
        Rot r = plain;
        r.rdim = 8;
        r.base = 16; /* rates 1, 1/2, 1/4, 1/8 */
        r.factor = 4;
        angles(&r, 2, a, &m);
        for (u32 i = 0; i < 4; i++)
                assert_true(fabs(a[i] - 2.0 / (1 << i) / 4) < 1e-6);
        r.freqs = freqs;
        angles(&r, 2, a, &m);
        for (u32 i = 0; i < 4; i++)
                assert_true(fabs(a[i] - 2.0 / (1 << i) / 4 / (1 << i)) < 1e-6);
}

/* rdim 16, base 2^16, octx 4096: pair i turns 4096 / 2 pi * 4^-i times: 652, 163, 40.7, 10.2, 2.5, 0.64,
 * 0.16, 0.04. So `fast` 32 lies between pairs 2 and 3, `slow` 1 between 4 and 5: the ramp falls from pair 2
 * to pair 5. */
static void test_rope_yarn(void **state)
{
        (void)state;
        static const double kept[] = {1, 1, 1, 2.0 / 3, 1.0 / 3, 0, 0, 0};
        double a[8], m;
        Rot r = plain;
        r.rdim = 16;
        r.base = 65536;
        r.octx = 4096;
        r.factor = 8;
        r.attn = 1.25;
        for (u32 half = 0; half < 2; half++) {
                r.ext = half ? 0.5 : 1;
                angles(&r, 3, a, &m);
                for (u32 i = 0; i < 8; i++) {
                        double k = kept[i] * r.ext, want = 3 * pow(4, -(double)i) * (k + (1 - k) / 8);
                        if (fabs(a[i] - want) > 1e-6)
                                fail_msg("pair %u turns by %.9g, not %.9g", i, a[i], want);
                }
                assert_true(fabs(m - 1.25) < 1e-6);
        }
}

/* ---- attention ---- */

typedef struct Att { /* all of [tokens, ..] */
        u32 heads, kv_heads, dk, dv, window;
        bool prefix; /* values are a prefix of the keys */
        double scale, softcap;
        const float *q, *k, *v, *sinks;
} Att;

static void naive(const Att *a, double *y)
{
        for (u32 t = 0; t < n_tok; t++)
                for (u32 h = 0; h < a->heads; h++) {
                        u32 kh = h * a->kv_heads / a->heads;
                        double sum = a->sinks ? exp((double)a->sinks[h]) : 0;
                        double *o = y + (t * a->heads + h) * a->dv;
                        memset(o, 0, a->dv * sizeof *o);
                        for (u32 s = 0; s < n_tok; s++) {
                                if (seq[s] != seq[t] || pos[s] > pos[t])
                                        continue;
                                if (a->window && pos[s] <= pos[t] - (i32)a->window)
                                        continue;
                                double z = 0;
                                for (u32 i = 0; i < a->dk; i++)
                                        z += (double)a->q[(t * a->heads + h) * a->dk + i] *
                                             (double)a->k[(s * a->kv_heads + kh) * a->dk + i];
                                z *= a->scale;
                                if (a->softcap > 0)
                                        z = a->softcap * tanh(z / a->softcap);
                                sum += exp(z);
                                const float *v = a->prefix ? a->k + (s * a->kv_heads + kh) * a->dk
                                                           : a->v + (s * a->kv_heads + kh) * a->dv;
                                for (u32 i = 0; i < a->dv; i++)
                                        o[i] += exp(z) * (double)v[i];
                        }
                        for (u32 i = 0; i < a->dv; i++)
                                o[i] /= sum;
                }
}

static Ref state_for(const Att *a, const char *name, Dtype t)
{
        return graph_state(g, name, a->kv_heads, a->dk, a->prefix ? 0 : a->dv, t, t);
}

static Ref append(const Att *a, Ref s, Ref k, Ref norm, const Rot *r)
{
        Ref v = a->prefix ? REF_NONE : value(a->v, a->kv_heads * a->dv);
        op(OP_kv_append);
        IN(kv, s);
        IN(k, k);
        if (v)
                IN(v, v);
        IN(pos, INPUT(pos));
        IN(seq, INPUT(seq));
        if (norm)
                IN(norm, norm), FLT(eps, 0.5);
        if (r)
                rot_attrs(r);
        return done();
}

static void attend_attrs(const Att *a)
{
        IN(pos, INPUT(pos));
        IN(seq, INPUT(seq));
        INT(heads, a->heads);
        INT(dv, a->dv);
        INT(window, a->window);
        FLT(scale, a->scale);
        FLT(softcap, a->softcap);
        if (a->sinks)
                IN(sinks, W1(a->sinks, a->heads));
}

static Ref attend(const Att *a, Ref s, Ref q)
{
        op(OP_attend);
        IN(q, q);
        IN(kv, s);
        attend_attrs(a);
        return done();
}

static Ref whole_of(const Att *a, Ref s)
{
        s = append(a, s, value(a->k, a->kv_heads * a->dk), REF_NONE, NULL);
        return attend(a, s, value(a->q, a->heads * a->dk));
}

static Ref whole(const Att *a, const char *name, Dtype t)
{
        return whole_of(a, state_for(a, name, t));
}

static Att random_att(u32 heads, u32 kv_heads, u32 dk, u32 dv)
{
        return (Att){.heads = heads,
                .kv_heads = kv_heads,
                .dk = dk,
                .dv = dv,
                .scale = 0.7,
                .q = fill((u64)n_tok * heads * dk, 2),
                .k = fill((u64)n_tok * kv_heads * dk, 2),
                .v = fill((u64)n_tok * kv_heads * dv, 1)};
}

static void test_attend_masks(void **state)
{
        (void)state;
        for (u32 set = 0; set < 32; set++) {
                begin(12);
                bool prefix = set & 8;
                Att a = random_att(6, prefix ? 1 : set & 16 ? 6 : 2, 10, 7);
                double want[12 * 6 * 7];
                a.prefix = prefix;
                a.window = set & 1 ? 4 : 0;
                a.softcap = set & 2 ? 1.5 : 0;
                a.sinks = set & 4 ? fill(6, 2) : NULL;
                naive(&a, want);
                assert_close(run(whole(&a, "s", D_f32)), want, COUNT(want), 1e-6);
                end();
        }
}

/* Scores and sinks far beyond exp's range: the largest takes all. */
static void test_attend_range(void **state)
{
        (void)state;
        begin(3);
        static const float k[] = {-900, 900, 5}, q[] = {1, 1, 1}, v[] = {3, 7, 11}, sinks[] = {4000};
        static const float want[] = {3, 7, 7}, none[3];
        Att a = {.heads = 1, .kv_heads = 1, .dk = 1, .dv = 1, .scale = 2, .q = q, .k = k, .v = v};
        assert_floats(run(whole(&a, "s", D_f32)), want, 3);
        a.sinks = sinks;
        assert_floats(run(whole(&a, "sunk", D_f32)), none, 3);
        end();
}

/* Sequences at different depths, mixed in one step, each see their own past. */
static void test_attend_sequences(void **state)
{
        (void)state;
        begin(10);
        static const i32 of[10] = {2, 0, 2, 1, 0, 2, 2, 1, 0, 2};
        i32 next[N_SEQ] = {0};
        Att a = random_att(4, 2, 8, 8);
        double want[10 * 4 * 8];
        for (u32 i = 0; i < n_tok; i++) {
                seq[i] = of[i];
                pos[i] = next[of[i]]++;
        }
        naive(&a, want);
        assert_close(run(whole(&a, "s", D_f32)), want, COUNT(want), 1e-6);
        end();
}

/* The same tokens in steps of every size give the same bits as in one step. */
static void test_attend_steps(void **state)
{
        (void)state;
        enum { T = 48, W = 4 * 8 }; /* the states grow on the way */
        for (u32 size = 1; size < T; size += 7) {
                begin(T);
                Att a = random_att(4, 2, 8, 8);
                for (i32 i = 0; i < T; i++) {
                        seq[i] = i % 3 == 1;
                        pos[i] = i % 3 == 1 ? i / 3 : i - (i + 1) / 3;
                }
                float *once = NEWN(arena, float, T *W);
                Ref r = whole(&a, "s", D_f16);
                memcpy(once, run(r), T * W * sizeof *once);
                eval_kv_free(kv);
                kv = eval_kv_new(N_SEQ, N_CTX);
                for (u32 at = 0; at < T; at += size) {
                        n_tok = MIN(size, T - at);
                        for (u32 i = 0; i < n_tok; i++) {
                                ids[i] = (i32)(at + i);
                                seq[i] = ids[i] % 3 == 1;
                                pos[i] = seq[i] ? ids[i] / 3 : ids[i] - (ids[i] + 1) / 3;
                        }
                        assert_floats(run(r), once + (u64)at * W, (u64)n_tok * W);
                }
                end();
        }
}

/* f16 states are rounded, as quantised; the store is shared by graphs through the state's name. */
static void test_state_rounding(void **state)
{
        (void)state;
        begin(6);
        Att a = random_att(2, 1, 8, 8), h = a, hk = a;
        float *k = NEWN(arena, float, 48), *v = NEWN(arena, float, 48);
        for (u32 i = 0; i < 48; i++) {
                k[i] = f16_to_f32(f32_to_f16(a.k[i]));
                v[i] = f16_to_f32(f32_to_f16(a.v[i]));
        }
        h.k = hk.k = k;
        h.v = v;
        Ref half = whole(&a, "half", D_f16), full = whole(&a, "full", D_f32), hand = whole(&h, "hand", D_f32);
        assert_same(half, hand, 96);
        assert_same(
                whole_of(&a, graph_state(g, "keys", 1, 8, 8, D_f16, D_f32)), whole(&hk, "hand2", D_f32), 96);
        assert_true(memcmp(run(half), run(full), 96 * sizeof(float)));
        opt.exact = true;
        assert_same(half, full, 96);
        opt.exact = false;
        float *before = NEWN(arena, float, 96);
        memcpy(before, run(full), 96 * sizeof *before);
        g = graph_new(arena, "other");
        assert_floats(run(attend(&a, state_for(&a, "full", D_f32), value(a.q, 16))), before, 96);
        end();
}

/* q8_0 rounds by blocks of a head's row; keys and values each by their own type; exact, not at all. */
static void test_state_q8_0(void **state)
{
        (void)state;
        enum { T = 5, N = T * 2 * 64, Y = T * 4 * 64 };
        begin(T);
        Att a = random_att(4, 2, 64, 64), hk = a, h = a;
        float *k = NEWN(arena, float, N), *v = NEWN(arena, float, N);
        memcpy(k, a.k, N * sizeof *k);
        memcpy(v, a.v, N * sizeof *v);
        q8_0_round(k, N);
        q8_0_round(v, N);
        h.k = hk.k = k;
        h.v = v;
        Ref kept = whole(&a, "kept", D_q8_0), full = whole(&a, "full", D_f32);
        assert_same(kept, whole(&h, "hand", D_f32), Y);
        assert_same(whole_of(&a, graph_state(g, "keys", 2, 64, 64, D_q8_0, D_f32)),
                whole(&hk, "hand2", D_f32), Y);
        assert_true(memcmp(run(kept), run(full), Y * sizeof(float)));
        opt.exact = true;
        assert_same(kept, full, Y);
        end();
}

/* ---- fused forms ---- */

static Ref rmsnorm(Ref x, Ref w, i64 group)
{
        op(OP_rmsnorm);
        IN(x, x);
        IN(w, w);
        INT(group, group);
        FLT(eps, 0.5);
        return done();
}

/* attend with norm, rope (and freqs), k, v, knorm is the chain rmsnorm, rope, kv_append, attend; so is
 * kv_append. */
static void test_fused(void **state)
{
        (void)state;
        static const float freqs[] = {1, 2, 3, 4};
        for (u32 set = 0; set < 16; set++) {
                begin(9);
                bool normed = set & 1, turned_too = set & 2, own = set & 4, prefix = set & 8;
                Att a = random_att(4, prefix ? 1 : 2, 10, 6);
                a.prefix = prefix;
                u32 width = a.heads * a.dv;
                Rot r = plain;
                r.rdim = turned_too ? 8 : 0;
                r.style = turned_too ? ROPE_neox : ROPE_none;
                r.freqs = turned_too ? freqs : NULL;
                Ref q = value(a.q, a.heads * a.dk), k = value(a.k, a.kv_heads * a.dk);
                Ref qn = W1(fill(a.dk, 1), a.dk), kn = W1(fill(a.dk, 1), a.dk), q1 = q, k1 = k;
                if (normed)
                        q1 = rmsnorm(q, qn, a.dk), k1 = rmsnorm(k, kn, a.dk);
                if (turned_too)
                        q1 = rope(q1, a.heads, &r), k1 = rope(k1, a.kv_heads, &r);
                Ref chain = attend(&a, append(&a, state_for(&a, "chain", D_f16), k1, REF_NONE, NULL), q1);
                Ref s = state_for(&a, "fused", D_f16);
                Ref v = own && !prefix ? value(a.v, a.kv_heads * a.dv) : REF_NONE;
                if (!own)
                        s = append(&a, s, k, normed ? kn : REF_NONE, &r);
                op(OP_attend);
                IN(q, q);
                IN(kv, s);
                if (own) {
                        IN(k, k);
                        if (v)
                                IN(v, v);
                        if (normed)
                                IN(knorm, kn);
                }
                if (normed)
                        IN(norm, qn);
                FLT(eps, 0.5);
                rot_attrs(&r);
                attend_attrs(&a);
                Ref fused = done();
                assert_same(chain, fused, (u64)n_tok * width);
                if (own) /* its second result is the state that the next attend reads */
                        assert_same(attend(&a, fused + 1, q1), chain, (u64)n_tok * width);
                end();
        }
}

static void test_bounds(void **state)
{
        (void)state;
        begin(2);
        Att a = random_att(2, 1, 8, 8);
        Ref r = whole(&a, "s", D_f32);
        pos[1] = N_CTX;
        assert_err(r, MOEC_USAGE, "pos[1] is 40, not in 0..39");
        pos[1] = -1;
        assert_err(r, MOEC_USAGE, "pos[1] is -1");
        pos[1] = N_CTX - 1;
        seq[0] = N_SEQ;
        assert_err(r, MOEC_USAGE, "seq[0] is 3, not in 0..2");
        seq[0] = N_SEQ - 1;
        run(r);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rope_styles),
                cmocka_unit_test(test_rope_scaling),
                cmocka_unit_test(test_rope_yarn),
                cmocka_unit_test(test_attend_masks),
                cmocka_unit_test(test_attend_range),
                cmocka_unit_test(test_attend_sequences),
                cmocka_unit_test(test_attend_steps),
                cmocka_unit_test(test_state_rounding),
                cmocka_unit_test(test_state_q8_0),
                cmocka_unit_test(test_fused),
                cmocka_unit_test(test_bounds),
        };
        return cmocka_run_group_tests_name("eval_attend", tests, NULL, NULL);
}
