/* A tiny model by hand: its plan, its weights' file and its kernels, compiled by cc. It looks ids up in a
 * table, keeps the rows as keys and their halves as values, and the logits of a position are the dot products
 * of a matrix with the sum over its past of key * value's first. Everything is in small integers, so that
 * sums are exact in any order. */
#ifndef MOEC_PLAN_HELP_H
#define MOEC_PLAN_HELP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/api.h"
#include "runtime/pack.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { H = 8, VOCAB = 20, HEADER = 100, WEIGHT = 4 * VOCAB * H, FILE_BYTES = 128 + 2 * WEIGHT + 4 };
static u64 tiny_table_at = 128; /* 4 more: no longer aligned */
#define TINY_HEAD_AT (128 + WEIGHT + 4)
static char tiny_dir[64], tiny_gguf[96];
static Buf tiny_so;

static float tiny_table(int id, int i)
{
        return (float)((id * 7 + i * 3) % 5 - 2);
}

static float tiny_head(int v, int i)
{
        return (float)((v * 5 + i * 11) % 7 - 3);
}

static const char tiny_source[] =
        "#include <stdint.h>\n"
        "typedef struct { uint32_t n_tok, n_out, n_seq, n_ctx; } Dim;\n"
        "void embed(void *const *arg, const Dim *d, uint32_t first, uint32_t last) {\n"
        "  const float *w = arg[0]; const int32_t *ids = arg[1]; float *x = arg[2]; (void)d;\n"
        "  for (uint32_t t = first; t < last; t++) for (int i = 0; i < 8; i++) x[t * 8 + i] = w[ids[t] * 8 + "
        "i];\n"
        "}\n"
        "void append(void *const *arg, const Dim *d, uint32_t first, uint32_t last) {\n"
        "  const float *x = arg[0]; const int32_t *pos = arg[1], *seq = arg[2]; float *k = arg[3], *v = "
        "arg[4];\n"
        "  for (uint32_t t = first; t < last; t++) for (int i = 0; i < 8; i++) {\n"
        "    k[((long)seq[t] * d->n_ctx + pos[t]) * 8 + i] = x[t * 8 + i];\n"
        "    v[((long)seq[t] * d->n_ctx + pos[t]) * 8 + i] = x[t * 8 + i] / 2; }\n"
        "}\n"
        "void logits(void *const *arg, const Dim *d, uint32_t first, uint32_t last) {\n"
        "  const float *k = arg[0], *v = arg[1], *w = arg[2]; const int32_t *pos = arg[3], *seq = arg[4], "
        "*out = arg[5];\n"
        "  float *y = arg[6]; if (arg[7]) return;\n"
        "  for (uint32_t b = first; b < last; b++) {\n"
        "    uint32_t r = b / 20, n = b % 20, t = out[r]; float sum = 0;\n"
        "    for (int p = 0; p <= pos[t]; p++) for (int i = 0; i < 8; i++) {\n"
        "      long at = (long)seq[t] * d->n_ctx + p;\n"
        "      sum += k[at * 8 + i] * v[at * 8] * w[(n / 8 * 8 + i) * 8 + n % 8]; }\n"
        "    y[r * 20 + n] = sum; }\n"
        "}\n";

/* What the logits after ids[0 .. n - 1] must be. */
static inline void tiny_expect(const i32 *ids, int n, float out[VOCAB])
{
        for (int v = 0; v < VOCAB; v++) {
                out[v] = 0;
                for (int p = 0; p < n; p++)
                        for (int i = 0; i < H; i++)
                                out[v] +=
                                        tiny_table(ids[p], i) * (tiny_table(ids[p], 0) / 2) * tiny_head(v, i);
        }
}

static inline Hash tiny_write_gguf(const char *path)
{
        static u8 f[FILE_BYTES];
        for (int i = 0; i < HEADER; i++)
                f[i] = (u8)(i * 3 + 1);
        for (int v = 0; v < VOCAB; v++)
                for (int i = 0; i < H; i++) {
                        float t = tiny_table(v, i), h = tiny_head(v, i);
                        memcpy(f + tiny_table_at + 4 * (v * H + i), &t, 4);
                        memcpy(f + TINY_HEAD_AT + 4 * (v * H + i), &h, 4);
                }
        assert_int_equal(file_write(path, f, sizeof f, 0644, NULL), MOEC_OK);
        return hash_bytes(f, HEADER);
}

static int tiny_setup(void **state)
{
        (void)state;
        char path[96], cmd[400];
        snprintf(tiny_dir, sizeof tiny_dir, "/tmp/moec-test-XXXXXX");
        if (!mkdtemp(tiny_dir))
                return -1;
        snprintf(path, sizeof path, "%s/k.c", tiny_dir);
        if (file_write(path, tiny_source, sizeof tiny_source - 1, 0644, NULL) != MOEC_OK)
                return -1;
        snprintf(cmd, sizeof cmd, "cc -O1 -shared -fPIC -o %s/k.so %s/k.c", tiny_dir, tiny_dir);
        if (system(cmd) != 0)
                return -1;
        snprintf(path, sizeof path, "%s/k.so", tiny_dir);
        snprintf(tiny_gguf, sizeof tiny_gguf, "%s/tiny.gguf", tiny_dir);
        return file_read(path, &tiny_so, 1 << 24, NULL) == MOEC_OK ? 0 : -1;
}

static int tiny_teardown(void **state)
{
        (void)state;
        char cmd[128];
        snprintf(cmd, sizeof cmd, "rm -rf %s", tiny_dir);
        buf_free(&tiny_so);
        return system(cmd);
}

static PlanWeight tiny_weight(PlanWriter *w, const char *name, u32 layout, u64 src)
{
        return (PlanWeight){.name = plan_add_str(w, name),
                .type = W_F32,
                .layout = layout,
                .rank = 2,
                .dim = {VOCAB, H, 1, 1},
                .src = src,
                .src_bytes = WEIGHT,
                .dst_bytes = layout == PLAN_panel ? pack_panel_bytes(W_F32, VOCAB, H) : WEIGHT,
                .embedded = UINT64_MAX};
}

static u32 tiny_arg(PlanWriter *w, u32 kind, u32 index, u64 value)
{
        PlanArg a = {kind, index, value};
        return plan_add(w, PLAN_ARG, &a, sizeof a);
}

static void tiny_launch(PlanWriter *w, u32 kernel, const char *label, u32 arg, u32 n_arg, u32 dim, u32 mul)
{
        PlanLaunch l = {.kernel = kernel,
                .label = plan_add_str(w, label),
                .arg = arg,
                .n_arg = n_arg,
                .dim = {dim},
                .mul = {mul, 1, 1},
                .div = {1, 1, 1},
                .bytes_fixed = 100,
                .bytes_tok = 10,
                .bytes_ctx = 1,
                .bytes_out = 1000,
                .bytes_expert = 1 << 16,
                .n_expert = 4,
                .n_used = 1};
        plan_add(w, PLAN_LAUNCH, &l, sizeof l);
}

static void tiny_phase(PlanWriter *w, const char *name, u32 max_tok, u32 max_out, u64 x, u64 y)
{
        PlanPhase f = {.name = plan_add_str(w, name),
                .max_tok = max_tok,
                .max_out = max_out,
                .max_seq_tok = max_tok,
                .launch = (u32)(w->section[PLAN_LAUNCH].len / sizeof(PlanLaunch)),
                .n_launch = 3,
                .arena_bytes = 4096,
                .logits = y};
        plan_add(w, PLAN_PHASE, &f, sizeof f);
        u32 a = tiny_arg(w, PLAN_W, 0, 0);
        tiny_arg(w, PLAN_INPUT, PLAN_ids, 0);
        tiny_arg(w, PLAN_BUF, 0, x);
        tiny_launch(w, 0, "embed", a, 3, PLAN_n_tok, 1);
        a = tiny_arg(w, PLAN_BUF, 0, x);
        tiny_arg(w, PLAN_INPUT, PLAN_pos, 0);
        tiny_arg(w, PLAN_INPUT, PLAN_seq, 0);
        tiny_arg(w, PLAN_K, 0, 0);
        tiny_arg(w, PLAN_V, 0, 0);
        tiny_launch(w, 1, "append", a, 5, PLAN_n_tok, 1);
        a = tiny_arg(w, PLAN_K, 0, 0);
        tiny_arg(w, PLAN_V, 0, 0);
        tiny_arg(w, PLAN_W, 1, 0);
        tiny_arg(w, PLAN_INPUT, PLAN_pos, 0);
        tiny_arg(w, PLAN_INPUT, PLAN_seq, 0);
        tiny_arg(w, PLAN_INPUT, PLAN_out, 0);
        tiny_arg(w, PLAN_BUF, 0, y);
        tiny_arg(w, PLAN_NULL, 0, 0);
        tiny_launch(w, 2, "logits", a, 8, PLAN_n_out, VOCAB);
}

static void tiny_code(PlanWriter *w)
{
        struct {
                u64 count;
                PlanImage image;
        } code = {1, {plan_add_str(w, "so"), PLAN_SO, sizeof code, tiny_so.len}};
        plan_add(w, PLAN_CODE, &code, sizeof code);
        plan_add(w, PLAN_CODE, tiny_so.p, tiny_so.len);
        static const char *const names[] = {"embed", "append", "logits"};
        for (u32 i = 0; i < 3; i++) {
                PlanKernel k = {
                        .name = plan_add_str(w, names[i]), .key = plan_add_str(w, names[i]), .threads = 1};
                k.source = plan_add(w, PLAN_SOURCE, names[i], strlen(names[i]));
                k.source_bytes = strlen(names[i]);
                plan_add(w, PLAN_KERNEL, &k, sizeof k);
        }
        PlanUtil util = {PLAN_random, 2};
        plan_add(w, PLAN_UTIL, &util, sizeof util);
}

/* The plan; target and isa may be anything. Also writes tiny_gguf. */
static Buf tiny_plan_for(const char *target, const char *isa)
{
        PlanWriter w = {0};
        Buf out = {0};
        Hash hash = tiny_write_gguf(tiny_gguf);
        PlanMeta m = {.arch = plan_add_str(&w, "tiny"),
                .name = plan_add_str(&w, "A tiny model"),
                .target = plan_add_str(&w, target),
                .isa = plan_add_str(&w, isa),
                .compiler = plan_add_str(&w, "a test"),
                .n_vocab = VOCAB,
                .n_ctx_train = 64,
                .n_embd = H,
                .model = hash,
                .arena_bytes = 4096};
        plan_add(&w, PLAN_META, &m, sizeof m);
        tiny_code(&w);
        tiny_phase(&w, "decode", 1, 1, 0, 256);
        tiny_phase(&w, "prefill", 8, 3, 64, 1024);
        PlanWeight a = tiny_weight(&w, "table", PLAN_rows, tiny_table_at),
                   b = tiny_weight(&w, "head", PLAN_panel, TINY_HEAD_AT);
        plan_add(&w, PLAN_WEIGHT, &a, sizeof a);
        plan_add(&w, PLAN_WEIGHT, &b, sizeof b);
        PlanState s = {plan_add_str(&w, "kv"), 1, H, H, D_f32, D_f32};
        plan_add(&w, PLAN_STATE, &s, sizeof s);
        PlanPart part = {.path = plan_add_str(&w, tiny_gguf),
                .bytes = FILE_BYTES,
                .header_bytes = HEADER,
                .hash = hash};
        plan_add(&w, PLAN_PART, &part, sizeof part);
        plan_finish(&w, &out);
        plan_writer_free(&w);
        return out;
}

#if defined __x86_64__
#define TINY_ISA "x86-64"
#else
#define TINY_ISA "generic"
#endif

static inline Buf tiny_plan(void)
{
        return tiny_plan_for("cpu", TINY_ISA);
}

#endif
