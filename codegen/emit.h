/* From the final graphs of a model's phases to a plan. */
#ifndef MOEC_EMIT_H
#define MOEC_EMIT_H
#include "codegen/jobs.h"
#include "codegen/select.h"
#include "frontend/tab.h"

typedef struct EmitPhase {
        const Graph *g; /* all passes done */
        u32 max_tok, max_out;
} EmitPhase;

/* Where a tensor of the file is. */
typedef struct EmitTensor {
        const char *name;
        u32 part;
        u64 offset, bytes;
} EmitTensor;

typedef struct EmitIn {
        const EmitPhase *phase; /* in the order in which the runtime tries them */
        u32 n_phase;
        Target kind;
        const Tab *tune;
        PlanMeta meta; /* what the caller knows; strings below */
        const char *arch, *name, *target, *isa, *compiler;
        const PlanPart *part; /* path unset */
        const char **part_path;
        u32 n_part;
        const EmitTensor *tensor;
        u32 n_tensor;
        const void *token; /* the tokenizer's blob; NULL */
        u64 n_token;
        bool embed; /* weights get places in WDATA */
} EmitIn;

/* Selects every node's kernel and the runtime's own. key: the distinct ones, in order of first use. */
typedef struct Emit Emit;
Emit *emit_new(Arena *a, const EmitIn *in);
u32 emit_keys(const Emit *m, Key *const **key);
const Sel *emit_sel(const Emit *m, u32 phase, u32 node); /* NULL: no kernel */

/* A weight with a place in WDATA, in the order of those places; at: of its first byte there. */
typedef struct EmitWeight {
        const EmitTensor *tensor;
        const Weight *weight;
        u64 at, bytes;
} EmitWeight;
u32 emit_weights(const Emit *m, const EmitWeight **w); /* after emit_plan */

/* image[n_image]: kernel i's begin at each * i (0: all kernels are in one). source[i]: of key i, kept in the
 * plan. Appends the plan to out. */
void emit_plan(Emit *m, const Image *image, u32 n_image, u32 each, const char *const source[], Buf *out);

#endif
