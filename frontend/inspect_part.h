/* Between inspect.c, which gathers, and inspect_text.c and inspect_json.c, which write. */
#ifndef MOEC_INSPECT_PART_H
#define MOEC_INSPECT_PART_H
#include "frontend/inspect.h"

/* Tensors of one role or one type. */
typedef struct Group {
        const char *name;
        u32 tensors;
        u64 params, bytes, read; /* read: bytes that one token reads */
        const char *types;       /* "Q4_K, Q6_K"; of a role */
} Group;

typedef struct Facts {
        const Model *m;
        u64 file_bytes, n_ctx;
        ModelMemory mem;
        Group *role, *type;
        u32 n_role, n_type, cap_role, cap_type;
        u64 expert_params, expert_min,
                expert_max;   /* of one expert; its bytes in the smallest and the largest layer */
        const char **problem; /* why it cannot be compiled, or not used with text */
        u32 n_problem, cap_problem;
        const char *token_model, *token_pre; /* NULL: the file has none */
        u64 n_token, n_merge;
        i64 bos, eos; /* -1: none */
        bool compiles;
} Facts;

void inspect_text(const Facts *f, Buf *out);
void inspect_json(const Facts *f, Buf *out);

/* A hyperparameter's name without the architecture's; NULL: the key is none. */
const char *inspect_hyper(const Model *m, const GgufKey *k);
/* A scalar that is no string: "12", "1e-06", "true"; nan and inf as such. */
void inspect_scalar(const GgufKey *k, Buf *out);

#endif
