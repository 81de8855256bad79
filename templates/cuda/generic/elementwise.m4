// Usage: moe_elementwise(EXPRESSION): out[t][i] = EXPRESSION in x (and y), values of operands a and b at [t][i]; b may be one
// row for all tokens. A block: 1024 values of one token, 256 threads. Grid: ROWS, ceil(N / 1024).
m4_define(«moe_elementwise», «moe_arity(«moe_elementwise», 1, $#)enum { N = MOE_N };

moe_kernel
{
        pdl_wait();
        u64 t = BX;
        if (t >= moe_rows)
                return;
        const float *px = (const float *)a.arg[MOE_ARG_A] + t * N;
        m4_ifdef(«MOE_ARG_B», «const float *py = (const float *)a.arg[MOE_ARG_B] + t * MOE_STRIDE_B;», «»)
        float *to = (float *)moe_arg(«out0») + t * N;
        int first = (int)BY * 1024, end = first + 1024 < N ? first + 1024 : N;
        for (int i = first + TID; i < end; i += THREADS) {
                float x = px[i] m4_ifdef(«MOE_ARG_B», «, y = py[i]», «»);
                to[i] = $1;
        }
}
»)m4_dnl
