// Products of few tokens on tensor cores, with weights on their way through shared memory: tiles of 16 rows of weights times 8 columns, each
// the values of one token. K goes by in pieces of 256 values, which the warps share; a piece is four steps of 64. Weights go from their
// quantised form straight to the fragments of the product, as in many.m4: a lane has whole units of its two rows, and the order of
// summation is the one that those units give. The columns' values are made once, in that order, and stay in the registers of the warp
// whose pieces they belong to; its sums meet those of the other warps in shared memory.
//
// A column's values in a warp are scaled by a power of two, so that the largest are about 2^15: undone in the warp's sums, which are f32.
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
m4_include(«stream.m4»)
m4_include(«f16.m4»)
enum { CK = 256, STEP = 64, STEPS = CK / STEP, ROWS = 16, COLUMNS = 8 };
#define PIECES_OF(k) (((k) + CK - 1) / CK)
// Bytes from row to row in shared memory, an odd number of 16, so that the lanes of a warp meet no bank twice.
#define STRIDE_OF(bytes) ((bytes) + ((bytes) / 16 % 2 ? 0 : 16))
template <class W, int K> struct Packed {
        enum { BYTES = Row<W, K>::BYTES, STRIDE = STRIDE_OF(BYTES) };
};

// 1024 twice, with the codes' signs turned over where they are signed: see halves.
INLINE u32 top_of(bool is_signed) { return (u32)here(is_signed ? 0x64806480 : 0x64006400); }

// Which group of 16 values of a row the lane's codes of step s are.
template <class W> INLINE int place_of(int piece, int s)
{
        enum { G = W::UNIT / 16 };
        return W::at(piece * (CK / W::UNIT) + s / G * 4 + TID % 4, s % G);
}

// Rounded values of a piece: of column lane / 4 those that go with the lane's codes.
struct Rounded {
        u32 code[STEPS][4];
        float d[STEPS];
        // Of one that is not there.
        INLINE_IN void none()
        {
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        code[s][0] = code[s][1] = code[s][2] = code[s][3] = 0;
                        d[s] = 0;
                }
        }
        // Out of shared memory.
        template <class W, class Acts> INLINE_IN void take(const Acts &x, int piece)
        {
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        u32 at = (u32)place_of<W>(piece, s);
                        U4 c = x.q[0][x.place(at)];
                        code[s][0] = c.x, code[s][1] = c.y, code[s][2] = c.z, code[s][3] = c.w;
                        d[s] = x.d[0][x.spot(at)];
                }
        }
        // Out of a q8 value of `rows` rows of K.
        template <class W, int K> INLINE_IN void load(const void *x, u64 rows, u32 row, int piece)
        {
                const u8 *q = (const u8 *)x + (u64)row * K;
                const float *scale = (const float *)((const u8 *)x + rows * K) + (u64)row * (K / 16);
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        int at = place_of<W>(piece, s);
                        bool in = K % CK == 0 || at < K / 16;
                        U4 c = in ? *(const U4 *)(q + 16 * at) : U4{0, 0, 0, 0};
                        code[s][0] = c.x, code[s][1] = c.y, code[s][2] = c.z, code[s][3] = c.w;
                        d[s] = in ? scale[at] : 0;
                }
        }
        INLINE_IN float top() const { return max_f32(max_f32(d[0], d[1]), max_f32(d[2], d[3])); }
};
// The power of two that a column is scaled by, from the largest scale of its four lanes, and what undoes it.
struct Power {
        float by, back;
        INLINE_IN void set(float top)
        {
                top = max_f32(top, shfl_xor(top, 1));
                top = max_f32(top, shfl_xor(top, 2));
                power_of_two(top, by, back);
        }
        // Undone in sums, whose columns are 2 (lane % 4) and the next.
        INLINE_IN void undo(float (&acc)[4]) const
        {
                float b0 = shfl(back, TID % 4 * 8), b1 = shfl(back, TID % 4 * 8 + 4);
                acc[0] *= b0, acc[1] *= b1, acc[2] *= b0, acc[3] *= b1;
        }
};
// The lane's part of a piece of the columns.
struct Columns {
        u32 b[STEPS][4][2], sum[2]; // sum: of each half of the steps, over 64, in two parts
        INLINE_IN void set(const Rounded &r, float by)
        {
                u32 top = top_of(true);
                float half[2] = {};
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        Factor f;
                        i32 n = 0;
                        f.set(r.d[s] * by, 0);
                        for (int i = 0; i < 4; i++)
                                n = dp4a(r.code[s][i], 0x01010101, n);
                        half[s / 2] = fma1((float)n, r.d[s] * by * (1 / 64.0f), half[s / 2]);
#pragma unroll
                        for (int i = 0; i < 4; i++)
                                f.rounded(r.code[s][i], top, b[s][i][0], b[s][i][1]);
                }
                sum[0] = pack_f16(half[0], half[1]);
                sum[1] = pack_f16(half[0] - f16_f32(sum[0] & 0xffff), half[1] - f16_f32(sum[0] >> 16));
        }
};

// acc += a tile's rows times the columns over a piece; rows: the tile's first row in shared memory.
template <int LEVELS> struct Times;
// The piece is a block: whole numbers first, then d and dmin.
template <> struct Times<2> {
        template <class W, int K> static INLINE_IN void add(const u8 *rows, int stride, int piece, const Columns &x, float (&acc)[4])
        {
                static_assert((int)W::BLOCK == (int)CK && W::UNIT == 64, "four lanes have a block");
                u32 top = top_of(false);
                W w[2];
                typename W::Whole scale[2];
                float part[4] = {}, least[4] = {};
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        w[r].template load<K>(rows + (TID % 32 / 4 + 8 * r) * stride, (u32)(piece * 4 + TID % 4));
                        scale[r] = w[r].scale((u32)(TID % 4));
                }
#pragma unroll
                for (int g = 0; g < 4; g++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                                u32 a[4];
#pragma unroll
                                for (int k = 0; k < 4; k++)
                                        a[k] = w[k % 2].value(scale[k % 2], g, i, k / 2, top);
                                mma_f16(part, a, x.b[g][i]);
                        }
                if (W::LEAST) {
                        u32 a[4] = {scale[0].mins, scale[1].mins, scale[0].mins, scale[1].mins};
                        mma_f16(least, a, x.sum);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        acc[i] = fma1(UP * f16_f32(w[i / 2].d), part[i], acc[i]);
                        if (W::LEAST)
                                acc[i] = fma1(-64 * UP * f16_f32(w[i / 2].dmin), least[i], acc[i]);
                }
        }
};
template <> struct Times<1> {
        template <class W, int K> static INLINE_IN void add(const u8 *rows, int stride, int piece, const Columns &x, float (&acc)[4])
        {
                enum { G = W::UNIT / 16, V = STEPS / G, UNITS = (K + W::UNIT - 1) / W::UNIT };
                const u8 *row[2] = {rows + TID % 32 / 4 * stride, rows + (TID % 32 / 4 + 8) * stride};
                u32 top = top_of(!W::MIN);
#pragma unroll
                for (int j = 0; j < V; j++) {
                        W w[2];
                        Factor by[2];
                        int u = piece * (CK / W::UNIT) + 4 * j + TID % 4;
                        u = UNITS * W::UNIT % CK == 0 || u < UNITS ? u : UNITS - 1; // behind the row's end the columns are 0
#pragma unroll
                        for (int r = 0; r < 2; r++)
                                w[r].template load<K>(row[r], (u32)u);
#pragma unroll
                        for (int g = 0; g < G; g++) {
                                u32 c[2][4];
#pragma unroll
                                for (int r = 0; r < 2; r++) {
                                        float scale, m;
                                        w[r].group((u32)u, (u32)g, c[r], scale, m);
                                        if (g % W::SAME == 0)
                                                by[r].template set_weights<W>(scale, m);
                                }
#pragma unroll
                                for (int i = 0; i < 4; i++) {
                                        u32 a[4];
                                        fragment<W>(c, by, top, i, a);
                                        mma_f16(acc, a, x.b[j * G + g][i]);
                                }
                        }
                }
        }
};

// The columns, as a warp has its pieces of them.
template <class W, int K> struct Mine {
        enum { PIECES = PIECES_OF(K), N = (PIECES + WARPS - 1) / WARPS };
        Columns x[N];
        Power power;
        static INLINE_IN int piece(int k) { return TID / 32 + k * WARPS; }
        static INLINE_IN bool has(int k) { return PIECES % WARPS == 0 || piece(k) < PIECES; }
        // in: whether the lane's column, lane / 4, is there.
        template <class Acts> INLINE_IN void take(const Acts (&acts)[COLUMNS], bool in)
        {
                Rounded r[N];
                float top = 0;
#pragma unroll
                for (int k = 0; k < N; k++) {
                        r[k].none();
                        if (in && has(k))
                                r[k].template take<W>(acts[TID % 32 / 4], piece(k));
                        top = max_f32(top, r[k].top());
                }
                power.set(top);
#pragma unroll
                for (int k = 0; k < N; k++)
                        x[k].set(r[k], power.by);
        }
        // The warp's part of the products of a tile's rows with the columns.
        INLINE_IN void times(const u8 *rows, int stride, float (&acc)[4]) const
        {
#pragma unroll
                for (int k = 0; k < N; k++)
                        if (has(k))
                                Times<(int)W::LEVELS>::template add<W, K>(rows, stride, piece(k), x[k], acc);
                power.undo(acc);
        }
};
// The values of 8 tokens that the block makes, or has from a q8 value, before the warps take theirs.
template <int K> struct Acts8 : ActsQ8<1, WHOLE(K)> {
        U4 apart[4]; // from bank to bank
};

// What the warps have of a tile's rows and columns, by column; a column is 20 apart from the next, so that a warp that puts its sums meets
// no bank twice.
struct Sums16 {
        float y[COLUMNS][ROWS + 4];
        INLINE_IN void put(const float (&acc)[4])
        {
                int r = TID % 32 / 4, c = TID % 4 * 2;
                y[c][r] = acc[0], y[c + 1][r] = acc[1], y[c][r + 8] = acc[2], y[c + 1][r + 8] = acc[3];
        }
};
// The sum of all warps' parts.
template <int N> INLINE float sum_of(const Sums16 (&part)[N], int column, int row)
{
        float y[N];
#pragma unroll
        for (int i = 0; i < N; i++)
                y[i] = part[i].y[column][row];
        return tree_sum(y);
}
