// A row of a table in the file's own layout, dequantised: the row becomes lane 0 of a panel (runtime/pack.h), block by block.
// Facts: MOE_FIELDS, the type's fields as {bytes, unit}.
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
moe_product(MOE_TYPE_w)
INLINE void table_row(const u8 *row, float *out, int K)
{
moe_if(moe_float(MOE_TYPE_w), 1, «        for (int k = 0; k < K; k++) {
                u8 lane[32] = {0};
                memcpy(lane, row + k * BYTES_«»MOE_TYPE_w, BYTES_«»MOE_TYPE_w);
                out[k] = value_«»MOE_TYPE_w«»(lane, 0)[0];
        }
», «        static const u8 field[][2] = {MOE_FIELDS};
        u8 panel[8 * BYTES_«»MOE_TYPE_w] __attribute__((aligned(32)));
        __builtin_memset(panel, 0, sizeof panel);
        for (int b = 0; b < K / BLOCK_«»MOE_TYPE_w; b++, row += BYTES_«»MOE_TYPE_w) {
                for (int f = 0, at = 0; f < (int)(sizeof field / 2); at += field[f++][0])
                        for (int i = 0; i < field[f][0]; i += field[f][1])
                                memcpy(panel + 8 * (at + i), row + at + i, field[f][1]);
                for (int i = 0; i < BLOCK_«»MOE_TYPE_w; i++) {
                        int j = i / 32, g = i % 32 / 4;
                        f32x8 s, m;
                        u32 c = codes_«»MOE_TYPE_w«»(panel, j, g)[0] >> (i % 4 * 8) & 255;
                        scales_«»MOE_TYPE_w«»(panel, j, g / (GROUP_«»MOE_TYPE_w / 4), &s, &m);
                        out[b * BLOCK_«»MOE_TYPE_w + i] = s[0] * ((SIGNED_«»MOE_TYPE_w ? (float)(i8)c : (float)c) - (float)ZERO_«»MOE_TYPE_w) - m[0];
                }
        }
»)}
