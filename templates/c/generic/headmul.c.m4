// headmul: each head's own product: x f32 or q8 [T, HEADS * K], w panels [HEADS, N, K], out f32 [T, HEADS * N].
// A block: one head and one panel of 8 rows, all tokens.
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { HEADS = MOE_HEADS, K = MOE_K, N = MOE_N, PANELS = (N + 7) / 8 };
moe_if(MOE_act, q8, «moe_acts_q8», «moe_acts_f32»)
moe_product(MOE_TYPE_w)

moe_kernel
{
        for (u32 b = first; b < last; b++) {
                u32 h = b / PANELS, p = b % PANELS;
                const u8 *w = (const u8 *)moe_arg(«w») + h * panel_«»MOE_TYPE_w«»(N, K) + p * panel_«»MOE_TYPE_w«»(8, K);
                for (u32 t = 0; t < dim->n_tok; t++) {
                        Acts a = {0};
                        f32x8 acc = splat(0);
                        moe_if(MOE_TYPE_x/MOE_act, f32/q8, «MADE(K) m;
                        quantize((const float *)moe_arg(«x») + ((u64)t * HEADS + h) * K, K, m.q, m.d, m.s);
                        a.q[0] = m.q, a.d[0] = m.d, a.s[0] = m.s;», «acts(&a, 0, moe_arg(«x»), dim->n_tok * HEADS, t * HEADS + h, K);»)
                        product_«»MOE_TYPE_w«»(w, K, &a, 1, &acc);
                        store_rows((float *)moe_arg(«out0») + ((u64)t * HEADS + h) * N + 8 * p, acc, (int)(N - 8 * p));
                }
        }
}
