// experts_up: glu(gate_e(x'), up_e(x')) of every chosen expert e.
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up panels [E, F, K]; out f32 or q8 [T, KTOP, F].
// Without order a block is 32 of F for one (token, slot). With it: 32 of F for one expert and all of its tokens, so that each
// touched expert's weights are read once.
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, TILE = NT, PARTS = (F + 31) / 32 };
#define EPS ((float)MOE_eps)
m4_define(«moe_made», «m4_ifelse(moe_has(«norm», 1, 0), 1, 1, MOE_TYPE_x/MOE_act, f32/q8, 1, 0)»)m4_dnl
moe_if(MOE_act, q8, «moe_acts_q8», «moe_acts_f32»)
moe_product(MOE_TYPE_gate)
moe_product(MOE_TYPE_up)

// Rows 32 * part .. + 31 of expert e for nt pairs; pair[t] says where each result goes.
INLINE void part_of(void *const *arg, u32 T, u32 e, u32 part, const Acts *a, const u32 *pair, int nt)
{
        const u8 *wg = (const u8 *)moe_arg(«gate») + e * panel_«»MOE_TYPE_gate«»(F, K);
        const u8 *wu = (const u8 *)moe_arg(«up») + e * panel_«»MOE_TYPE_up«»(F, K);
        float h[NT][32];
        for (u32 i = 0; i < 4; i++) {
                u32 p = 4 * part + i;
                int rows = (int)F - (int)(8 * p);
                f32x8 g[NT] = {0}, u[NT] = {0};
                if (rows <= 0)
                        break;
                product_«»MOE_TYPE_gate«»(wg + p * panel_«»MOE_TYPE_gate«»(8, K), K, a, nt, g);
                product_«»MOE_TYPE_up«»(wu + p * panel_«»MOE_TYPE_up«»(8, K), K, a, nt, u);
                for (int t = 0; t < nt; t++) {
                        moe_has(«gate_b», «g[t] += load_rows((const float *)moe_arg(«gate_b») + e * F + 8 * p, rows);», «»)
                        moe_has(«up_b», «u[t] += load_rows((const float *)moe_arg(«up_b») + e * F + 8 * p, rows);», «»)
                        store_f32(h[t] + 8 * i, glu(g[t], u[t]));
                }
        }
        int n = F - 32 * (int)part < 32 ? F - 32 * (int)part : 32;
        for (int t = 0; t < nt; t++) {
moe_if(MOE_out, q8, «                i8 *q = moe_arg(«out0»);
                u64 pairs = (u64)T * KTOP;
                float *d = (float *)(q + pairs * F), *s = d + pairs * (F / 16);
                quantize(h[t], n, q + (u64)pair[t] * F + 32 * part, d + (u64)pair[t] * (F / 16) + 2 * part, s + (u64)pair[t] * (F / 16) + 2 * part);
», «                (void)T;
                memcpy((float *)moe_arg(«out0») + (u64)pair[t] * F + 32 * part, h[t], 4 * (u64)n);
»)        }
}

// The activations of token t, as they are or made here into m: normed, rounded.
moe_if(moe_made, 1, «typedef MADE(K) Made;
INLINE void token_acts(void *const *arg, u32 T, u32 t, Acts *a, int i, Made *m)
{
        const float *x = (const float *)moe_arg(«x») + (u64)t * K;
        (void)T;
        moe_has(«norm», «norm_row(x, moe_arg(«norm»), K, EPS, m[i].f);
        x = m[i].f;», «»)
        moe_if(MOE_act, q8, «quantize(x, K, m[i].q, m[i].d, m[i].s);», «»)
        a->q[i] = m[i].q, a->d[i] = m[i].d, a->s[i] = m[i].s, a->f[i] = x;
}
», «typedef struct { char none; } Made;
INLINE void token_acts(void *const *arg, u32 T, u32 t, Acts *a, int i, Made *m)
{
        (void)m;
        acts(a, i, moe_arg(«x»), T, t, K);
}
»)
moe_kernel
{
        u32 T = dim->n_tok;
        Acts a = {0};
        Made m[TILE];
moe_has(«order», «        const u32 *off = moe_arg(«order»), *pairs = off + E + 1;
        for (u32 b = first; b < last; b++) {
                u32 e = b / PARTS, part = b % PARTS, i = off[e];
                for (; i + TILE <= off[e + 1]; i += TILE) {
                        for (int t = 0; t < TILE; t++)
                                token_acts(arg, T, pairs[i + (u32)t] / KTOP, &a, t, m);
                        part_of(arg, T, e, part, &a, pairs + i, TILE);
                }
                for (; i < off[e + 1]; i++) {
                        token_acts(arg, T, pairs[i] / KTOP, &a, 0, m);
                        part_of(arg, T, e, part, &a, pairs + i, 1);
                }
        }
», «        const Route *route = moe_arg(«route»);
        u32 ready = ~0u; // the token whose activations a has
        for (u32 b = first; b < last; b++) {
                u32 pair = b / PARTS, t = pair / KTOP;
                if (ready != t)
                        token_acts(arg, T, t, &a, 0, m);
                ready = t;
                part_of(arg, T, (u32)route[pair].id, b % PARTS, &a, &pair, 1);
        }
»)}
