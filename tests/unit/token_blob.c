/* Vocabularies and blobs that contradict themselves: refused, naming what is wrong, and never believed. */
#include "tests/unit/token_help.h"

static void refused(const Vocab *v, moec_status st, const char *says)
{
        void *blob = NULL;
        size_t size = 0;
        moec_error e = {0};
        moec_status got = token_build(&v->s, &blob, &size, &e);
        if (got != st || !strstr(e.msg, says))
                fail_msg("gave %d: %s\n not %d: %s", got, e.msg, st, says);
        assert_null(blob);
}

static Vocab *sound(void)
{
        Vocab *v = vocab_new("qwen2");
        vocab_token(v, "ab", TOKEN_NORMAL);
        vocab_token(v, "abc", TOKEN_NORMAL);
        vocab_merge(v, "a b");
        vocab_merge(v, "ab c");
        vocab_token(v, "<|end|>", TOKEN_CONTROL);
        vocab_token(v, "<|e", TOKEN_USER);
        vocab_token(v, "[PAD]", TOKEN_UNUSED);
        return v;
}

static void kinds(void **state)
{
        (void)state;
        static const struct {
                const char *model, *pre, *says;
        } bad[] = {{"llama", "qwen2", "tokenizer.ggml.model is \"llama\"; supported: gpt2"},
                {"", "qwen2", "tokenizer.ggml.model is \"\""}, {"gpt22", "qwen2", "\"gpt22\""},
                {"gpt2", "", "tokenizer.ggml.pre is missing"},
                {"gpt2", "qwen",
                        "tokenizer.ggml.pre is \"qwen\"; supported: qwen2 qwen35 llama-bpe dbrx gpt-4o"},
                {"gpt2", "qwen2 qwen35", "\"qwen2 qwen35\""}, {"gpt2", "qwen2 ", "\"qwen2 \""},
                {"gpt2", " ", "\" \""}, {"gpt2", "\x1b[31m\"", "\"\\x1b[31m"},
                {"gpt2",
                        "a name longer than any buffer that a message of this kind could sensibly have in it",
                        "a name longer than any"}};
        for (size_t i = 0; i < COUNT(bad); i++) {
                Vocab *v = sound();
                v->s.model = (TokenText){bad[i].model, strlen(bad[i].model)};
                v->s.pre = (TokenText){bad[i].pre, strlen(bad[i].pre)};
                refused(v, MOEC_UNSUPPORTED, bad[i].says);
                free(v);
        }
        /* Every name that messages promise, and every other one, opens. */
        static const char *const names[] = {"qwen2", "llama-bpe", "llama3", "gpt-4o", "deepseek-llm",
                "deepseek-v3", "olmo", "dbrx", "gpt-2", "glm4", "tekken", "refact", "bailingmoe2",
                "hunyuan-dense", "qwen35"};
        for (size_t i = 0; i < COUNT(names); i++) {
                Vocab *v = sound();
                v->s.pre = (TokenText){names[i], strlen(names[i])};
                Tok k = tok_of(v);
                tok_free(&k);
                free(v);
        }
}

static void counts_and_ids(void **state)
{
        (void)state;
        Vocab *v = sound();
        v->s.n_token = 0;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.tokens has 0 entries");
        v->s.n_token = 1ull << 40; /* must be refused before it is believed */
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.tokens has 1099511627776 entries");
        v->s.n_token = 261;
        v->s.n_type = 260;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.token_type has 260 entries, tokenizer.ggml.tokens 261");
        v->s.n_type = 261;
        v->s.n_merge = 1ull << 40;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.merges has 1099511627776 entries");
        v->s.n_merge = 2;
        v->type[7] = N_TOKEN_TYPE;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.token_type[7] is 7");
        v->type[7] = -1;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.token_type[7] is -1");
        v->type[7] = TOKEN_NORMAL;
        i64 *const id[] = {&v->s.bos, &v->s.eos, &v->s.eot, &v->s.eom};
        static const char *const key[] = {"bos", "eos", "eot", "eom"};
        for (int i = 0; i < 4; i++) {
                char says[64];
                snprintf(says, sizeof says, "tokenizer.ggml.%s_token_id is 261", key[i]);
                *id[i] = 261;
                refused(v, MOEC_DAMAGED, says);
                *id[i] = UINT32_MAX;
                refused(v, MOEC_DAMAGED, "_token_id is 4294967295");
                *id[i] = -2;
                refused(v, MOEC_DAMAGED, "_token_id is -2");
                *id[i] = 260;
                Tok k = tok_of(v);
                tok_free(&k);
                *id[i] = -1;
        }
        v->s.add_bos = 1;
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.bos_token_id is missing");
        v->s.add_bos = -1;
        v->s.type = NULL; /* the file has none: all normal */
        Tok k = tok_of(v);
        tok_free(&k);
        free(v);
}

static void tokens(void **state)
{
        (void)state;
        Vocab *v = sound();
        vocab_token(v, "ab", TOKEN_CONTROL);
        refused(v, MOEC_DAMAGED, "tokenizer.ggml.tokens: 256 and 261 are both \"ab\"");
        free(v);
        static const char *const bytes[] = {
                "<0x-1>", "<0x0>", "<0x000>", "<0xff>", "<0xFG>", "0xFF", "", "<0XFF>", "<0x00>x"};
        for (size_t i = 0; i < COUNT(bytes); i++) {
                v = sound();
                vocab_token(v, bytes[i], TOKEN_BYTE);
                refused(v, MOEC_DAMAGED, "tokenizer.ggml.tokens[261]");
                free(v);
        }
        v = sound();
        v->type['A'] = TOKEN_CONTROL;
        refused(v, MOEC_DAMAGED, "none stands for byte 0x41");
        vocab_token(v, "<0x41>", TOKEN_BYTE); /* this does */
        Tok k = tok_of(v);
        int n;
        i32 *ids = encode(k.t, "A", 1, false, false, &n);
        assert_int_equal(n, 1);
        assert_int_equal(ids[0], 261);
        free(ids);
        tok_free(&k);
        char big[MAX_SPECIAL + 1];
        memset(big, '<', sizeof big);
        vocab_token_n(v, big, sizeof big - 1, TOKEN_CONTROL);
        k = tok_of(v);
        tok_free(&k);
        vocab_token_n(v, big, sizeof big, TOKEN_CONTROL);
        refused(v, MOEC_DAMAGED, "a special token of 513 bytes");
        free(v);
}

static void merges(void **state)
{
        (void)state;
        static const struct {
                const char *merge, *says;
        } bad[] = {{"", "is not two tokens"}, {"ab", "is not two tokens"}, {" ab", "is not two tokens"},
                {"ab ", "is not two tokens"}, {"a b c", "is not two tokens"}, {"a  b", "is not two tokens"},
                {" ", "is not two tokens"}, {"zz a", "the left part is not in the vocabulary"},
                {"a zz", "the right part is not in the vocabulary"},
                {"a c", "the result is not in the vocabulary"}};
        for (size_t i = 0; i < COUNT(bad); i++) {
                Vocab *v = sound();
                vocab_merge(v, bad[i].merge);
                refused(v, MOEC_DAMAGED, "tokenizer.ggml.merges[2]");
                refused(v, MOEC_DAMAGED, bad[i].says);
                free(v);
        }
        Vocab *v = sound();
        char big[2000];
        memset(big, 'a', sizeof big);
        big[1000] = ' ';
        big[sizeof big - 1] = 0;
        vocab_merge(v, big);
        refused(v, MOEC_DAMAGED, "the left part");
        free(v);
}

/* ---- blobs ---- */

/* Opens it if it can be opened, and then uses everything: sanitizers tell whether anything was believed
 * wrongly. */
static bool survives(const void *blob, size_t size)
{
        static const char text[] = "abc<|end|> <|e abcabc \xff \xe4\xb8\xad "
                                   "123abababababababababababababababababababababababcccccc";
        Token *t;
        moec_error e;
        moec_status st = token_open(blob, size, &t, &e);
        if (st) {
                assert_true(st == MOEC_DAMAGED || st == MOEC_UNSUPPORTED);
                return false;
        }
        int n;
        i32 *ids = encode(t, text, sizeof text - 1, true, true, &n);
        for (int i = 0; i < n; i++) {
                const char *p;
                size_t len;
                assert_int_equal(token_piece(t, ids[i], true, &p, &len, &e), MOEC_OK);
                for (size_t k = 0; k < len; k++)
                        assert_int_equal(p[k], ((volatile const char *)p)[k]);
                (void)token_is_end(t, ids[i]);
        }
        free(ids);
        token_close(t);
        return true;
}

static void damaged_blobs(void **state)
{
        (void)state;
        static const char *const pre[] = {"qwen2", "llama-bpe"}; /* without and with a table of words */
        for (int which = 0; which < 2; which++) {
                Vocab *v = sound();
                v->s.pre = (TokenText){pre[which], strlen(pre[which])};
                v->s.bos = 258;
                Tok k = tok_of(v);
                char *copy = malloc(k.size + 64);
                assert_non_null(copy);
                memcpy(copy, k.blob, k.size);
                assert_true(survives(copy, k.size));
                for (size_t n = 0; n < k.size; n += n < sizeof(TokenHead) + 64 ? 1 : 7)
                        assert_false(survives(copy, n));
                memset(copy + k.size, 0, 64);
                assert_false(survives(copy, k.size + 8));
                moec_error e;
                Token *t;
                memmove(copy + 4, copy, k.size);
                assert_int_equal(token_open(copy + 4, k.size, &t, &e), MOEC_USAGE);
                assert_int_equal(token_open(NULL, 0, &t, &e), MOEC_USAGE);
                u32 opened = 0;
                rng_state = 3;
                for (u32 round = 0; round < 30000; round++) {
                        static const u32 odd[] = {
                                0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 256, 261, 0x100};
                        memcpy(copy, k.blob, k.size);
                        u32 changes = 1 + rng() % 3;
                        for (u32 i = 0; i < changes; i++) {
                                size_t room = rng() % 2 ? sizeof(TokenHead) : k.size;
                                if (rng() % 2)
                                        copy[rng() % room] = (char)rng();
                                else
                                        memcpy(copy + rng() % (room / 4) * 4, &odd[rng() % COUNT(odd)], 4);
                        }
                        opened += survives(copy, k.size);
                }
                assert_in_range(opened, 1000,
                        29000); /* some damage shows only in the results: the plan's checksum is for that */
                free(copy);
                tok_free(&k);
                free(v);
        }
}

static void same_bytes(void **state)
{
        (void)state;
        Vocab *v = sound();
        Tok a = tok_of(v), b = tok_of(v);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.blob, b.blob, a.size);
        tok_free(&a);
        tok_free(&b);
        free(v);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(kinds),
                cmocka_unit_test(counts_and_ids),
                cmocka_unit_test(tokens),
                cmocka_unit_test(merges),
                cmocka_unit_test(damaged_blobs),
                cmocka_unit_test(same_bytes),
        };
        return cmocka_run_group_tests_name("token_blob", tests, NULL, NULL);
}
