// experts_up: glu(gate_e(x'), up_e(x')) of every chosen expert e, x' = norm(x).
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up split [E, F, K]; out f32 or q8 [T, KTOP, F].
// A block: PART rows of F. Without order for one (token, slot); with it for one expert, NT of its tokens at a time, so that each
// touched expert's rows leave the memory once. A warp owns PART / 8 rows of both matrices. 256 threads.
// Grid: ceil(F / PART), KTOP, T; with order: ceil(F / PART), E.
//
//      H100, Q4_K q8 K 2048, F 768, 8 of 128 experts, GB/s:  1 token: ?     512 tokens: ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, NT = MOE_NT, PART = MOE_PART };
enum { RPW = PART / WARPS, RB = NT > 1 && RPW > 2 ? 2 : RPW };
enum { PAD = (K + 15) / 16 * 16, CHUNK = CHUNK_OF(PAD, NT, 40960), DEPTH = NT > 1 ? 1 : RB > 2 ? 1 : 2 };
#define EPS MOE_eps
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
typedef MOE_TYPE_gate WG;
typedef MOE_TYPE_up WU;

__shared__ moe_acts«»<NT, CHUNK> acts;
__shared__ double sums[WARPS];
__shared__ float h[NT][PART];
__shared__ u32 pair[NT]; // where each result goes; over KTOP: its token

// Rows PART * part .. of expert e for the first n of the pairs.
INLINE void part_of(const Args &a, u32 T, u32 e, u32 part, u32 n)
{
        typedef Sums<RB, NT> S;
        const u8 *wg = (const u8 *)moe_arg(«gate») + (u64)e * F * Row<WG, K>::BYTES, *wu = (const u8 *)moe_arg(«up») + (u64)e * F * Row<WU, K>::BYTES;
        Flight<WG, K, RB, DEPTH> g;
        Flight<WU, K, RB, DEPTH> u;
        int row = (int)part * PART + TID / 32 * RPW;
        enum { UG = Row<WG, K>::UNITS, UU = Row<WU, K>::UNITS, CG = CHUNK / WG::UNIT, CU = CHUNK / WU::UNIT };
        g.load(wg, row, F, 0, UG < CG ? UG : CG);
        u.load(wu, row, F, 0, UU < CU ? UU : CU);
#pragma unroll 1
        for (int b = 0; b < RPW; b += RB) {
                float accg[RB][NT] = {}, accu[RB][NT] = {};
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
                                        u32 token = pair[t] / KTOP;
moe_if(moe_made, 1, «                                        const float *x = (const float *)moe_arg(«x») + (u64)token * K;
                                        double r = moe_has(«norm», «norm_of(x, K, EPS, sums)», 0);
                                        fill<K, PAD, 1>(acts, t, x, from, moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»), r);
», «                                        copy<K>(acts, t, moe_arg(«x»), T, token, from);
»)                                }
                                barrier();
                        }
                        product(g, b == 0 && from == 0, wg, row + b, F, from, acts, accg);
                        product(u, b == 0 && from == 0, wu, row + b, F, from, acts, accu);
                }
                float yg = S::of(accg), yu = S::of(accu);
                int i = row + b + S::row();
                if (S::mine()) {
                        if (i < F) {
                                moe_has(«gate_b», «yg += ((const float *)moe_arg(«gate_b»))[(u64)e * F + i];», «»)
                                moe_has(«up_b», «yu += ((const float *)moe_arg(«up_b»))[(u64)e * F + i];», «»)
                        }
                        h[S::token()][i - part * PART] = i < F ? glu(yg, yu) : 0;
                }
        }
        barrier();
moe_if(MOE_out, q8, «        u8 *q = (u8 *)moe_arg(«out0»);
        u64 rows = (u64)T * KTOP;
        float *d = (float *)(q + rows * F), *s = d + rows * (F / 16);
        for (int j = 0; j < (NT * PART / 4 + THREADS - 1) / THREADS; j++) {
                int i = j * THREADS + TID, t = i / (PART / 4), at = 4 * (i % (PART / 4));
                bool in = i < NT * PART / 4 && t < (int)n && (int)part * PART + at < F;
                float v[4], scale, sum;
                for (int c = 0; c < 4; c++)
                        v[c] = in ? h[in ? t : 0][at + c] : 0;
                u32 code = quantize4(v, scale, sum);
                if (in) {
                        u64 p = (u64)pair[t] * F + part * PART + at;
                        *(u32 *)(q + p) = code;
                        if (i % 4 == 0)
                                d[p / 16] = scale, s[p / 16] = sum;
                }
        }
», «        for (int i = TID; i < NT * PART; i += THREADS) {
                int t = i / PART, f = part * PART + i % PART;
                if (t < (int)n && f < F)
                        ((float *)moe_arg(«out0»))[(u64)pair[t] * F + f] = h[t][i % PART];
        }
        (void)T;
»)        barrier();
}

moe_kernel
{
        pdl_wait();
        u32 T = a.dim->n_tok;
moe_has(«order», «        const u32 *off = (const u32 *)moe_arg(«order»), *pairs = off + E + 1;
        u32 e = BY, end = off[e + 1];
#pragma unroll 1
        for (u32 i = off[e]; i < end; i += NT) {
                if (TID < NT)
                        pair[TID] = i + TID < end ? pairs[i + TID] : 0;
                part_of(a, T, e, BX, end - i < NT ? end - i : NT);
        }
», «        if (BZ >= T)
                return;
        if (TID == 0)
                pair[0] = BZ * KTOP + BY;
        part_of(a, T, (u32)((const Route *)moe_arg(«route»))[BZ * KTOP + BY].id, BX, 1);
»)}
