// repack: rows of a weight from the file's layout to the layout `split` (runtime/pack.h): of each row first the first field of all
// its blocks, then the second of all, ..., every field's plane filled up with zeros to 16 bytes. Pure moves, alike for every type.
//
// Arguments: 0: a Piece, and ROOM bytes behind its start its rows; 1: where the split rows go. A thread: 4 bytes of those. 256
// threads. Grid: all of them.
//
//      H100, 16 MB of Q4_K, GB/s read and written: ?
m4_include(«prelude.m4»)
m4_include(«piece.m4»)
INLINE u32 plane(const Piece *p, int field) { return (p->blocks * p->field[field] + 15) / 16 * 16; }

moe_kernel
{
        pdl_wait();
        const Piece *p = (const Piece *)a.arg[0];
        u32 i = BX * THREADS + (u32)TID, row = i / (p->split_bytes / 4), to = i % (p->split_bytes / 4) * 4, at = 0, v = 0;
        if (row >= p->rows)
                return;
        int f = 0;
        for (; to >= plane(p, f); at += p->field[f++])
                to -= plane(p, f);
        u32 bytes = p->field[f], block = to / bytes, in = to % bytes;
        const u8 *from = (const u8 *)p + ROOM + (u64)row * p->row_bytes + at;
        for (int k = 0; k < 4 && block < p->blocks; k++) {
                v |= (u32)from[block * p->block_bytes + in] << (8 * k);
                if (++in == bytes)
                        in = 0, block++;
        }
        ((u32 *)a.arg[1])[i] = v;
}
