// F32: a value stands alone.
enum { BYTES_F32 = 4 };
INLINE f32x8 value_F32(const u8 *p, int k) { return load_f32(p + 32 * k); }
