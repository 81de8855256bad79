// quantize: x f32 [T, K], normed if it has a norm, to q8 [T, K]. A block: one token, whose values are in registers. 256 threads.
// Grid: ROWS.
//
//      H100, K 2048, microseconds: 512 tokens: 10     2048: 15
m4_include(«prelude.m4»)
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
m4_include(«stream.m4»)
enum { K = MOE_K };
__shared__ float part[WARPS];

moe_kernel
{
        moe_trigger(first);
        Maker<K, K> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        u32 T = moe_rows, t = BX;
        if (t >= T)
                return;
        x.values((const float *)moe_arg(«x») + (u64)t * K);
        float r = 1;
moe_has(«norm», «        x.squares(part);
        barrier();
        r = rms_of(part, K, (float)MOE_eps);
», «»)        x.put<moe_has(«norm», 1, 0)>(moe_arg(«out0»), T, t, r);
}
