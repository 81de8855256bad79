// A token's experts, by the whole block: z, its logits, are in shared memory; an expert's place is how many are above it.
__shared__ float s[E], w[KTOP];
__shared__ int pick[KTOP];
enum { E4 = (E + 15) / 16 * 4 }; // fours of keys, for four threads alike
struct alignas(16) Keys { i32 k[4]; };
__shared__ Keys key[E4];
m4_ifelse(m4_eval(MOE_groups > 1), 1, «__shared__ float best[GROUPS];
»)// Numbers in the order of floats, NaN below all; the largest is infinity's, with room above.
INLINE i32 order_of(float f)
{
        i32 b = (i32)f32_bits(f + 0.0f);
        return f != f ? (i32)0x80000000 : b < 0 ? b ^ 0x7fffffff : b;
}

// Usage: moe_direct: 1 where of a softmax only the shares of the chosen among themselves are wanted.
m4_define(«moe_direct», «m4_ifelse(MOE_gate-MOE_renorm-m4_eval(MOE_groups > 1)-moe_has(«bias», 1, 0), softmax-1-0-0, 1, 0)»)m4_dnl
// s = softmax(z) over n, by the first warp.
INLINE void softmax(const float *from, float *to, int n)
{
        float top = -INF, all = 0;
        for (int i = TID; i < n; i += 32)
                top = max1(top, from[i]);
        top = warp_max(top);
        for (int i = TID; i < n; i += 32)
                all += exp1(from[i] - top);
        all = warp_sum(all);
        for (int i = TID; i < n; i += 32)
                to[i] = exp1(from[i] - top) / all;
        warp_barrier();
}

INLINE void choose(const Args &a, const float (&z)[E], Route *to)
{
m4_ifelse(moe_direct, 1, «», MOE_gate, softmax, «        if (TID < 32)
                softmax(z, s, E);
», MOE_gate, sigmoid, «        for (int i = TID; i < E; i += THREADS)
                s[i] = 1.0f / (1.0f + exp1(-z[i]));
», «        for (int i = TID; i < E; i += THREADS)
                s[i] = z[i];
»)        // Scores grow with the logits, so without a bias these say the order, free of rounding.
m4_ifelse(m4_eval(MOE_groups > 1)moe_has(«bias», 1, 0), 00, «        const float (&c)[E] = z;
», «        __shared__ float c[E];
        barrier();
        for (int i = TID; i < E; i += THREADS)
                c[i] = s[i] moe_has(«bias», «+ ((const float *)moe_arg(«bias»))[i]», «»);
        barrier();
»)m4_ifelse(m4_eval(MOE_groups > 1), 1, «        // Only the best groups' experts stay: by the sum of a group's two best.
        for (int g = TID; g < GROUPS; g += THREADS) {
                float one = -INF, two = -INF;
                for (int i = g * (E / GROUPS); i < (g + 1) * (E / GROUPS); i++)
                        if (c[i] > one)
                                two = one, one = c[i];
                        else if (c[i] > two)
                                two = c[i];
                best[g] = E / GROUPS > 1 ? one + two : one;
        }
        barrier();
        for (int i = TID; i < E; i += THREADS) {
                int rank = 0, g = i / (E / GROUPS);
                for (int o = 0; o < GROUPS; o++)
                        rank += best[o] > best[g] || (best[o] == best[g] && o < g);
                if (rank >= GROUPS_K)
                        c[i] = -INF;
        }
        barrier();
»)        // SHARE threads an expert.
        enum { SHARE = THREADS / E >= 4 ? 4 : 1 };
#pragma unroll 1
        for (int i = TID; i < 4 * E4; i += THREADS)
                key[i / 4].k[i % 4] = i < E ? order_of(c[i]) : (i32)0x80000000;
        barrier();
#pragma unroll 1
        for (int j = TID; j < (E * SHARE + 31) / 32 * 32; j += THREADS) {
                // Ahead of its own four a key as high is above it, behind them one that is higher; of its own, those in front.
                int i = j / SHARE, own = i / 4 % E4, rank = 0;
                Keys four = key[own];
                i32 mine = four.k[i % 4];
#pragma unroll
                for (int n = 0; n < 3; n++)
                        rank += j % SHARE == 0 && n < i % 4 && four.k[n] == mine;
#pragma unroll 8
                for (int o = j % SHARE; o < E4; o += SHARE) {
                        Keys other = key[o];
                        i32 least = mine + (o >= own);
#pragma unroll
                        for (int n = 0; n < 4; n++)
                                rank += other.k[n] >= least;
                }
                for (int m = 1; m < SHARE; m *= 2)
                        rank += shfl_xor(rank, m);
                if (i < E && j % SHARE == 0 && rank < KTOP)
                        pick[rank] = i;
        }
        barrier();
        if (moe_direct && KTOP <= 32) {
                if (TID < 32) {
                        i32 best = pick[TID < KTOP ? TID : 0];
                        float e = TID < KTOP ? exp1(z[best] - z[pick[0]]) : 0;
                        Route r = {best, e / warp_sum<KTOP <= 8 ? 8 : KTOP <= 16 ? 16 : 32>(e) * (float)MOE_wscale};
                        if (TID < KTOP)
                                to[TID] = r;
                }
        } else if (TID < 32) {
#pragma unroll 1
                for (int n = TID; n < KTOP; n += 32)
                        w[n] = m4_ifelse(moe_direct, 1, «exp1(z[pick[n]] - z[pick[0]])», «s[pick[n]]»);
                warp_barrier();
                moe_if(MOE_gate, softmax_k, «softmax(w, w, KTOP);», «»)
                float sum = 0;
                for (int n = 0; n < KTOP; n++)
                        sum += w[n];
#pragma unroll 1
                for (int n = TID; n < KTOP; n += 32) {
                        Route r = {pick[n], w[n] moe_if(MOE_renorm, 1, «/ sum», «») * (float)MOE_wscale};
                        to[n] = r;
                }
                (void)sum;
        }
}
