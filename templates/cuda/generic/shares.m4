// Which tiles of a step of many tokens are a block's: each block finds its own from pos and seq. TM: tokens of a tile; UNIT: positions
// of a unit. A tile's width is what it takes: FIXED, then its units; all tiles' widths, key head by key head, in a row, are cut into
// as many parts as there are blocks.
struct Cut { u32 token, head, at, start; }; // a tile's, the cut's place in the row, and the tile's
__shared__ Cut cut[2];
__shared__ u32 unit_sum[WARPS];

INLINE i32 low_of(i32 pos) { return MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0; }
// Units of a tile that begins at pos: as many as if it were full.
INLINE u32 units_of(i32 pos) { return (u32)((pos / TM * TM + TM - 1) / UNIT + 1 - low_of(pos) / UNIT); }
INLINE bool begins(const i32 *seq, const i32 *pos, u32 t)
{
        return t == 0 || pos[t] % TM == 0 || seq[t] != seq[t - 1] || pos[t] != pos[t - 1] + 1;
}
// A cut at u of a tile with units s .. e - 1, in the row of all tiles: a tile is not cut near its ends.
INLINE u32 snapped(u32 u, u32 s, u32 e, u32 near)
{
        return u - s <= near && u - s <= e - u ? s : e - u <= near ? e : u;
}
INLINE u32 width_of(i32 pos) { return FIXED + units_of(pos); }
// How many of a tile's units lie in front of a place in its width.
INLINE u32 units_before(u32 at) { return at < FIXED ? 0 : at - FIXED; }
INLINE u32 ceil_of(u64 a, u64 b) { return (u32)((a + b - 1) / b); }

// The widths' sum, the blocks that share it, and how near its ends a tile is not cut.
struct Shares { u32 all, blocks, near; };
// Cuts BX and BX + 1 into `cut`.
INLINE Shares find_cuts(const i32 *seq, const i32 *pos, u32 n_tok)
{
        u32 each = (n_tok + THREADS - 1) / THREADS, t0 = (u32)TID * each, mine = 0, before, all = 0;
        int lane = TID % 32;
        for (u32 t = t0; t < t0 + each && t < n_tok; t++)
                mine += begins(seq, pos, t) ? width_of(pos[t]) : 0;
        before = mine;
        for (int d = 1; d < 32; d *= 2) {
                u32 other = shfl(before, lane >= d ? lane - d : lane);
                before += lane >= d ? other : 0;
        }
        if (lane == 31)
                unit_sum[TID / 32] = before;
        before -= mine;
        barrier();
        for (int i = 0; i < WARPS; i++) {
                before += i < TID / 32 ? unit_sum[i] : 0;
                all += unit_sum[i];
        }
        before *= KVH, mine *= KVH, all *= KVH;
        u32 blocks = all < GRID ? all : GRID, near = all / blocks / 16 < FIXED + 2 ? FIXED + 2 : all / blocks / 16;
        for (u32 k = 0; k < 2 && BX < blocks; k++) {
                u32 u = (u32)((u64)all * (BX + k) / blocks), s = before;
                if (u == all && TID == 0)
                        cut[k].at = all;
                if (u < before || u >= before + mine)
                        continue;
                for (u32 t = t0; s <= u; t++) {
                        u32 n = begins(seq, pos, t) ? width_of(pos[t]) : 0;
                        if (u < s + KVH * n) {
                                u32 head = (u - s) / n;
                                cut[k] = {t, head, snapped(u, s + head * n, s + head * n + n, near), s + head * n};
                        }
                        s += KVH * n;
                }
        }
        barrier();
        return {all, blocks, near};
}
// The tokens of the tile that begins at t.
INLINE u32 tokens_of(const i32 *seq, const i32 *pos, u32 t, u32 n_tok)
{
        i32 n = TM;
        for (i32 i = TID % 32; i < TM; i += 32)
                if (i && i < n && (t + (u32)i >= n_tok || begins(seq, pos, t + (u32)i)))
                        n = i;
        for (int m = 16; m; m /= 2) {
                i32 other = shfl_xor(n, m);
                n = other < n ? other : n;
        }
        return (u32)n;
}
