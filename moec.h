/* moec: an ahead-of-time graph compiler for mixture-of-experts language models in GGUF files. The public API.
 *
 *   moec_model    an opened file: a GGUF model, a shape file (metadata without weights) or a compiled plan.
 * Immutable; it may be shared by threads and must outlive what is made from it. moec_context  a model
 * compiled for a target and loaded there, with room for sequences. One thread at a time. moec_seq      an
 * index, 0 <= seq < max_seqs: a timeline of tokens in a context.
 *
 * Every function that can fail returns a status and fills *err (which may be NULL). Nothing here prints,
 * exits, reads the environment except where said, or writes outside the compile cache and the paths it is
 * given. Strings and arrays returned through char ** or int32_t ** belong to the caller and are freed with
 * moec_free. */
#ifndef MOEC_H
#define MOEC_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOEC_VERSION "0.1.0"

/* Statuses are the command's exit codes too. */
typedef enum moec_status {
        MOEC_OK = 0,
        MOEC_ERROR = 1,         /* anything without a code of its own */
        MOEC_USAGE = 2,         /* an argument out of range or malformed */
        MOEC_NOT_FOUND = 3,     /* no such file */
        MOEC_DAMAGED = 4,       /* a damaged or hostile file */
        MOEC_MISMATCH = 5,      /* verification failed, or the wrong file for this plan */
        MOEC_UNSUPPORTED = 6,   /* architecture, tensor type or tokenizer */
        MOEC_IO = 7,            /* read or write failed, disk full */
        MOEC_RUNTIME = 8,       /* failed while running, device lost */
        MOEC_NO_DEVICE = 9,     /* no such device or instruction set */
        MOEC_NO_MEMORY = 10,    /* does not fit */
        MOEC_TOOLCHAIN = 11,    /* cc, m4 or NVRTC missing or failing */
        MOEC_REFUSED = 12,      /* would overwrite, or more than was planned for */
        MOEC_INTERRUPTED = 130, /* stopped by the progress callback */
} moec_status;

typedef struct moec_error {
        moec_status status;
        char msg[1024]; /* what, where, what to do; no newline at the end */
} moec_error;

typedef struct moec_model moec_model;
typedef struct moec_context moec_context;

/* Called now and then during whatever may take over a second; done and total in units of `what` ("loading",
 * "compiling"). Return false to stop: the call then fails with MOEC_INTERRUPTED. */
typedef bool (*moec_progress)(void *user, const char *what, uint64_t done, uint64_t total);

typedef enum moec_act {
        MOEC_ACT_Q8 = 0,
        MOEC_ACT_F32 = 1
} moec_act; /* what activations are rounded to in quantised products */

/* Zero-initialise, then set what differs; every zero means the default. */
typedef struct moec_options {
        const char *target; /* "auto", "cpu", "eval", "cuda", "cuda:sm_90a", ...; default auto */
        const char *march;  /* "native", "x86-64-v3", "x86-64"; default native to run, x86-64-v3 to compile */
        const char *
                cache_dir; /* default: $MOEC_CACHE_DIR, $XDG_CACHE_HOME/moec, ~/.cache/moec; "off" for none */
        const char *templates; /* a folder that overrides the built-in templates and Lua files */
        const char *weights;   /* for a plan: the GGUF that holds its weights; default: the path stored in the
                                  plan */
        const char *keep;      /* keep generated sources in this folder */
        const char *ctk, *ctv; /* KV cache types, "f16" (default), "f32", "q8_0" */
        moec_act act;
        bool random_weights; /* fill a shape file's weights with random blocks */
        bool debug;          /* every value keeps a buffer of its own: needed by moec_set_hook */
        int threads;         /* default: the number of processors this process may use */
        int n_ctx;           /* positions a sequence can hold; default min(the model's, 4096) */
        int max_seqs;        /* default 1 */
        int n_batch;         /* tokens a step at most; default 512 */
        moec_progress progress;
        void *user;
} moec_options;

/* ---- files ---- */

/* Opens a GGUF (a split one by its first part), a shape file or a plan; reads metadata only. */
moec_status moec_open(const char *path, const moec_options *opt, moec_model **model, moec_error *err);
/* A plan, or an executable with a plan appended: what moec_open does for these, and needs no compiler. */
moec_status moec_open_plan(const char *path, const moec_options *opt, moec_model **model, moec_error *err);
void moec_close(moec_model *model);
void moec_free(void *p);

typedef struct moec_info {
        const char *arch, *name, *target; /* target: NULL unless a plan */
        int n_vocab, n_ctx_train, n_layer, n_embd, n_expert, n_expert_used;
        bool has_weights, has_tokenizer, is_plan;
        uint64_t n_params, weight_bytes;
        uint64_t bytes_per_token, params_per_token; /* weights read for one decoded token */
} moec_info;
void moec_get_info(const moec_model *model, moec_info *info);

/* format: "text" or "json". n_ctx: context for the memory figures, 0 for the default. Works for a model that
 * cannot be compiled too, and says why it cannot. */
moec_status moec_inspect(const moec_model *model, const char *format, int n_ctx, char **out, moec_error *err);

/* ---- compile and look ---- */

typedef struct moec_compile_report {
        int n_kernels, n_launches; /* distinct kernels; launches of one decode step */
        uint64_t code_bytes, plan_bytes;
        double seconds;
        bool from_cache;
} moec_compile_report;

/* emit: "exe" or "plan". embed: store the weights too. Written beside `out`, then renamed. */
moec_status moec_compile(const moec_model *model, const moec_options *opt, const char *out, const char *emit,
        bool embed, moec_compile_report *report, moec_error *err);

/* format: "ir", "dot", "svg", "keys", "kernels". phase: "decode", "prefill"; CUDA has "four", "few", "batch" and
 * "short", too. after: a pass's name, "" for the graph as built, NULL for all passes. layer: -1 for all. */
moec_status moec_dump(const moec_model *model, const moec_options *opt, const char *phase, const char *after,
        int layer, const char *format, char **out, moec_error *err);

/* Runs the named passes (comma-separated) over a graph in text form; `path` names it in messages. */
moec_status moec_opt(const char *text, const char *path, const char *passes, char **out, moec_error *err);

typedef struct moec_verify_report {
        int n_tokens, n_flips, n_left_out;      /* routing flips; positions left out after one */
        double min_cosine, max_rel, mean_kl;    /* pinned routes, against eval */
        double mean_kl_free, argmax_agree_free; /* routes of its own */
        bool passed;
} moec_verify_report;

/* Runs `ids` on the target, launch by launch, against eval; *out is the report as text or JSON. MOEC_MISMATCH
 * if it fails. */
moec_status moec_verify(const moec_model *model, const moec_options *opt, const int32_t *ids, int n,
        const char *format, moec_verify_report *report, char **out, moec_error *err);

/* verb: "list", "explain", "prune", "clear". arg: explain: a key or NULL; prune: the size to keep, such as
 * "1G". */
moec_status moec_cache(const moec_options *opt, const char *verb, const char *arg, const char *format,
        char **out, moec_error *err);

/* ---- text ---- */

/* special: recognise special tokens written out in the text. bos: add the model's BOS if it adds one. */
moec_status moec_tokenize(const moec_model *model, const char *text, size_t len, bool bos, bool special,
        int32_t **ids, int *n, moec_error *err);
/* The bytes of one token; special tokens give nothing unless `special`. *piece is owned by the model. */
moec_status moec_piece(
        const moec_model *model, int32_t id, bool special, const char **piece, size_t *len, moec_error *err);
bool moec_is_end(const moec_model *model, int32_t id); /* EOS, EOT */
int32_t moec_bos(const moec_model *model);             /* -1: none is added */

/* Collects bytes and gives back whole UTF-8 characters only. Zero-initialise. */
typedef struct moec_utf8 {
        unsigned char part[4];
        int n;
} moec_utf8;
/* Writes to out (room: 3 * (len + 4)) what is complete; returns its length. Bytes that are not UTF-8 become
 * U+FFFD, as does what is left when flush is set. */
size_t moec_utf8_push(moec_utf8 *u, const char *bytes, size_t len, bool flush, char *out);

/* ---- run ---- */

typedef struct moec_timing {
        double compile_s, load_s;
        bool compiled; /* false: the plan came from the cache or the file */
        uint64_t weight_bytes, kv_bytes, scratch_bytes;
        int threads;
        char target[96]; /* what was chosen, and for auto why */
} moec_timing;

moec_status moec_load(const moec_model *model, const moec_options *opt, moec_context **ctx, moec_error *err);
void moec_unload(moec_context *ctx);
void moec_get_timing(const moec_context *ctx, moec_timing *t);
int moec_n_ctx(const moec_context *ctx);

typedef struct moec_token {
        int32_t id, seq;
        bool logits; /* keep this position's logits */
} moec_token;

/* Appends each token to its sequence. Tokens of different sequences may be mixed; those of one sequence are
 * in order. MOEC_REFUSED, with nothing changed: more tokens than n_batch, a full sequence, no such sequence.
 * *logits: [number of tokens with logits set, n_vocab], valid until the next step or moec_generate; NULL
 * where the caller does not want them on the host: moec_sample and moec_generate find them all the same. */
moec_status moec_step(moec_context *ctx, const moec_token *tok, int n, const float **logits, moec_error *err);

int moec_seq_len(const moec_context *ctx, int seq);
moec_status moec_seq_trim(
        moec_context *ctx, int seq, int len, moec_error *err); /* forget all but the first len tokens */

typedef struct moec_sampling {
        float temp, top_p, min_p, repeat_penalty;
        int top_k, repeat_last; /* top_k 0: off; temp 0: greedy */
        uint64_t seed;
} moec_sampling;
#define MOEC_SAMPLING_DEFAULT                                                                                \
        {                                                                                                    \
                0.8f, 0.95f, 0.05f, 1.0f, 40, 64, 0                                                          \
        }

/* A token for the next position of seq from the last logits kept of it. The same (logits, settings, history)
 * give the same token on every target: the random number depends on seed, sequence and position alone. */
moec_status moec_sample(moec_context *ctx, int seq, const moec_sampling *s, int32_t *id, moec_error *err);

/* Up to n times: sample from seq's last logits, append. Stops after an end token unless ignore_end. The same
 * tokens as by moec_sample and moec_step, but a device does several of them without the host (at most 32, for
 * text to come while they are made: ask for fewer at a time). ids: room for n; the first *n_out are valid,
 * and appended, whatever is returned. */
moec_status moec_generate(moec_context *ctx, int seq, const moec_sampling *s, int n, bool ignore_end,
        int32_t *ids, int *n_out, moec_error *err);

/* ---- measure ---- */

typedef struct moec_profile_row {
        const char *kernel, *what; /* owned by the context */
        uint64_t calls, bytes;     /* bytes: weights and KV read, activations in and out */
        double seconds;
} moec_profile_row;

/* Times each launch of the steps between start and stop: on the CPU from its start to its end; on CUDA, where
 * launches overlap, from the end of the one in front to its own, so that they add up to the step (in steps so
 * long that it makes no difference, each by itself, with about 2 us of launching). rows: [*n], owned by the
 * context until the next call. */
moec_status moec_profile_start(moec_context *ctx, moec_error *err);
moec_status moec_profile_stop(
        moec_context *ctx, const moec_profile_row **rows, int *n, const char *trace_path, moec_error *err);
moec_status moec_read_bandwidth(
        moec_context *ctx, double *bytes_per_s, moec_error *err); /* measured by reading a large buffer */

#ifdef __cplusplus
}
#endif
#endif
