// Products of rows of weights with many tokens, on tensor cores: the weights' rows are the 16 of an m16n8k16, tokens the 8.
// A warp has two tiles of 16 rows (gate and up; or 32 rows of one weight). A lane loads whole units of its two rows in each, as
// quant/ has them, so the order of summation is the one that those units give: in step i of a unit, the four lanes of a row put in
// the four codes of word i each; in a word, codes 0 2 come before 1 3. Codes become f16 exactly, then scaled with one rounding.
//
// The tokens' activations, q8, become f16 in shared memory, CK values of K at a time for each of the KW warps that share the rows'
// K. Each token's are scaled by a power of two, so that its largest are about 2^15: undone in the sums, which are f32.
// MW warps have other rows; their sums over K meet in a fixed order.
enum { MW = MOE_MW, KW = MOE_KW, NT = MOE_NT, DEPTH = MOE_DEPTH, CK = 256, PITCH = CK / 8 + 4 };
#define UP   64.0f // what weights are multiplied by: f16 has all its bits for scales down to 2^-20
#define DOWN (1 / UP)
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)

struct Tokens {
        U4 x[KW][NT][PITCH];
        float by[NT], back[NT];
        u32 row[NT]; // of x
};

// Of a token's 32 pieces of 8 values, where half h of group g lies. Eight lanes that read at once want the same half of two tokens
// (PITCH apart) and of four groups, which differ, by the type, in bits 3 2, 3 1, 3 0, 2 1 or 1 0: they meet eight banks.
INLINE int place_of(int g, int h)
{
        int b0 = g & 1, b1 = g >> 1 & 1, b2 = g >> 2 & 1, b3 = g >> 3 & 1;
        return b3 << 4 | h << 3 | b0 << 2 | (b3 ^ b1) << 1 | (b2 ^ b1 ^ b0);
}

// Codes 0 2 and 1 3 of a word: 1024 + code is the f16 whose low bits the code is; signed ones with 128 more.
template <bool SIGNED> INLINE void halves(u32 w, u32 &even, u32 &odd)
{
        if (SIGNED)
                w ^= 0x80808080;
        even = sub_f16x2((w & 0x00ff00ff) | 0x64006400, SIGNED ? 0x64806480 : 0x64006400);
        odd = sub_f16x2((w >> 8 & 0x00ff00ff) | 0x64006400, SIGNED ? 0x64806480 : 0x64006400);
}

// What a lane holds of 16 rows' CK values.
template <class W, int K> struct Piece {
        enum { V = CK / 4 / W::UNIT, UNITS = K / W::UNIT };
        W w[V][2];
        INLINE_IN void load(const u8 *const (&row)[2], int chunk)
        {
                int from = here(chunk * (CK / W::UNIT) + TID % 4);
#pragma unroll
                for (int j = 0; j < V; j++) {
                        int u = from + 4 * j;
                        u = u < UNITS ? u : UNITS - 1; // behind the row's end the activations are 0
#pragma unroll
                        for (int r = 0; r < 2; r++)
                                w[j][r].template load<K>(row[r], u);
                }
        }
        // x: the chunk's, of the lane's token of the first 8
        template <int NB> INLINE_IN void times(const U4 *x, float (&acc)[NB][4]) const
        {
#pragma unroll
                for (int j = 0; j < V; j++)
#pragma unroll
                        for (int g = 0; g < W::UNIT / 16; g++) {
                                int u = here(4 * j + TID % 4); // or all groups' codes are made at once and kept
                                u32 c[2][4], by[2], less[2];
#pragma unroll
                                for (int r = 0; r < 2; r++) {
                                        float s, m;
                                        w[j][r].group(u, g, c[r], s, m);
                                        by[r] = pack_f16(UP * s, UP * s);
                                        less[r] = W::MIN ? pack_f16(-UP * m, -UP * m) : 0;
                                }
                                const U4 *at = x + place_of(W::at(u, g), 0);
#pragma unroll
                                for (int h = 0; h < 2; h++) {
                                        u32 f[2][4];
#pragma unroll
                                        for (int i = 0; i < 2; i++)
#pragma unroll
                                                for (int r = 0; r < 2; r++) {
                                                        u32 even, odd;
                                                        halves<!W::MIN>(c[r][2 * h + i], even, odd);
                                                        f[i][r] = W::MIN ? fma_f16x2(even, by[r], less[r]) : mul_f16x2(even, by[r]);
                                                        f[i][r + 2] = W::MIN ? fma_f16x2(odd, by[r], less[r]) : mul_f16x2(odd, by[r]);
                                                }
#pragma unroll
                                        for (int n = 0; n < NB; n++) {
                                                U4 b = at[8 * n * PITCH + 8 * h];
                                                u32 first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
                                                mma_f16(acc[n], f[0], first);
                                                mma_f16(acc[n], f[1], second);
                                        }
                                }
                        }
        }
};

// x: q8, `rows` rows of K: all codes, then all scales (then their sums).
template <int K> struct Acts {
        const u8 *q;
        const float *d;
        INLINE_IN Acts(const void *x, u32 rows) : q((const u8 *)x), d((const float *)((const u8 *)x + (u64)rows * K)) {}
        // What the first n tokens are scaled by.
        INLINE_IN void weigh(Tokens &t, int n) const
        {
#pragma unroll 1
                for (int i = TID / 32; i < n; i += WARPS) {
                        float top = 0;
                        for (int k = TID % 32; k < K / 16; k += 32)
                                top = max1(top, d[(u64)t.row[i] * (K / 16) + (u32)k]);
                        u32 e = f32_bits(warp_max(top)) >> 23;
                        e = e < 8 ? 8 : e > 253 ? 253 : e;
                        if (TID % 32 == 0)
                                t.by[i] = bits_f32((261 - e) << 23), t.back[i] = bits_f32((e - 7) << 23) * DOWN;
                }
        }
        // KW chunks from chunk `first` on of the first N tokens.
        template <int N> INLINE_IN void fill(Tokens &t, int first) const
        {
                enum { MANY = KW * N * (CK / 16) };
                int tid = here(TID);
#pragma unroll 4
                for (int j = 0; j < (MANY + THREADS - 1) / THREADS; j++) {
                        int i = j * THREADS + tid, g = i % 16, n = i / 16 % N, k = i / 16 / N, at = (first + k) * CK + 16 * g;
                        if (MANY % THREADS && i >= MANY)
                                break;
                        bool in = K % CK == 0 && KW == 1 ? true : at < K;
                        U4 none = {0, 0, 0, 0}, codes = in ? *(const U4 *)(q + (u64)t.row[n] * K + (u32)at) : none;
                        float s = in ? d[(u64)t.row[n] * (K / 16) + (u32)at / 16] * t.by[n] : 0;
                        u32 by = pack_f16(s, s);
                        U4 v[2];
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                                halves<true>(h ? codes.z : codes.x, v[h].x, v[h].y);
                                halves<true>(h ? codes.w : codes.y, v[h].z, v[h].w);
                                v[h].x = mul_f16x2(v[h].x, by), v[h].y = mul_f16x2(v[h].y, by);
                                v[h].z = mul_f16x2(v[h].z, by), v[h].w = mul_f16x2(v[h].w, by);
                                t.x[k][n][place_of(g, h)] = v[h];
                        }
                }
        }
};

INLINE int rows_warp() { return TID / 32 % MW; }
INLINE int k_warp() { return TID / 32 / MW; }

// Two tiles of 16 rows of K values, their first pieces on the way as soon as the rows are known.
template <class W0, class W1, int K> struct Pair {
        enum { CHUNKS = (K + CK - 1) / CK };
        // Pieces of each tile on their way while others are multiplied: as many as there are registers for.
        enum { BOTH = sizeof(Piece<W0, K>) + sizeof(Piece<W1, K>), D = DEPTH < 2 || BOTH <= 224 ? DEPTH : 1, BUFFERS = D ? D : 1 };
        const u8 *row[2][2]; // a tile's rows TID % 32 / 4 and 8 more
        Piece<W0, K> a[BUFFERS];
        Piece<W1, K> b[BUFFERS];
        // Rows from `first` on of base; of n, or the last one again.
        template <class W> INLINE_IN void rows(int tile, const u8 *base, int first, int n)
        {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        int i = first + 8 * r + TID % 32 / 4;
                        row[tile][r] = base + (u64)(u32)(i < n ? i : n - 1) * Row<W, K>::BYTES;
                }
        }
        INLINE_IN void begin()
        {
#pragma unroll
                for (int p = 0; p < D; p++)
                        if (p * KW + k_warp() < CHUNKS)
                                a[p].load(row[0], p * KW + k_warp()), b[p].load(row[1], p * KW + k_warp());
        }
        // acc[tile][n]: += the products with the 8 NB tokens; the sums over the warps that share them at k_warp() 0.
        template <int NB> INLINE_IN void times(Tokens &t, const Acts<K> &x, float (&acc)[2][NB][4])
        {
                const U4 *at = t.x[k_warp()][TID % 32 / 4];
#pragma unroll 1
                for (int first = 0; first < CHUNKS; first += BUFFERS * KW)
#pragma unroll
                        for (int p = 0; p < BUFFERS; p++) {
                                int c = first + p * KW + k_warp(), next = c + D * KW;
                                if (first + p * KW >= CHUNKS)
                                        break;
                                if (D == 0 && c < CHUNKS)
                                        a[p].load(row[0], c);
                                barrier();
                                x.template fill<8 * NB>(t, first + p * KW);
                                barrier();
                                if (c < CHUNKS)
                                        a[p].times(at, acc[0]);
                                if (D && next < CHUNKS)
                                        a[p].load(row[0], next);
                                if (D == 0 && c < CHUNKS)
                                        b[p].load(row[1], c);
                                if (c < CHUNKS)
                                        b[p].times(at, acc[1]);
                                if (D && next < CHUNKS)
                                        b[p].load(row[1], next);
                        }
                join(t, acc);
        }
        template <int NB> static INLINE_IN void join(Tokens &t, float (&acc)[2][NB][4])
        {
                float *room = (float *)t.x + rows_warp() * (KW - 1) * 256 * NB + TID % 32;
                barrier();
                if (KW == 1)
                        return;
#pragma unroll
                for (int i = 0; i < 8 * NB; i++)
                        if (k_warp())
                                room[((k_warp() - 1) * 8 * NB + i) * 32] = acc[i / 4 / NB][i / 4 % NB][i % 4];
                barrier();
#pragma unroll
                for (int i = 0; i < 8 * NB; i++)
                        for (int k = 0; k < KW - 1 && k_warp() == 0; k++)
                                acc[i / 4 / NB][i / 4 % NB][i % 4] += room[(k * 8 * NB + i) * 32];
        }
};

// Tiles of NT pairs over the experts: start[e] is how many those before e have.
template <int E> INLINE void count_tiles(u32 (&start)[E + 1], const u32 *off)
{
        u32 base = 0;
#pragma unroll 4
        for (int e0 = 0; e0 < E && TID < 32; e0 += 32) {
                int e = e0 + TID;
                u32 mine = e < E ? (off[e + 1] - off[e] + NT - 1) / NT : 0, upto = mine;
                for (int m = 1; m < 32; m *= 2) {
                        u32 other = shfl(upto, TID - m < 0 ? 0 : TID - m);
                        upto += TID >= m ? other : 0;
                }
                if (e < E)
                        start[e] = base + upto - mine;
                base += shfl(upto, 31);
        }
        if (TID == 0)
                start[E] = base;
        barrier();
}
template <int E> INLINE u32 expert_of(const u32 (&start)[E + 1], u32 tile)
{
        u32 e = 0;
#pragma unroll
        for (u32 step = 1 << 15; step; step /= 2)
                if (step < E && e + step < E && start[e + step] <= tile)
                        e += step;
        return e;
}

// Usage: moe_tiles(F, ARGS, N, LEAST, STEP): F<NB> ARGS with as few tiles of 8 tokens as hold N, of LEAST tokens, STEP times that,
// .., NT. Each size is code of its own, which takes its time to compile.
m4_define(«moe_tiles», «moe_arity(«moe_tiles», 5, $#)moe_tiles_of(«$1», «$2», «$3», $4, $5)$1«»<NT / 8>$2;»)m4_dnl
m4_define(«moe_tiles_of», «m4_ifelse(m4_eval($4 < MOE_NT), 1, «if ($3 <= $4)
                        $1«»<m4_eval($4 / 8)>$2;
                else moe_tiles_of(«$1», «$2», «$3», m4_eval($5 * $4), $5)», «»)»)m4_dnl
