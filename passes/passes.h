/* The passes: each turns a graph into a better one of the same meaning, in place. One pass a file.
 *
 * A list of passes is written as words, apart by commas or white space: the name of a pass, then its options,
 * `word` or `word=value`: "fold, dce, qmatmul act=q8, fuse dup_norm route_max=65536". That is how
 * pipeline.lua, `moec opt` and the tests name them. */
#ifndef MOEC_PASSES_H
#define MOEC_PASSES_H
#include "ir/graph.h"

/*   P(name)   in the usual order
 *   fold      algebra that keeps every bit: scale by 1, slices of slices, rope of nothing, ...
 *   dce       removes what no result needs
 *   experts   splits experts into experts_up and experts_down; `grouped`: with a sort of their pairs
 *   qmatmul   products take packed weights; chooses what activations are rounded to
 *   fuse      joins neighbours, by a table of rules
 *   layout    the memory layout of each weight
 *   order     the order of execution
 *   buffers   the place of every value in the step's arena; Graph.max must be set */
#define PASSES(P) P(fold) P(dce) P(experts) P(qmatmul) P(fuse) P(layout) P(order) P(buffers)

/*   O(name, most, pass)    zero unless named; a bare word is 1
 *   act        enum Act, given as its word; products of weights of kind QUANT round activations so
 *   grouped    the experts' work is grouped by expert, where rows of theirs have that many values at least:
 *              for steps of many tokens
 *   dup_norm   a norm is redone by each of its consumers, if that makes its value unnecessary
 *   route_norm the same for route and quantize alone
 *   quantize   activations are rounded by a node of their own, not by each product again
 *   round_attend  attend rounds its result where a product alone takes it and would
 *   round_route   route rounds norm(x) for experts_up, where both take the same x and norm
 *   fuse_kv    attend appends keys and values itself
 *   route_max  route does the router's product itself, up to that many weights
 *   panel      matrices are stored as panels (runtime/pack.h)
 *   split      matrices are stored with their rows' fields apart (runtime/pack.h)
 *   no_reuse   every value has memory of its own, so that all can be seen after a step */
#define PASS_OPTS(O)                                                                                         \
        O(act, ACT_q8, qmatmul)                                                                              \
        O(grouped, UINT32_MAX, experts)                                                                      \
        O(dup_norm, 1, fuse)                                                                                 \
        O(route_norm, 1, fuse)                                                                               \
        O(quantize, 1, fuse)                                                                                 \
        O(round_attend, 1, fuse)                                                                             \
        O(round_route, 1, fuse)                                                                              \
        O(fuse_kv, 1, fuse)                                                                                  \
        O(route_max, UINT32_MAX, fuse)                                                                       \
        O(panel, 1, layout)                                                                                  \
        O(split, 1, layout)                                                                                  \
        O(no_reuse, 1, buffers)

typedef struct PassOpt {
#define O(name, most, pass) u32 name;
        PASS_OPTS(O)
#undef O
} PassOpt;

#define P(name) void name(Graph *g, const PassOpt *opt);
PASSES(P)
#undef P

/* Runs the passes that `words` lists; options there come on top of `opt` for that pass alone. After each the
 * graph is compacted and checked, then `after` (NULL: nobody) is told. Returns early when `after` returns
 * false. err where a word is unknown or not that pass's. */
typedef bool AfterPass(void *user, const char *pass, Graph *g);
void run_passes(Graph *g, const char *words, const PassOpt *opt, AfterPass *after, void *user);

void check_words(const char *words); /* err where run_passes would */

/* ---- buffers ---- */
#define TARGETS(T) T(cpu) T(cuda)
typedef enum Target {
#define T(name) TARGET_##name,
        TARGETS(T)
#undef T
                N_TARGET
} Target;

#define ARENA_ALIGN 64

/* Bytes that a value takes in the arena: those of val_bytes and what the targets keep with it; 0 for states,
 * which live elsewhere. Planes one behind the other:
 *   f32, i32        elements
 *   q8 of n rows    codes i8 [n, K], scales f32 [n, K / Q8_BLOCK],
 *                   sums f32 [n, K / 16]: scale times the sum of 16 codes
 *   route [T, k]    pairs of i32 expert, f32 weight
 *   order [T, k]    u32 first pair of each expert, and the end [E + 1]; u32 pairs token * k + slot [T * k]
 * err where that is more than an address space, die where a bound is unknown. */
u64 value_bytes(const Graph *g, u32 val);

/* ---- pipelines (pipeline.lua) ---- */
typedef struct Phase {
        const char *name;
        u32 max_tok, max_out; /* tokens and rows of logits a step; 0: the caller's batch */
        u32 max_seq_tok;      /* tokens of a step from a sequence's first to its last; 0: all of them */
        const char *passes;   /* words */
} Phase;
typedef struct Pipeline {
        const char *target;
        const Phase *phase; /* by rising max_tok and max_seq_tok; a step takes the first that it fits */
        u32 n_phase;
} Pipeline;

/* From the table that pipeline.lua returns: target = { { name, max_tok, max_out, max_seq_tok, passes = { words,
 * ... } }, ... }. err naming the place where it is wrong, or the targets it has if `target` is none of them. */
struct Tab;
Pipeline *pipeline_read(Arena *a, const struct Tab *t, const char *target);
const Phase *pipeline_phase(const Pipeline *p, const char *name); /* NULL if there is none */

#endif
