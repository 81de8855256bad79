// route_one: route with its product in a step of one token: its k experts and their weights, from norm(x) [1, K] times w [E, K].
//
// out Route [1, KTOP]. The blocks share the rows of w, a warp's being fetched before the wait, to shared memory and, what has no
// room there, one piece to registers; their logits meet in the first
// block of the cluster (without clusters: in memory of this module, with the block that ends last), which chooses.
// 512 threads. Grid: 1, 1, SPLIT.
//
//      H100, E 128, K 2048, microseconds: ?
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«stream.m4»)
enum { E = MOE_E, KTOP = MOE_k, GROUPS = MOE_groups, GROUPS_K = MOE_groups_k, SPLIT = MOE_SPLIT, K = MOE_K, N_ACT = WHOLE(K) };
enum { ROWS = (E + SPLIT - 1) / SPLIT };
m4_include(«choose.m4»)
moe_quant(MOE_TYPE_w)
typedef MOE_TYPE_w W;
// A tile: PIECE bytes of a row, or what is left of it, of values that stand alone.
enum { BYTES = Row<W, K>::BYTES, PIECE = BYTES < 2048 ? BYTES : 2048, PIECES = (BYTES + PIECE - 1) / PIECE };
enum { TILES = (ROWS + WARPS - 1) / WARPS * PIECES, FIT = (WHOLE_ROOM == 227 << 10 ? 96 << 10 : 32 << 10) / (WARPS * PIECE), STAGES = FIT < TILES ? FIT : TILES };
enum { HELD = STAGES + 1 == TILES && (int)BYTES % 2048 == 0 }; // the last tile is in registers
struct Shared {
        alignas(16) u8 ring[WARPS][STAGES][PIECE];
        ActsF32<1, N_ACT> acts;
        float z[E], part[WARPS];
        Landing landed[WARPS][STAGES];
};
SHARED(Shared)
m4_ifelse(MOE_SPLIT, 1, «», «__device__ float logits[E];
__device__ u32 count;
__shared__ u32 ended;
»)
INLINE int row_of(int tile) { return (int)BZ * ROWS + tile / PIECES * WARPS + TID / 32; }
INLINE bool exists(int tile) { return tile < TILES && tile / PIECES * WARPS + TID / 32 < ROWS && row_of(tile) < E; }
INLINE int piece_of(int tile) { return (tile % PIECES + 1) * PIECE <= BYTES ? PIECE : BYTES % PIECE; }
INLINE void ask(const u8 *w, int tile)
{
        if (!exists(tile))
                return;
        int warp = TID / 32, stage = tile % STAGES, bytes = piece_of(tile);
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, (u32)bytes);
        fetch(sh.ring[warp][stage], w + (u64)(u32)row_of(tile) * BYTES + tile % PIECES * PIECE, (u32)bytes, l, 0);
        fetch_end(l);
}

moe_kernel
{
        moe_trigger(first);
        int warp = TID / 32;
        const u8 *w = (const u8 *)moe_arg(«w»);
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(w, i);
        U4 held[4];
        if (HELD && exists(STAGES))
                for (int i = 0; i < 4; i++)
                        held[i] = load16(w + (u64)(u32)row_of(STAGES) * BYTES + STAGES % PIECES * PIECE + 16 * (32 * i + TID % 32));
        cluster_arrive();
        Maker<K, N_ACT> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        x.values((const float *)moe_arg(«x»));
        x.fill<moe_has(«norm», 1, 0)>(sh.acts);
        moe_has(«norm», «x.squares(sh.part);», «»)
        barrier();
        float r = moe_has(«norm», «rms_of(sh.part, K, (float)MOE_eps)», 1);
        cluster_wait();
        float acc[1][1] = {};
#pragma unroll 1
        for (int tile = 0; exists(tile); tile++) {
                int stage = tile % STAGES, first = tile % PIECES * (PIECE / 16);
                W f[1];
                if (HELD && tile == STAGES) {
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                                f[0].q = held[i];
                                Unit<true>::dot(f, first + 32 * i + TID % 32, sh.acts, acc);
                        }
                } else {
                        landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
#pragma unroll 4
                        for (int u = TID % 32; u < piece_of(tile) / 16; u += 32) {
                                f[0].load<K>(sh.ring[warp][stage], u);
                                Unit<true>::dot(f, first + u, sh.acts, acc);
                        }
                }
                if (STAGES < TILES && !HELD) {
                        warp_barrier();
                        ask(w, tile + STAGES);
                }
                if (tile % PIECES != PIECES - 1)
                        continue;
                int row = row_of(tile);
                float y = warp_sum(acc[0][0]) * r;
                acc[0][0] = 0;
                if (TID % 32 == 0) {
                        if (CLUSTER == SPLIT)
                                *cluster_at(&sh.z[row], 0) = y;
m4_ifelse(MOE_SPLIT, 1, «», «                        else
                                logits[row] = y;
»)                }
        }
        if (CLUSTER == SPLIT) {
                cluster_arrive();
                cluster_wait();
                if (CLUSTER > 1 && BZ)
                        return;
                if (CLUSTER == 1)
                        barrier();
        }
m4_ifelse(MOE_SPLIT, 1, «», «        if (CLUSTER != SPLIT) {
                publish();
                barrier();
                if (TID == 0)
                        ended = atomic_inc(&count) + 1;
                barrier();
                if (ended != SPLIT)
                        return;
                publish();
                if (TID == 0)
                        count = 0;
                for (int i = TID; i < E; i += THREADS)
                        sh.z[i] = load_far(&logits[i]);
                barrier();
        }
»)        choose(a, sh.z, (Route *)moe_arg(«out0»));
}
