/* The interpreter: routing and experts. */
#include "tests/unit/eval_help.h"

/* ---- route ---- */

typedef struct Gating {
        enum Gate gate;
        i64 k, groups, groups_k, renorm;
        double wscale;
        const float *bias;
} Gating;

static Ref route(Ref x, Ref w, Ref norm, u32 experts, const Gating *c)
{
        op(OP_route);
        IN(x, x);
        if (w)
                IN(w, w);
        if (norm)
                IN(norm, norm), FLT(eps, 0.5);
        if (c->bias)
                IN(bias, W1(c->bias, experts));
        INT(k, c->k);
        INT(gate, c->gate);
        INT(renorm, c->renorm);
        FLT(wscale, c->wscale ? c->wscale : 1);
        INT(groups, c->groups);
        INT(groups_k, c->groups_k);
        return done();
}

static void picks(const float *z, u32 experts, const Gating *c, Pick *p)
{
        begin(1);
        memcpy(p, run(route(value(z, experts), 0, 0, experts, c)), (u64)c->k * sizeof *p);
        end();
}

static void assert_picks(const Pick *p, u32 k, const i32 *id, const double *w)
{
        for (u32 i = 0; i < k; i++)
                if (p[i].id != id[i] || !(fabs((double)p[i].w - w[i]) < 1e-7))
                        fail_msg("slot %u: expert %d, weight %.9g, not %d, %.9g", i, p[i].id, (double)p[i].w,
                                id[i], w[i]);
}

static void test_route_gates(void **state)
{
        (void)state;
        /* log 1, 4, 2, 3, 2: softmax 1/12, 4/12, 2/12, 3/12, 2/12; sigmoid 1/2, 4/5, 2/3, 3/4, 2/3 */
        const float z[] = {0, logf(4), logf(2), logf(3), logf(2)};
        static const struct {
                Gating c;
                double w[3];
        } t[] = {
                {{.gate = GATE_softmax, .k = 3}, {4 / 12.0, 3 / 12.0, 2 / 12.0}},
                {{.gate = GATE_softmax, .k = 3, .renorm = 1}, {4 / 9.0, 3 / 9.0, 2 / 9.0}},
                {{.gate = GATE_softmax, .k = 3, .wscale = 2.5}, {10 / 12.0, 7.5 / 12, 5 / 12.0}},
                {{.gate = GATE_softmax, .k = 3, .renorm = 1, .wscale = 3}, {12 / 9.0, 1, 6 / 9.0}},
                {{.gate = GATE_sigmoid, .k = 3}, {4 / 5.0, 3 / 4.0, 2 / 3.0}},
                {{.gate = GATE_sigmoid, .k = 3, .renorm = 1}, {48 / 133.0, 45 / 133.0, 40 / 133.0}},
                {{.gate = GATE_softmax_k, .k = 3}, {4 / 9.0, 3 / 9.0, 2 / 9.0}},
                {{.gate = GATE_softmax_k, .k = 3, .wscale = 0.5}, {2 / 9.0, 1.5 / 9, 1 / 9.0}},
        };
        static const i32 id[] = {1, 3, 2}; /* 2 and 4 are equal: the lower one */
        Pick p[3];
        for (u32 i = 0; i < COUNT(t); i++) {
                picks(z, 5, &t[i].c, p);
                assert_picks(p, 3, id, t[i].w);
        }
}

/* The bias chooses, and is no part of the weights. */
static void test_route_bias(void **state)
{
        (void)state;
        const float z[] = {0, logf(4), logf(2), logf(3)};
        static const float bias[] = {0.5f, -1, 0, 0.01f};
        static const i32 sig[] = {0, 3}, top[] = {3, 2};
        static const double sig_w[] = {1 / 2.0, 3 / 4.0}, top_w[] = {3 / 5.0, 2 / 5.0};
        Gating c = {.gate = GATE_sigmoid, .k = 2, .bias = bias};
        Pick p[2];
        picks(z, 4, &c, p);
        assert_picks(p, 2, sig, sig_w);
        c.gate = GATE_softmax_k; /* log 3 + 0.01, log 2, then 0.5 and 0.39 */
        picks(z, 4, &c, p);
        assert_picks(p, 2, top, top_w);
}

static void test_route_groups(void **state)
{
        (void)state;
        /* Groups of 3, two best: 0.9 + 0.1, 0.6 + 0.55, 0.5 + 0.5, 0.7 + 0.45: groups 1 and 3, although 0 has
         * the largest. */
        static const float s[] = {0.9f, 0.1f, 0.05f, 0.6f, 0.55f, 0.2f, 0.5f, 0.5f, 0.5f, 0.7f, 0.45f, 0.1f};
        static const float lift[12] = {[6] = 0.25f, [7] = 0.25f, [10] = 0.02f};
        static const i32 id[] = {9, 3, 4, 10, 5}, lifted[] = {6, 7, 9, 8, 10};
        static const double w[] = {0.7, 0.6, 0.55, 0.45, 0.2}, lifted_w[] = {0.5, 0.5, 0.7, 0.5, 0.45};
        float z[12];
        for (u32 i = 0; i < 12; i++)
                z[i] = (float)log((double)s[i] / (1 - (double)s[i])); /* sigmoid gives s back */
        Gating c = {.gate = GATE_sigmoid, .k = 5, .groups = 4, .groups_k = 2};
        Pick p[6];
        picks(z, 12, &c, p);
        assert_picks(p, 5, id, w);
        c.bias = lift; /* groups 2 and 3 */
        picks(z, 12, &c, p);
        assert_picks(p, 5, lifted, lifted_w);
        c.bias = NULL;
        c.k = 6; /* all of both groups, however low */
        picks(z, 12, &c, p);
        assert_int_equal(p[5].id, 11);
}

static void test_route_nan(void **state)
{
        (void)state;
        Pick p[4];
        for (enum Gate gate = GATE_softmax; gate <= GATE_softmax_k; gate++)
                for (u32 groups = 0; groups <= 4; groups += 4)
                        for (u32 set = 0; set < 256; set++) { /* which of the 8 are NaN */
                                float z[8];
                                for (u32 i = 0; i < 8; i++)
                                        z[i] = set >> i & 1 ? NAN : (float)i;
                                Gating c = {
                                        .gate = gate, .k = 4, .groups = groups, .groups_k = groups ? 2 : 0};
                                picks(z, 8, &c, p);
                                u32 seen = 0;
                                for (u32 i = 0; i < 4; i++) {
                                        assert_in_range(p[i].id, 0, 7);
                                        seen |= 1u << p[i].id;
                                }
                                assert_int_equal(__builtin_popcount(seen), 4);
                        }
        static const float mixed[] = {NAN, 1, INFINITY, -INFINITY, NAN, 2};
        static const i32 id[] = {2, 5, 1, 3};
        picks(mixed, 6, &(Gating){.gate = GATE_sigmoid, .k = 4}, p);
        for (u32 i = 0; i < 4; i++)
                assert_int_equal(p[i].id, id[i]);
        static const float none[] = {NAN, NAN, NAN, NAN, NAN};
        picks(none, 5, &(Gating){.gate = GATE_softmax, .k = 4}, p);
        for (u32 i = 0; i < 4; i++) {
                assert_int_equal(p[i].id, i);
                assert_true(isnan(p[i].w));
        }
}

static Ref rmsnorm(Ref x, Ref w)
{
        op(OP_rmsnorm);
        IN(x, x);
        IN(w, w);
        FLT(eps, 0.5);
        return done();
}

static Ref matmul(Ref x, Ref w)
{
        op(OP_matmul);
        IN(x, x);
        IN(w, w);
        return done();
}

static void test_route_fused(void **state)
{
        (void)state;
        begin(16);
        Ref x = value(fill(16 * 24, 1), 24), w = W2(fill(8 * 24, 1), 8, 24), norm = W1(fill(24, 3), 24);
        Gating c = {.gate = GATE_softmax, .k = 3, .renorm = 1, .bias = fill(8, 0.1f)};
        u64 words = 16 * 3 * sizeof(Pick) / sizeof(float);
        assert_same(route(x, w, 0, 8, &c), route(matmul(x, w), 0, 0, 8, &c), words);
        assert_same(route(x, w, norm, 8, &c), route(matmul(rmsnorm(x, norm), w), 0, 0, 8, &c), words);
        end();
}

/* ---- the hook ---- */

typedef struct Watch {
        float logits[8], select[8];
        i32 pin;
} Watch;

static void watch(void *user, const EvalSeen *s)
{
        Watch *w = user;
        if (s->g->node[s->node].op != OP_route)
                return;
        assert_int_equal(s->logits->dim[1], 4);
        memcpy(w->logits, s->logits->data, sizeof w->logits);
        memcpy(w->select, s->select->data, sizeof w->select);
        ((Pick *)s->out->data)[0] = (Pick){w->pin, 1};
}

static Ref experts(Ref x, Ref r, Ref gate, Ref up, Ref down)
{
        op(OP_experts);
        IN(x, x);
        IN(route, r);
        IN(gate, gate);
        IN(up, up);
        IN(down, down);
        return done();
}

static void test_route_hook(void **state)
{
        (void)state;
        begin(2);
        static const float bias[] = {0, 0, 0.5f, 0}, one[4] = {1, 1, 1, 1}, each[4] = {1, 2, 3, 4};
        float *z = fill(8, 1);
        Watch w = {.pin = 3};
        Ref r = route(value(z, 4), 0, 0, 4, &(Gating){.gate = GATE_sigmoid, .k = 1, .bias = bias});
        Ref y = experts(value(one, 1), r, W3(one, 4, 1, 1), W3(one, 4, 1, 1), W3(each, 4, 1, 1));
        opt.hook = watch;
        opt.user = &w;
        float got = *(const float *)run(y), silu = 1 / (1 + expf(-1));
        assert_true(fabsf(got - 4 * silu) < 1e-6f); /* what was pinned */
        assert_floats(w.logits, z, 8);
        for (u32 i = 0; i < 8; i++)
                assert_true(fabsf(w.select[i] - (1 / (1 + expf(-z[i])) + bias[i % 4])) < 1e-6f);
        r = route(value(z, 4), 0, 0, 4, &(Gating){.gate = GATE_sigmoid, .k = 1, .groups = 2, .groups_k = 1});
        run(r);
        for (u32 i = 0; i < 8; i += 4) { /* one group of two is out */
                assert_true(isinf(w.select[i]) == isinf(w.select[i + 1]));
                assert_true(isinf(w.select[i]) != isinf(w.select[i + 2]));
        }
        w.pin = 4;
        assert_err(y, MOEC_ERROR, "names expert 4 of 4");
        end();
}

/* ---- experts ---- */

enum { T = 9, E = 6, K = 3, H = 64, F = 32 };

typedef struct Moe {
        const float *x, *gate, *up, *down, *gate_b, *up_b, *down_b;
        enum Glu glu;
        Ref vx, route, norm, res, rgate, rup, rdown, rgb, rub, rdb;
} Moe;

static Moe moe(enum Glu glu, bool biased)
{
        Moe m = {.glu = glu,
                .x = fill(T * H, 1),
                .gate = fill(E * F * H, 0.5f),
                .up = fill(E * F * H, 0.5f),
                .down = fill(E * H * F, 0.5f)};
        m.vx = value(m.x, H);
        m.route = route(m.vx, W2(fill(E * H, 1), E, H), 0, E, &(Gating){.k = K});
        m.norm = W1(fill(H, 1), H);
        m.res = value(fill(T * H, 3), H);
        m.rgate = W3(m.gate, E, F, H);
        m.rup = W3(m.up, E, F, H);
        m.rdown = W3(m.down, E, H, F);
        if (biased) {
                m.rgb = W2(m.gate_b = fill(E * F, 1), E, F);
                m.rub = W2(m.up_b = fill(E * F, 1), E, F);
                m.rdb = W2(m.down_b = fill(E * H, 1), E, H);
        }
        return m;
}

static void opt_in(Slot s, Ref r)
{
        if (r)
                node_in(g, cur, s, r);
}

static void up_half(const Moe *m, Ref x, Ref norm)
{
        IN(x, x);
        IN(route, m->route);
        IN(gate, m->rgate);
        IN(up, m->rup);
        opt_in(S_gate_b, m->rgb);
        opt_in(S_up_b, m->rub);
        opt_in(S_norm, norm);
        INT(glu, m->glu);
        FLT(alpha, 1.3);
        FLT(limit, 0.8);
        FLT(eps, norm ? 0.5 : 0);
}

static Ref whole(const Moe *m, Ref x, Ref norm, Ref res, enum Act act)
{
        op(OP_experts);
        up_half(m, x, norm);
        IN(down, m->rdown);
        opt_in(S_down_b, m->rdb);
        opt_in(S_res, res);
        INT(act, act);
        return done();
}

static Ref up(const Moe *m, Ref x, Ref norm, Ref order, enum Act act, enum Act to)
{
        op(OP_experts_up);
        up_half(m, x, norm);
        opt_in(S_order, order);
        INT(act, act);
        INT(out, to);
        return done();
}

static Ref down(const Moe *m, Ref x, Ref res, Ref order, enum Act act)
{
        op(OP_experts_down);
        IN(x, x);
        IN(route, m->route);
        IN(down, m->rdown);
        opt_in(S_down_b, m->rdb);
        opt_in(S_res, res);
        opt_in(S_order, order);
        INT(act, act);
        return done();
}

static double naive_glu(const Moe *m, double a, double b)
{
        if (m->glu == GLU_geglu) /* gelu(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) */
                return a / (1 + exp(-1.5957691216057308 * (a + 0.044715 * a * a * a))) * b;
        if (m->glu == GLU_swiglu)
                return a * b / (1 + exp(-a));
        a = fmin(a, 0.8);
        return a / (1 + exp(-1.3 * a)) * (fmax(-0.8, fmin(0.8, b)) + 1);
}

static void naive(const Moe *m, const Pick *p, double *y)
{
        for (u32 i = 0; i < T * H; i++)
                y[i] = 0;
        for (u32 i = 0; i < T * K; i++) {
                u32 e = (u32)p[i].id;
                double h[F];
                for (u32 f = 0; f < F; f++) {
                        double a = m->gate_b ? (double)m->gate_b[e * F + f] : 0;
                        double b = m->up_b ? (double)m->up_b[e * F + f] : 0;
                        for (u32 c = 0; c < H; c++) {
                                a += (double)m->gate[(e * F + f) * H + c] * (double)m->x[i / K * H + c];
                                b += (double)m->up[(e * F + f) * H + c] * (double)m->x[i / K * H + c];
                        }
                        h[f] = naive_glu(m, a, b);
                }
                for (u32 c = 0; c < H; c++) {
                        double d = m->down_b ? (double)m->down_b[e * H + c] : 0;
                        for (u32 f = 0; f < F; f++)
                                d += (double)m->down[(e * H + c) * F + f] * h[f];
                        y[i / K * H + c] += (double)p[i].w * d;
                }
        }
}

static void test_experts(void **state)
{
        (void)state;
        static double want[T * H];
        for (enum Glu glu = GLU_swiglu; glu <= GLU_swiglu_oai; glu++)
                for (u32 biased = 0; biased < 2; biased++) {
                        begin(T);
                        Moe m = moe(glu, biased);
                        naive(&m, run(m.route), want);
                        assert_close(run(whole(&m, m.vx, 0, 0, ACT_f32)), want, T * H, 1e-6);
                        end();
                }
}

/* One expert, chosen by all with weight 1, is a dense layer. */
static void test_experts_dense(void **state)
{
        (void)state;
        begin(T);
        Moe m = moe(GLU_swiglu, false);
        Ref zero = value(NEWN(arena, float, T), 1), one = route(zero, 0, 0, 1, &(Gating){.k = 1});
        Ref moe1 = experts(m.vx, one, W3(m.gate, 1, F, H), W3(m.up, 1, F, H), W3(m.down, 1, H, F));
        Ref a = matmul(m.vx, W2(m.gate, F, H)), b = matmul(m.vx, W2(m.up, F, H));
        op(OP_glu);
        IN(gate, a);
        IN(up, b);
        assert_same(moe1, matmul(done(), W2(m.down, H, F)), T * H);
        end();
}

static Ref add(Ref a, Ref b)
{
        op(OP_add);
        IN(a, a);
        IN(b, b);
        return done();
}

static Ref quantize(Ref x)
{
        op(OP_quantize);
        IN(x, x);
        return done();
}

static void test_experts_fused(void **state)
{
        (void)state;
        for (u32 set = 0; set < 16; set++) {
                begin(T);
                Moe m = moe((enum Glu)(set % 3), set & 1);
                enum Act act = set & 2 ? ACT_q8 : ACT_f32;
                Ref norm = set & 4 ? m.norm : REF_NONE, res = set & 8 ? m.res : REF_NONE;
                Ref x = norm ? rmsnorm(m.vx, norm) : m.vx, chain = whole(&m, x, 0, 0, act);
                if (res)
                        chain = add(chain, res);
                assert_same(whole(&m, m.vx, norm, res, act), chain, T * H);
                op(OP_sort);
                IN(route, m.route);
                INT(experts, E);
                Ref order = done();
                /* Rounded by the producer, by the consumer, scheduled or not. */
                assert_same(down(&m, up(&m, m.vx, norm, 0, act, act), res, 0, act), chain, T * H);
                assert_same(down(&m, up(&m, x, 0, order, act, ACT_f32), res, order, act), chain, T * H);
                if (act == ACT_q8) {
                        assert_same(down(&m, up(&m, quantize(x), 0, 0, act, act), res, 0, act), chain, T * H);
                        assert_same(whole(&m, quantize(x), 0, res, act), chain, T * H);
                }
                opt.exact = true;
                assert_same(whole(&m, m.vx, norm, res, act), whole(&m, m.vx, norm, res, ACT_f32), T * H);
                assert_same(down(&m, up(&m, m.vx, norm, 0, act, act), res, 0, act),
                        whole(&m, m.vx, norm, res, ACT_f32), T * H);
                end();
        }
}

static void test_act_rounds(void **state)
{
        (void)state;
        begin(T);
        Moe m = moe(GLU_swiglu, false);
        u64 n = T * H * sizeof(float);
        assert_true(memcmp(run(whole(&m, m.vx, 0, 0, ACT_f32)), run(whole(&m, m.vx, 0, 0, ACT_q8)), n));
        Ref f32 = up(&m, m.vx, 0, 0, ACT_f32, ACT_f32), q8 = up(&m, m.vx, 0, 0, ACT_f32, ACT_q8);
        float *want = NEWN(arena, float, T *K *F);
        memcpy(want, run(f32), T * K * F * sizeof *want);
        q8_round(want, T * K * F);
        assert_floats(run(q8), want, T * K * F);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_route_gates),
                cmocka_unit_test(test_route_bias),
                cmocka_unit_test(test_route_groups),
                cmocka_unit_test(test_route_nan),
                cmocka_unit_test(test_route_fused),
                cmocka_unit_test(test_route_hook),
                cmocka_unit_test(test_experts),
                cmocka_unit_test(test_experts_dense),
                cmocka_unit_test(test_experts_fused),
                cmocka_unit_test(test_act_rounds),
        };
        return cmocka_run_group_tests_name("eval_moe", tests, NULL, NULL);
}
