// experts_down: res + sum over the chosen experts e of weight_e * down_e(x[:, slot]).
//
// x f32 or q8 [T, KTOP, F]; route [T, KTOP]; down panels [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// A block owns 8 rows of H (without order: of one token), so sums stay in registers or in the block's own outputs: no scratch,
// one fixed order. With order the experts come one after the other, each one's rows read once for all of its tokens.
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, TILE = NT, PANELS = (H + 7) / 8 };
m4_define(«moe_made», «moe_if(MOE_TYPE_x/MOE_act, f32/q8, 1, 0)»)m4_dnl
moe_if(MOE_act, q8, «moe_acts_q8», «moe_acts_f32»)
moe_product(MOE_TYPE_down)

// weight * (panel p of expert e times each pair's activations), nt pairs.
INLINE void down(void *const *arg, u32 e, u32 p, const Acts *a, const u32 *pair, int nt, f32x8 *y)
{
        const u8 *w = (const u8 *)moe_arg(«down») + e * panel_«»MOE_TYPE_down«»(H, K);
        const Route *route = moe_arg(«route»);
        f32x8 acc[NT] = {0};
        product_«»MOE_TYPE_down«»(w + p * panel_«»MOE_TYPE_down«»(8, K), K, a, nt, acc);
        for (int t = 0; t < nt; t++) {
                moe_has(«down_b», «acc[t] += load_rows((const float *)moe_arg(«down_b») + e * H + 8 * p, (int)(H - 8 * p));», «»)
                y[t] = acc[t] * route[pair[t]].w;
        }
}

// The activations of a pair: as they are, or rounded here into m.
moe_if(moe_made, 1, «typedef MADE(K) Made;
INLINE void pair_acts(void *const *arg, u32 n, u32 pair, Acts *a, int t, Made *m)
{
        (void)n;
        quantize((const float *)moe_arg(«x») + (u64)pair * K, K, m[t].q, m[t].d, m[t].s);
        a->q[t] = m[t].q, a->d[t] = m[t].d, a->s[t] = m[t].s;
}
», «typedef struct { char none; } Made;
INLINE void pair_acts(void *const *arg, u32 n, u32 pair, Acts *a, int t, Made *m)
{
        (void)m;
        acts(a, t, moe_arg(«x»), n, pair, K);
}
»)
moe_kernel
{
        u32 T = dim->n_tok;
        float *out = moe_arg(«out0»);
        const float *res = moe_has(«res», «moe_arg(«res»)», «0»);
        Acts a = {0};
        Made m[TILE];
        f32x8 y[NT];
moe_has(«order», «        const u32 *off = moe_arg(«order»), *pairs = off + E + 1;
        for (u32 p = first; p < last; p++) {
                int rows = (int)(H - 8 * p);
                for (u32 t = 0; t < T; t++) {
                        u64 at = (u64)t * H + 8 * p;
                        store_rows(out + at, res ? load_rows(res + at, rows) : splat(0), rows);
                }
                for (u32 e = 0; e < E; e++)
                        for (u32 i = off[e]; i < off[e + 1];) {
                                int n = off[e + 1] - i >= TILE ? TILE : 1;
                                for (int t = 0; t < n; t++)
                                        pair_acts(arg, T * KTOP, pairs[i + (u32)t], &a, t, m);
                                if (n == TILE)
                                        down(arg, e, p, &a, pairs + i, TILE, y);
                                else
                                        down(arg, e, p, &a, pairs + i, 1, y);
                                for (int t = 0; t < n; t++, i++) {
                                        float *to = out + (u64)(pairs[i] / KTOP) * H + 8 * p;
                                        store_rows(to, load_rows(to, rows) + y[t], rows);
                                }
                        }
        }
», «        const Route *route = moe_arg(«route»);
        for (u32 b = first; b < last; b++) {
                u32 t = b / PANELS, p = b % PANELS;
                int rows = (int)(H - 8 * p);
                u64 at = (u64)t * H + 8 * p;
                f32x8 sum = res ? load_rows(res + at, rows) : splat(0);
                for (u32 s = 0; s < KTOP; s++) {
                        u32 pair = t * KTOP + s;
                        pair_acts(arg, T * KTOP, pair, &a, 0, m);
                        down(arg, (u32)route[pair].id, p, &a, &pair, 1, y);
                        sum += y[0];
                }
                store_rows(out + at, sum, rows);
        }
»)}
