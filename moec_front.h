/* The compiler's half of the public API: what moec.c, moec_look.c, moec_verify.c and moec_eval.c share. */
#ifndef MOEC_FRONT_H
#define MOEC_FRONT_H
#include "codegen/cc.h"
#include "codegen/emit.h"
#include "codegen/nvrtc.h"
#include "frontend/model.h"
#include "passes/passes.h"
#include "runtime/api.h"

/* What a moec_model's `front` is: a GGUF or shape file, opened. */
typedef struct Front {
        Arena *arena;
        Model model;
} Front;

#define DEFAULT_BATCH 512
#define MAX_PHASE     6

/* One phase on its way to the plan. */
typedef struct Stage {
        const Phase *phase;
        Graph *g;
        u32 max_tok, max_out;
} Stage;

/* A model on its way to a plan. Everything is in the arena. */
typedef struct Stages {
        Arena *arena;
        const Front *front;
        const moec_options *opt;
        Target target;
        const char *march; /* cpu */
        const char **arch; /* cuda: what to compile for */
        u32 n_arch;
        bool device_arch; /* the one is this machine's device's */
        const char *why;  /* what `auto` chose, in a few words; "" where the target was asked for by name */
        Cache *cache;
        Pipeline *pipeline;
        Stage stage[MAX_PHASE];
        u32 n;
        bool embed;
        EmitIn in;
        Emit *emit;
        u64 code_bytes; /* of all images, after stages_plan */
} Stages;

/* err() from here on: call inside a Trap. march: what opt asks for, or def. */
void stages_open(Stages *s, Arena *a, const Front *f, const moec_options *opt, const char *def_march);
/* Builds a phase's graph and runs its passes; after (NULL: nobody) is told after each. */
void stage_run(Stages *s, Stage *st, AfterPass *after, void *user);
void stages_select(Stages *s); /* all phases, then their kernels: s->emit */
/* The expanded sources of all kernels; for cuda, those of the first architecture. */
void stages_sources(Stages *s, Key *const key[], u32 n, const char **source);
void stages_plan(Stages *s, Buf *out); /* the whole way: the plan appended to out */

NvrtcPaths front_nvrtc_paths(void); /* where the environment says that NVRTC is */

/* The plan of opt, from the cache or made. cache may be NULL. */
moec_status front_plan(const moec_model *m, const moec_options *opt, const char *def_march, Plan **plan,
        bool *from_cache, char why[PLAN_WHY], moec_error *e);

/* ---- the interpreter as a target (moec_eval.c) ---- */
moec_status front_load_eval(const moec_model *m, const moec_options *opt, moec_context *ctx, moec_error *e);

/* What keys (flag "-ctk") or values ("-ctv") are kept as; word NULL: f16. */
Dtype front_cache_type(const char *word, const char *flag);

/* The folder that opt's cache is in, in the arena; "off" for none. */
const char *front_cache_dir(Arena *a, const moec_options *opt);

#endif
