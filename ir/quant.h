/* The meaning of every weight type, and of q8 activations. Plain C, one function a type, exact: the oracle
 * for all targets. Each follows the type's definition in ggml's ggml-quants.c (block layouts in
 * ggml-common.h); tests compare with the fixtures in tests/quant/, made by an independent dequantiser. No
 * contraction (built with -ffp-contract=off). */
#ifndef MOEC_QUANT_H
#define MOEC_QUANT_H
#include "ir/types.h"

/* n values, a multiple of the type's block, from src (packed blocks, as in the file). */
void dequant(Wtype t, const void *src, float *dst, size_t n);

/* Bytes of n values; n a multiple of the block. False on overflow or a part block. */
bool wtype_bytes(Wtype t, u64 n, u64 *bytes);

/* One block of Q8_BLOCK activations: d = max|x| / 127, code = round half to even of x * (1 / d) (0 where d is
 * 0); d is f32, and 0 where it would be subnormal (1 / d must be finite, and devices flush such numbers).
 * Every target rounds exactly so. */
void q8_quantize(const float *x, i8 *code, float *d, size_t n); /* d: [n / Q8_BLOCK] */
void q8_round(float *x, size_t n);                              /* in place: x becomes code * d */

/* Keys and values kept as q8_0: the same with blocks of KV_BLOCK, but values are code * d with d rounded to
 * f16; codes are made with d as it was. ggml's quantize_row_q8_0, with its vector code's rounding of halves.
 */
void q8_0_round(float *x, size_t n);

#endif
