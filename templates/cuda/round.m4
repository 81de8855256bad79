// A block's scale, from the largest of its values; tiny ones are zero, as their inverse would be infinite.
INLINE float scale_of(float top)
{
        top *= 1 / 127.0f;
        return top < 1.17549435e-38f ? 0.0f : top;
}
// Bits of which the lowest byte is the nearest integer, even on ties: faster than to convert, and a byte is all that is wanted.
INLINE u32 near_bits(float f) { return f32_bits(f + 12582912.0f); }
// Four values, of lanes that come in fours, to q8 as ir/quant.h defines it: scale = max |x| / 127, code = round to nearest even
// of x * (1 / scale), but for the last bit of both quotients. Returns the codes; all four lanes have scale, and scale times the sum of the 16 codes.
INLINE u32 quantize4(const float (&x)[4], float &scale, float &sum)
{
        float top = max_f32(max_f32(abs1(x[0]), abs1(x[1])), max_f32(abs1(x[2]), abs1(x[3])));
        top = max_f32(top, shfl_xor(top, 1));
        scale = scale_of(max_f32(top, shfl_xor(top, 2)));
        float inv = scale != 0 ? inverse_f32(scale) : 0.0f;
        u32 c[4];
        for (int i = 0; i < 4; i++)
                c[i] = near_bits(mul1(x[i], inv));
        u32 q = prmt(prmt(c[0], c[1], 0x0040), prmt(c[2], c[3], 0x0040), 0x5410);
        i32 n = dp4a(q, 0x01010101, 0);
        n += shfl_xor(n, 1);
        n += shfl_xor(n, 2);
        sum = mul1(scale, (float)n);
        return q;
}
// The same of 16 values of one lane.
INLINE void quantize16(const F4 (&x)[4], u32 (&code)[4], float &scale, float &sum)
{
        float top = 0;
#pragma unroll
        for (int j = 0; j < 4; j++)
                top = max_f32(top, max_f32(max_f32(abs1(x[j].x), abs1(x[j].y)), max_f32(abs1(x[j].z), abs1(x[j].w))));
        scale = scale_of(top);
        float inv = scale != 0 ? inverse_f32(scale) : 0.0f;
        i32 n = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
                u32 c[4] = {near_bits(mul1(x[j].x, inv)), near_bits(mul1(x[j].y, inv)), near_bits(mul1(x[j].z, inv)), near_bits(mul1(x[j].w, inv))};
                code[j] = prmt(prmt(c[0], c[1], 0x0040), prmt(c[2], c[3], 0x0040), 0x5410);
                n = dp4a(code[j], 0x01010101, n);
        }
        sum = mul1(scale, (float)n);
}
// The same of one value a lane, 16 neighbouring lanes a block: to place `at` of a q8 value of n values.
INLINE void quantize1(float x, void *to, u64 n, u64 at, bool in)
{
        float top = abs1(in ? x : 0), *scales = (float *)((u8 *)to + n), *sums = scales + n / 16;
        for (int m = 8; m; m /= 2)
                top = max_f32(top, shfl_xor(top, m));
        float scale = scale_of(top);
        i32 code = in ? nearest(mul1(x, scale != 0 ? inverse_f32(scale) : 0.0f)) : 0, all = code;
        for (int m = 8; m; m /= 2)
                all += shfl_xor(all, m);
        if (in) {
                ((u8 *)to)[at] = (u8)code;
                if (at % 16 == 0)
                        scales[at / 16] = scale, sums[at / 16] = mul1(scale, (float)all);
        }
}
