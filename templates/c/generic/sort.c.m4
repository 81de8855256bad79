// sort: the (token, slot) pairs of a route grouped by expert, in order of tokens: a counting sort.
//
// route [T, KTOP]; out u32: E + 1 offsets, then T * KTOP pairs t * KTOP + slot. One block.
m4_include(«prelude.m4»)
enum { E = MOE_experts, KTOP = MOE_KTOP };

moe_kernel
{
        const Route *route = moe_arg(«route»);
        u32 *off = moe_arg(«out0»), *pair = off + E + 1, n = dim->n_tok * KTOP, at[E];
        (void)first, (void)last;
        __builtin_memset(off, 0, 4 * (E + 1));
        for (u32 i = 0; i < n; i++)
                off[route[i].id + 1]++;
        for (u32 e = 0; e < E; e++)
                at[e] = off[e], off[e + 1] += off[e];
        for (u32 i = 0; i < n; i++)
                pair[at[route[i].id]++] = i;
}
