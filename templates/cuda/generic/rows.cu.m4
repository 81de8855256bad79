// rows: the rows of x f32 [T, K] that `out` names. A block: one row. 256 threads. Grid: n_out.
m4_include(«prelude.m4»)
enum { K = MOE_K };

moe_kernel
{
        pdl_wait();
        u64 r = BX;
        if (r >= a.dim->n_out)
                return;
        const float *x = (const float *)moe_arg(«x») + (u64)(u32)((const i32 *)moe_arg(«out»))[r] * K;
        for (int i = TID; i < K; i += THREADS)
                ((float *)moe_arg(«out0»))[r * K + i] = x[i];
}
