// The queries of attend_many: a tile's into shared memory, normed, rotated, scaled and rounded.
// The pair p of a head: those that are rotated together, then the rest as it comes.
INLINE int first_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p : », «»)2 * p; }
INLINE int second_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p + HALF : », «»)2 * p + 1; }
enum { PAIRS = (DK / 2 + 31) / 32 };
// A lane's pairs of a head, which are neighbours.
struct Pairs {
        float v[PAIRS][2];
        static INLINE_IN int at(int i) { return PAIRS * (TID % 32) + i; }
        static INLINE_IN bool in(int i) { return DK % 64 == 0 || at(i) < DK / 2; }
        INLINE_IN void load(const float *x)
        {
#pragma unroll
                for (int i = 0; i < PAIRS; i++)
                        v[i][0] = in(i) ? x[first_of(at(i))] : 0, v[i][1] = in(i) ? x[second_of(at(i))] : 0;
        }
        INLINE_IN void norm(const Pairs &w)
        {
                float s = 0;
                for (int i = 0; i < PAIRS; i++)
                        s = fma1(v[i][0], v[i][0], fma1(v[i][1], v[i][1], s));
                float r = rsqrt_f32(warp_sum(s) / (float)DK + (float)MOE_eps);
                for (int i = 0; i < PAIRS; i++)
                        v[i][0] *= r * w.v[i][0], v[i][1] *= r * w.v[i][1];
        }
        // turn: cos and sin
        INLINE_IN void rotate(const Pairs &turn)
        {
#pragma unroll
                for (int i = 0; i < PAIRS; i++)
                        if (at(i) < HALF) {
                                float x = v[i][0], y = v[i][1];
                                v[i][0] = mul1(x, turn.v[i][0]) - mul1(y, turn.v[i][1]);
                                v[i][1] = mul1(y, turn.v[i][0]) + mul1(x, turn.v[i][1]);
                        }
        }
        // N values from d on to the row, and what the rounding left to row `rest`, if not negative.
        template <int N> static INLINE_IN void put(int row, int rest, int d, float x, float y)
        {
                x *= SCALE, y *= SCALE;
                u32 h = pack_f16(x, y), left = pack_f16(x - f16_f32(h & 0xffff), y - f16_f32(h >> 16));
                u16 *to = &sh.query[place<SK>(row, d / 8) + d % 8], *more = &sh.query[place<SK>(rest < 0 ? row : rest, d / 8) + d % 8];
                if (N == 2)
                        *(u32 *)to = h;
                else
                        *to = (u16)h;
                if (rest >= 0 && N == 2)
                        *(u32 *)more = left;
                else if (rest >= 0)
                        *more = (u16)left;
        }
        INLINE_IN void store(int row, int rest) const
        {
                enum { APART = moe_if(MOE_rstyle, neox, 1, 0) }; // a pair's values are
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                        int p = at(i);
                        if (!in(i))
                                continue;
                        if (!APART || p >= HALF) {
                                put<2>(row, rest, 2 * p, v[i][0], v[i][1]);
                        } else if (PAIRS % 2 || HALF % 2) {
                                put<1>(row, rest, p, v[i][0], 0);
                                put<1>(row, rest, p + HALF, v[i][1], 0);
                        } else if (i % 2 == 0) {
                                put<2>(row, rest, p, v[i][0], v[i + 1 < PAIRS ? i + 1 : i][0]);
                                put<2>(row, rest, p + HALF, v[i][1], v[i + 1 < PAIRS ? i + 1 : i][1]);
                        }
                }
        }
};
INLINE constexpr int heads_at_once(int most) { return G % most ? heads_at_once(most - 1) : most; }

// What all heads' norm and rotation have in common, once a block; find_cuts' barriers follow.
moe_has(«norm», «__shared__ float norm_w[DK];», «»)
moe_if(MOE_HALF, 0, «», «__shared__ double rates[HALF]; // turns a position»)
INLINE void load_common(const Args &a)
{
        moe_has(«norm», «for (int i = TID; i < DK; i += THREADS)
                norm_w[i] = ((const float *)moe_arg(«norm»))[i];», «»)
        moe_if(MOE_HALF, 0, «», «for (int i = TID; i < HALF; i += THREADS)
                rates[i] = freqs[i] moe_has(«freqs», «/ (double)((const float *)moe_arg(«freqs»))[i]», «»);»)
        (void)a;
}
// A tile's queries, rows of a token's heads; FEW: eights of heads, each followed by its rest.
template <bool FEW> INLINE void prepare(const Args &a, const Tile &t)
{
        enum { AT_ONCE = FEW ? 1 : heads_at_once(8), TIMES = G / AT_ONCE };
        for (int i = TID; i < (FEW ? 16 * HG : ROWS) * SK; i += THREADS) {
                U4 none = {0, 0, 0, 0};
                int row = i / SK;
                if (FEW ? row / 16 * 8 + row % 8 >= G : row >= (int)t.n * G)
                        *(U4 *)&sh.query[8 * i] = none;
        }
        moe_has(«norm», «Pairs w;
        w.load(norm_w);», «»)
#pragma unroll 1
        for (int j = TID / 32; j < (int)t.n * TIMES; j += WARPS) {
                int i = j / TIMES, g0 = j % TIMES * AT_ONCE;
                const float *q = (const float *)moe_arg(«q») + ((u64)(t.token + (u32)i) * HEADS + t.head * G + (u32)g0) * DK;
                Pairs h[AT_ONCE];
#pragma unroll
                for (int g = 0; g < AT_ONCE; g++)
                        h[g].load(q + g * DK);
                moe_if(MOE_HALF, 0, «», «Pairs turn;
                for (int k = 0; k < PAIRS; k++) {
                        sincos_turns((double)(t.pos + i) * rates[Pairs::at(k) < HALF ? Pairs::at(k) : 0], turn.v[k][1], turn.v[k][0]);
                        turn.v[k][0] *= (float)MOE_rattn, turn.v[k][1] *= (float)MOE_rattn;
                }»)
#pragma unroll
                for (int g = 0; g < AT_ONCE; g++) {
                        int head = g0 + g, row = FEW ? head / 8 * 16 + head % 8 : i * G + head;
                        moe_has(«norm», «h[g].norm(w);», «»)
                        moe_if(MOE_HALF, 0, «», «h[g].rotate(turn);»)
                        h[g].store(row, FEW ? row + 8 : -1);
                }
        }
}
