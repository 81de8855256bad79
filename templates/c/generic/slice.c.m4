// slice: columns FROM .. TO of x f32 [T, K]. A block: one token.
m4_include(«prelude.m4»)
enum { K = MOE_K, FROM = MOE_from, N = MOE_to - MOE_from };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++)
                memcpy((float *)moe_arg(«out0») + t * N, (const float *)moe_arg(«x») + t * K + FROM, 4 * N);
}
