/* A model's file and what is known of it before it is compiled. */
#ifndef MOEC_MODEL_H
#define MOEC_MODEL_H
#include "frontend/arch.h"
#include "frontend/gguf.h"
#include "ir/graph.h"

typedef struct ModelInfo {
        u64 n_vocab, n_ctx_train, n_layer, n_embd, n_expert, n_expert_used; /* 0: the file does not say */
        u64 n_params, weight_bytes;
        u64 token_params,
                token_bytes; /* of the weights that one decoded token reads; 0 where supported is false */
        bool is_shape, has_tokenizer;
} ModelInfo;

/* Immutable once open; may be shared by threads. */
typedef struct Model {
        Arena *arena;
        Gguf *gguf;
        const char *path, *templates;
        const char *arch;   /* general.architecture; NULL: missing, or not a name of letters, digits, - _ . */
        const char *name;   /* general.name, hostile text, or "" */
        const Arch *type;   /* NULL: unknown architecture */
        const Graph *graph; /* as model_graph gives, states in f16; NULL where it cannot be built */
        moec_error why;     /* of that; status MOEC_OK otherwise */
        ModelInfo info;
        u64 *read; /* [tensors] bytes of each that one decoded token reads */
} Model;

/* Fills *m, which the caller keeps; everything else is in the arena and m->gguf's mappings. templates (may be
 * NULL) is a folder that extends and overrides the built-in files. A model that is readable but not supported
 * opens: m->why tells. model_close is safe on a zeroed *m and must be called even if model_open failed. */
void model_open(Model *m, Arena *a, const char *path, const char *templates);
void model_close(Model *m);

/* The graph of one step as the architecture's file describes it: no pass has run, every product of quantised
 * weights has its dequant. Weights point into the file (NULL in a shape file). States keep keys and values as
 * ktype and vtype. err as m->why. */
Graph *model_graph(const Model *m, Arena *a, Dtype ktype, Dtype vtype);

/* Appends the tokenizer's blob (runtime/token.h). False where the model has none; err where it is not
 * supported or damaged. */
bool model_token(const Model *m, Buf *out);

typedef struct ModelMemory {
        u64 weights, kv, scratch,
                total; /* bytes; scratch is an estimate: values alive at once in a step of n_tok tokens */
        u64 kv_q8_0;   /* what kv would be as q8_0; 0: not possible */
} ModelMemory;
/* For one sequence of n_ctx positions; kv and scratch are 0 where the graph cannot be built. */
ModelMemory model_memory(const Model *m, u64 n_ctx, u64 n_tok);

/* "expert weights", "norm", ...: what a tensor is for, by the architecture's roles, then by GGUF's usual
 * names. */
const char *model_role(const Model *m, const char *tensor);

#endif
