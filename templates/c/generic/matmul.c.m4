// matmul: out[i] = res + norm(x) * w[i] + bias[i], one result a weight.
//
// x f32 or q8 [T, K]; w[i] panels [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: the 8 rows of one panel, all tokens. Facts: MOE_NW weights, MOE_NT tokens a tile.
//
//      AMD EPYC (Zen 3), 1 thread, Q4_K q8 K 2048:    NT 1  ?      NT 4  ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { K = MOE_K, TILE = NT };
#define EPS ((float)MOE_eps)
m4_define(«moe_made», «m4_ifelse(moe_has(«norm», 1, 0), 1, 1, MOE_TYPE_x/MOE_act, f32/q8, 1, 0)»)m4_dnl
m4_define(«moe_takes», «m4_ifelse(MOE_act, q8, q8, f32)»)m4_dnl
moe_if(moe_takes, q8, «moe_acts_q8», «moe_acts_f32»)
moe_for(«I», 0, m4_eval(MOE_NW - 1), «
moe_product(moe_fact(«TYPE_w», I))
// The panel's 8 rows of weight I for nt tokens from t0.
INLINE void tile_«»I«»(void *const *arg, u32 panel, const Acts *a, u32 t0, int nt)
{
        enum { N = moe_fact(«N», I) };
        const u8 *w = (const u8 *)arg[moe_fact(«ARG_w», I)] + panel * panel_«»moe_fact(«TYPE_w», I)(8, K);
        int rows = (int)(N - 8 * panel);
        f32x8 acc[NT] = {0};
        product_«»moe_fact(«TYPE_w», I)(w, K, a, nt, acc);
        for (int t = 0; t < nt; t++) {
                u64 at = (u64)(t0 + (u32)t) * N + 8 * panel;
                m4_ifdef(«MOE_ARG_bias»I, «acc[t] += load_rows((const float *)arg[moe_fact(«ARG_bias», I)] + 8 * panel, rows);»)
                moe_has(«res», «acc[t] += load_rows((const float *)moe_arg(«res») + at, rows);», «»)
                store_rows((float *)arg[moe_fact(«ARG_out», I)] + at, acc[t], rows);
        }
}
»)
INLINE void tile(void *const *arg, u32 b, const Acts *a, u32 t0, int nt)
{
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (b < moe_fact(«END», I)) {
                tile_«»I«»(arg, b - moe_fact(«START», I), a, t0, nt);
                return;
        }
»)}

moe_kernel
{
        u32 T = dim->MOE_ROWS;
        Acts a = {0};
moe_if(moe_made, 1, «        // Made here: each token's activations once a thread, then all of this range's panels.
        MADE(K) m;
        for (u32 t = 0; t < T; t++) {
                const float *x = (const float *)moe_arg(«x») + (u64)t * K;
                moe_has(«norm», «norm_row(x, moe_arg(«norm»), K, EPS, m.f);
                x = m.f;», «»)
                moe_if(moe_takes, q8, «quantize(x, K, m.q, m.d, m.s);», «»)
                a.q[0] = m.q, a.d[0] = m.d, a.s[0] = m.s, a.f[0] = x;
                for (u32 b = first; b < last; b++)
                        tile(arg, b, &a, t, 1);
        }
», «        for (u32 b = first; b < last; b++) {
                u32 t = 0;
                for (; t + TILE <= T; t += TILE) {
                        for (int i = 0; i < TILE; i++)
                                acts(&a, i, moe_arg(«x»), T, t + (u32)i, K);
                        tile(arg, b, &a, t, TILE);
                }
                for (; t < T; t++) {
                        acts(&a, 0, moe_arg(«x»), T, t, K);
                        tile(arg, b, &a, t, 1);
                }
        }
»)}
