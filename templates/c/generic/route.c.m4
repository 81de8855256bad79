// route: each token's k experts and their weights, from logits x [T, E], or from norm(x) [T, K] times w [E, K] (F32 panels).
//
// out Route [T, KTOP]; with q8 norm(x) [T, K] too. A block: one token. Among equal scores the lowest index wins.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
enum { E = MOE_E, KTOP = MOE_k, PE = (E + 7) / 8 * 8, GROUPS = MOE_groups, GROUPS_K = MOE_groups_k };
moe_has(«w», «moe_product(MOE_TYPE_w)
enum { K = MOE_K };», «»)

// s = softmax(z) over the first n.
INLINE void softmax(const float *z, float *s, int n)
{
        float top = z[0], sum = 0;
        for (int i = 1; i < n; i++)
                top = z[i] > top ? z[i] : top;
        for (int i = 0; i < n; i++)
                sum += s[i] = exp1(z[i] - top);
        for (int i = 0; i < n; i++)
                s[i] /= sum;
}

// A NaN is below every number.
INLINE int above(float a, float b) { return a > b || (b != b && a == a); }

moe_kernel
{
        (void)dim;
        for (u32 t = first; t < last; t++) {
                float z[PE], s[PE], c[PE];
moe_has(«w», «                const float *x = (const float *)moe_arg(«x») + (u64)t * K;
                moe_has(«norm», «float y[K];
                norm_row(x, moe_arg(«norm»), K, (float)MOE_eps, y);
                x = y;», «»)
moe_if(MOE_out, q8, «                u32 T = dim->n_tok;
                i8 *q = moe_arg(«out1»);
                float *d = (float *)(q + (u64)T * K), *sums = d + (u64)T * (K / 16);
                quantize(x, K, q + (u64)t * K, d + (u64)t * (K / 16), sums + (u64)t * (K / 16));
», «»)                Acts a = {0};
                a.f[0] = x;
                for (u32 p = 0; p < PE / 8; p++) {
                        f32x8 acc = splat(0);
                        product_«»MOE_TYPE_w«»((const u8 *)moe_arg(«w») + p * panel_«»MOE_TYPE_w«»(8, K), K, &a, 1, &acc);
                        store_f32(z + 8 * p, acc);
                }
», «                memcpy(z, (const float *)moe_arg(«x») + (u64)t * E, 4 * E);
»)m4_ifelse(MOE_gate, softmax, «                softmax(z, s, E);
»)m4_dnl
m4_ifelse(MOE_gate, sigmoid, «                for (int i = 0; i < E; i++)
                        s[i] = 1.0f / (1.0f + exp1(-z[i]));
», MOE_gate, softmax_k, «                memcpy(s, z, sizeof s);
»)                for (int i = 0; i < E; i++)
                        c[i] = s[i] moe_has(«bias», «+ ((const float *)moe_arg(«bias»))[i]», «»);
m4_ifelse(m4_eval(MOE_groups > 1), 1, «                // Only the best groups' experts stay: by the sum of a group's two best.
                float best[GROUPS];
                for (int g = 0; g < GROUPS; g++) {
                        float one = -__builtin_inff(), two = one;
                        for (int i = g * (E / GROUPS); i < (g + 1) * (E / GROUPS); i++)
                                if (c[i] > one)
                                        two = one, one = c[i];
                                else if (c[i] > two)
                                        two = c[i];
                        best[g] = E / GROUPS > 1 ? one + two : one;
                }
                for (int g = 0; g < GROUPS; g++) {
                        int rank = 0;
                        for (int o = 0; o < GROUPS; o++)
                                rank += best[o] > best[g] || (best[o] == best[g] && o < g);
                        if (rank >= GROUPS_K)
                                for (int i = g * (E / GROUPS); i < (g + 1) * (E / GROUPS); i++)
                                        c[i] = -__builtin_inff();
                }
»)                Route *to = (Route *)moe_arg(«out0») + (u64)t * KTOP;
                float w[KTOP], sum = 0;
                u8 taken[E];
                __builtin_memset(taken, 0, sizeof taken);
                for (int n = 0; n < KTOP; n++) {
                        int at = -1;
                        for (int i = 0; i < E; i++)
                                if (!taken[i] && (at < 0 || above(c[i], c[at])))
                                        at = i;
                        taken[at] = 1;
                        to[n].id = at;
                        w[n] = s[at];
                }
                moe_if(MOE_gate, softmax_k, «softmax(w, w, KTOP);», «»)
                for (int n = 0; n < KTOP; n++)
                        sum += w[n];
                for (int n = 0; n < KTOP; n++)
                        to[n].w = w[n] moe_if(MOE_renorm, 1, «/ sum», «») * (float)MOE_wscale;
                (void)sum;
        }
}
