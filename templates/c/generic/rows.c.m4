// rows: the rows of x f32 [T, K] that `out` names. A block: one row.
m4_include(«prelude.m4»)
enum { K = MOE_K };

moe_kernel
{
        (void)dim;
        for (u64 i = first; i < last; i++)
                memcpy((float *)moe_arg(«out0») + i * K, (const float *)moe_arg(«x») + (u64)((const i32 *)moe_arg(«out»))[i] * K, 4 * K);
}
