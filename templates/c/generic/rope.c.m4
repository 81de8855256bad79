// rope: each head of x [T, HEADS * D] rotated by its token's position. A block: one token.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«heads.m4»)
enum { N = MOE_K, HEADS = MOE_heads, D = N / HEADS };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++) {
                float *to = (float *)moe_arg(«out0») + t * N;
                __builtin_memmove(to, (const float *)moe_arg(«x») + t * N, 4 * N);
                moe_if(MOE_HALF, 0, «», «float cos[PADHALF], sin[PADHALF];
                rope_table(((const i32 *)moe_arg(«pos»))[t], moe_has(«freqs», «moe_arg(«freqs»)», «0»), cos, sin);
                for (int h = 0; h < HEADS; h++)
                        rope_row(to + h * D, cos, sin);»)
        }
}
