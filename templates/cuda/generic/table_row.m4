// A row of a table in the file's own layout, dequantised by a block: SPAN values at a time are laid apart in shared memory, as
// `split` would have a row of these, and unpacked from there. Facts: MOE_FIELDS, the type's fields as {bytes, unit}.
#define W16(p) (*(const U4 *)(p))
#define K16(p) W16(p)
#define W4(p) (*(const u32 *)(p))
#define W2(p) ((u32)*(const u16 *)(p))
#define W1(p) ((u32)*(const u8 *)(p))
m4_include(«unpack.m4»)
moe_quant(MOE_TYPE_w)
typedef MOE_TYPE_w W;
enum { SPAN = 1024 };
__shared__ U4 apart[(W::At<SPAN>::ROW + 15) / 16];
__shared__ float values[SPAN];
__device__ const u8 field[][2] = {MOE_FIELDS};

template <bool FLOAT> struct Values;
template <> struct Values<false> {
        template <class W> static INLINE_IN void put(const W &w, int u, float *out)
        {
                for (int g = 0; g < W::UNIT / 16; g++) {
                        u32 c[4];
                        float s, m;
                        w.group(u, g, c, s, m);
                        for (int i = 0; i < 16; i++)
                                out[16 * W::at(u, g) + i] = mul1(s, (float)(i8)(c[i / 4] >> (i % 4 * 8))) - m;
                }
        }
};
template <> struct Values<true> {
        template <class W> static INLINE_IN void put(const W &w, int u, float *out)
        {
                for (int i = 0; i < W::UNIT; i++)
                        out[W::UNIT * u + i] = w.value(i);
        }
};

template <int K, int ROW_BYTES> INLINE void table_row(const u8 *row, float *out)
{
        enum { FIELDS = sizeof field / 2, BLOCKS = SPAN / W::BLOCK, BYTES = (int)((u64)ROW_BYTES * W::BLOCK / K) };
        for (int k = 0; k < K; k += SPAN) {
                int blocks = ((K - k < SPAN ? K - k : SPAN) + W::BLOCK - 1) / W::BLOCK;
                const u8 *from = row + (u64)(k / W::BLOCK) * BYTES;
                barrier();
                for (int f = 0, at = 0, plane = 0; f < FIELDS; plane += A16(BLOCKS * field[f][0]), at += field[f++][0])
                        for (int i = TID; i < blocks * field[f][0]; i += THREADS)
                                ((u8 *)apart)[plane + i] = from[i / field[f][0] * BYTES + at + i % field[f][0]];
                barrier();
                for (int u = TID; u * W::UNIT < blocks * W::BLOCK; u += THREADS) {
                        W w;
                        w.load<SPAN>((const u8 *)apart, u);
                        Values<(bool)W::FLOAT>::put(w, u, values);
                }
                barrier();
                for (int i = TID; i < SPAN && k + i < K; i += THREADS)
                        out[k + i] = values[i];
        }
}
