// concat: [a | b], or of each of the HEADS equal parts of a row [a0 | b0 | a1 | b1 ...], f32 [T, HEADS * NA] and
// [T, HEADS * NB]. A block: one token.
m4_include(«prelude.m4»)
enum { HEADS = MOE_heads ? MOE_heads : 1, NA = MOE_NA / HEADS, NB = MOE_NB / HEADS };

moe_kernel
{
        (void)dim;
        for (u64 i = (u64)first * HEADS; i < (u64)last * HEADS; i++) {
                float *to = (float *)moe_arg(«out0») + i * (NA + NB);
                memcpy(to, (const float *)moe_arg(«a») + i * NA, 4 * NA);
                memcpy(to + NA, (const float *)moe_arg(«b») + i * NB, 4 * NB);
        }
}
