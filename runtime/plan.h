/* The plan: a compiled model, and the only thing that compiler and runtime both know.
 *
 * A plan is one file that is mapped and used in place: a PlanHead, then sections. All numbers are
 * little-endian; every section starts at a multiple of 64 and holds an array of the struct named beside it.
 * Strings are byte offsets into the STR section, NUL-terminated there. plan_open checks the magic, the
 * version, the checksum and every offset, index and count before anything else looks at the plan; a plan that
 * passes can be run without further checks.
 *
 * Buffers are offsets in one arena that all phases share. A launch runs one kernel over a grid of `blocks`;
 * what a block does is the kernel's affair, and blocks of one launch are independent. Launches run in order.
 */
#ifndef MOEC_PLAN_H
#define MOEC_PLAN_H
#include "ir/types.h"

#define PLAN_MAGIC   "MOECPLAN"
#define PLAN_VERSION 3
#define PLAN_ALIGN   64
#define PLAN_PAGE    4096 /* alignment of WDATA */

/* Sections: X(name, element type). CODE, TOKEN, SOURCE and WDATA are bytes. WDATA, if any, is last and
 * outside the checksum (its own is in the head, checked by `moec verify`): it is mapped, not read, at load.
 */
#define PLAN_SECTIONS(X)                                                                                     \
        X(STR, char)                                                                                         \
        X(META, PlanMeta)                                                                                    \
        X(KERNEL, PlanKernel)                                                                                \
        X(UTIL, PlanUtil)                                                                                    \
        X(PHASE, PlanPhase)                                                                                  \
        X(LAUNCH, PlanLaunch)                                                                                \
        X(ARG, PlanArg)                                                                                      \
        X(WEIGHT, PlanWeight)                                                                                \
        X(STATE, PlanState)                                                                                  \
        X(PART, PlanPart)                                                                                    \
        X(CODE, u8)                                                                                          \
        X(TOKEN, u8)                                                                                         \
        X(SOURCE, char)                                                                                      \
        X(WDATA, u8)

typedef enum PlanSection {
#define X(name, T) PLAN_##name,
        PLAN_SECTIONS(X)
#undef X
                N_PLAN_SECTION
} PlanSection;

typedef struct PlanSpan {
        u64 offset, count; /* count in elements */
} PlanSpan;

typedef struct PlanHead {
        char magic[8];
        u32 version, head_bytes; /* sizeof(PlanHead) */
        u64 bytes;               /* of the whole plan, WDATA included */
        Hash checksum; /* of everything behind the head and before WDATA, then (hash_mix) section[0 .. WDATA -
                          1] */
        Hash wdata_checksum;
        PlanSpan section[N_PLAN_SECTION];
} PlanHead;

/* The step's sizes, in the order of ir/ops.h's DIMS (0: the constant 1). */
typedef enum PlanDim { PLAN_one, PLAN_n_tok, PLAN_n_out, PLAN_n_seq, PLAN_n_ctx, N_PLAN_DIM } PlanDim;

typedef struct PlanMeta {
        u32 arch, name; /* strings */
        u32 target;     /* "cpu", "cuda" */
        u32 isa;        /* what it needs: "x86-64-v3", "native:<features>", "sm_90a" ...; see runtime/isa.h */
        u32 compiler;   /* what compiled it, for people */
        u32 act;        /* enum moec_act */
        u32 n_vocab, n_ctx_train, n_layer, n_embd, n_expert, n_expert_used;
        u32 n_launch_decode, n_kernel;
        u32 ctk, ctv;                                                  /* Dtype of keys and values */
        u64 n_params, weight_bytes, bytes_per_token, params_per_token; /* as moec_info */
        Hash model;      /* of the GGUF's header and tensor table, all parts */
        u64 arena_bytes; /* the largest phase's */
} PlanMeta;

typedef struct PlanKernel {
        u32 name;    /* the symbol in its code */
        u32 key;     /* the Key, printed */
        u32 image;   /* CODE images are numbered in PlanImage order within CODE; CPU: always 0 */
        u32 threads; /* a block; CPU: 1 */
        u32 pad;
        u32 flags;                /* PLAN_F16 */
        u64 source, source_bytes; /* in SOURCE: the expanded text */
} PlanKernel;

/* Kernels that no launch names: the runtime calls them by their role. X(role), which is their template's name
 * too; that says what they do with which arguments. */
#define PLAN_ROLES(X)                                                                                        \
        X(repack) /* rows of a weight from the file's layout to split */                                     \
        X(random) /* random blocks of a weight, as the file would have them */                               \
        X(draw)   /* the next token of a sequence: PlanDraw */                                               \
        X(read)   /* memory, to measure how fast that goes */

typedef enum PlanRole {
#define X(name) PLAN_##name,
        PLAN_ROLES(X)
#undef X
                N_PLAN_ROLE
} PlanRole;
typedef struct PlanUtil {
        u32 role, kernel;
} PlanUtil;

#define PLAN_F16 1 /* multiplies in f16 what it dequantised: a rounding of its own */

/* CODE begins with u64 count, then count PlanImages, then their bytes. */
typedef struct PlanImage {
        u32 arch;          /* string: "so" for a CPU shared object; "sm_90a", "compute_90" for CUDA */
        u32 kind;          /* enum PlanCode */
        u64 offset, bytes; /* from the start of CODE */
} PlanImage;
typedef enum PlanCode { PLAN_SO, PLAN_CUBIN, PLAN_PTX } PlanCode;

/* A phase: the same model for another number of tokens. The runtime takes the first that a step fits. */
typedef struct PlanPhase {
        u32 name, max_tok; /* tokens a step */
        u32 launch, n_launch;
        u64 arena_bytes;
        u64 logits;      /* arena offset of f32 [n_out, n_vocab] */
        u32 max_out;     /* rows of logits a step */
        u32 max_seq_tok; /* tokens from a sequence's first in the step to its last */
} PlanPhase;

/* blocks = product over i of ceil(mul[i] * size(dim[i]) / div[i]) as grid x, y, z */
typedef struct PlanLaunch {
        u32 kernel, label; /* label: "blk.3.experts_up" */
        u32 arg, n_arg;
        u32 dim[3], mul[3], div[3];
        u32 node;             /* index in the phase's graph, for verify */
        u32 trigger;          /* enum PlanTrigger */
        u32 early;            /* bit i: argument i is read before the launch's own wait */
        u64 bytes_fixed;      /* weights read whatever the step */
        u64 bytes_tok;        /* read and written for each token */
        u64 bytes_ctx;        /* read for each position of a token's past */
        u64 bytes_out;        /* read and written for each row of logits */
        u64 bytes_expert;     /* read for each expert that a token of the step chooses */
        u32 n_expert, n_used; /* n_used of n_expert by each token */
} PlanLaunch;
/* When a launch lets the one behind it start (CUDA; codegen/schedule.h): at its end, after its own wait for
 * the launch in front of it, or before that. */
#define PLAN_TRIGGERS(T) T(none) T(waited) T(first)
typedef enum PlanTrigger {
#define T(name) PLAN_TRIGGER_##name,
        PLAN_TRIGGERS(T)
#undef T
                N_PLAN_TRIGGER
} PlanTrigger;

/* ir/ops.h's INPUTS and LAYOUTS, in its order. */
typedef enum PlanInput { PLAN_ids, PLAN_pos, PLAN_seq, PLAN_out, N_PLAN_INPUT } PlanInput;
typedef enum PlanLayout { PLAN_rows, PLAN_panel, PLAN_split, N_PLAN_LAYOUT } PlanLayout;

typedef enum PlanArgKind {
        PLAN_BUF,   /* index unused, value: arena offset */
        PLAN_INPUT, /* index: PlanInput */
        PLAN_W,     /* index: weight */
        PLAN_K,     /* index: state: its keys' plane */
        PLAN_V,     /* index: state: its values' plane */
        PLAN_NULL,  /* an optional operand that is absent */
        N_PLAN_ARG
} PlanArgKind;
typedef struct PlanArg {
        u32 kind, index;
        u64 value;
} PlanArg;

/* A weight as its kernels want it. src: in the GGUF part; dst: the bytes on the device after the repack named
 * by layout. */
typedef struct PlanWeight {
        u32 name, type; /* string; enum Wtype */
        u32 layout,
                rank; /* PlanLayout; panel, split: matrices, or one of each expert, each packed on its own */
        u64 dim[4];   /* outermost first; unused ones 1 */
        u32 part, pad;
        u64 src, src_bytes; /* offset in the part's file */
        u64 dst_bytes;
        u64 embedded; /* offset in WDATA, UINT64_MAX: not embedded */
} PlanWeight;

/* Keys: [n_seq][heads][n_ctx] rows of dk values of ktype (kv_row_bytes); values the same with dv and vtype.
 * dv 0: no plane of values. */
typedef struct PlanState {
        u32 name;
        u32 heads, dk, dv;
        u32 ktype, vtype; /* Dtype, below N_KV_TYPE */
} PlanState;

typedef struct PlanPart {
        u32 path, pad;           /* absolute, as given when compiled */
        u64 bytes, header_bytes; /* of the file; of header and tensor table, which hash says */
        Hash hash;               /* of the first header_bytes */
} PlanPart;

/* ---- reading (plan.c) ---- */
typedef struct Plan {
        Map map; /* empty if the memory is somebody else's */
        const u8 *p;
        u64 bytes;
        const PlanHead *head;
#define X(name, T) const T *name;
        PLAN_SECTIONS(X)
#undef X
} Plan;

/* The plan at offset in the file (0, or where an executable's plan starts). MOEC_DAMAGED names section and
 * field. */
moec_status plan_open(const char *path, u64 offset, Plan **out, moec_error *e);
moec_status plan_view(const void *p, u64 bytes, Plan **out,
        moec_error *e); /* memory that outlives the plan, aligned to 64 */
moec_status plan_copy(
        const void *p, u64 bytes, Plan **out, moec_error *e); /* memory of any alignment, not kept */
/* The plan at offset in a mapping, which is the plan's from then on; on failure still the caller's. name: for
 * messages. */
moec_status plan_take(Map *m, u64 offset, u64 bytes, const char *name, Plan **out, moec_error *e);
void plan_close(Plan *p); /* NULL is fine */
static inline const char *plan_str(const Plan *p, u32 off)
{
        return p->STR + off;
}
static inline u64 plan_count(const Plan *p, PlanSection s)
{
        return p->head->section[s].count;
}
u64 plan_images(const Plan *p, const PlanImage **image);
u32 plan_util(const Plan *p, PlanRole role); /* its kernel; UINT32_MAX: the plan has none */
/* wdata_checksum's definition: hash_mix over pieces of 1 MiB, from zero. Continues h; n a multiple of that
 * but for the end. */
Hash plan_wdata_hash(Hash h, const void *p, u64 n);
u64 plan_blocks(const PlanLaunch *l, const u32 size[N_PLAN_DIM]);        /* UINT64_MAX: more than 2^32 - 1 */
u64 plan_weight_bytes(u32 type, u32 layout, u32 rank, const u64 dim[4]); /* dst_bytes; 0: no such weight */

/* ---- writing (plan_write.c) ----
 * Zero-initialise. Sections are filled in any order; plan_finish lays them out and checksums. Used by
 * codegen/emit.c. */
typedef struct PlanWriter {
        Buf section[N_PLAN_SECTION];
        u32 *str, n_str, cap_str; /* hash table of STR's strings */
} PlanWriter;
u32 plan_add_str(PlanWriter *w, const char *s); /* equal strings share an offset; "" is 0 */
u32 plan_add(
        PlanWriter *w, PlanSection s, const void *element, u64 size); /* its index; bytes: where they begin */
void plan_finish(
        PlanWriter *w, Buf *out); /* without WDATA: the caller appends that behind out, page-aligned */
/* For that: fills out up to the page at which WDATA's bytes (checksum h) are to follow, and enters them in
 * the head. */
void plan_embed(Buf *out, u64 bytes, Hash h);
void plan_writer_free(PlanWriter *w);

/* ---- the CPU kernels' interface ----
 * A kernel computes blocks first .. last - 1 of its grid (x fastest). arg: pointers in the launch's order.
 * The arena and the states' planes are aligned to 64, weights to 32 (what a GGUF gives), packed or embedded
 * ones to 64. */
typedef struct KernelDim {
        u32 n_tok, n_out, n_seq, n_ctx;
} KernelDim;
typedef void CpuKernel(void *const *arg, const KernelDim *dim, u32 first, u32 last);

/* ---- drawing tokens on a device ----
 * The kernel of role draw is given a PlanDraw, with the sequence's tokens behind it, and the inputs ids and
 * pos of the step that follows, which it writes. A warp a group. Settings and definition: runtime/sample.h.
 */
#define PLAN_DRAWS  32 /* tokens that id has room for */
#define PLAN_ENDS   32
#define PLAN_GROUPS 4096 /* that there may be */
/* Whether a draw goes on, or why not: once it does not, nothing more is drawn. */
#define DRAW_STATES(X) X(GOING_ON) X(ENDED) X(NO_LOGIT) X(BAD_LOGIT)
typedef enum DrawState {
#define X(name) DRAW_##name,
        DRAW_STATES(X)
#undef X
} DrawState;

/* F(type, name, array); the kernel's template gets the struct from this. logits, next: device addresses, of
 * the logits that the next token is drawn from, and of all later ones. */
#define DRAW_FIELDS(F)                                                                                       \
        F(u64, seed, )                                                                                       \
        F(u64, seq, )                                                                                        \
        F(u64, logits, )                                                                                     \
        F(u64, next, )                                                                                       \
        F(u32, n_vocab, )                                                                                    \
        F(u32, group, ) /* logits of a group: 64, doubled until there are no more than PLAN_GROUPS */        \
        F(float, temp, )                                                                                     \
        F(float, top_p, )                                                                                    \
        F(float, min_p, )                                                                                    \
        F(float, repeat_penalty, )                                                                           \
        F(i32, top_k, )                                                                                      \
        F(i32, repeat_last, )                                                                                \
        F(u32, len, )     /* tokens of the sequence: the position of the next */                             \
        F(u32, n, )       /* drawn so far */                                                                 \
        F(u32, state, )   /* DrawState */                                                                    \
        F(u32, bad, )     /* BAD_LOGIT: the token whose logit is none, */                                    \
        F(float, value, ) /* and that logit */                                                               \
        F(u32, n_end, )   /* end tokens, after which nothing is drawn */                                     \
        F(i32, end, [PLAN_ENDS])                                                                             \
        F(i32, id, [PLAN_DRAWS])

typedef struct PlanDraw {
#define F(type, name, array) type name array;
        DRAW_FIELDS(F)
#undef F
} PlanDraw;

#endif
