/* Weights on their way to a device: in pieces, which are whole rows in the file's layout, sent by the host or
 * made up on the device. A Piece tells the plan's kernels `repack` and `random` (PLAN_ROLES) what they have
 * in front of them; their template gets the struct and the kinds from these tables. */
#ifndef MOEC_PIECE_H
#define MOEC_PIECE_H
#include "ir/types.h"

/* Random weights. A block's field is made of numbers of 4 bytes, or 2 or 1 where it is no longer; each
 * depends on the tensor's seed and the number's place in it alone, so that every target has the same bits, in
 * whatever order it makes them. With r = SplitMix64 (Steele, Lea, Flood 2014) of seed and place, and v the
 * top 24 bits of r as a number within +-1/16, a number is X(kind)   codes: r's upper half; f32, f16, bf16: v;
 * scale: v / 8 in half precision; exponent: 2^-9 to 2^-6, of one byte with a bias of 127 so that values are
 * finite, and sums of their products small. */
#define RANDOM_KINDS(X) X(codes) X(f32) X(f16) X(bf16) X(scale) X(exponent)

typedef enum RandomKind {
#define X(kind) RANDOM_##kind,
        RANDOM_KINDS(X)
#undef X
} RandomKind;

u64 random_seed(const char *tensor);
/* Blocks that begin `at` bytes behind the tensor's start. */
void random_blocks(Wtype t, u64 seed, u64 at, u8 *dst, u64 blocks);

/* F(type, name, array); sizes in bytes, those of rows and blocks in the file's layout */
#define PIECE_FIELDS(F)                                                                                      \
        F(u64, seed, )             /* of its tensor, where it is random */                                   \
        F(u64, at, )               /* what of its tensor is in front of it */                                \
        F(u32, rows, )             /* */                                                                     \
        F(u32, row_bytes, )        /* */                                                                     \
        F(u32, split_bytes, )      /* a row in the layout `split` (runtime/pack.h) */                        \
        F(u32, blocks, )           /* of a row */                                                            \
        F(u32, block_bytes, )      /* */                                                                     \
        F(u32, field, [MAX_FIELD]) /* sizes of a block's; 0: no more */                                      \
        F(u32, kind, [MAX_FIELD])  /* enum RandomKind of each */

typedef struct Piece {
#define F(type, name, array) type name array;
        PIECE_FIELDS(F)
#undef F
} Piece;
#define PIECE_ROOM 128 /* bytes from a Piece's start to its rows */

/* rows of cols values, which are whole blocks; all of it less than 4 GiB. */
Piece piece_new(Wtype t, u64 rows, u64 cols);

#endif
