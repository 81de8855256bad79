/* The interpreter: what a step is given and keeps, operations on values, norms and products. */
#include "tests/unit/eval_help.h"

/* ---- values ---- */

static void test_dequant_and_embed(void **state)
{
        (void)state;
        begin(3);
        float x[128], want[128];
        u8 packed[4 * 34]; /* Q8_0: 4 rows of one block */
        for (u32 b = 0; b < 4; b++) {
                u16 d = f32_to_f16(0.25f * (float)(b + 1));
                memcpy(packed + b * 34, &d, 2);
                for (u32 i = 0; i < 32; i++) {
                        packed[b * 34 + 2 + i] = (u8)(i8)((int)i * 3 - 40);
                        want[b * 32 + i] = 0.25f * (float)(b + 1) * (float)((int)i * 3 - 40);
                }
        }
        Ref w = weight_of(W_Q8_0, packed, 2, 4, 32, 0);
        op(OP_dequant);
        IN(w, w);
        Ref all = done();
        memcpy(x, run(all), sizeof x);
        assert_floats(x, want, 128);
        op(OP_embed);
        IN(w, w);
        IN(ids, INPUT(ids));
        Ref rows = done();
        ids[0] = 3, ids[1] = 0, ids[2] = 3;
        const float *y = run(rows);
        assert_floats(y, want + 96, 32);
        assert_floats(y + 32, want, 32);
        assert_floats(y + 64, want + 96, 32);
        ids[1] = 4;
        assert_err(rows, MOEC_USAGE, "token 4 is not in 0..3");
        ids[1] = -1;
        assert_err(rows, MOEC_USAGE, "token -1");
        end();
}

static void test_rows(void **state)
{
        (void)state;
        begin(3);
        static const float x[] = {1, 2, 3, 4, 5, 6}, want[] = {5, 6, 1, 2, 5, 6};
        Ref v = value(x, 2);
        op(OP_rows);
        IN(x, v);
        IN(out, INPUT(out));
        Ref r = done();
        out[0] = 2, out[1] = 0, out[2] = 2;
        assert_floats(run(r), want, 6);
        out[1] = 3;
        assert_err(r, MOEC_USAGE, "out[1] is 3");
        end();
}

static Ref binary(Op o, Ref a, Ref b)
{
        op(o);
        IN(a, a);
        IN(b, b);
        return done();
}

static void test_elementwise(void **state)
{
        (void)state;
        begin(2);
        static const float a[] = {1, 2, 3, 4}, b[] = {10, 20, 30, 40};
        static const float sum[] = {11, 22, 33, 44}, sum_row[] = {11, 22, 13, 24}, prod[] = {10, 40, 90, 160},
                           prod_row[] = {10, 40, 30, 80}, scaled[] = {-0.5f, -1, -1.5f, -2};
        Ref va = value(a, 2), vb = value(b, 2), row = W1(b, 2);
        assert_floats(run(binary(OP_add, va, vb)), sum, 4);
        assert_floats(run(binary(OP_add, va, row)), sum_row, 4);
        assert_floats(run(binary(OP_mul, va, vb)), prod, 4);
        assert_floats(run(binary(OP_mul, va, row)), prod_row, 4);
        op(OP_scale);
        IN(x, va);
        FLT(by, -0.5);
        assert_floats(run(done()), scaled, 4);
        end();
}

static void test_slice_and_concat(void **state)
{
        (void)state;
        begin(2);
        static const float a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {-1, -2, -3, -4};
        static const float mid[] = {2, 3, 6, 7}, tails[] = {2, 4, 6, 8};
        static const float ab[] = {1, 2, 3, 4, -1, -2, 5, 6, 7, 8, -3, -4};
        static const float heads[] = {1, 2, -1, 3, 4, -2, 5, 6, -3, 7, 8, -4};
        Ref va = value(a, 4), vb = value(b, 2);
        op(OP_slice);
        IN(x, va);
        INT(from, 1);
        INT(to, 3);
        assert_floats(run(done()), mid, 4);
        op(OP_slice);
        IN(x, va);
        INT(heads, 2);
        INT(from, 1);
        INT(to, 2);
        assert_floats(run(done()), tails, 4);
        assert_floats(run(binary(OP_concat, va, vb)), ab, 12);
        op(OP_concat);
        IN(a, va);
        IN(b, vb);
        INT(heads, 2);
        assert_floats(run(done()), heads, 12);
        end();
}

static float glu(enum Glu kind, float gate, float up)
{
        begin(1);
        Ref a = value(&gate, 1), b = value(&up, 1);
        op(OP_glu);
        IN(gate, a);
        IN(up, b);
        INT(glu, kind);
        FLT(alpha, 1.5);
        FLT(limit, 2);
        float y = *(const float *)run(done());
        end();
        return y;
}

static void test_glu(void **state)
{
        (void)state;
        static const struct {
                enum Glu kind;
                float gate, up;
                double want;
        } t[] = {
                {GLU_swiglu, 0, 5, 0}, {GLU_swiglu, 1, 2, 1.4621171572600098}, /* 2 / (1 + 1/e) */
                {GLU_swiglu, -2, 3, -0.7152175321},                            /* -6 / (1 + e^2) */
                {GLU_geglu, 1, 1, 0.8411919906}, {GLU_geglu, -0.5, 2, -0.3085719803},
                {GLU_swiglu_oai, 1, 0.5, 1.2263617143}, /* 1.5 / (1 + e^-1.5) */
                {GLU_swiglu_oai, 9, 9, 5.7154447609},   /* both limited to 2: 6 / (1 + e^-3) */
                {GLU_swiglu_oai, -9, -9,
                        1.2338615e-05}, /* gate is not limited below: -9 * (1 - 2) / (1 + e^13.5) */
        };
        for (u32 i = 0; i < COUNT(t); i++) {
                float y = glu(t[i].kind, t[i].gate, t[i].up);
                if (fabs((double)y - t[i].want) > 1e-7 * fmax(fabs(t[i].want), 1e-3))
                        fail_msg("case %u is %.9g, not %.9g", i, (double)y, t[i].want);
        }
}

/* ---- norm ---- */

static Ref rmsnorm(Ref x, Ref w, i64 group)
{
        op(OP_rmsnorm);
        IN(x, x);
        IN(w, w);
        INT(group, group);
        FLT(eps, 0.5);
        return done();
}

static void test_rmsnorm(void **state)
{
        (void)state;
        begin(2);
        static const float x[] = {3, 4, 0, 0, 1, 1, 1, 1}, w[] = {1, 2, 3, 4};
        const double r = 1 / sqrt(25.0 / 4 + 0.5), s = 1 / sqrt(1.5), p = 1 / sqrt(12.5 + 0.5),
                     z = 1 / sqrt(1.5);
        const double row[] = {3 * r, 8 * r, 0, 0, s, 2 * s, 3 * s, 4 * s};
        const double group[] = {3 * p, 8 * p, 0, 0, z, 2 * z, z, 2 * z};
        Ref v = value(x, 4);
        assert_close(run(rmsnorm(v, W1(w, 4), 0)), row, 8, 1e-7);
        assert_close(run(rmsnorm(v, W1(w, 2), 2)), group, 8, 1e-7);
        end();
}

static Ref quantize(Ref x, Ref norm)
{
        op(OP_quantize);
        IN(x, x);
        if (norm)
                IN(norm, norm), FLT(eps, 0.5);
        return done();
}

static void test_quantize(void **state)
{
        (void)state;
        begin(2);
        float *x = fill(128, 5), want[128];
        Ref v = value(x, 64), w = W1(fill(64, 2), 64);
        memcpy(want, x, sizeof want);
        q8_round(want, 128);
        assert_true(memcmp(want, x, sizeof want));
        assert_floats(run(quantize(v, REF_NONE)), want, 128);
        assert_same(quantize(v, w), quantize(rmsnorm(v, w, 0), REF_NONE), 128);
        opt.exact = true;
        assert_floats(run(quantize(v, REF_NONE)), x, 128);
        assert_same(quantize(v, w), rmsnorm(v, w, 0), 128);
        end();
}

/* ---- products ---- */

static Ref matmul(Ref x, Ref w, Ref norm, Ref bias, Ref res, enum Act act)
{
        op(OP_matmul);
        IN(x, x);
        IN(w, w);
        if (norm)
                IN(norm, norm), FLT(eps, 0.5);
        if (bias)
                IN(bias, bias);
        if (res)
                IN(res, res);
        INT(act, act);
        return done();
}

static void test_matmul(void **state)
{
        (void)state;
        begin(2);
        static const float x[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 0, -1, 2, 2, 2}, u[] = {1, 1, 1};
        static const float b[] = {10, 20}, c[] = {-1}, y[] = {8, 32, 8, 50}, z[] = {5, 14};
        Ref v = value(x, 3), w1 = W2(w, 2, 3), w2 = W2(u, 1, 3);
        op(OP_matmul);
        IN(x, v);
        IN(w, w1);
        IN(w, w2);
        IN(bias, W1(b, 2));
        IN(bias, W1(c, 1));
        Ref r = done();
        assert_floats(run(r), y, 4);
        assert_floats(run(r + 1), z, 2);
        end();
}

/* Long rows with a tail, in every packing of the same numbers, the same bits. */
static void test_matmul_storage(void **state)
{
        (void)state;
        enum { IN_W = 99, OUT_W = 7 }; /* not whole lanes */
        begin(5);
        float *x = fill((u64)n_tok * IN_W, 1), *w = NEWN(arena, float, OUT_W *IN_W);
        u16 *h = NEWN(arena, u16, OUT_W * IN_W);
        double want[5 * OUT_W] = {0};
        for (u32 i = 0; i < OUT_W * IN_W; i++)
                w[i] = f16_to_f32(h[i] = f32_to_f16(rnd()));
        for (u32 t = 0; t < n_tok; t++)
                for (u32 o = 0; o < OUT_W; o++)
                        for (u32 i = 0; i < IN_W; i++)
                                want[t * OUT_W + o] += (double)x[t * IN_W + i] * (double)w[o * IN_W + i];
        Ref v = value(x, IN_W), half = weight_of(W_F16, h, 2, OUT_W, IN_W, 0);
        Ref a = matmul(v, W2(w, OUT_W, IN_W), 0, 0, 0, ACT_f32), b = matmul(v, half, 0, 0, 0, ACT_f32);
        op(OP_dequant);
        IN(w, half);
        Ref c = matmul(v, done(), 0, 0, 0, ACT_f32);
        assert_close(run(a), want, 5 * OUT_W, 1e-6);
        assert_same(a, b, 5 * OUT_W);
        assert_same(a, c, 5 * OUT_W);
        end();
}

/* What fits is dequantised once, which shows when the packed bytes change; views and neighbours are not mixed
 * up. */
static void test_cache(void **state)
{
        (void)state;
        begin(2);
        u16 h[2][6];
        for (u32 i = 0; i < 12; i++)
                h[i / 6][i % 6] = f32_to_f16((float)i);
        static const float x[] = {1, 1, 1, 1}, full[] = {1, 5, 9, 1, 5, 9}, part[] = {1, 5, 1, 5};
        static const float other[] = {13, 17, 21, 13, 17, 21}, changed[] = {101, 5, 9, 101, 5, 9};
        Ref v = value(x, 2);
        Ref b = matmul(v, weight_of(W_F16, h[0], 2, 2, 2, 0), 0, 0, 0, ACT_f32);
        Ref a = matmul(v, weight_of(W_F16, h[0], 2, 3, 2, 0), 0, 0, 0, ACT_f32);
        Ref c = matmul(v, weight_of(W_F16, h[1], 2, 3, 2, 0), 0, 0, 0, ACT_f32);
        for (u32 fits = 0; fits < 2; fits++) {
                opt.cache = eval_cache_new(fits ? sizeof(float) * 16 : sizeof(float) * 3);
                h[0][0] = 0;
                for (u32 again = 0; again < 2; again++) {
                        assert_floats(run(a), full, 6);
                        assert_floats(run(b), part, 4);
                        assert_floats(run(c), other, 6);
                }
                h[0][0] = f32_to_f16(100);
                assert_floats(run(a), fits ? full : changed, 6);
                eval_cache_free(opt.cache);
        }
        end();
}

static void test_cache_of_many(void **state)
{
        (void)state;
        enum { MANY = 300 };
        begin(1);
        u16 h[MANY];
        static const float zero[1], want[] = {MANY * (MANY - 1) / 2};
        Ref x = value(zero, 1);
        for (u32 i = 0; i < MANY; i++) {
                h[i] = f32_to_f16((float)i);
                x = binary(OP_add, x, weight_of(W_F16, &h[i], 1, 1, 0, 0));
        }
        opt.cache = eval_cache_new(1 << 20);
        assert_floats(run(x), want, 1);
        assert_floats(run(x), want, 1);
        eval_cache_free(opt.cache);
        end();
}

static void test_matmul_act(void **state)
{
        (void)state;
        begin(3);
        float *x = fill(3 * 64, 4), r[3 * 64];
        memcpy(r, x, sizeof r);
        q8_round(r, COUNT(r));
        Ref v = value(x, 64), rounded = value(r, 64), w = W2(fill(5 * 64, 1), 5, 64),
            norm = W1(fill(64, 1), 64);
        Ref q8 = matmul(v, w, 0, 0, 0, ACT_q8), f32 = matmul(v, w, 0, 0, 0, ACT_f32);
        assert_true(memcmp(run(q8), run(f32), 15 * sizeof(float)));
        assert_same(q8, matmul(rounded, w, 0, 0, 0, ACT_f32), 15);
        assert_same(q8, matmul(quantize(v, REF_NONE), w, 0, 0, 0, ACT_q8), 15); /* rounded once only */
        assert_same(matmul(v, w, norm, 0, 0, ACT_q8), matmul(quantize(v, norm), w, 0, 0, 0, ACT_q8), 15);
        opt.exact = true;
        assert_same(q8, f32, 15);
        end();
}

static void test_matmul_fused(void **state)
{
        (void)state;
        begin(4);
        Ref v = value(fill(4 * 64, 4), 64), w = W2(fill(6 * 64, 1), 6, 64), norm = W1(fill(64, 1), 64);
        Ref bias = W1(fill(6, 1), 6), res = value(fill(4 * 6, 1), 6);
        for (enum Act act = ACT_f32; act <= ACT_q8; act++)
                for (u32 set = 0; set < 8; set++) {
                        Ref x = set & 1 ? rmsnorm(v, norm, 0) : v, plain = matmul(x, w, 0, 0, 0, act);
                        if (set & 2)
                                plain = binary(OP_add, plain, bias);
                        if (set & 4)
                                plain = binary(OP_add, plain, res);
                        assert_same(
                                matmul(v, w, set & 1 ? norm : 0, set & 2 ? bias : 0, set & 4 ? res : 0, act),
                                plain, 24);
                }
        end();
}

static void test_headmul(void **state)
{
        (void)state;
        enum { H = 3, I = 32, O = 5 };
        begin(2);
        float *x = fill(2 * H * I, 1), *w = fill(H * O * I, 1), r[2 * H * I];
        double want[2 * H * O] = {0};
        for (u32 t = 0; t < 2; t++)
                for (u32 h = 0; h < H; h++)
                        for (u32 o = 0; o < O; o++)
                                for (u32 i = 0; i < I; i++)
                                        want[(t * H + h) * O + o] += (double)x[(t * H + h) * I + i] *
                                                                     (double)w[(h * O + o) * I + i];
        memcpy(r, x, sizeof r);
        q8_round(r, COUNT(r));
        Ref got[3], in[3] = {value(x, H * I), value(x, H * I), value(r, H * I)}, m = W3(w, H, O, I);
        for (u32 i = 0; i < 3; i++) {
                op(OP_headmul);
                IN(x, in[i]);
                IN(w, m);
                INT(act, i == 1 ? ACT_q8 : ACT_f32);
                got[i] = done();
        }
        assert_close(run(got[0]), want, 2 * H * O, 1e-6);
        assert_same(got[1], got[2], 2 * H * O);
        end();
}

/* ---- the step ---- */

static void test_missing_weight(void **state)
{
        (void)state;
        begin(2);
        Ref x = value(fill(4, 1), 2);
        assert_err(matmul(x, W2(NULL, 3, 2), 0, 0, 0, ACT_f32), MOEC_USAGE, "weight w1 has no values");
        end();
        begin(2);
        x = value(fill(4, 1), 2);
        assert_err(binary(OP_add, x, W1(NULL, 2)), MOEC_USAGE, "weight w1 has no values");
        end();
}

typedef struct Trace {
        u32 n;
        Op op[8];
        bool in_ok;
} Trace;

static void trace(void *user, const EvalSeen *s)
{
        Trace *t = user;
        t->op[t->n++] = s->g->node[s->node].op;
        assert_null(s->logits);
        if (s->g->node[s->node].op == OP_mul) {
                assert_int_equal(s->n_in, 2);
                assert_int_equal(tensor_len(&s->in[0]), 4);
                assert_int_equal(tensor_rows(&s->in[0]), 2);
                t->in_ok = ((float *)s->in[0].data)[3] == 5 && !s->in[1].data;
                ((float *)s->out[0].data)[0] = 100;
        }
}

static void test_hook(void **state)
{
        (void)state;
        begin(2);
        static const float x[] = {1, 2, 3, 4}, one[] = {1, 1}, want[] = {101, 4, 5, 6};
        Trace t = {0};
        Ref a = binary(OP_add, value(x, 2), W1(one, 2)), b = binary(OP_mul, a, W1(one, 2));
        Ref c = binary(OP_add, b, W1(one, 2));
        opt.hook = trace;
        opt.user = &t;
        assert_floats(run(c), want, 4);
        assert_true(t.in_ok);
        assert_int_equal(t.n, 4);
        static const Op order[] = {OP_embed, OP_add, OP_mul, OP_add};
        assert_memory_equal(t.op, order, sizeof order);
        end();
}

/* A value's memory is used again after its last use, never before; results survive. */
static void test_memory(void **state)
{
        (void)state;
        begin(2);
        static const float one[] = {1, 1}, zero[4];
        Ref first = value(zero, 2), x = first, half = 0, w = W1(one, 2);
        for (u32 i = 0; i < 100; i++) {
                x = binary(OP_add, x, w);
                half = i == 49 ? x : half;
        }
        Ref y = binary(OP_add, x, first);
        const float *p = run(y), *q = run(half);
        for (u32 i = 0; i < 4; i++)
                assert_true(p[i] == 100 && q[i] == 50);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_dequant_and_embed),
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_elementwise),
                cmocka_unit_test(test_slice_and_concat),
                cmocka_unit_test(test_glu),
                cmocka_unit_test(test_rmsnorm),
                cmocka_unit_test(test_quantize),
                cmocka_unit_test(test_matmul),
                cmocka_unit_test(test_matmul_storage),
                cmocka_unit_test(test_cache),
                cmocka_unit_test(test_cache_of_many),
                cmocka_unit_test(test_matmul_act),
                cmocka_unit_test(test_matmul_fused),
                cmocka_unit_test(test_headmul),
                cmocka_unit_test(test_missing_weight),
                cmocka_unit_test(test_hook),
                cmocka_unit_test(test_memory),
        };
        return cmocka_run_group_tests_name("eval", tests, NULL, NULL);
}
