// BF16: a value stands alone.
enum { BYTES_BF16 = 2 };
INLINE f32x8 value_BF16(const u8 *p, int k) { return load_bf16(p + 16 * k); }
