// Usage: moe_elementwise(EXPRESSION): out[t][i] = EXPRESSION in a (and b), values of operands a and b at [t][i]; b may be one
// row for all tokens. A block: one token.
m4_define(«moe_elementwise», «moe_arity(«moe_elementwise», 1, $#)enum { N = MOE_N };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++) {
                const float *pa = (const float *)arg[MOE_ARG_A] + t * N;
                m4_ifdef(«MOE_ARG_B», «const float *pb = (const float *)arg[MOE_ARG_B] + t * MOE_STRIDE_B;», «»)
                float *to = (float *)moe_arg(«out0») + t * N;
                for (int i = 0; i < N; i++) {
                        float a = pa[i] m4_ifdef(«MOE_ARG_B», «, b = pb[i]», «»);
                        to[i] = $1;
                }
        }
}
»)m4_dnl
