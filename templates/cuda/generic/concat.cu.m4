// concat: [a | b], of each of HEADS equal parts, f32 [T, NA] and [T, NB]. A block: one token. 256 threads. Grid: ROWS.
m4_include(«prelude.m4»)
enum { HEADS = MOE_heads ? MOE_heads : 1, NA = MOE_NA / HEADS, NB = MOE_NB / HEADS, N = NA + NB };

moe_kernel
{
        pdl_wait();
        u64 t = BX;
        if (t >= moe_rows)
                return;
        const float *pa = (const float *)moe_arg(«a») + t * HEADS * NA, *pb = (const float *)moe_arg(«b») + t * HEADS * NB;
        for (int i = TID; i < HEADS * N; i += THREADS) {
                int h = i / N, k = i % N;
                ((float *)moe_arg(«out0»))[t * HEADS * N + i] = k < NA ? pa[h * NA + k] : pb[h * NB + k - NA];
        }
}
