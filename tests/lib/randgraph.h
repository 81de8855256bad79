/* Random models for property tests: small well-typed graphs of the patterns that real models use, with
 * weights of random valid data bound, and random steps to run them on. The same seed gives the same graph. */
#ifndef RANDGRAPH_H
#define RANDGRAPH_H
#include "ir/graph.h"

/* splitmix64: Steele, Lea and Flood 2014. */
typedef struct Rand {
        u64 state;
} Rand;
u64 rand_u64(Rand *r);
u32 rand_below(Rand *r, u32 n); /* 0 .. n - 1 */
bool rand_one_in(Rand *r, u32 n);
float rand_flt(Rand *r, float lo, float hi);

/* Embedding, 1 to 3 layers (grouped-query attention, multi-head latent attention; dense or mixture of
 * experts, shared experts), logits. Unfused as a frontend builds it, with some values that nothing uses;
 * `fused`: some operations are the fused ones. Result 0: the logits [n_out, vocabulary]; then a state a
 * layer. */
Graph *rand_graph(Arena *a, u64 seed, bool fused);

/* n values of the type, none outlandish, in the arena; n: whole blocks. */
void *rand_weight(Arena *a, Rand *r, Wtype t, u64 n);

/* A step of n_tok tokens that go to random sequences. len: [n_seq] tokens each sequence holds, brought up to
 * date. All tokens' or some tokens' logits are wanted. */
typedef struct RandStep {
        u32 n_tok, n_out;
        i32 *ids, *pos, *seq, *out;
} RandStep;
RandStep rand_step(Arena *a, Rand *r, const Graph *g, u32 n_tok, u32 n_seq, i32 *len);
/* Most of the tokens by sequence, the rest as they came. */
void step_by_sequence(Arena *a, RandStep *s, i32 n_seq);

#endif
