/* What `inspect` says: the text as a whole, JSON that any reader takes, hostile strings, files that are not
 * supported. Run from the root of the repository. */
#include "tests/unit/model_help.h"
#include "frontend/inspect.h"

static Opening o;
static Buf out;

static int teardown(void **state)
{
        (void)state;
        if (o.a)
                shut_model(&o);
        buf_free(&out);
        o = (Opening){0};
        out = (Buf){0};
        return 0;
}

static void look(bool json, u64 n_ctx)
{
        Trap t;
        assert_int_equal(o.error.status, MOEC_OK);
        if (TRAP(&t) != 0)
                fail_msg("%s", t.error.msg);
        out.len = 0;
        inspect(&o.m, json, n_ctx, &out);
        trap_pop(&t);
}

static void look_tiny(const Tiny *tiny, bool json)
{
        open_tiny(&o, tiny, NULL);
        look(json, 0);
}

static void has(const char *what)
{
        if (!strstr(out.p, what))
                fail_msg("no `%s` in\n%s", what, out.p);
}

static void lacks(const char *what)
{
        if (strstr(out.p, what))
                fail_msg("`%s` in\n%s", what, out.p);
}

/* ---- a reader of JSON: true if [*p is one value, *p behind it ---- */

static bool json_value(const char **p);

static void json_space(const char **p)
{
        *p += strspn(*p, " \n");
}

static bool json_string(const char **p)
{
        const char *start = *p;
        if (**p != '"')
                return false;
        for (++*p; **p != '"'; ++*p) {
                if ((u8) * *p < 0x20 || (u8) * *p == 0x7f)
                        return false;
                if (**p == '\\') {
                        ++*p;
                        if (**p == 'u' && strspn(*p + 1, "0123456789abcdef") < 4)
                                return false;
                        if (!strchr("\"\\/bfnrtu", **p))
                                return false;
                }
        }
        ++*p;
        return utf8_valid(start, (size_t)(*p - start));
}

static bool json_members(const char **p, char close, bool keys)
{
        ++*p;
        json_space(p);
        if (**p == close)
                return ++*p, true;
        for (;;) {
                json_space(p);
                if (keys) {
                        if (!json_string(p) || *(*p)++ != ':')
                                return false;
                        json_space(p);
                }
                if (!json_value(p))
                        return false;
                json_space(p);
                if (**p == close)
                        return ++*p, true;
                if (*(*p)++ != ',')
                        return false;
        }
}

static bool json_value(const char **p)
{
        static const char *const word[] = {"true", "false", "null"};
        for (size_t i = 0; i < COUNT(word); i++)
                if (strncmp(*p, word[i], strlen(word[i])) == 0)
                        return *p += strlen(word[i]), true;
        if (**p == '{')
                return json_members(p, '}', true);
        if (**p == '[')
                return json_members(p, ']', false);
        if (**p == '"')
                return json_string(p);
        const char *end = *p + (**p == '-');
        size_t digits = strspn(end, "0123456789");
        end += strspn(end, "0123456789.e+-");
        *p = end;
        return digits > 0;
}

static void is_json(void)
{
        const char *p = out.p;
        if (!json_value(&p) || strcmp(p, "\n") != 0)
                fail_msg("no JSON from `%.60s` in\n%s", p, out.p);
}

/* ---- text ---- */

static const char *const tiny_text =
        "architecture  qwen3moe: Qwen3 mixture of experts\n"
        "parameters    137 K, of which a token uses 56.8 K\n"
        "weights       534 KiB, 32.00 bits a parameter, of which a token reads 222 KiB\n"
        "supported     yes\n"
        "\n"
        "hyperparameters\n"
        "  block_count                       2\n"
        "  context_length                    128\n"
        "  embedding_length                  64\n"
        "  feed_forward_length               32\n"
        "  expert_feed_forward_length        32\n"
        "  expert_count                      8\n"
        "  expert_used_count                 2\n"
        "  attention.head_count              4\n"
        "  attention.head_count_kv           2\n"
        "  attention.layer_norm_rms_epsilon  1e-05\n"
        "\n"
        "tensors by role    tensors  parameters       bytes  a token reads  types\n"
        "  experts                6      98.3 K     384 KiB       96.0 KiB  F32\n"
        "  attention              8      24.6 K    96.0 KiB       96.0 KiB  F32\n"
        "  output                 1      6.14 K    24.0 KiB       24.0 KiB  F32\n"
        "  token embedding        1      6.14 K    24.0 KiB          256 B  F32\n"
        "  router                 2      1.02 K    4.00 KiB       4.00 KiB  F32\n"
        "  norms                  9         384    1.50 KiB       1.50 KiB  F32\n"
        "  all                   27       137 K     534 KiB        222 KiB\n"
        "\n"
        "tensors by type    tensors  parameters       bytes  a token reads\n"
        "  F32                   27       137 K     534 KiB        222 KiB\n"
        "\n"
        "experts\n"
        "  in a layer    8, of which a token uses 2\n"
        "  one           6.14 K parameters, 24.0 KiB\n"
        "\n"
        "memory at context 128\n"
        "  weights          534 KiB\n"
        "  KV cache        32.0 KiB  f16, 256 B a position\n"
        "  scratch          512 KiB  estimate, for 512 tokens a step\n"
        "  total           1.05 MiB\n"
        "\n"
        "tokenizer\n"
        "  none: only token ids in and out\n";

static void test_text(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe"}, false);
        const char *from = strstr(out.p, "architecture  ");
        assert_non_null(from);
        assert_string_equal(from, tiny_text);
}

static void test_demo(void **state)
{
        (void)state;
        open_model(&o, "examples/fables.gguf", NULL);
        look(false, 0);
        has("model         Fables 16M\nfile          examples/fables.gguf: GGUF version 3, 9.57 MiB\n");
        has("  rope.freq_base                    1000000\n");
        has("  one           197 K parameters, 108 KiB to 124 KiB\n");
        has("  gpt2, pre-tokenizer qwen2, 4,096 tokens, 3,837 merges, BOS 4093, EOS 4093\n");
        has("memory at context 2,048\n");
        look(false, 1000);
        has("memory at context 1,000\n");
        has("  KV cache        1.95 MiB  f16, 2.00 KiB a position; q8_0: 1.22 MiB\n");
        look(true, 0);
        is_json();
        has("\"kv\": 4194304,");
        has("\"kv_q8_0\": 2621440,");
        has("\"bytes_per_token\": 3595920,");
        has("\"bos\": 4093,");
        has("\"attention.layer_norm_rms_epsilon\": 1e-06,");
        has("{\"name\": \"blk.0.ffn_up_exps.weight\", \"type\": \"Q4_K\", \"shape\": [16, 256, 256], "
            "\"bytes\": 589824, "
            "\"role\": \"experts\"}");
        has("\"tokenizer.ggml.tokens\": {\"array_of\": \"string\", \"length\": 4096}");
}

static void test_shape(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe", .shape = true}, false);
        has(", a shape file: no weights\n");
        has("supported     yes\n");
        look(true, 0);
        is_json();
        has("\"shape_file\": true,");
}

/* ---- what is not supported ---- */

static void test_unknown_architecture(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "rwkv9"}, false);
        has("architecture  rwkv9\n");
        has("supported     no\n  because     /tmp/");
        has(": architecture rwkv9 is not supported; these are: qwen3moe\n");
        has("  expert_used_count                 2\n");
        has("  experts                6      98.3 K     384 KiB  F32\n");
        has("  in a layer    8, of which a token uses 2\n");
        lacks("reads");
        lacks("KV cache");
        look(true, 0);
        is_json();
        has("\"supported\": false,\n  \"problems\": [\n    \"/tmp/");
        lacks("per_token");
}

static void test_missing_key(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe", .drop = "expert_count"}, false);
        has("supported     no\n");
        has(": key qwen3moe.expert_count is missing (at arch/qwen3moe.lua:");
}

static void test_unknown_type(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe", .type_of = "blk.1.attn_q.weight", .type_id = 24, .shape = true},
                false);
        has("supported     no\n");
        has("blk.1.attn_q.weight");
        has("1 tensor is of type I8 (number 24), which is not supported; the first is "
            "blk.1.attn_q.weight\n");
        look(true, 0);
        is_json();
}

static void test_tokenizer(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "tokenizer.ggml.model", .more_text = "t5\x1b[2J"},
                false);
        has("supported     yes\n  but         no text in or out: ");
        has("tokenizer\n  t5\\u{1b}[2J, 0 tokens");
        lacks("\x1b");
        look(true, 0);
        is_json();
        has("\"model\": \"t5\\u001b[2J\"");
}

/* ---- hostile text ---- */

static void test_hostile(void **state)
{
        (void)state;
        static const struct {
                const char *name, *shown;
        } row[] = {
                {"a\x1b]0;x\x07\r\nb", "a\\u{1b}]0;x\\u{7}\\u{d}\\u{a}b\n"},
                {"\xc2\x9b\x7f", "\\u{9b}\\u{7f}\n"},
                {"\xe2\x80\xae"
                 "abc\xef\xbb\xbf",
                        "\\u{202e}abc\\u{feff}\n"},
                {"\xe6\xbc\xa2\xf0\x9f\xa6\x8a", "\xe6\xbc\xa2\xf0\x9f\xa6\x8a\n"},
                {"\"},{\"\\", "\"},{\"\\\n"},
        };
        for (size_t i = 0; i < COUNT(row); i++) {
                look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "general.name", .more_text = row[i].name},
                        false);
                has(row[i].shown);
                look(true, 0);
                is_json();
                teardown(NULL);
        }
        /* not UTF-8: no name, and shown byte by byte where it is a hyperparameter */
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "general.name", .more_text = "\xff\xfe"}, false);
        has("model         (no name)\n");
        teardown(NULL);
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.x", .more_text = "\xff\xc3("}, false);
        has("  x                                 \\xff\\xc3(\n");
        look(true, 0);
        is_json();
        teardown(NULL);
        look_tiny(&(Tiny){.arch = "qwen3moe",
                          .more_key = "qwen3moe.rope.scaling.type",
                          .more_text = "\x1b[31m"},
                false);
        lacks("\x1b");
        has("rope.scaling.type is \"?[31m\"");
}

static void test_long(void **state)
{
        (void)state;
        char *name = malloc(6001);
        memset(name, 'x', 6000);
        name[6000] = 0;
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "general.name", .more_text = name}, false);
        free(name);
        has("xxx...\nfile ");
        look(true, 0);
        is_json();
        has("\"general.name\": {\"string_of\": 6000}");
}

/* JSON has no nan. */
static void test_nan(void **state)
{
        (void)state;
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.y", .more_bits = 0x7fc00000}, true);
        is_json();
        has("\"y\": null");
        look(false, 0);
        has("  y                                 nan\n");
        teardown(NULL);
        look_tiny(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.y", .more_bits = 0x3dcccccd}, true);
        is_json();
        has("\"y\": 0.1");
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, teardown)
        const struct CMUnitTest tests[] = {T(test_text), T(test_demo), T(test_shape),
                T(test_unknown_architecture), T(test_missing_key), T(test_unknown_type), T(test_tokenizer),
                T(test_hostile), T(test_long), T(test_nan)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
