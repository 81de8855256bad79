// F16: a value stands alone.
enum { BYTES_F16 = 2 };
INLINE f32x8 value_F16(const u8 *p, int k) { return load_f16(p + 16 * k); }
