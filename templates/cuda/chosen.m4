// The pairs of token and slot of a step of few, one a lane, and the experts among them, each once, in the order of their first pairs.
// After stream.m4; KTOP.
enum { PAIRS = NT * KTOP };
static_assert(PAIRS <= 32, "a lane has a pair");
struct Chosen {
        i32 id;
        u32 same, firsts; // pairs of this lane's expert; the first pairs of all experts
        INLINE_IN void load(const Route *route, int n) { id = TID % 32 < n ? route[TID % 32].id : -1; }
        INLINE_IN void find()
        {
                same = NT == 1 ? 1u << TID % 32 : match_any(id);
                firsts = NT == 1 ? (u32)((1ull << KTOP) - 1) : ballot(id >= 0 && lowest_of(same) == TID % 32);
        }
        INLINE_IN int n() const { return NT == 1 ? KTOP : bits_of(firsts); }
        // The first pair of the i-th of them, for all lanes alike.
        INLINE_IN int pair(int i) const
        {
                return NT == 1 ? i : lowest_of(ballot(firsts >> TID % 32 & 1 && bits_of(firsts & ((1u << TID % 32) - 1)) == i));
        }
        // Which tokens chose the expert of `pair`: bit t * KTOP + slot.
        INLINE_IN u32 all(int pair) const { return NT == 1 ? 1u << pair : shfl(same, pair); }
        INLINE_IN u32 expert(int pair) const { return (u32)shfl(id, pair); }
};
