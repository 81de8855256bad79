// headmul: each head's own product: x f32 or q8 [T, HEADS * K], w split [HEADS, N, K], out f32 [T, HEADS * N].
// A block: RPB rows of one head, NT tokens. 256 threads. Grid: ceil(N / RPB), HEADS, ceil(T / NT).
//
//      H100, GB/s: ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { HEADS = MOE_HEADS, K = MOE_K, N = MOE_N, NT = MOE_NT, RPW = MOE_RPB / WARPS, RB = RPW % 2 ? 1 : 2 };
enum { PAD = (K + 15) / 16 * 16, CHUNK = CHUNK_OF(PAD, NT, 40960), DEPTH = NT > 1 ? 1 : 4 };
moe_quant(MOE_TYPE_w)
typedef MOE_TYPE_w W;
__shared__ moe_acts«»<NT, CHUNK> acts;

moe_kernel
{
        typedef Sums<RB, NT> S;
        const u8 *w = (const u8 *)moe_arg(«w») + (u64)BY * N * Row<W, K>::BYTES;
        Flight<W, K, RB, DEPTH> f;
        int row = (int)BX * MOE_RPB + TID / 32 * RPW;
        f.load(w, row, N, 0, Row<W, K>::UNITS < CHUNK / W::UNIT ? Row<W, K>::UNITS : CHUNK / W::UNIT);
        pdl_wait();
        u32 T = a.dim->n_tok, t0 = BZ * NT;
        if (t0 >= T)
                return;
#pragma unroll 1
        for (int b = 0; b < RPW; b += RB) {
                float acc[RB][NT] = {};
#pragma unroll 1
                for (int from = 0; from < K; from += CHUNK) {
                        if (K > CHUNK || b == 0) {
                                barrier();
                                for (int t = 0; t < NT; t++)
                                        if (t0 + t < T)
                                                moe_if(moe_made, 1, «fill<K, PAD, 1>(acts, t, (const float *)moe_arg(«x») + ((u64)(t0 + t) * HEADS + BY) * K, from, 0, 0)»,
                                                        «copy<K>(acts, t, moe_arg(«x»), T * HEADS, (t0 + t) * HEADS + BY, from)»);
                                        else
                                                clear(acts, t);
                                barrier();
                        }
                        product(f, b == 0 && from == 0, w, row + b, N, from, acts, acc);
                }
                float y = S::of(acc);
                int n = row + b + S::row();
                u32 t = t0 + S::token();
                if (S::mine() && n < N && t < T)
                        ((float *)moe_arg(«out0»))[((u64)t * HEADS + BY) * N + n] = y;
        }
}
