/* Writes the fuzzers' seeds: seeds FOLDER makes FOLDER/gguf, FOLDER/plan and FOLDER/token. Small files that
 * are right, and one for each kind of lie, so that a fuzzer starts behind every check. */
#include "runtime/plan.h"
#include "runtime/token.h"
#include "tests/hostile/gen.h"
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static const char *folder;

static void save(const char *kind, const char *name, Buf *b)
{
        char path[512];
        snprintf(path, sizeof path, "%s/%s/%s", folder, kind, name);
        moec_error e;
        if (file_write(path, b->p, b->len, 0644, &e) != MOEC_OK) {
                fprintf(stderr, "%s\n", e.msg);
                exit(1);
        }
        buf_free(b);
}

/* ---- gguf ---- */

static void right_files(void)
{
        Buf b = {0};
        g_valid(&b);
        save("gguf", "valid", &b);
        g_valid(&b);
        b.p[4] = 2;
        save("gguf", "version-2", &b);
        b.len = g_valid(&b);
        save("gguf", "shape", &b);
        g_head(&b, 0, 0);
        save("gguf", "empty", &b);
        g_head(&b, 2, 0);
        g_tensor(&b, "token_embd.weight", 32, 0, 0, 0);
        g_tensor(&b, "output.weight", 32, 0, 0, 0);
        g_pad(&b, 32), g_fill(&b, 128);
        save("gguf", "alias", &b);
        for (u32 i = 0; i < 2; i++) {
                if (i)
                        buf_str(&b, "MOECPART");
                Buf part = {0};
                g_head(&part, 1, 3);
                g_key(&part, "split.no", GGUF_u16), buf_add(&part, &(u16){(u16)i}, 2);
                g_key(&part, "split.count", GGUF_u16), buf_add(&part, &(u16){2}, 2);
                g_key(&part, "split.tensors.count", GGUF_i32), g_u32(&part, 2);
                g_tensor(&part, i ? "t" : "s", 8, 0, 0, 0);
                g_pad(&part, 32), g_fill(&part, 32);
                buf_add(&b, part.p, part.len);
                buf_free(&part);
        }
        save("gguf", "split", &b);
}

static void key_lies(void)
{
        Buf b = {0};
        g_head(&b, UINT64_MAX / 33, 0), g_fill(&b, 66);
        save("gguf", "tensor-count", &b);
        g_head(&b, 0, UINT64_MAX / 14), g_fill(&b, 28);
        save("gguf", "kv-count", &b);
        g_head(&b, 0, 1), g_u64(&b, UINT64_MAX), g_fill(&b, 40);
        save("gguf", "name-length", &b);
        g_head(&b, 0, 1), g_key(&b, "k", GGUF_string), g_u64(&b, UINT64_MAX), g_fill(&b, 40);
        save("gguf", "string-length", &b);
        g_head(&b, 0, 1), g_key_arr(&b, "k", GGUF_u64, (1ull << 61) + 1), g_fill(&b, 40);
        save("gguf", "array-length", &b);
        g_head(&b, 0, 1), g_key_arr(&b, "k", GGUF_string, 2), g_str(&b, "x"), g_u64(&b, 1ull << 32),
                g_fill(&b, 9);
        save("gguf", "array-strings", &b);
        g_head(&b, 0, 1), g_key_arr(&b, "k", GGUF_array, 1), g_u32(&b, GGUF_array), g_u64(&b, 1),
                g_fill(&b, 40);
        save("gguf", "nested", &b);
        g_head(&b, 0, 1), g_key(&b, "k", 13), g_fill(&b, 16);
        save("gguf", "value-type", &b);
        g_head(&b, 0, 1), g_key_arr(&b, "k", GGUF_bool, 2), g_u8(&b, 1), g_u8(&b, 2);
        save("gguf", "bool", &b);
        g_head(&b, 0, 2), g_key_u32(&b, "a", 1), g_key_u32(&b, "a", 2);
        save("gguf", "duplicate-key", &b);
        g_head(&b, 1, 1), g_key_u32(&b, "general.alignment", 0x80000000), g_tensor(&b, "t", 8, 0, 0, 0),
                g_fill(&b, 64);
        save("gguf", "alignment", &b);
        g_head(&b, 0, 1), g_key(&b, "general.architecture", GGUF_string), g_strn(&b, "a\0\xff", 3);
        save("gguf", "not-text", &b);
}

static void tensor_lies(void)
{
        static const struct {
                const char *name;
                u64 ne0, ne1, offset;
                u32 type;
                size_t data;
        } row[] = {{"dims-wrap", (1ull << 42) + 1, (1ull << 42) + 1, 0, 0, 64},
                {"bytes-wrap", 1ull << 62, 0, 0, 0, 64}, {"dim-zero", 0, 0, 0, 0, 64},
                {"part-block", 31, 2, 0, 2, 64}, {"unknown-type", 8, 0, 0, 4711, 64},
                {"removed-type", 8, 0, 0, 4, 64}, {"offset-wrap", 8, 0, UINT64_MAX - 31, 0, 64},
                {"unaligned", 8, 0, 1, 0, 64}, {"past-the-end", 1 << 20, 0, 0, 1, 64},
                {"cut-short", 64, 0, 0, 0, 255}};
        for (size_t i = 0; i < COUNT(row); i++) {
                Buf b = {0};
                g_head(&b, 1, 0);
                g_tensor(&b, "t", row[i].ne0, row[i].ne1, row[i].type, row[i].offset);
                g_pad(&b, 32), g_fill(&b, row[i].data);
                save("gguf", row[i].name, &b);
        }
        Buf b = {0};
        g_head(&b, 2, 0), g_tensor(&b, "s", 64, 0, 0, 0), g_tensor(&b, "t", 64, 0, 0, 32), g_pad(&b, 32),
                g_fill(&b, 288);
        save("gguf", "overlap", &b);
        g_head(&b, 2, 0), g_tensor(&b, "t", 8, 0, 0, 0), g_tensor(&b, "t", 8, 0, 0, 32), g_pad(&b, 32),
                g_fill(&b, 64);
        save("gguf", "duplicate-tensor", &b);
}

/* ---- token, plan ---- */

/* A vocabulary of all bytes and a few merges. */
static void *make_token(size_t *size)
{
        static char name[256 + 8][8];
        static TokenText token[256 + 8];
        u32 n = 0, spare = 256;
        for (u32 c = 0; c < 256; c++, n++) { /* bytes that do not print stand for themselves from U+0100 on */
                bool prints = (c > 32 && c < 127) || (c > 160 && c != 173);
                u32 u = prints ? c : spare++;
                size_t len = u < 128 ? 1 : 2;
                name[n][0] = (char)(len == 1 ? u : 0xc0 | u >> 6);
                name[n][1] = (char)(0x80 | (u & 63));
                token[n] = (TokenText){name[n], len};
        }
        static const char *const more[] = {"he", "the", "on", "<|end|>"};
        i32 type[256 + 8];
        for (u32 i = 0; i < COUNT(more); i++, n++)
                token[n] = (TokenText){more[i], strlen(more[i])};
        for (u32 i = 0; i < n; i++)
                type[i] = i + 1 == n ? TOKEN_CONTROL : TOKEN_NORMAL;
        static const TokenText merge[] = {{"h e", 3}, {"t he", 4}, {"o n", 3}};
        TokenSource s = {.model = {"gpt2", 4},
                .pre = {"qwen2", 5},
                .token = token,
                .n_token = n,
                .type = type,
                .n_type = n,
                .merge = merge,
                .n_merge = COUNT(merge),
                .bos = -1,
                .eos = n - 1,
                .eot = -1,
                .eom = -1,
                .add_bos = 0};
        void *blob;
        moec_error e;
        if (token_build(&s, &blob, size, &e) != MOEC_OK) {
                fprintf(stderr, "%s\n", e.msg);
                exit(1);
        }
        return blob;
}

static void fill_plan(PlanWriter *w, bool embed)
{
        PlanMeta m = {.arch = plan_add_str(w, "qwen3moe"),
                .target = plan_add_str(w, "cpu"),
                .n_vocab = 8,
                .arena_bytes = 256,
                .n_layer = 1};
        plan_add(w, PLAN_META, &m, sizeof m);
        PlanImage image = {plan_add_str(w, "so"), PLAN_SO, sizeof(u64) + sizeof image, 4};
        plan_add(w, PLAN_CODE, &(u64){1}, sizeof(u64));
        plan_add(w, PLAN_CODE, &image, sizeof image);
        plan_add(w, PLAN_CODE, "ELF", 4);
        PlanKernel k = {.name = plan_add_str(w, "embed"),
                .key = plan_add_str(w, "embed 8"),
                .threads = 1,
                .source_bytes = 5};
        plan_add(w, PLAN_SOURCE, "int x", 5);
        plan_add(w, PLAN_KERNEL, &k, sizeof k);
        PlanArg arg[] = {{PLAN_BUF, 0, 64}, {PLAN_INPUT, PLAN_ids, 0}, {PLAN_W, 0, 0}, {PLAN_K, 0, 0},
                {PLAN_V, 0, 0}, {PLAN_NULL, 0, 0}};
        for (size_t i = 0; i < COUNT(arg); i++)
                plan_add(w, PLAN_ARG, &arg[i], sizeof arg[i]);
        PlanLaunch l = {.label = plan_add_str(w, "embed"),
                .n_arg = COUNT(arg),
                .dim = {PLAN_n_tok, 0, 0},
                .mul = {1, 1, 1},
                .div = {1, 1, 1}};
        plan_add(w, PLAN_LAUNCH, &l, sizeof l);
        PlanPhase f = {.name = plan_add_str(w, "decode"),
                .max_tok = 1,
                .n_launch = 1,
                .arena_bytes = 256,
                .max_out = 1,
                .max_seq_tok = 1};
        plan_add(w, PLAN_PHASE, &f, sizeof f);
        PlanWeight wt = {.name = plan_add_str(w, "token_embd.weight"),
                .type = W_Q8_0,
                .layout = embed ? PLAN_panel : PLAN_rows,
                .rank = 2,
                .dim = {8, 32, 1, 1},
                .src_bytes = 8 * 34,
                .dst_bytes = 8 * 34,
                .src = 128,
                .embedded = embed ? 0 : UINT64_MAX};
        plan_add(w, PLAN_WEIGHT, &wt, sizeof wt);
        PlanState s = {.name = plan_add_str(w, "kv.0"),
                .heads = 1,
                .dk = 4,
                .dv = 4,
                .ktype = D_f16,
                .vtype = D_f16};
        plan_add(w, PLAN_STATE, &s, sizeof s);
        PlanPart part = {.path = plan_add_str(w, "/m.gguf"), .bytes = 4096, .header_bytes = 100};
        plan_add(w, PLAN_PART, &part, sizeof part);
}

static void plans(void)
{
        size_t size;
        void *blob = make_token(&size);
        Buf b = {0};
        buf_add(&b, blob, size);
        save("token", "bytes", &b);
        for (int i = 0; i < 3; i++) {
                PlanWriter w = {0};
                fill_plan(&w, i == 1);
                if (i == 2)
                        plan_add(&w, PLAN_TOKEN, blob, size);
                plan_finish(&w, &b);
                if (i == 1) {
                        plan_embed(&b, 8 * 34, (Hash){0});
                        g_fill(&b, 8 * 34);
                }
                plan_writer_free(&w);
                save("plan", i == 0 ? "plain" : i == 1 ? "embedded" : "token", &b);
        }
        free(blob);
}

static void make_folder(const char *kind)
{
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, kind);
        if (mkdir(path, 0755) != 0 && errno != EEXIST) {
                perror(path);
                exit(1);
        }
}

int main(int argc, char **argv)
{
        if (argc != 2) {
                fprintf(stderr, "Usage: seeds FOLDER\n");
                return 2;
        }
        folder = argv[1];
        make_folder("gguf");
        make_folder("plan");
        make_folder("token");
        right_files();
        key_lies();
        tensor_lies();
        plans();
        return 0;
}
