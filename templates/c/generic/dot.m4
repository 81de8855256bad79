// Inner products of codes with int8 activations. A lane of w holds the codes of 4 neighbouring values of one row, a the 4
// activations they meet. An Acc takes FLUSH(n) dots, n the most that 16 bits would hold, before acc_sum must empty it.
typedef i32x8 Acc;
#define FLUSH(n) 8
INLINE i32x8 acc_sum(Acc a) { return a; }
INLINE Acc acc_dot(Acc acc, u32x8 w, u32 a)
{
        for (int b = 0; b < 32; b += 8)
                acc += (i32x8)(w >> b & 255) * (i32)(i8)(a >> b);
        return acc;
}
INLINE Acc acc_dot_signed(Acc acc, u32x8 w, u32 a)
{
        for (int b = 0; b < 32; b += 8)
                acc += ((i32x8)(w << (24 - b)) >> 24) * (i32)(i8)(a >> b);
        return acc;
}
