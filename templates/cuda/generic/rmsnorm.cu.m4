// rmsnorm: each GROUP neighbouring values of x [T, K] over their root mean square, times w [GROUP]. A block: one token; a group
// is a warp's, or the block's if it is the whole row. 256 threads. Grid: ROWS.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«stream.m4»)
enum { K = MOE_K, GROUP = MOE_group ? MOE_group : K };
__shared__ float part[WARPS];

moe_kernel
{
        moe_trigger(first);
        pdl_wait();
        u32 t = BX;
        if (t >= moe_rows)
                return;
        const float *x = (const float *)moe_arg(«x») + (u64)t * K, *w = (const float *)moe_arg(«w»);
        float *to = (float *)moe_arg(«out0») + (u64)t * K;
        if (GROUP == K) {
                Maker<K, K + (4 - K % 4) % 4> row;
                row.weights(w);
                row.values(x);
                row.squares(part);
                barrier();
                float r = rms_of(part, K, (float)MOE_eps);
#pragma unroll
                for (int j = 0; j < row.J; j++) {
                        float v[4];
                        row.template product_of<true>(j, v);
                        for (int c = 0; c < 4; c++)
                                if (4 * (j * THREADS + TID) + c < K)
                                        to[4 * (j * THREADS + TID) + c] = v[c] * r;
                }
                return;
        }
        for (int g = TID / 32; g < K / GROUP; g += WARPS) {
                double s = 0;
                for (int i = TID % 32; i < GROUP; i += 32)
                        s += (double)x[g * GROUP + i] * (double)x[g * GROUP + i];
                s = 1.0 / sqrt_f64(warp_sum(s) / GROUP + MOE_eps);
                for (int i = TID % 32; i < GROUP; i += 32)
                        to[g * GROUP + i] = normed(x[g * GROUP + i], s, w[i]);
        }
}
