// slice: columns FROM .. TO of each of x's HEADS equal parts, f32 [T, K]. A block: one token. 256 threads. Grid: ROWS.
m4_include(«prelude.m4»)
enum { HEADS = MOE_heads ? MOE_heads : 1, K = MOE_K / HEADS, FROM = MOE_from, N = MOE_to - MOE_from };

moe_kernel
{
        pdl_wait();
        u64 t = BX;
        if (t >= moe_rows)
                return;
        for (int i = TID; i < HEADS * N; i += THREADS)
                ((float *)moe_arg(«out0»))[t * HEADS * N + i] = ((const float *)moe_arg(«x»))[t * HEADS * K + i / N * K + FROM + i % N];
}
