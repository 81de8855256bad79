/* Choosing the next token. This header is the definition: a kernel that follows it gives the very same token.
 *
 * 1. Penalty. Each distinct token among the last repeat_last of the history (-1: all of it) has its logit
 * divided by repeat_penalty if it is above 0, else multiplied by it. Afterwards a logit that is NaN or
 * +infinity is an error, and so is a vocabulary that is all -infinity; a single -infinity can never be drawn.
 * 2. Greedy. If temp <= 0 the token is the one with the largest logit, of equal ones the lowest id. Done.
 * 3. Order. Candidates are ordered by logit, descending, then by id, ascending; 0 and -0 are equal.
 * 4. Top-k. The first top_k candidates stay (0: all).
 * 5. Weights. With m the first candidate's logit, candidate i has e(i) = sample_exp(l(i) - m) and the integer
 * weight w(i) = floor(e(i) * 2^40); W is the sum of the w(i). Integers: the sum has no order, so a kernel may
 * form it in any.
 * 6. Top-p, if below 1. Stay: the shortest beginning of at least one candidate whose weights' sum is at least
 *    floor(W * floor(top_p * 2^32) / 2^32).
 * 7. Min-p, if above 0. Stay: those with e(i) >= min_p (the probability of the first, times min_p).
 * 8. Temperature and draw. w'(i) = floor(sample_exp((l(i) - m) / temp) * 2^40), W' their sum, r the first
 * word of philox4x32-10 with counter (position low, position high, sequence low, sequence high) and key (seed
 * low, seed high). The token is the first candidate, in order, at which the running sum of w' exceeds
 * floor(W' * r / 2^32).
 *
 * The order of 4, 6, 7, 8 is that of llama.cpp's default chain, with its meaning of each setting. All
 * floating point is IEEE binary32, each operation rounded to nearest even, nothing contracted (no fused
 * multiply-add), subnormals kept. */
#ifndef MOEC_SAMPLE_H
#define MOEC_SAMPLE_H
#include "ir/util.h"

/* e^x for x <= 0; 0 below -87, 1 for 0. Within 2^-21.
 *    k = (x * 0x1.715476p+0f + 0x1.8p+23f) - 0x1.8p+23f           the nearest integer to x / ln 2
 *    r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f
 *    p = ((((c6 * r + c5) * r + c4) * r + c3) * r + c2), 1/720 ... 1/2 rounded to nearest
 *    p = (p * (r * r) + r) + 1
 *    result p * 2^k, by adding k to the exponent */
float sample_exp(float x);

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011). */
void philox(const u32 counter[4], const u32 key[2], u32 out[4]);

/* Which setting is out of its range: temp finite; top_k >= 0; 0 < top_p <= 1; 0 <= min_p <= 1; repeat_penalty
 * finite and > 0; repeat_last >= -1. */
moec_status sample_check(const moec_sampling *s, moec_error *e);

#define SAMPLE_MAX_VOCAB (1u << 22) /* so that sums of weights fit 64 bits */

/* Bytes that sample() needs to work in. */
size_t sample_scratch(u32 n_vocab);

/* logits: [n_vocab], not changed; n_vocab 1 to SAMPLE_MAX_VOCAB. history: the sequence's
 * tokens so far, the last one last. scratch: sample_scratch(n_vocab) bytes aligned to 8, contents of no
 * matter. Allocates nothing. Settings have passed sample_check. */
moec_status sample(const float *logits, u32 n_vocab, const moec_sampling *s, const i32 *history,
        u32 n_history, u64 seq, u64 position, void *scratch, i32 *id, moec_error *e);

/* The errors of step 1, for who finds them elsewhere. */
moec_status sample_bad_logit(u32 id, float logit, moec_error *e);
moec_status sample_no_logit(u32 n_vocab, moec_error *e);

#endif
