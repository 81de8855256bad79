// F32: a value stands alone.
struct F32 {
        enum { FLOAT = 1, UNIT = 4, BLOCK = 1 };
        template <int K> struct At { enum { ROW = A16(4 * K) }; };
        U4 q;
        template <int K> INLINE_IN void load(const u8 *row, u32 u) { q = W16(row + 16 * u); }
        INLINE_IN float value(int i) const { return bits_f32(word(q, i)); }
};
