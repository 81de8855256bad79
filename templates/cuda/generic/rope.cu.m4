// rope: each head of x [T, HEADS * D] rotated by its token's position. A block: one token. 256 threads. Grid: T.
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
enum { N = MOE_K, HEADS = MOE_heads, D = N / HEADS };
__shared__ float head[WARPS][D];

moe_kernel
{
        pdl_wait();
        u32 t = BX;
        if (t >= moe_rows)
                return;
        moe_if(MOE_HALF, 0, «», «rope_table(((const i32 *)moe_arg(«pos»))[t], moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));
        barrier();»)
        for (int h = TID / 32; h < HEADS; h += WARPS) {
                u64 at = (u64)t * N + h * D;
                place_head((const float *)moe_arg(«x») + at, head[TID / 32], D, 0, 0);
                for (int i = TID % 32; i < D; i += 32)
                        ((float *)moe_arg(«out0»))[at + i] = head[TID / 32][i];
                warp_barrier();
        }
}
