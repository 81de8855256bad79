// sort: the (token, slot) pairs of a route grouped by expert, in order of tokens: a counting sort, stable.
//
// route [T, KTOP]; out u32: E + 1 offsets, then T * KTOP pairs t * KTOP + slot. One block of 256 threads: a warp counts, then
// places, its own eighth of the pairs.
//
//      H100, 512 tokens, 8 of 128 experts, microseconds: 21
m4_include(«prelude.m4»)
enum { E = MOE_experts, KTOP = MOE_KTOP };
__shared__ u32 next[WARPS][E]; // a warp's pairs of an expert; then where its next one goes
__shared__ u32 start[E];

moe_kernel
{
        pdl_wait();
        const Route *route = (const Route *)moe_arg(«route»);
        u32 *off = (u32 *)moe_arg(«out0»), *pair = off + E + 1, n = a.dim->n_tok * KTOP, warp = (u32)TID / 32, lane = (u32)TID % 32;
        u32 each = (n + WARPS * 32 - 1) / (WARPS * 32) * 32, from = warp * each, to = from + each < n ? from + each : n;
        for (int i = TID; i < WARPS * E; i += THREADS)
                next[i / E][i % E] = 0;
        barrier();
        // first: how many lanes before this one have its expert; last: none after it has.
        for (int pass = 0; pass < 2; pass++) {
                for (u32 i = from; i < to; i += 32) {
                        i32 id = i + lane < to ? route[i + lane].id : -1;
                        u32 before = 0, after = 0;
                        for (u32 l = 0; l < 32; l++) {
                                bool same = shfl(id, (int)l) == id;
                                before += same && l < lane;
                                after += same && l > lane;
                        }
                        u32 at = id < 0 ? 0 : next[warp][id];
                        warp_barrier();
                        if (id >= 0 && pass)
                                pair[at + before] = i + lane;
                        if (id >= 0 && after == 0)
                                next[warp][id] = at + before + 1;
                        warp_barrier();
                }
                barrier();
                if (pass)
                        break;
                for (int e = TID; e < E; e += THREADS) {
                        u32 sum = 0;
                        for (int w = 0; w < WARPS; w++) {
                                u32 here = next[w][e];
                                next[w][e] = sum;
                                sum += here;
                        }
                        start[e] = sum;
                }
                barrier();
                if (warp == 0) {
                        u32 base = 0;
                        for (int e0 = 0; e0 < E; e0 += 32) {
                                int e = e0 + (int)lane;
                                u32 mine = e < E ? start[e] : 0, upto = mine;
                                for (int m = 1; m < 32; m *= 2) {
                                        u32 other = shfl(upto, (int)lane - m < 0 ? 0 : (int)lane - m);
                                        upto += (int)lane >= m ? other : 0;
                                }
                                if (e < E) {
                                        start[e] = base + upto - mine;
                                        off[e] = base + upto - mine;
                                }
                                base += shfl(upto, 31);
                        }
                        if (lane == 0)
                                off[E] = n;
                }
                barrier();
                for (int i = TID; i < WARPS * E; i += THREADS)
                        next[i / E][i % E] += start[i % E];
                barrier();
        }
}
