/* Sampling: the generator's published vectors, each setting's edges, and a plain reference for all of them
 * together. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/sample.h"
#include <setjmp.h>
#include <cmocka.h>
#undef fail /* cmocka has a macro of this name */

#define NEUTRAL                                                                                              \
        {                                                                                                    \
                .temp = 1, .top_p = 1, .repeat_penalty = 1                                                   \
        }

/* One token, from scratch memory that holds rubbish. */
static moec_status try_sample(const float *l, u32 n, const moec_sampling *s, const i32 *hist, u32 n_hist,
        u64 seq, u64 pos, i32 *id, moec_error *e)
{
        size_t bytes = sample_scratch(n);
        void *scratch = malloc(bytes);
        assert_non_null(scratch);
        memset(scratch, pos % 2 ? 0xff : 0, bytes);
        moec_status st = sample(l, n, s, hist, n_hist, seq, pos, scratch, id, e);
        free(scratch);
        return st;
}

static i32 take(const float *l, u32 n, const moec_sampling *s, const i32 *hist, u32 n_hist, u64 seq, u64 pos)
{
        i32 id = -1;
        moec_error e = {0};
        moec_status st = try_sample(l, n, s, hist, n_hist, seq, pos, &id, &e);
        if (st)
                print_error("%s\n", e.msg);
        assert_int_equal(st, MOEC_OK);
        return id;
}

static u64 rng_state;

static u32 rng(void)
{
        rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
        return (u32)(rng_state >> 33);
}

static float rng_float(float lo, float hi)
{
        return lo + (hi - lo) * (float)(rng() % 65536) / 65536;
}

/* ---- the generator, the exponential ---- */

static void philox_vectors(void **state)
{
        (void)state;
        /* Random123 1.09, tests/kat_vectors, philox4x32 with 10 rounds */
        static const struct {
                u32 counter[4], key[2], out[4];
        } kat[] = {
                {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
                        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
        };
        for (size_t i = 0; i < COUNT(kat); i++) {
                u32 out[4];
                philox(kat[i].counter, kat[i].key, out);
                assert_memory_equal(out, kat[i].out, sizeof out);
        }
}

static void exponential(void **state)
{
        (void)state;
        assert_true(sample_exp(0) == 1);
        assert_true(sample_exp(-0.0f) == 1);
        assert_true(sample_exp(-87.5f) == 0);
        assert_true(sample_exp(-INFINITY) == 0);
        double worst = 0;
        for (u32 i = 0; i <= 2000000; i++) {
                float x = -87.0f * (float)i / 2000000;
                double want = exp((double)x), rel = fabs((double)sample_exp(x) - want) / want;
                worst = rel > worst ? rel : worst;
        }
        for (float x = -1; x < -FLT_MIN; x *= 0.875f) {
                double want = exp((double)x), rel = fabs((double)sample_exp(x) - want) / want;
                worst = rel > worst ? rel : worst;
        }
        print_message("# sample_exp: worst relative error 2^%.2f\n", log2(worst));
        assert_true(worst <= 0x1p-21);
}

/* The definition's bits, which every target must give: they may not change. */
static void exponential_bits(void **state)
{
        (void)state;
        u64 sum = 0;
        for (u32 i = 0; i < 100000; i++) {
                float e = sample_exp(-(float)i * 0x1p-10f);
                u32 bits;
                memcpy(&bits, &e, sizeof bits);
                sum = sum * 31 + bits;
        }
        assert_int_equal(sum, 0x0d4371576448c38a);
}

/* ---- greedy ---- */

static void greedy_ties(void **state)
{
        (void)state;
        enum { N = 1000 };
        float l[N];
        moec_sampling s = NEUTRAL;
        s.temp = 0;
        for (u32 i = 0; i < N; i++)
                l[i] = -5;
        assert_int_equal(take(l, N, &s, NULL, 0, 0, 0), 0);
        static const u32 spots[] = {1, 63, 64, 65, 127, 500, 959, 960, 998, 999};
        for (size_t i = COUNT(spots); i--;) { /* from the last down: each new one ties with those above it */
                l[spots[i]] = 7;
                assert_int_equal(take(l, N, &s, NULL, 0, 0, 0), spots[i]);
        }
        l[998] = 7.5f;
        assert_int_equal(take(l, N, &s, NULL, 0, 0, 0), 998);
        s.temp = -1; /* as llama.cpp has it */
        assert_int_equal(take(l, N, &s, NULL, 0, 0, 0), 998);
        const float zero[] = {-1, -0.0f, 0.0f};
        assert_int_equal(take(zero, 3, &s, NULL, 0, 0, 0), 1);
}

static void greedy_after_penalty(void **state)
{
        (void)state;
        const float l[] = {1, 4, 3, -1};
        const i32 hist[] = {1};
        moec_sampling s = NEUTRAL;
        s.temp = 0;
        s.repeat_last = 64;
        s.repeat_penalty = 1.3f;
        assert_int_equal(take(l, 4, &s, hist, 1, 0, 0), 1); /* 4 / 1.3 = 3.08 */
        s.repeat_penalty = 1.4f;
        assert_int_equal(take(l, 4, &s, hist, 1, 0, 0), 2); /* 2.86 */
}

static void damaged_logits(void **state)
{
        (void)state;
        enum { N = 200 };
        float l[N];
        static const u32 spots[] = {0, 5, 63, 64, 130, 191, 192, 199};
        static const float bad[] = {NAN, INFINITY};
        for (u32 mode = 0; mode < 3; mode++)
                for (size_t i = 0; i < COUNT(spots) * COUNT(bad); i++) {
                        moec_sampling s = NEUTRAL;
                        s.temp = mode ? 0.8f : 0;
                        s.top_k = mode == 2 ? 3 : 0;
                        for (u32 k = 0; k < N; k++)
                                l[k] = 100 - (float)k;
                        l[spots[i / 2]] = bad[i % 2];
                        moec_error e;
                        i32 id;
                        assert_int_equal(try_sample(l, N, &s, NULL, 0, 0, i, &id, &e), MOEC_RUNTIME);
                        char name[32];
                        snprintf(name, sizeof name, "token %u ", spots[i / 2]);
                        assert_non_null(strstr(e.msg, name));
                        for (u32 k = 0; k < N; k++)
                                l[k] = -INFINITY;
                        assert_int_equal(try_sample(l, N, &s, NULL, 0, 0, i, &id, &e), MOEC_RUNTIME);
                        l[spots[i / 2]] = -3e38f; /* one possible token: it it is */
                        assert_int_equal(take(l, N, &s, NULL, 0, 0, i), spots[i / 2]);
                }
        moec_sampling s = NEUTRAL; /* a penalty that overflows is no way to infinity */
        s.repeat_penalty = 0.01f;
        s.repeat_last = -1;
        const i32 hist[] = {0};
        const float big[] = {3e38f, 1};
        moec_error e;
        i32 id;
        assert_int_equal(try_sample(big, 2, &s, hist, 1, 0, 0, &id, &e), MOEC_RUNTIME);
        const i32 outside[] = {2}, below[] = {-1};
        assert_int_equal(try_sample(big, 2, &s, outside, 1, 0, 0, &id, &e), MOEC_USAGE);
        assert_int_equal(try_sample(big, 2, &s, below, 1, 0, 0, &id, &e), MOEC_USAGE);
        assert_int_equal(try_sample(big, 0, &s, NULL, 0, 0, 0, &id, &e), MOEC_USAGE);
}

/* ---- settings ---- */

static void settings_are_checked(void **state)
{
        (void)state;
        const moec_sampling good[] = {MOEC_SAMPLING_DEFAULT, NEUTRAL,
                {.top_p = 0.001f, .min_p = 1, .repeat_penalty = 0.5f},
                {.temp = -1, .top_p = 1, .repeat_penalty = 3, .repeat_last = -1}};
        moec_error e;
        for (size_t i = 0; i < COUNT(good); i++)
                assert_int_equal(sample_check(&good[i], &e), MOEC_OK);
#define BAD(field, value, word)                                                                              \
        do {                                                                                                 \
                moec_sampling s_ = MOEC_SAMPLING_DEFAULT;                                                    \
                s_.field = (value);                                                                          \
                assert_int_equal(sample_check(&s_, &e), MOEC_USAGE);                                         \
                assert_non_null(strstr(e.msg, (word)));                                                      \
        } while (0)
        BAD(temp, NAN, "temperature");
        BAD(temp, INFINITY, "temperature");
        BAD(top_k, -1, "top-k");
        BAD(top_p, 0, "top-p");
        BAD(top_p, 1.01f, "top-p");
        BAD(top_p, NAN, "top-p");
        BAD(min_p, -0.1f, "min-p");
        BAD(min_p, 1.01f, "min-p");
        BAD(min_p, NAN, "min-p");
        BAD(repeat_penalty, 0, "penalty");
        BAD(repeat_penalty, -1, "penalty");
        BAD(repeat_penalty, NAN, "penalty");
        BAD(repeat_penalty, INFINITY, "penalty");
        BAD(repeat_last, -2, "repeat last");
#undef BAD
}

/* Which tokens can come up at all, over many positions: a bit each. */
static u32 possible(const float *l, u32 n, const moec_sampling *s, const i32 *hist, u32 n_hist)
{
        u32 set = 0;
        for (u64 pos = 0; pos < 4000; pos++)
                set |= 1u << take(l, n, s, hist, n_hist, 3, pos);
        return set;
}

static void edges(void **state)
{
        (void)state;
        /* Probabilities 0.4, 0.3, 0.2, 0.1 under other ids */
        const float l[] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
        moec_sampling s = NEUTRAL;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 0xf);
        static const struct {
                float top_p;
                u32 set;
        } p[] = {{0.0001f, 2}, {0.39f, 2}, {0.41f, 2 | 8}, {0.69f, 2 | 8}, {0.71f, 2 | 8 | 1},
                {0.89f, 2 | 8 | 1}, {0.91f, 0xf}, {0.9999f, 0xf}};
        for (size_t i = 0; i < COUNT(p); i++) {
                s.top_p = p[i].top_p;
                assert_int_equal(possible(l, 4, &s, NULL, 0), p[i].set);
        }
        s.top_p = 1;
        static const struct {
                float min_p;
                u32 set;
        } m[] = {{0.24f, 0xf}, {0.26f, 2 | 8 | 1}, {0.49f, 2 | 8 | 1}, {0.51f, 2 | 8}, {0.76f, 2}, {1, 2}};
        for (size_t i = 0; i < COUNT(m); i++) {
                s.min_p = m[i].min_p;
                assert_int_equal(possible(l, 4, &s, NULL, 0), m[i].set);
        }
        s.min_p = 0;
        static const u32 by_k[] = {0xf, 2, 2 | 8, 2 | 8 | 1, 0xf, 0xf};
        for (int k = 0; k < 6; k++) {
                s.top_k = k;
                assert_int_equal(possible(l, 4, &s, NULL, 0), by_k[k]);
        }
        /* Top-p is of what top-k left: 0.4 of 0.7 is 0.571 */
        s.top_k = 2;
        s.top_p = 0.56f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 2);
        s.top_p = 0.58f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 2 | 8);
        /* Filters look at the probabilities without temperature */
        s.temp = 100;
        s.top_p = 0.56f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 2);
        s = (moec_sampling)NEUTRAL;
        s.temp = 1e-30f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 2);
        s.temp = 1e30f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 0xf);
        const float tie[] = {1, 2, 2, 2};
        s = (moec_sampling)NEUTRAL;
        s.min_p = 1;
        assert_int_equal(possible(tie, 4, &s, NULL, 0), 2 | 4 | 8);
        s.top_k = 2; /* of equal ones the lowest ids */
        assert_int_equal(possible(tie, 4, &s, NULL, 0), 2 | 4);
}

/* A sum that is exactly the limit: enough for top-p, not enough for the draw. */
static void exact_limits(void **state)
{
        (void)state;
        enum { N = 1 << 16 };
        static float l[N];
        moec_sampling s = NEUTRAL;
        s.top_p = 0.5f;
        assert_int_equal(possible(l, 2, &s, NULL, 0), 1);
        assert_int_equal(possible(l, 4, &s, NULL, 0), 1 | 2);
        s.top_p = 0.75f;
        assert_int_equal(possible(l, 4, &s, NULL, 0), 1 | 2 | 4);
        s = (moec_sampling)NEUTRAL;
        u32 found = 0;
        for (u64 pos = 0; found < 4; pos++) {
                u32 r[4];
                philox((u32[4]){(u32)pos}, (u32[2]){0}, r);
                if (r[0] % N != 0)
                        continue;
                assert_int_equal(take(l, N, &s, NULL, 0, 0, pos),
                        r[0] / N); /* all equal: r cuts between two of them */
                found++;
        }
}

static void penalty(void **state)
{
        (void)state;
        /* 2 and -2 become 1 and -4 once, however often they occur; then only the best stays */
        const float l[] = {2, -2, 1.5f, -3};
        const i32 hist[] = {3, 0, 1, 0, 0, 1};
        moec_sampling s = NEUTRAL;
        s.min_p = 1;
        s.repeat_penalty = 2;
        assert_int_equal(possible(l, 4, &s, hist, 6), 1); /* repeat_last 0: off */
        s.repeat_last = 6;
        assert_int_equal(possible(l, 4, &s, hist, 6), 4);
        s.repeat_last = 1; /* only token 1 */
        assert_int_equal(possible(l, 4, &s, hist, 6), 1);
        const float down[] = {-9, -2, -9, -3};
        assert_int_equal(possible(down, 4, &s, hist, 6), 8); /* -4 against -3 */
        s.repeat_last = 5;                                   /* 3 stays out */
        assert_int_equal(possible(down, 4, &s, hist, 6), 8);
        s.repeat_last = 6; /* -4 against -6 */
        assert_int_equal(possible(down, 4, &s, hist, 6), 2);
        s.repeat_last = -1;
        assert_int_equal(possible(down, 4, &s, hist, 6), 2);
        s.repeat_last = 1000;
        assert_int_equal(possible(down, 4, &s, hist, 6), 2);
}

static void depends_on(void **state)
{
        (void)state;
        enum { N = 4096, DRAWS = 64 };
        static float l[N];
        for (u32 i = 0; i < N; i++)
                l[i] = 0;
        moec_sampling s = NEUTRAL;
        s.seed = 0x123456789abcdef0;
        u32 same[4] = {0};
        for (u64 pos = 0; pos < DRAWS; pos++) {
                moec_sampling other = s;
                other.seed ^= 1ull << 40;
                i32 id = take(l, N, &s, NULL, 0, 7, pos);
                same[0] += id == take(l, N, &s, NULL, 0, 7, pos);
                same[1] += id == take(l, N, &other, NULL, 0, 7, pos);
                same[2] += id == take(l, N, &s, NULL, 0, 7 + (1ull << 33), pos);
                same[3] += id == take(l, N, &s, NULL, 0, 7, pos + (1ull << 33));
        }
        assert_int_equal(same[0], DRAWS);
        for (int i = 1; i < 4; i++) /* of 64 pairs of 4096 values 0 agree, perhaps 1 */
                assert_in_range(same[i], 0, 2);
}

static void distribution(void **state)
{
        (void)state;
        enum { N = 8, DRAWS = 40000 };
        const float l[N] = {1, 0.5f, -1, 2, 0, 1.7f, -0.3f, 0.9f};
        moec_sampling s = NEUTRAL;
        s.temp = 0.7f;
        s.seed = 42;
        u32 count[N] = {0};
        double p[N], total = 0, chi = 0;
        for (u32 i = 0; i < N; i++)
                total += p[i] = exp((double)l[i] / (double)s.temp);
        for (u64 pos = 0; pos < DRAWS; pos++)
                count[take(l, N, &s, NULL, 0, 0, pos)]++;
        for (u32 i = 0; i < N; i++) {
                double want = p[i] / total * DRAWS;
                chi += (count[i] - want) * (count[i] - want) / want;
        }
        print_message("# chi-square %.2f, 7 degrees of freedom\n", chi);
        assert_true(chi < 18.48); /* 1 % */
}

/* ---- the whole chain against the definition, written down as it stands ---- */

static const float *order_by;

static int in_order(const void *a, const void *b)
{
        i32 x = *(const i32 *)a, y = *(const i32 *)b;
        if (order_by[x] != order_by[y])
                return order_by[x] > order_by[y] ? -1 : 1;
        return (x > y) - (x < y);
}

static u64 units(float e)
{
        return (u64)floor((double)e * 0x1p40);
}

__extension__ typedef unsigned __int128 Wide;

static u64 fraction(u64 w, u64 f)
{
        return (u64)((Wide)w * f >> 32);
}

static i32 reference(
        const float *logits, u32 n, const moec_sampling *s, const i32 *hist, u32 n_hist, u64 seq, u64 pos)
{
        float *l = malloc(n * sizeof *l);
        i32 *c = malloc(n * sizeof *c);
        assert_true(l && c);
        u32 last = s->repeat_last < 0 || (u32)s->repeat_last > n_hist ? n_hist : (u32)s->repeat_last;
        for (u32 i = 0; i < n; i++) {
                bool seen = false;
                for (u32 k = n_hist - last; k < n_hist; k++)
                        seen |= hist[k] == (i32)i;
                l[i] = logits[i];
                if (seen)
                        l[i] = l[i] > 0 ? l[i] / s->repeat_penalty : l[i] * s->repeat_penalty;
                c[i] = (i32)i;
        }
        order_by = l;
        qsort(c, n, sizeof *c, in_order);
        u32 m = s->top_k > 0 && (u32)s->top_k < n ? (u32)s->top_k : n;
        float max = l[c[0]];
        u64 total = 0, sum = 0;
        for (u32 i = 0; i < m; i++)
                total += units(sample_exp(l[c[i]] - max));
        u32 keep = m;
        if (s->top_p < 1) {
                u64 need = fraction(total, (u64)floor((double)s->top_p * 0x1p32));
                for (keep = 0; keep == 0 || sum < need; keep++)
                        sum += units(sample_exp(l[c[keep]] - max));
        }
        while (keep > 1 && sample_exp(l[c[keep - 1]] - max) < s->min_p)
                keep--;
        total = sum = 0;
        for (u32 i = 0; i < keep; i++)
                total += units(sample_exp((l[c[i]] - max) / s->temp));
        u32 r[4];
        philox((u32[4]){(u32)pos, (u32)(pos >> 32), (u32)seq, (u32)(seq >> 32)},
                (u32[2]){(u32)s->seed, (u32)(s->seed >> 32)}, r);
        u64 at = fraction(total, r[0]);
        u32 i = 0;
        while (s->temp > 0 && (sum += units(sample_exp((l[c[i]] - max) / s->temp))) <= at)
                i++;
        i32 id = c[i];
        free(l);
        free(c);
        return id;
}

static void random_settings(moec_sampling *s)
{
        static const float temps[] = {0, 0.1f, 0.8f, 1, 3};
        *s = (moec_sampling)NEUTRAL;
        s->temp = temps[rng() % COUNT(temps)];
        s->top_k = rng() % 2 ? (int)(rng() % 50) : (int)(rng() % 2000) * (int)(rng() % 2);
        s->top_p = rng() % 2 ? 1 : rng_float(0.001f, 1);
        s->min_p = rng() % 2 ? 0 : rng_float(0, rng() % 4 ? 0.1f : 1);
        s->repeat_penalty = rng() % 2 ? 1 : rng_float(0.5f, 2);
        s->repeat_last = (int)(rng() % 70) - 1;
        s->seed = (u64)rng() << 32 | rng();
}

static void as_defined(void **state)
{
        (void)state;
        rng_state = 99;
        u32 kinds = 0;
        for (u32 round = 0; round < 4000; round++) {
                static float l[1500];
                i32 hist[80];
                u32 n = round % 4 ? 1 + rng() % 300 : 1 + rng() % COUNT(l), n_hist = rng() % COUNT(hist);
                float spread = rng() % 2 ? 3 : 30;
                for (u32 i = 0; i < n; i++) {
                        l[i] = rng_float(-spread, spread);
                        if (round % 3 == 0) /* many ties */
                                l[i] = rintf(l[i]);
                        if (round % 5 == 0 && i && rng() % 4 == 0)
                                l[i] = -INFINITY;
                }
                for (u32 i = 0; i < n_hist; i++)
                        hist[i] = (i32)(rng() % n);
                moec_sampling s;
                random_settings(&s);
                assert_int_equal(sample_check(&s, NULL), MOEC_OK);
                for (u64 pos = 0; pos < 3; pos++) {
                        i32 id = take(l, n, &s, hist, n_hist, round, pos);
                        assert_int_equal(id, reference(l, n, &s, hist, n_hist, round, pos));
                        kinds += id != 0;
                }
        }
        assert_true(kinds > 6000); /* the cases do exercise more than the first token */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(philox_vectors),
                cmocka_unit_test(exponential),
                cmocka_unit_test(exponential_bits),
                cmocka_unit_test(greedy_ties),
                cmocka_unit_test(greedy_after_penalty),
                cmocka_unit_test(damaged_logits),
                cmocka_unit_test(settings_are_checked),
                cmocka_unit_test(edges),
                cmocka_unit_test(exact_limits),
                cmocka_unit_test(penalty),
                cmocka_unit_test(depends_on),
                cmocka_unit_test(distribution),
                cmocka_unit_test(as_defined),
        };
        return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
