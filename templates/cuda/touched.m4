// The experts that a step of a few tokens has chosen, each with its tokens, found by every block for itself: in the order of their
// numbers, so that a table by number and a count of those in front say where each one is. After stream.m4; E, KTOP.
struct Touched {
        i32 id;
        u32 n;                 // tokens
        u8 token[NT], slot[NT]; // of which it is the choice
};
enum { PAIRS = NT * KTOP, MOST = PAIRS < E ? PAIRS : E };
static_assert(PAIRS <= THREADS, "a thread for each pair");
struct alignas(8) Choice { u8 slot[8]; }; // by token: slot + 1
struct Found {
        Choice by[(E + 31) / 32 * 32];
        Touched touched[MOST];
};
// By the whole block; a barrier follows.
INLINE void find_begin(Found &f)
{
        for (int i = TID; i < (E + 31) / 32 * 32; i += THREADS)
                f.by[i] = {};
}
// How many there are, from T tokens' choices; the block meets at barriers before and after.
INLINE int find(Found &f, const Route *route, int T)
{
        int lane = TID % 32, n = 0;
        if (TID < T * KTOP)
                f.by[route[TID].id].slot[TID / KTOP] = (u8)(TID % KTOP + 1);
        barrier();
#pragma unroll 1
        for (int c = 0; c < (E + 31) / 32; c++) {
                Choice by = f.by[32 * c + lane];
                u32 tokens = 0;
#pragma unroll
                for (int t = 0; t < NT; t++)
                        tokens |= by.slot[t] ? 1u << t : 0;
                u32 all = ballot(tokens != 0);
                if (tokens && c % WARPS == TID / 32) {
                        Touched &e = f.touched[n + bits_of(all & ((1u << lane) - 1))];
                        e.id = 32 * c + lane;
                        e.n = (u32)bits_of(tokens);
#pragma unroll 1
                        for (int k = 0; tokens; k++, tokens &= tokens - 1) {
                                int t = bits_of(~tokens & (tokens - 1));
                                e.token[k] = (u8)t, e.slot[k] = (u8)(f.by[e.id].slot[t] - 1);
                        }
                }
                n += bits_of(all);
        }
        barrier();
        return n;
}
