/* What an architecture file does, in C: asks for hyperparameters, declares weights and states, adds
 * operations. frontend/lua.c only converts arguments. Everything here errs with MOEC_DAMAGED or
 * MOEC_UNSUPPORTED where the model's file is at fault. */
#ifndef MOEC_BUILD_H
#define MOEC_BUILD_H
#include "frontend/gguf.h"
#include "ir/graph.h"

typedef struct Build {
        const Gguf *gguf;
        Graph *g;
        const char *arch;   /* general.architecture: what hyperparameters' keys begin with */
        u64 n_vocab;        /* tokens of the tokenizer; else rows of token_embd.weight; 0: neither is there */
        Dtype ktype, vtype; /* of states */
        i64 layer;          /* that nodes and names belong to; -1: none */
        bool *ignored;      /* [gguf_n_tensors]: needs no declaration */
        Ref *plain;         /* [n_plain] by weight: its dequantised value, 0 none yet */
        u32 n_plain, cap_plain;
} Build;
Build *build_new(Arena *a, const Gguf *g, const char *arch, Dtype ktype, Dtype vtype);

/* ---- hyperparameters: key without the architecture's name. False, with *out untouched, where there is none
 * ---- */
bool build_u64(Build *b, const char *key, u64 min, u64 max, u64 *out);
bool build_f32(Build *b, const char *key, double min, double max, double *out);
bool build_bool(Build *b, const char *key, bool *out);
const char *build_str(Build *b, const char *key); /* in the arena; NULL where there is none */
noreturn void build_missing(Build *b, const char *key);

/* The rope.* keys: attributes rbase, and what rope.scaling.* adds to them. attr: [N_ATTR], others are left as
 * they are. */
void build_rope(Build *b, Aval attr[N_ATTR]);

/* ---- weights and states. %d in a name is the layer ---- */

/* dim: outermost first. The tensor must have that shape; a vector must be F32, F16 or BF16. REF_NONE where it
 * is optional and missing. */
Ref build_weight(Build *b, const char *name, u32 rank, const u64 *dim, bool optional);
Ref build_state(Build *b, const char *name, i64 heads, i64 dk, i64 dv);

/* ---- operations ---- */

/* in: [n_in]; attr: [N_ATTR], those of `has` are set. The node's index. A matrix that is not F32 becomes an
 * operand through a dequant node, one a weight. */
u32 build_node(
        Build *b, Op op, const struct In *in, u32 n_in, const Aval attr[N_ATTR], const bool has[N_ATTR]);

/* Names of the form "blk.*.attn_q.weight": * is one or more digits. */
bool build_match(const char *pattern, const char *name);
void build_ignore(Build *b, const char *pattern);
/* err(MOEC_UNSUPPORTED) where the file has tensors that no weight was declared for: the architecture's file
 * does not describe this model. */
void build_finish(Build *b);

#endif
