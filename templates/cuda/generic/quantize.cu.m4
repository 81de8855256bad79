// quantize: x f32 [T, K], normed if it has a norm, to q8 [T, K]. A block: one token. 256 threads. Grid: ROWS.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
enum { K = MOE_K };
__shared__ double sums[WARPS];

moe_kernel
{
        pdl_wait();
        u32 T = moe_rows, t = BX;
        if (t >= T)
                return;
        const float *x = (const float *)moe_arg(«x») + (u64)t * K, *w = moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»);
        double r = moe_has(«norm», «norm_of(x, K, MOE_eps, sums)», 0);
        u8 *q = (u8 *)moe_arg(«out0») + (u64)t * K;
        float *d = (float *)((u8 *)moe_arg(«out0») + (u64)T * K) + (u64)t * (K / 16), *s = d + (u64)T * (K / 16);
        for (int j = 0; j < (K / 4 + THREADS - 1) / THREADS; j++) {
                int i = j * THREADS + TID;
                float v[4], scale, sum;
                for (int c = 0; c < 4; c++)
                        v[c] = value_at<K, K, 1>(x, 4 * i + c, w, r);
                u32 code = quantize4(v, scale, sum);
                if (i < K / 4) {
                        ((u32 *)q)[i] = code;
                        if (i % 4 == 0)
                                d[i / 4] = scale, s[i / 4] = sum;
                }
        }
}
