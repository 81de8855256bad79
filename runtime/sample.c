#include "runtime/sample.h"
#include <float.h>
#include <math.h>
#include <string.h>

#define BLOCK 64 /* logits skipped at once where none can matter */

typedef struct Candidate {
        float logit;
        i32 id;
} Candidate;

float sample_exp(float x)
{
        if (!(x >= -87.0f))
                return 0;
        const float magic = 0x1.8p+23f; /* adding it leaves no bits for a fraction */
        float k = (x * 0x1.715476p+0f + magic) - magic;
        float r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
        float p = 0x1.6c16c2p-10f;
        p = p * r + 0x1.111112p-7f;
        p = p * r + 0x1.555556p-5f;
        p = p * r + 0x1.555556p-3f;
        p = p * r + 0.5f;
        p = (p * (r * r) + r) + 1.0f;
        u32 bits;
        memcpy(&bits, &p, sizeof bits);
        bits += (u32)(i32)k << 23;
        memcpy(&p, &bits, sizeof bits);
        return p;
}

void philox(const u32 counter[4], const u32 key[2], u32 out[4])
{
        u32 c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
        for (int i = 0; i < 10; i++) {
                u64 a = (u64)0xd2511f53 * c0, b = (u64)0xcd9e8d57 * c2;
                c0 = (u32)(b >> 32) ^ c1 ^ k0;
                c1 = (u32)b;
                c2 = (u32)(a >> 32) ^ c3 ^ k1;
                c3 = (u32)a;
                k0 += 0x9e3779b9;
                k1 += 0xbb67ae85;
        }
        out[0] = c0;
        out[1] = c1;
        out[2] = c2;
        out[3] = c3;
}

moec_status sample_check(const moec_sampling *s, moec_error *e)
{
        if (!isfinite(s->temp))
                return fail(e, MOEC_USAGE, "temperature %g is not a number to divide by", (double)s->temp);
        if (s->top_k < 0)
                return fail(e, MOEC_USAGE, "top-k %d is negative; 0 turns it off", s->top_k);
        if (!(s->top_p > 0 && s->top_p <= 1))
                return fail(
                        e, MOEC_USAGE, "top-p %g is outside 0 < p <= 1; 1 turns it off", (double)s->top_p);
        if (!(s->min_p >= 0 && s->min_p <= 1))
                return fail(
                        e, MOEC_USAGE, "min-p %g is outside 0 <= p <= 1; 0 turns it off", (double)s->min_p);
        if (!(s->repeat_penalty > 0 && s->repeat_penalty <= FLT_MAX))
                return fail(e, MOEC_USAGE, "repeat penalty %g is not above 0; 1 turns it off",
                        (double)s->repeat_penalty);
        if (s->repeat_last < -1)
                return fail(e, MOEC_USAGE, "repeat last %d: a number of tokens, 0 for none, -1 for all",
                        s->repeat_last);
        return MOEC_OK;
}

/* ---- scratch: penalised logits, candidates, a bit for each token ---- */

static u64 padded(u32 n)
{
        return ((u64)n + BLOCK - 1) / BLOCK * BLOCK;
}

size_t sample_scratch(u32 n)
{
        return padded(n) * (sizeof(Candidate) + sizeof(float)) + padded(n) / 8;
}

/* Step 1 up to the errors: the logits to work on. */
static moec_status penalise(const float **logits, u32 n, const moec_sampling *s, const i32 *history,
        u32 n_history, float *copy, u32 *seen, moec_error *e)
{
        u32 count = s->repeat_last < 0 ? n_history : MIN((u32)s->repeat_last, n_history);
        if (s->repeat_penalty == 1 || !count)
                return MOEC_OK;
        const i32 *h = history + (n_history - count);
        for (u32 i = 0; i < count; i++) {
                if (h[i] < 0 || (u32)h[i] >= n)
                        return fail(e, MOEC_USAGE, "token %d of the history is outside the vocabulary of %u",
                                h[i], n);
                seen[h[i] / 32] = 0;
        }
        memcpy(copy, *logits, n * sizeof *copy);
        for (u32 i = 0; i < count; i++) {
                u32 bit = 1u << (h[i] % 32);
                if (seen[h[i] / 32] & bit)
                        continue;
                seen[h[i] / 32] |= bit;
                float *l = &copy[h[i]];
                *l = *l > 0 ? *l / s->repeat_penalty : *l * s->repeat_penalty;
        }
        *logits = copy;
        return MOEC_OK;
}

static bool wrong(float l)
{
        return !(l <= FLT_MAX); /* NaN or +infinity */
}

moec_status sample_bad_logit(u32 id, float l, moec_error *e)
{
        return fail(
                e, MOEC_RUNTIME, "the logit of token %u is %g: the model's output is damaged", id, (double)l);
}

moec_status sample_no_logit(u32 n, moec_error *e)
{
        return fail(e, MOEC_RUNTIME, "all %u logits are -infinity: no token can be chosen", n);
}

/* Whether any of a block's logits is above the limit, or NaN. A loop that vectorises. */
static bool any_above(const float *l, float limit)
{
        u32 any = 0;
        for (int i = 0; i < BLOCK; i++)
                any |= !(l[i] <= limit);
        return any;
}

/* ---- candidates ---- */

static bool before(Candidate a, Candidate b)
{
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Heaps: with `first` the root comes before all others, else after. */
static bool above(Candidate a, Candidate b, bool first)
{
        return first ? before(a, b) : before(b, a);
}

static void sift(Candidate *c, u64 n, u64 i, bool first)
{
        Candidate x = c[i];
        for (u64 k; (k = 2 * i + 1) < n; i = k) {
                if (k + 1 < n && above(c[k + 1], c[k], first))
                        k++;
                if (!above(c[k], x, first))
                        break;
                c[i] = c[k];
        }
        c[i] = x;
}

static void heapify(Candidate *c, u64 n, bool first)
{
        for (u64 i = n / 2; i--;)
                sift(c, n, i, first);
}

/* The first k in order, in no order. The root of the heap is the worst so far: what is not above it cannot
 * get in, for a later id loses a tie. -infinity never gets in. */
static moec_status select_top(const float *l, u32 n, u32 k, Candidate *c, u32 *count, moec_error *e)
{
        u32 have = 0;
        float limit = -INFINITY;
        for (u32 base = 0; base < n; base += BLOCK) {
                if (n - base >= BLOCK && !any_above(l + base, limit))
                        continue;
                for (u32 i = base; i < n && i - base < BLOCK; i++) {
                        if (l[i] <= limit)
                                continue;
                        if (wrong(l[i]))
                                return sample_bad_logit(i, l[i], e);
                        Candidate x = {l[i], (i32)i};
                        if (have < k) {
                                c[have++] = x;
                                if (have < k)
                                        continue;
                                heapify(c, k, false);
                        } else {
                                c[0] = x;
                                sift(c, k, 0, false);
                        }
                        limit = c[0].logit;
                }
        }
        *count = have;
        return MOEC_OK;
}

static moec_status greedy(const float *l, u32 n, i32 *id, moec_error *e)
{
        Candidate best;
        u32 have;
        moec_status st = select_top(l, n, 1, &best, &have, e);
        if (!st && !have)
                return sample_no_logit(n, e);
        if (!st)
                *id = best.id;
        return st;
}

/* ---- weights ---- */

static u64 weight(float e)
{
        return (u64)(e * 0x1p40f);
}

/* floor(w * f / 2^32) for w < 2^63, f <= 2^32. */
static u64 scale(u64 w, u64 f)
{
        return (w >> 32) * f + ((w & UINT32_MAX) * f >> 32);
}

/* The next of c[0 .. *n) in order, moved behind the rest. */
static Candidate pop(Candidate *c, u64 *n)
{
        Candidate top = c[0];
        c[0] = c[--*n];
        c[*n] = top;
        if (*n)
                sift(c, *n, 0, true);
        return top;
}

/* Step 6: *c then begins with what stays. */
static u64 keep_top_p(Candidate **c, u64 n, float max, float top_p)
{
        u64 total = 0, sum = 0, left = n;
        for (u64 i = 0; i < n; i++)
                total += weight(sample_exp((*c)[i].logit - max));
        u64 need = scale(total, (u64)(top_p * 0x1p32f));
        heapify(*c, n, true);
        do
                sum += weight(sample_exp(pop(*c, &left).logit - max));
        while (sum < need);
        *c += left;
        return n - left;
}

static u64 keep_min_p(Candidate *c, u64 n, float max, float min_p)
{
        u64 kept = 0;
        for (u64 i = 0; i < n; i++)
                if (sample_exp(c[i].logit - max) >= min_p)
                        c[kept++] = c[i];
        return kept;
}

/* Step 8. */
static i32 draw(Candidate *c, u64 n, float max, float temp, u32 r)
{
        u64 total = 0, sum = 0;
        for (u64 i = 0; i < n; i++)
                total += weight(sample_exp((c[i].logit - max) / temp));
        u64 at = scale(total, r);
        heapify(c, n, true);
        for (;;) { /* at < total, so this ends before the candidates do */
                Candidate x = pop(c, &n);
                sum += weight(sample_exp((x.logit - max) / temp));
                if (sum > at)
                        return x.id;
        }
}

moec_status sample(const float *logits, u32 n, const moec_sampling *s, const i32 *history, u32 n_history,
        u64 seq, u64 position, void *scratch, i32 *id, moec_error *e)
{
        if (!n || n > SAMPLE_MAX_VOCAB)
                return fail(e, MOEC_USAGE, "cannot sample from a vocabulary of %u tokens", n);
        Candidate *c = scratch;
        float *copy = (float *)(c + padded(n));
        void *behind = copy + padded(n);
        u32 *seen = behind;
        moec_status st = penalise(&logits, n, s, history, n_history, copy, seen, e);
        if (st)
                return st;
        if (s->temp <= 0)
                return greedy(logits, n, id, e);
        u32 have;
        u32 k = s->top_k > 0 && (u32)s->top_k < n ? (u32)s->top_k : n;
        st = select_top(logits, n, k, c, &have, e);
        if (st)
                return st;
        if (!have)
                return sample_no_logit(n, e);
        u64 m = have;
        float max = c[0].logit;
        for (u64 i = 1; i < m; i++)
                max = c[i].logit > max ? c[i].logit : max;
        if (s->top_p < 1)
                m = keep_top_p(&c, m, max, s->top_p);
        if (s->min_p > 0)
                m = keep_min_p(c, m, max, s->min_p);
        const u32 counter[4] = {(u32)position, (u32)(position >> 32), (u32)seq, (u32)(seq >> 32)};
        const u32 key[2] = {(u32)s->seed, (u32)(s->seed >> 32)};
        u32 r[4];
        philox(counter, key, r);
        *id = draw(c, m, max, s->temp, r[0]);
        return MOEC_OK;
}
