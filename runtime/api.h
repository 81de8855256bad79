/* What is behind moec.h's types. The compiler's half (moec.c) makes models of GGUF files; this half makes
 * them of plans, and does what works without a compiler: a compiled executable links nothing else. */
#ifndef MOEC_API_H
#define MOEC_API_H
#include "runtime/exec.h"
#include "runtime/kv.h"
#include "runtime/token.h"

#define PLAN_WHY 48

/* An opened file. moec.c makes its own (zeroed, malloc'ed); moec_close frees every member, front through
 * close_front. */
struct moec_model {
        char *path;  /* malloc'ed */
        Plan *plan;  /* NULL: a GGUF or shape file, and the members from front to load_eval are set */
        void *front; /* the compiler's */
        moec_status (*make_plan)(const moec_model *m, const moec_options *opt, Plan **out, bool *from_cache,
                char why[PLAN_WHY],
                moec_error *e); /* why: what target auto chose, "" where it had no choice */
        void (*close_front)(void *front);
        moec_status (*load_eval)(
                const moec_model *m, const moec_options *opt, moec_context *ctx, moec_error *e);
        moec_info info;    /* its strings are the plan's or front's */
        Token *tok;        /* NULL: none, */
        void *tok_blob;    /* malloc'ed, where tok's blob is not the plan's; NULL */
        char tok_why[256]; /* and why; "" where the file simply has none */
};

/* What runs a context. load_eval sets one of its own. */
typedef struct Backend {
        moec_status (*step)(void *self, const Batch *b, float *logits, moec_error *e); /* as rt_step */
        void (*trim)(void *self, u32 seq, u32 len); /* NULL: nothing to do */
        void (*free)(void *self);
        bool (*keeps)(void *self, const Batch *b); /* as rt_keeps, and so on; NULL: logits are always given */
        moec_status (*logits)(void *self, float *logits, moec_error *e);
        bool (*draws)(void *self);
        moec_status (*draw)(void *self, const Draw *d, i32 *id, u32 *n, moec_error *e); /* NULL: never */
} Backend;

/* The last logits kept of a sequence: those after its first `len` tokens. */
typedef struct Last {
        enum { LAST_NONE, LAST_STEP, LAST_SAVED } where;
        u32 len, row; /* row of the last step's logits */
        float *saved; /* malloc'ed when first needed */
} Last;

struct moec_context {
        const moec_model *model;
        const Backend *back;
        void *self;
        Rt *rt;     /* self, where a plan runs on this machine's CPU; else NULL */
        Plan *plan; /* made for this context; NULL: the model's */
        Kv *kv;
        u32 n_vocab, n_batch, n_ctx, n_seq;
        i32 *id, *pos, *seq; /* [n_batch], for a step */
        u32 *out;
        float *logits; /* [cap_rows, n_vocab]: the last step's, */
        bool kept;     /* unless the target has kept them; */
        u32 kept_rows; /* so many */
        u32 cap_rows;
        Last *last;    /* [n_seq] */
        void *scratch; /* for sample() */
        moec_progress progress;
        void *user;
        moec_timing timing;
        moec_profile_row *rows; /* of the last profile */
};

/* api_run.c: the last step's logits to the host, where they are not there. */
moec_status fetch_logits(moec_context *c, moec_error *e);
/* Before a step of these tokens, or a draw: the sequences that are not in it keep their logits elsewhere, and
 * those in it have none. */
moec_status save_others(moec_context *c, const moec_token *tok, u32 n, moec_error *e);

/* What comes after a compiled executable's plan, the last bytes of the file. The plan starts at a multiple of
 * PLAN_PAGE. */
#define EXE_MAGIC "MOECEXE1"
typedef struct ExeTrailer {
        u64 plan; /* offset in the file */
        char magic[8];
} ExeTrailer;
bool exe_plan_offset(const char *path, u64 *offset); /* false: no such trailer, or no such file */

/* A model of the plan at offset in the file: 0, or exe_plan_offset's. */
moec_status model_from_plan(
        const char *path, u64 offset, const moec_options *opt, moec_model **out, moec_error *e);

#endif
