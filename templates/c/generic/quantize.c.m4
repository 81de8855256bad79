// quantize: x f32 [T, K], normed if it has a norm, to q8 [T, K]. A block: one token.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
enum { K = MOE_K };

moe_kernel
{
        u32 T = dim->MOE_ROWS;
        i8 *q = moe_arg(«out0»);
        float *d = (float *)(q + (u64)T * K), *s = d + (u64)T * (K / 16);
        for (u32 t = first; t < last; t++) {
                const float *x = (const float *)moe_arg(«x») + (u64)t * K;
                moe_has(«norm», «float y[K];
                norm_row(x, moe_arg(«norm»), K, (float)MOE_eps, y);
                x = y;», «»)
                quantize(x, K, q + (u64)t * K, d + (u64)t * (K / 16), s + (u64)t * (K / 16));
        }
}
