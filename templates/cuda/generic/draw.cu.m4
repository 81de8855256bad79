// draw: the next token of a sequence from its logits: the very one that runtime/sample.h defines.
//
// Arguments: a PlanDraw (runtime/plan.h), the sequence's tokens behind it; ids and pos of the step that follows, written. Every block
// penalises its share of the logits where they lie and keeps the largest of each group; the block that ends last chooses. It sorts
// what those groups hold that have the largest of all; where that does not settle it (flat logits, and no or a large top-k), it
// counts digits over all logits. A draw that has ended does nothing, so that the step behind it repeats the last one.
// 512 threads. Grid: a warp a group.
//
//      H100, 151,936 logits, microseconds: greedy ?, top-k 40 ?, no top-k ?
m4_include(«prelude.m4»)
enum { GROUPS = MOE_GROUPS, LIST = 2 * THREADS, LEAD = 512, SETTLES = 256, LOWEST = 0x00800000 }; // LOWEST: above -infinity in order_of
enum { COUNT, WEIGHT, CHANCE }; // what a candidate adds: 1, its weight, its weight with the temperature
enum { MOE_STATES };
#define LARGEST bits_f32(0x7f7fffff)
struct Draw { MOE_DRAW };

__device__ float top[GROUPS]; // of each group; infinity: it has one that is no logit
__device__ u32 count;
__shared__ float tops[GROUPS];
__shared__ u64 list[2 * LIST], sums[WARPS], digit[256], found;
#define sorted (list + LIST)
#define seen ((u8 *)list) // by every block before: of its tokens, those that are penalised
__shared__ u32 ended, listed;

// Numbers in the order of floats, 0 and -0 the same; candidates in order, the first with the largest.
INLINE u32 order_of(float f)
{
        u32 b = f32_bits(f + 0.0f);
        return b >> 31 ? ~b : b | 0x80000000u;
}
INLINE float value_of(u64 key)
{
        u32 o = (u32)(key >> 32);
        return bits_f32(o >> 31 ? o & 0x7fffffff : ~o);
}
INLINE u64 key_of(float f, u32 id) { return (u64)order_of(f) << 32 | (u32)~id; }

// sample.h's, with nothing contracted: products stand alone.
INLINE float sample_exp(float x)
{
        if (!(x >= -87.0f))
                return 0;
        const float magic = 0x1.8p+23f;
        float k = mul1(x, 0x1.715476p+0f) + magic - magic;
        float r = x - mul1(k, 0x1.62e4p-1f) - mul1(k, 0x1.7f7d1cp-20f), p = 0x1.6c16c2p-10f;
        p = mul1(p, r) + 0x1.111112p-7f;
        p = mul1(p, r) + 0x1.555556p-5f;
        p = mul1(p, r) + 0x1.555556p-3f;
        p = mul1(p, r) + 0.5f;
        p = mul1(p, mul1(r, r)) + r + 1.0f;
        return bits_f32(f32_bits(p) + ((u32)(i32)k << 23));
}
INLINE u64 weight(float e) { return (u64)mul1(e, 0x1p40f); }
INLINE u64 scale(u64 w, u64 f) { return (w >> 32) * f + ((w & 0xffffffff) * f >> 32); }

INLINE u32 philox(u64 counter_low, u64 counter_high, u64 key)
{
        u32 c0 = (u32)counter_low, c1 = (u32)(counter_low >> 32), c2 = (u32)counter_high, c3 = (u32)(counter_high >> 32);
        u32 k0 = (u32)key, k1 = (u32)(key >> 32);
        for (int i = 0; i < 10; i++) {
                u64 p = (u64)0xd2511f53 * c0, q = (u64)0xcd9e8d57 * c2;
                c0 = (u32)(q >> 32) ^ c1 ^ k0;
                c1 = (u32)q;
                c2 = (u32)(p >> 32) ^ c3 ^ k1;
                c3 = (u32)p;
                k0 += 0x9e3779b9;
                k1 += 0xbb67ae85;
        }
        return c0;
}

// Over the block, in each thread.
INLINE u64 block_total(u64 v)
{
        u64 s = 0;
        v = warp_sum(v);
        barrier();
        if (TID % 32 == 0)
                sums[TID / 32] = v;
        barrier();
        for (int i = 0; i < WARPS; i++)
                s += sums[i];
        return s;
}
INLINE u64 block_most(u64 v)
{
        for (int m = 16; m; m /= 2) {
                u64 other = shfl_xor(v, m);
                v = other > v ? other : v;
        }
        barrier();
        if (TID % 32 == 0)
                sums[TID / 32] = v;
        barrier();
        for (int i = 0; i < WARPS; i++)
                v = sums[i] > v ? sums[i] : v;
        return v;
}

// ---- every block ----

INLINE void mark(const Draw &d, const i32 *said)
{
        u32 n = d.repeat_last < 0 || (u32)d.repeat_last > d.len ? d.len : (u32)d.repeat_last, tokens = WARPS * d.group, first = BX * tokens;
        for (u32 i = (u32)TID; i < tokens; i += THREADS)
                seen[i] = 0;
        barrier();
        for (u32 i = d.len - n + (u32)TID; i < d.len; i += THREADS) {
                u32 at = (u32)said[i] - first;
                if (at < tokens)
                        seen[at] = 1;
        }
        barrier();
}

INLINE float penalise(const Draw &d, float *l, u32 at, float x)
{
        if (!seen[at] || x != x)
                return x;
        return *l = x > 0 ? x / d.repeat_penalty : mul1(x, d.repeat_penalty);
}

// Of a group, by a warp. A lane has two at a time on their way.
INLINE float largest(const Draw &d, float *l, bool penalised)
{
        float best = -INF;
        u32 first = BX * (WARPS * d.group);
        for (u32 at = (u32)(TID / 32) * d.group + (u32)TID % 32, end = at + d.group; at < end; at += 64) {
                u32 i = first + at;
                float x = i < d.n_vocab ? l[i] : -INF, y = i + 32 < d.n_vocab ? l[i + 32] : -INF;
                if (penalised) {
                        x = penalise(d, &l[i], at, x);
                        y = penalise(d, &l[i + 32], at + 32, y);
                }
                best = max1(best, x <= LARGEST ? x : INF);
                best = max1(best, y <= LARGEST ? y : INF);
        }
        return warp_max(best);
}

// ---- the last block: which groups ----

INLINE u32 groups_from(u32 groups, u32 order)
{
        u32 n = 0;
        for (u32 g = (u32)TID; g < groups; g += THREADS)
                n += order_of(tops[g]) >= order;
        return (u32)block_total(n);
}

// A number below which logits are not looked at: `lead` groups or a few more have one that is not below.
INLINE u32 threshold(u32 groups, u32 lead, float most)
{
        u32 low = LOWEST, high = order_of(most) + 1, n = groups_from(groups, low);
        while (n > lead + lead / 4 + 4 && high - low > 1) {
                u32 mid = low + (high - low) / 2, some = groups_from(groups, mid);
                if (some >= lead)
                        low = mid, n = some;
                else
                        high = mid;
        }
        return low;
}

// All that is not below, in order; how many: more than LIST do not fit.
INLINE u32 gather(const Draw &d, const float *l, u32 groups, u32 order)
{
        if (TID == 0)
                listed = 0;
        barrier();
        for (u32 g = (u32)TID / 32; g < groups; g += WARPS) {
                if (order_of(tops[g]) < order)
                        continue;
                for (u32 i = g * d.group + (u32)TID % 32; i < (g + 1) * d.group && i < d.n_vocab; i += 32) {
                        float x = load_far(&l[i]);
                        if (order_of(x) < order)
                                continue;
                        u32 at = atomic_inc(&listed);
                        if (at < LIST)
                                list[at] = key_of(x, i);
                }
        }
        barrier();
        u32 n = listed;
        for (u32 i = (u32)TID; n <= LIST && i < n; i += THREADS) {
                u64 mine = list[i];
                u32 rank = 0;
#pragma unroll 4
                for (u32 o = 0; o < n; o++)
                        rank += list[o] > mine;
                sorted[rank] = mine;
        }
        barrier();
        return n;
}

// ---- sums of candidates ----

struct Sum {
        float max, temp, min_p;
        u32 n_vocab;
        u64 from; // candidates behind this one are not counted
};
INLINE u64 adds(int what, const Sum &s, u64 key)
{
        float x = value_of(key) - s.max;
        if (key < s.from || key >> 32 < LOWEST)
                return 0;
        if (what == COUNT)
                return 1;
        if (what == WEIGHT)
                return weight(sample_exp(x));
        return s.min_p > 0 && !(sample_exp(x) >= s.min_p) ? 0 : weight(sample_exp(x / s.temp));
}
INLINE u64 total(const float *l, int what, const Sum &s)
{
        u64 sum = 0;
#pragma unroll 4
        for (u32 i = (u32)TID; i < s.n_vocab; i += THREADS)
                sum += adds(what, s, key_of(load_far(&l[i]), i));
        return block_total(sum);
}
INLINE u64 total_sorted(u32 n, int what, const Sum &s)
{
        u64 sum = 0;
        for (u32 i = (u32)TID; i < n; i += THREADS)
                sum += adds(what, s, sorted[i]);
        return block_total(sum);
}

// The first of n sorted candidates at which the running sum reaches `goal`, above 0; 0: they do not.
INLINE u64 reach_sorted(u32 n, int what, const Sum &s, u64 goal)
{
        u32 i = 2 * (u32)TID;
        u64 one = i < n ? adds(what, s, sorted[i]) : 0, two = i + 1 < n ? adds(what, s, sorted[i + 1]) : 0, upto = one + two;
        for (int m = 1; m < 32; m *= 2) {
                u64 other = shfl(upto, TID % 32 < m ? 0 : TID % 32 - m);
                upto += TID % 32 < m ? 0 : other;
        }
        barrier();
        if (TID % 32 == 31)
                sums[TID / 32] = upto;
        if (TID == 0)
                found = 0;
        barrier();
        for (int w = 0; w < TID / 32; w++)
                upto += sums[w];
        u64 before = upto - one - two;
        if (before < goal && before + one >= goal)
                found = sorted[i];
        else if (before + one < goal && upto >= goal)
                found = sorted[i + 1];
        barrier();
        return found;
}

// The same over all candidates, by their keys' digits.
INLINE u64 reach(const float *l, int what, const Sum &s, u64 goal)
{
        u64 prefix = 0;
        for (int shift = 56; shift >= 0; shift -= 8) {
                barrier();
                for (int i = TID; i < 256; i += THREADS)
                        digit[i] = 0;
                barrier();
                for (u32 i = (u32)TID; i < s.n_vocab; i += THREADS) {
                        u64 key = key_of(load_far(&l[i]), i);
                        u64 more = shift == 56 || key >> (shift + 8) == prefix >> (shift + 8) ? adds(what, s, key) : 0;
                        if (more)
                                atomic_add(&digit[key >> shift & 255], more);
                }
                barrier();
                int d = 255;
                for (; d >= 0 && digit[d] < goal; d--)
                        goal -= digit[d];
                if (d < 0)
                        return 0;
                prefix |= (u64)(u32)d << shift;
        }
        return prefix;
}

// ---- the last block: the token ----

INLINE u64 top_p_goal(u64 all, float top_p)
{
        u64 goal = scale(all, (u64)mul1(top_p, 0x1p32f));
        return goal ? goal : 1;
}

// From the sorted candidates; 0 where they do not settle it.
INLINE u64 choose_sorted(const Draw &d, const float *l, u32 groups, float max, u32 r)
{
        const bool few = d.top_k > 0 && (u32)d.top_k < d.n_vocab;
        u32 lead = few ? (u32)d.top_k < LEAD ? (u32)d.top_k : LEAD : SETTLES, order = threshold(groups, lead, max),
            n = gather(d, l, groups, order);
        Sum s = {max, d.temp, d.min_p, d.n_vocab, 0};
        if (n > LIST)
                return 0;
        bool all = order == LOWEST || (few && (u32)d.top_k <= n); // whatever stays is among the sorted
        if (few && !all)
                return 0;
        if (few && (u32)d.top_k < n)
                n = (u32)d.top_k;
        if (d.top_p < 1) {
                u64 w = all ? total_sorted(n, WEIGHT, s) : total(l, WEIGHT, s);
                s.from = reach_sorted(n, WEIGHT, s, top_p_goal(w, d.top_p));
                if (!s.from)
                        return 0;
                all = true;
        }
        u64 w = all ? total_sorted(n, CHANCE, s) : total(l, CHANCE, s);
        return reach_sorted(n, CHANCE, s, scale(w, r) + 1);
}

INLINE u64 choose_counting(const Draw &d, const float *l, float max, u32 r)
{
        Sum s = {max, d.temp, d.min_p, d.n_vocab, 0};
        if (d.top_k > 0 && (u32)d.top_k < d.n_vocab)
                s.from = reach(l, COUNT, s, (u32)d.top_k);
        if (d.top_p < 1) {
                u64 goal = top_p_goal(total(l, WEIGHT, s), d.top_p);
                s.from = reach(l, WEIGHT, s, goal);
        }
        return reach(l, CHANCE, s, scale(total(l, CHANCE, s), r) + 1);
}

// In group g: the first that is the largest, or no logit.
INLINE u32 first_of(const Draw &d, const float *l, u32 g, float max)
{
        u64 best = 0;
        for (u32 i = g * d.group + (u32)TID; i < (g + 1) * d.group && i < d.n_vocab; i += THREADS) {
                float x = load_far(&l[i]);
                if (max <= LARGEST ? x == max : !(x <= LARGEST))
                        best = (u32)~i > best ? (u32)~i : best;
        }
        return ~(u32)block_most(best);
}

// By one thread.
INLINE void tell(Draw &d, i32 *said, i32 *ids, i32 *pos, u32 id)
{
        d.id[d.n++] = said[d.len] = ids[0] = (i32)id;
        pos[0] = (i32)d.len++;
        d.logits = d.next;
        for (u32 i = 0; i < d.n_end; i++)
                if (d.end[i] == (i32)id)
                        d.state = ENDED;
}

moe_kernel
{
        pdl_wait();
        Draw &d = *(Draw *)a.arg[0];
        float *l = (float *)d.logits;
        if (d.state)
                return;
        const u32 groups = (d.n_vocab + d.group - 1) / d.group;
        const bool penalised = d.repeat_penalty != 1 && d.repeat_last;
        if (penalised)
                mark(d, (const i32 *)(&d + 1));
        float best = largest(d, l, penalised);
        if (TID % 32 == 0 && BX * WARPS + (u32)TID / 32 < groups)
                top[BX * WARPS + TID / 32] = best;
        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count) + 1;
        barrier();
        if (ended != (groups + WARPS - 1) / WARPS)
                return;
        publish();
        if (TID == 0)
                count = 0;
        u64 most = 0;
        for (u32 g = (u32)TID; g < groups; g += THREADS) {
                tops[g] = load_far(&top[g]);
                u64 key = key_of(tops[g], g);
                most = key > most ? key : most;
        }
        most = block_most(most);
        float max = value_of(most);
        u32 id = 0, state = max == -INF ? NO_LOGIT : max <= LARGEST ? GOING_ON : BAD_LOGIT;
        if (state == BAD_LOGIT || (state == GOING_ON && d.temp <= 0))
                id = first_of(d, l, ~(u32)most, max);
        else if (state == GOING_ON) {
                u32 r = philox(d.len, d.seq, d.seed);
                u64 key = choose_sorted(d, l, groups, max, r);
                if (!key)
                        key = choose_counting(d, l, max, r);
                id = ~(u32)key;
        }
        barrier();
        if (TID == 0 && state == GOING_ON)
                tell(d, (i32 *)(&d + 1), (i32 *)a.arg[1], (i32 *)a.arg[2], id);
        if (TID == 0 && state == BAD_LOGIT)
                d.bad = id, d.value = load_far(&l[id]);
        if (TID == 0 && state != GOING_ON)
                d.state = state;
}
