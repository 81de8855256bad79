// slice: columns FROM .. TO of each of the HEADS equal parts of a row of x, f32 [T, HEADS * D]. A block: one token.
m4_include(«prelude.m4»)
enum { HEADS = MOE_heads ? MOE_heads : 1, D = MOE_K / HEADS, FROM = MOE_from, N = MOE_to - MOE_from };

moe_kernel
{
        (void)dim;
        for (u64 i = (u64)first * HEADS; i < (u64)last * HEADS; i++)
                memcpy((float *)moe_arg(«out0») + i * N, (const float *)moe_arg(«x») + i * D + FROM, 4 * N);
}
