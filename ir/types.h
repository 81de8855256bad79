/* Types, as tables. A new GGUF format is one row of WTYPES, one dequantiser in ir/quant.c, one fragment per
 * target. */
#ifndef MOEC_TYPES_H
#define MOEC_TYPES_H
#include "ir/util.h"

/* Weight types, as stored in GGUF.
 *   W(name, id, per, bytes, kind, fields)
 * id: ggml's type number. per, bytes: values and bytes of one block. kind: FLOAT (a value stands alone) or
 * QUANT (codes with scales). fields: the block's parts in file order, F(bytes, unit): what `layout` permutes.
 * A repack moves whole units and never changes a bit; for codes the unit is 4 bytes, which hold the codes of
 * 4 neighbouring values. */
#define WTYPES(W)                                                                                            \
        W(F32, 0, 1, 4, FLOAT, F(4, 4))                                                                      \
        W(F16, 1, 1, 2, FLOAT, F(2, 2))                                                                      \
        W(Q4_0, 2, 32, 18, QUANT, F(2, 2) F(16, 4))                                                          \
        W(Q4_1, 3, 32, 20, QUANT, F(2, 2) F(2, 2) F(16, 4))                                                  \
        W(Q5_0, 6, 32, 22, QUANT, F(2, 2) F(4, 4) F(16, 4))                                                  \
        W(Q5_1, 7, 32, 24, QUANT, F(2, 2) F(2, 2) F(4, 4) F(16, 4))                                          \
        W(Q8_0, 8, 32, 34, QUANT, F(2, 2) F(32, 4))                                                          \
        W(Q2_K, 10, 256, 84, QUANT, F(16, 1) F(64, 4) F(2, 2) F(2, 2))                                       \
        W(Q3_K, 11, 256, 110, QUANT, F(32, 4) F(64, 4) F(12, 1) F(2, 2))                                     \
        W(Q4_K, 12, 256, 144, QUANT, F(2, 2) F(2, 2) F(12, 1) F(128, 4))                                     \
        W(Q5_K, 13, 256, 176, QUANT, F(2, 2) F(2, 2) F(12, 1) F(32, 4) F(128, 4))                            \
        W(Q6_K, 14, 256, 210, QUANT, F(128, 4) F(64, 4) F(16, 1) F(2, 2))                                    \
        W(IQ4_NL, 20, 32, 18, QUANT, F(2, 2) F(16, 4))                                                       \
        W(IQ4_XS, 23, 256, 136, QUANT, F(2, 2) F(2, 2) F(4, 1) F(128, 4))                                    \
        W(BF16, 30, 1, 2, FLOAT, F(2, 2))                                                                    \
        W(MXFP4, 39, 32, 17, QUANT, F(1, 1) F(16, 4))

typedef enum Wtype {
#define W(name, id, per, bytes, kind, fields) W_##name,
        WTYPES(W)
#undef W
                N_WTYPE
} Wtype;

typedef struct Field {
        u16 bytes, unit;
} Field;
#define MAX_FIELD 6

typedef struct WtypeInfo {
        const char *name;
        u32 id, per, bytes;
        bool quant;
        Field field[MAX_FIELD]; /* ends at bytes == 0 */
} WtypeInfo;
extern const WtypeInfo wtype_info[N_WTYPE];
bool wtype_by_id(u32 id, Wtype *out);
bool wtype_by_name(const char *name, size_t n, Wtype *out);

/* Value types: what flows between operations.
 *   D(name, bytes)   bytes of one element, 0 where the layout is the target's affair */
#define DTYPES(D)                                                                                            \
        D(f32, 4)   /* */                                                                                    \
        D(f16, 2)   /* */                                                                                    \
        D(q8_0, 0)  /* keys and values of a state only: kv_row_bytes */                                      \
        D(i32, 4)   /* */                                                                                    \
        D(q8, 0)    /* int8 codes with one f32 scale for each 16: activations rounded once */                \
        D(route, 8) /* [.., k]: the chosen expert (i32) and its weight (f32) */                              \
        D(order, 0) /* [.., k]: the (token, slot) pairs of a route, grouped by expert */                     \
        D(kv, 0)    /* [heads, dk, dv]: state: keys and values of every sequence and position */

typedef enum Dtype {
#define D(name, bytes) D_##name,
        DTYPES(D)
#undef D
                N_DTYPE
} Dtype;
typedef struct DtypeInfo {
        const char *name;
        u32 bytes;
} DtypeInfo;
extern const DtypeInfo dtype_info[N_DTYPE];

#define Q8_BLOCK 16 /* values that share a scale in a q8 activation */

/* What keys and values of a state are kept as: the first of DTYPES. A row, of one head at one position, is n
 * values of f32 or f16; or, as q8_0, n int8 codes, then an f16 scale for each KV_BLOCK of them, then room up
 * to a multiple of 16 bytes, so that codes are aligned for any load. n is then whole blocks. */
#define N_KV_TYPE (D_q8_0 + 1)
#define KV_BLOCK  32
u64 kv_row_bytes(Dtype t, u64 n);

#endif
