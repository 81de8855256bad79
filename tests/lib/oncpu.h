/* Graphs compiled for the CPU the compiler's own way, and compared with the interpreter launch by launch.
 * Weights are embedded in the plan, so that nothing but memory is needed. */
#ifndef ONCPU_H
#define ONCPU_H
#include "codegen/cc.h"
#include "codegen/emit.h"
#include "passes/passes.h"
#include "tests/lib/randgraph.h"

typedef struct Trial {
        const Graph *g;    /* weights bound */
        const char *words; /* passes before layout */
        u32 max_tok;       /* tokens a step */
        u64 seed;          /* of the steps */
        const char *name;  /* for messages */
} Trial;

/* The trial's graph with all passes done. reuse: values share memory, as they do outside of tests. */
Graph *trial_graph(const Trial *t, Arena *a, bool reuse);

typedef struct TrialOpt {
        const char *march;
        int steps; /* of each trial */
} TrialOpt;

/* Compiles all trials' kernels, each once, then for each trial, with several sequences mixed: every launch,
 * given the interpreter's values, gives the interpreter's results, up to rounding; and whole steps give the
 * same bits whatever the number of threads and whether values share memory. Fails the test that runs. */
void trials_run(const Trial *t, u32 n, const TrialOpt *opt);

/* Trial number i of the random ones: graphs and pipelines vary with it. */
Trial trial_random(Arena *a, u64 i);

/* ---- what is tried ----
 * What a graph's kernels are made of, in words: "matmul.norm", "attend, no sinks", "experts_up act=q8", "Q4_K
 * act=q8", "sort of many" (tokens a step). */
enum { MAX_TRAIT = 1024 };
typedef struct Traits {
        Arena *arena;
        const char *word[MAX_TRAIT];
        u32 n;
} Traits;
/* Sets has[i] for each word[i] that is true of the graph; new ones are appended. */
void traits_add(Traits *t, u8 has[MAX_TRAIT], const Graph *g, u32 max_tok);
u32 traits_find(const Traits *t, const char *word); /* its index; t->n: unknown */

#endif
