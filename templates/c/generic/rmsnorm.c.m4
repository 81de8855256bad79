// rmsnorm: each GROUP neighbouring values of x [T, K] over their root mean square, times w [GROUP]. A block: one token.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
enum { K = MOE_K, GROUP = MOE_group ? MOE_group : K };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++)
                for (int i = 0; i < K; i += GROUP)
                        norm_row((const float *)moe_arg(«x») + t * K + i, moe_arg(«w»), GROUP, (float)MOE_eps,
                                (float *)moe_arg(«out0») + t * K + i);
}
