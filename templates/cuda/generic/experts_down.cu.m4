// experts_down: res + sum over the chosen experts e of weight_e * down_e(x[:, slot]).
//
// x f32 or q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// A block owns RPB rows of H, a warp RPB / 8 of them. Without order for one token: a lane goes over the units of all slots and
// sums them with the routing weights in registers, one reduction a row. With order for all tokens: the experts come one after the
// other, NT pairs at a time, and add to the block's own outputs, so each touched expert's rows leave the memory once.
// No scratch, one fixed order. 256 threads. Grid: ceil(H / RPB), T; with order: ceil(H / RPB).
//
//      H100, Q4_K q8 H 2048, F 768, 8 of 128 experts, GB/s:  1 token: ?     512 tokens: ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, NT = MOE_NT, RPB = MOE_RPB, RPW = RPB / WARPS };
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
typedef Row<W, K> R;

moe_has(«order», «enum { PAD = (K + 15) / 16 * 16, CHUNK = CHUNK_OF(PAD, NT, 40960), RB = RPW % 2 ? 1 : 2, DEPTH = 1 };
__shared__ moe_acts«»<NT, CHUNK> acts;

// n pairs of expert e, from pairs[0] on.
INLINE void tile(const Args &a, u32 T, u32 e, const u32 *pairs, u32 n)
{
        typedef Sums<RB, NT> S;
        const Route *route = (const Route *)moe_arg(«route»);
        const u8 *w = (const u8 *)moe_arg(«down») + (u64)e * H * R::BYTES;
        Flight<W, K, RB, DEPTH> f;
        int row = (int)BX * RPB + TID / 32 * RPW;
        f.load(w, row, H, 0, R::UNITS < CHUNK / W::UNIT ? R::UNITS : CHUNK / W::UNIT);
#pragma unroll 1
        for (int b = 0; b < RPW; b += RB) {
                float acc[RB][NT] = {};
#pragma unroll 1
                for (int from = 0; from < K; from += CHUNK) {
                        if (K > CHUNK || b == 0) {
                                barrier();
#pragma unroll 1
                                for (u32 t = 0; t < NT; t++) {
                                        if (t >= n) {
                                                clear(acts, t);
                                                continue;
                                        }
moe_if(moe_made, 1, «                                        fill<K, PAD, 1>(acts, t, (const float *)moe_arg(«x») + (u64)pairs[t] * K, from, 0, 0);
», «                                        copy<K>(acts, t, moe_arg(«x»), T * KTOP, pairs[t], from);
»)                                }
                                barrier();
                        }
                        product(f, b == 0 && from == 0, w, row + b, H, from, acts, acc);
                }
                float y = S::of(acc);
                int i = row + b + S::row();
                warp_barrier();
                if (S::mine() && i < H && S::token() < (int)n) {
                        u32 pair = pairs[S::token()];
                        float *to = (float *)moe_arg(«out0») + (u64)(pair / KTOP) * H + i;
                        moe_has(«down_b», «y += ((const float *)moe_arg(«down_b»))[(u64)e * H + i];», «»)
                        *to += y * route[pair].w;
                }
                warp_barrier();
        }
        (void)T;
}

moe_kernel
{
        pdl_wait();
        u32 T = a.dim->n_tok;
        const u32 *off = (const u32 *)moe_arg(«order»), *pairs = off + E + 1;
        // A warp sets and adds to its own rows alone.
        for (u32 t = TID % 32; t < T; t += 32)
                for (int r = 0; r < RPW; r++) {
                        int i = (int)BX * RPB + TID / 32 * RPW + r;
                        u64 at = (u64)t * H + i;
                        if (i < H)
                                ((float *)moe_arg(«out0»))[at] = moe_has(«res», «((const float *)moe_arg(«res»))[at]», 0);
                }
        warp_barrier();
#pragma unroll 1
        for (u32 e = 0; e < E; e++) {
                u32 end = off[e + 1];
#pragma unroll 1
                for (u32 i = off[e]; i < end; i += NT)
                        tile(a, T, e, pairs + i, end - i < NT ? end - i : NT);
        }
}
», «enum { PAD = R::PAD, ALL = KTOP * PAD, CHUNK = CHUNK_OF(ALL, 1, 40960), RB = RPW % 2 ? 1 : 2, DEPTH = RB == 1 ? 4 : 2 };
__shared__ moe_acts«»<1, CHUNK> acts;
__shared__ Route routes[KTOP];

moe_kernel
{
        typedef Sums<RB, 1> S;
        pdl_wait();
        u32 T = a.dim->n_tok, t = BY;
        if (t >= T)
                return;
        const u8 *w = (const u8 *)moe_arg(«down»);
        int row = (int)BX * RPB + TID / 32 * RPW;
        for (int i = TID; i < KTOP; i += THREADS)
                routes[i] = ((const Route *)moe_arg(«route»))[(u64)t * KTOP + i];
#pragma unroll 1
        for (int b = 0; b < RPW; b += RB) {
                float acc[RB][1] = {};
#pragma unroll 1
                for (int from = 0; from < ALL; from += CHUNK) {
                        if (ALL > CHUNK || b == 0) {
                                barrier();
moe_if(moe_made, 1, «                                fill<K, PAD, KTOP>(acts, 0, (const float *)moe_arg(«x») + (u64)t * KTOP * K, from, 0, 0);
», «                                copy<KTOP * K>(acts, 0, moe_arg(«x»), T, t, from);
»)                                barrier();
                        }
                        int first = from / W::UNIT, end = (from + CHUNK < ALL ? from + CHUNK : ALL) / W::UNIT;
#pragma unroll 1
                        for (int v = first + TID % 32; v < end; v += 32 * DEPTH) {
                                W f[DEPTH][RB];
                                float by[DEPTH];
#pragma unroll
                                for (int d = 0; d < DEPTH; d++) {
                                        int slot = (v + 32 * d) / R::UNITS, u = (v + 32 * d) % R::UNITS;
                                        if (v + 32 * d < end) {
                                                Route e = routes[slot];
                                                by[d] = e.w;
#pragma unroll
                                                for (int r = 0; r < RB; r++) {
                                                        int i = row + b + r;
                                                        f[d][r].template load<K>(w + ((u64)(u32)e.id * H + (i < H ? i : H - 1)) * R::BYTES, u);
                                                }
                                        }
                                }
#pragma unroll
                                for (int d = 0; d < DEPTH; d++)
                                        if (v + 32 * d < end) {
                                                float y[RB][1] = {};
                                                Unit<(bool)W::FLOAT>::dot(f[d], v + 32 * d - first, acts, y);
                                                for (int r = 0; r < RB; r++)
                                                        acc[r][0] = fma1(by[d], y[r][0], acc[r][0]);
                                        }
                        }
                }
                float y = S::of(acc);
                int i = row + b + S::row();
                if (S::mine() && i < H) {
                        u64 at = (u64)t * H + i;
                        moe_has(«down_b», «for (int s = 0; s < KTOP; s++)
                                y = fma1(routes[s].w, ((const float *)moe_arg(«down_b»))[(u64)(u32)routes[s].id * H + i], y);», «»)
                        moe_has(«res», «y += ((const float *)moe_arg(«res»))[at];», «»)
                        ((float *)moe_arg(«out0»))[at] = y;
                }
        }
}
»)
