// random: the rows of a Piece, in the file's layout, of random blocks: the bytes that runtime/piece.c's random_blocks makes.
//
// Arguments: 0: a Piece; 1: where its rows go. A thread: one byte. 256 threads. Grid: all of them.
//
//      H100, 16 MB of Q4_K, GB/s written: ?
m4_include(«prelude.m4»)
m4_include(«piece.m4»)

INLINE u64 random_word(u64 seed, u64 at)
{
        u64 z = seed + (at + 1) * 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
}

INLINE u32 random_number(u32 kind, u64 r)
{
        float v = (float)((i32)(r >> 40) - (1 << 23)) * 0x1p-27f;
        switch (kind) {
        case f32: return f32_bits(v);
        case f16: return f32_f16(v);
        case bf16: return f32_bits(v) >> 16;
        case scale: return f32_f16(v * 0.125f);
        case exponent: return 118 + (u32)(r & 3);
        default: return (u32)(r >> 32);
        }
}

moe_kernel
{
        pdl_wait();
        const Piece *p = (const Piece *)a.arg[0];
        u64 i = (u64)BX * THREADS + TID;
        if (i >= (u64)p->rows * p->row_bytes)
                return;
        u32 in = (u32)i % p->block_bytes;
        int f = 0;
        for (; in >= p->field[f]; f++)
                in -= p->field[f];
        u32 byte = in % (p->field[f] < 4 ? p->field[f] : 4);
        ((u8 *)a.arg[1])[i] = (u8)(random_number(p->kind[f], random_word(p->seed, p->at + i - byte)) >> (8 * byte));
}
