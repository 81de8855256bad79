/* Graphs that give the CUDA templates the shapes they differ by, with random weights, in the arena. */
#ifndef KERNELGRAPH_H
#define KERNELGRAPH_H
#include "ir/graph.h"

/* Weights of every type, or every type that is QUANT: a matmul of all, experts of each `every`-th, and, with
 * all, a table of each. */
Graph *types_graph(Arena *arena, bool quant, u32 every);

/* attend in steps of one token, for a past long enough to be split; past_one: by attend_few, more than one
 * block, with each thing that attention may have. */
Graph *past_graph(Arena *arena, int dk, const char *kept); /* dk: a head; kept: as the state says */
Graph *past_one_graph(Arena *arena);

/* Products on tensor cores: rows and widths that fill no tile, several weights, experts of which some have
 * many tokens. */
Graph *products_graph(Arena *arena);

/* Experts on tensor cores, one a token: token id is row id of the embedding, which goes to expert id % 4.
 * type: of gate and up; down: of down, [k, f]. */
Graph *counts_graph(Arena *arena, const char *type, const char *down, int k, int f);

/* A router as wide as route_few's threads together have values, with that many experts. */
Graph *router_graph(Arena *arena, int experts);

/* Of 16 experts 8 for a token: in a step of several a block has more rows of theirs than room. down: [512, f]. */
Graph *slots_graph(Arena *arena, const char *down, int f);

/* attend in steps of many tokens. out: f32 or q8; kept: as the state says; attrs: the others, in which $n is
 * a norm's weights, $s sinks, $f factors of 16 frequencies. */
typedef struct AttendShape {
        int heads, kvh, dk, dv;
        const char *out, *kept, *attrs;
} AttendShape;
Graph *attend_graph(Arena *arena, const AttendShape *m);

#endif
