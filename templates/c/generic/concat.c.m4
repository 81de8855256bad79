// concat: [a | b], f32 [T, NA] and [T, NB]. A block: one token.
m4_include(«prelude.m4»)
enum { NA = MOE_NA, NB = MOE_NB };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++) {
                float *to = (float *)moe_arg(«out0») + t * (NA + NB);
                memcpy(to, (const float *)moe_arg(«a») + t * NA, 4 * NA);
                memcpy(to + NA, (const float *)moe_arg(«b») + t * NB, 4 * NB);
        }
}
