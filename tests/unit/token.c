/* Encoding and decoding: known texts, known cuts, merging against a plain reference, special tokens, and
 * texts made to be slow or impossible. Run from the root of the repository. */
#include "frontend/model.h"
#include "tests/unit/token_help.h"

static Tok fables;

static int open_fables(void **state)
{
        (void)state;
        Arena *a = arena_new();
        Model m = {0};
        Buf b = {0};
        Trap t;
        if (TRAP(&t) == 0) {
                model_open(&m, a, "examples/fables.gguf", NULL);
                assert_true(model_token(&m, &b));
                trap_pop(&t);
        } else {
                fail_msg("%s", t.error.msg);
        }
        model_close(&m);
        arena_free(a);
        moec_error e;
        fables.blob = b.p;
        if (token_open(b.p, b.len, &fables.t, &e))
                fail_msg("%s", e.msg);
        return 0;
}

static int close_fables(void **state)
{
        (void)state;
        tok_free(&fables);
        return 0;
}

/* ---- fixtures: words separated by blanks, the text in hexadecimal ---- */

typedef struct Case {
        char name[32];
        char *text;
        size_t len;
        i32 *n;
        int count;
} Case;

static size_t unhex(const char *s, char *out)
{
        size_t n = 0;
        for (; s[0] && s[0] != '-'; s += 2) {
                unsigned c;
                assert_int_equal(sscanf(s, "%2x", &c), 1);
                out[n++] = (char)c;
        }
        return n;
}

static bool next_case(FILE *f, bool named, Case *c)
{
        static char line[1 << 16], text[1 << 15];
        static i32 n[1 << 14];
        do
                if (!fgets(line, sizeof line, f))
                        return false;
        while (line[0] == '#');
        assert_non_null(strchr(line, '\n'));
        *c = (Case){.text = text, .n = n};
        char *save, *w = strtok_r(line, " \n", &save);
        if (named) {
                snprintf(c->name, sizeof c->name, "%s", w);
                w = strtok_r(NULL, " \n", &save);
        }
        c->len = unhex(w, text);
        while ((w = strtok_r(NULL, " \n", &save)))
                n[c->count++] = atoi(w);
        return true;
}

static void known_texts(void **state)
{
        (void)state;
        FILE *f = fopen("tests/token/cases.txt", "r");
        assert_non_null(f);
        Case c;
        u32 cases = 0;
        for (; next_case(f, false, &c); cases++) {
                int n;
                i32 *ids = encode(fables.t, c.text, c.len, false, true, &n);
                if (n != c.count || memcmp(ids, c.n, (size_t)n * sizeof *ids) != 0)
                        fail_msg("case %u, \"%.*s\": %d tokens, not the %d expected", cases, (int)c.len,
                                c.text, n, c.count);
                assert_true(decodes_to(fables.t, ids, n, c.text, c.len));
                free(ids);
        }
        fclose(f);
        assert_int_equal(cases, 40);
}

typedef struct Cuts {
        const Case *c;
        int n;
        size_t at;
} Cuts;

static bool check_cut(void *user, const char *p, size_t n)
{
        Cuts *k = user;
        if (k->n >= k->c->count || (size_t)k->c->n[k->n] != n || p != k->c->text + k->at)
                fail_msg("%s, \"%.*s\": piece %d is \"%.*s\"", k->c->name, (int)k->c->len, k->c->text, k->n,
                        (int)n, p);
        k->n++;
        k->at += n;
        return true;
}

static void known_cuts(void **state)
{
        (void)state;
        FILE *f = fopen("tests/token/split.txt", "r");
        assert_non_null(f);
        Case c;
        u32 cases = 0;
        for (; next_case(f, true, &c); cases++) {
                const Pre *pre = pre_find(c.name, strlen(c.name));
                assert_non_null(pre);
                Split *s;
                assert_int_equal(split_new(pre, &s, NULL), MOEC_OK);
                SplitScratch *x = split_scratch(s);
                assert_non_null(x);
                Cuts k = {.c = &c};
                assert_true(split_text(s, x, c.text, c.len, check_cut, &k));
                assert_int_equal(k.n, c.count);
                split_scratch_free(x);
                split_free(s);
        }
        fclose(f);
        assert_int_equal(cases, 348);
}

/* ---- there and back ---- */

static void random_texts(void **state)
{
        (void)state;
        char list[256], *save;
        pre_list(list, sizeof list);
        rng_state = 5;
        u32 names = 0;
        for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save), names++) {
                Vocab *v = vocab_new(w);
                vocab_token(v, "th", TOKEN_NORMAL);
                vocab_merge(v, "t h");
                vocab_token(v, "<|x|>", TOKEN_CONTROL);
                vocab_token(v, "\xe4\xb8\xad", TOKEN_USER);
                Tok k = tok_of(v);
                static char text[5000];
                for (u32 i = 0; i < 60; i++) {
                        size_t n = random_unicode(text, rng() % 4000);
                        there_and_back(k.t, text, n, i % 2);
                        if (!names)
                                there_and_back(fables.t, text, n, i % 2);
                        for (size_t j = 0; j < n; j++) /* mostly not UTF-8 any more */
                                if (i % 3 == 0 || rng() % 50 == 0)
                                        text[j] = (char)rng();
                        there_and_back(k.t, text, n, i % 2);
                        if (!names)
                                there_and_back(fables.t, text, n, i % 2);
                }
                tok_free(&k);
                free(v);
        }
        assert_int_equal(names, 12);
}

static void invalid_bytes_stand_alone(void **state)
{
        (void)state;
        Vocab *v = vocab_new("qwen2");
        vocab_token(v, "\xc3\xbf\xc3\xbf", TOKEN_NORMAL); /* two bytes 0xff: would merge, were they text */
        vocab_merge(v, "\xc3\xbf \xc3\xbf");
        Tok k = tok_of(v);
        int n;
        i32 *ids = encode(k.t, "a\xff\xff\xe2\x82", 5, false, true, &n);
        static const i32 want[] = {'a', 0xff, 0xff, 0xe2, 0x82};
        assert_int_equal(n, 5);
        assert_memory_equal(ids, want, sizeof want);
        free(ids);
        tok_free(&k);
        /* Bytes that UTF-8 never has may be missing: then they become U+FFFD. */
        v->type[0xff] = v->type[256] = TOKEN_UNUSED;
        v->s.n_merge = 0;
        k = tok_of(v);
        ids = encode(k.t, "\xff", 1, false, true, &n);
        assert_int_equal(n, 3);
        assert_true(decodes_to(k.t, ids, n, "\xef\xbf\xbd", 3));
        free(ids);
        tok_free(&k);
        free(v);
}

/* ---- merging ---- */

/* The definition: of all neighbours that merge the pair of the lowest rank, of several the leftmost. */
static int merge_plainly(const Vocab *v, i32 *id, int n)
{
        for (;;) {
                u64 best = v->s.n_merge;
                int at = -1;
                i32 result = -1;
                for (int i = 0; i + 1 < n; i++) {
                        TokenText a = v->token[id[i]], b = v->token[id[i + 1]];
                        for (u64 m = 0; m < best; m++) {
                                TokenText t = v->merge[m];
                                if (t.n != a.n + b.n + 1 || memcmp(t.p, a.p, a.n) != 0 || t.p[a.n] != ' ' ||
                                        memcmp(t.p + a.n + 1, b.p, b.n) != 0)
                                        continue;
                                best = m;
                                at = i;
                        }
                }
                if (at < 0)
                        return n;
                TokenText a = v->token[id[at]], b = v->token[id[at + 1]];
                for (u64 i = 0; i < v->s.n_token; i++)
                        if (v->token[i].n == a.n + b.n && memcmp(v->token[i].p, a.p, a.n) == 0 &&
                                memcmp(v->token[i].p + a.n, b.p, b.n) == 0)
                                result = (i32)i;
                id[at] = result;
                memmove(id + at + 1, id + at + 2, (size_t)(n - at - 2) * sizeof *id);
                n--;
        }
}

/* Merges in any order: a later one may make what an earlier one needs, as no training would. */
static Vocab *random_merges(void)
{
        static const char *const words[] = {"aa", "ab", "ba", "bb", "ac", "ca", "aab", "aba", "abb", "bab",
                "aaa", "abab", "aabb", "aaaa", "abba", "cab", "bcab"};
        Vocab *v = vocab_new("qwen2");
        for (size_t i = 0; i < COUNT(words); i++)
                vocab_token(v, words[i], TOKEN_NORMAL);
        for (u32 tries = 0; tries < 40; tries++) {
                char m[16];
                const char *w = words[rng() % COUNT(words)];
                size_t n = strlen(w), left = 1 + rng() % (n - 1);
                snprintf(m, sizeof m, "%.*s %s", (int)left, w, w + left);
                u64 dup = 0;
                while (dup < v->s.n_merge &&
                        (v->merge[dup].n != n + 1 || memcmp(v->merge[dup].p, m, n + 1) != 0))
                        dup++;
                bool parts = left < 2 && n - left < 2;
                for (size_t i = 0; i < COUNT(words) && !parts; i++)
                        for (size_t j = 0; j < COUNT(words); j++)
                                parts |= (left < 2 ||
                                                 (strlen(words[i]) == left && !memcmp(words[i], w, left))) &&
                                         (n - left < 2 || !strcmp(words[j], w + left));
                if (parts && dup == v->s.n_merge)
                        vocab_merge(v, m);
        }
        return v;
}

static void merges_as_defined(void **state)
{
        (void)state;
        rng_state = 17;
        u32 merged = 0;
        for (u32 round = 0; round < 60; round++) {
                Vocab *v = random_merges();
                Tok k = tok_of(v);
                for (u32 len = 1; len < 150;
                        len += 1 + rng() % 6) { /* short pieces and long ones: two ways to merge */
                        char text[160];
                        i32 want[160];
                        for (u32 i = 0; i < len; i++)
                                want[i] = text[i] = "aabbc"[rng() % 5];
                        int expect = merge_plainly(v, want, (int)len), n;
                        i32 *ids = encode(k.t, text, len, false, true, &n);
                        assert_int_equal(n, expect);
                        assert_memory_equal(ids, want, (size_t)n * sizeof *ids);
                        merged += len - (u32)n;
                        free(ids);
                }
                tok_free(&k);
                free(v);
        }
        assert_true(merged > 20000);
}

static void whole_words(void **state)
{
        (void)state;
        static const char *const pre[] = {"llama-bpe", "dbrx"}; /* the same pattern */
        for (int i = 0; i < 2; i++) {
                Vocab *v = vocab_new(pre[i]);
                u32 id = vocab_token(v, "hello", TOKEN_NORMAL); /* no merges lead there */
                Tok k = tok_of(v);
                int n;
                i32 *ids = encode(k.t, "hello", 5, false, true, &n);
                assert_int_equal(n, i ? 5 : 1);
                assert_int_equal(ids[0], i ? 'h' : (i32)id);
                free(ids);
                tok_free(&k);
                free(v);
        }
}

/* ---- special tokens ---- */

static void check_ids(const Token *t, const char *text, bool bos, bool special, const i32 *want, int n_want)
{
        int n;
        i32 *ids = encode(t, text, strlen(text), bos, special, &n);
        bool same = n == n_want && memcmp(ids, want, (size_t)n * sizeof *ids) == 0;
        free(ids);
        if (!same)
                fail_msg("\"%s\": %d tokens, not the %d expected", text, n, n_want);
}
#define IDS(t, text, bos, special, ...)                                                                      \
        check_ids(t, text, bos, special, (const i32[]){__VA_ARGS__}, (int)COUNT(((const i32[]){__VA_ARGS__})))

static void special_tokens(void **state)
{
        (void)state;
        Vocab *v = vocab_new("qwen2");
        i32 ab = (i32)vocab_token(v, "<ab>", TOKEN_CONTROL), a = (i32)vocab_token(v, "<a", TOKEN_CONTROL);
        i32 user = (i32)vocab_token(v, "<abc", TOKEN_USER), unk = (i32)vocab_token(v, "UNK", TOKEN_UNKNOWN);
        i32 one = (i32)vocab_token(v, "\xff", TOKEN_USER); /* special tokens are bytes, not UTF-8 */
        Tok k = tok_of(v);
        IDS(k.t, "<ab>", false, true, ab);
        IDS(k.t, "<ab", false, true, a, 'b');
        IDS(k.t, "<abc>", false, true, user, '>');
        IDS(k.t, "<<a<ab><", false, true, '<', a, ab, '<');
        IDS(k.t, "xUNKx", false, true, 'x', unk, 'x');
        IDS(k.t, "xUNKx", false, false, 'x', 'U', 'N', 'K', 'x');
        IDS(k.t, "<ab>", false, false, '<', 'a', 'b', '>');
        IDS(k.t, "<abc<a", false, false, user, '<', 'a');
        IDS(k.t, "a\xff\xff\xfe", false, false, 'a', one, one, 0xfe);
        tok_free(&k);
        free(v);
}

static void beginnings_and_ends(void **state)
{
        (void)state;
        Vocab *v = vocab_new("qwen2");
        i32 b = (i32)vocab_token(v, "<s>", TOKEN_CONTROL), e = (i32)vocab_token(v, "</s>", TOKEN_CONTROL);
        i32 im = (i32)vocab_token(v, "<|im_end|>", TOKEN_CONTROL),
            end = (i32)vocab_token(v, "<|end|>", TOKEN_CONTROL);
        i32 not_end = (i32)vocab_token(v, "<|eot_id|>", TOKEN_NORMAL);
        v->s.bos = b;
        v->s.eos = e;
        for (int add = -1; add < 2; add++) {
                v->s.add_bos = add;
                Tok k = tok_of(v);
                assert_int_equal(token_bos(k.t), add > 0 ? b : -1);
                IDS(k.t, "x", false, true, 'x');
                if (add > 0)
                        IDS(k.t, "x", true, true, b, 'x');
                else
                        IDS(k.t, "x", true, true, 'x');
                assert_true(token_is_end(k.t, e) && token_is_end(k.t, im) && token_is_end(k.t, end));
                assert_false(token_is_end(k.t, b) || token_is_end(k.t, not_end) || token_is_end(k.t, 'x'));
                assert_false(token_is_end(k.t, -1) || token_is_end(k.t, 1 << 30));
                assert_int_equal(token_count(k.t), v->s.n_token);
                tok_free(&k);
        }
        vocab_token(v, "<|return|>", TOKEN_CONTROL);
        vocab_token(v, "<|call|>", TOKEN_CONTROL);
        v->s.pre = (TokenText){"llama-bpe", 9}; /* adds BOS unless told otherwise */
        v->s.add_bos = -1;
        Tok k = tok_of(v);
        assert_int_equal(token_bos(k.t), b);
        assert_false(token_is_end(k.t, end)); /* with those two it ends a message, not a turn */
        tok_free(&k);
        free(v);
}

static void pieces(void **state)
{
        (void)state;
        Vocab *v = vocab_new("qwen2");
        static const struct {
                const char *token;
                TokenType type;
                const char *piece, *special; /* special NULL: the same */
        } t[] = {{"\xc4\xa0the", TOKEN_NORMAL, " the", NULL}, {"\xc3\xa9", TOKEN_NORMAL, "\xe9", NULL},
                {"\xe4\xb8\xad", TOKEN_NORMAL, "\xe4\xb8\xad", NULL}, /* not the alphabet: as written */
                {"\xc4\xa0u", TOKEN_USER, "\xc4\xa0u", NULL}, {"<c>", TOKEN_CONTROL, "", "<c>"},
                {"<u>", TOKEN_UNKNOWN, "", "<u>"}, {"[PAD]", TOKEN_UNUSED, "", "[PAD]"},
                {"<0xFF>", TOKEN_BYTE, "\xff", NULL}, {"", TOKEN_CONTROL, "", NULL}};
        u32 first = 0;
        v->type[0xe9] = TOKEN_UNUSED; /* the second is the same text */
        v->token[0xe9] = (TokenText){"none", 4};
        for (size_t i = 0; i < COUNT(t); i++) {
                u32 id = vocab_token(v, t[i].token, t[i].type);
                first = i ? first : id;
        }
        Tok k = tok_of(v);
        for (size_t i = 0; i < COUNT(t); i++)
                for (int special = 0; special < 2; special++) {
                        const char *p, *want = special && t[i].special ? t[i].special : t[i].piece;
                        size_t n;
                        assert_int_equal(token_piece(k.t, (i32)(first + i), special, &p, &n, NULL), MOEC_OK);
                        assert_int_equal(n, strlen(want));
                        assert_memory_equal(p, want, n);
                }
        const char *p;
        size_t n;
        moec_error e;
        assert_int_equal(token_piece(k.t, -1, true, &p, &n, &e), MOEC_USAGE);
        assert_int_equal(token_piece(k.t, (i32)v->s.n_token, true, &p, &n, &e), MOEC_USAGE);
        tok_free(&k);
        free(v);
}

/* ---- texts made to be slow: a wrong order of growth shows as a test that does not end ---- */

static void long_texts(void **state)
{
        (void)state;
        enum { N = 1 << 20 };
        static const char *const unit[] = {"x", " ", "A", "\n", "'", "<", "<|im_star", " \n", "a ", "9",
                "\xe4\xb8\xad", "\xcc\x81", "\xff", "\xe2\x80\x83"};
        char *text = malloc(N + 16), list[256], *save;
        assert_non_null(text);
        pre_list(list, sizeof list);
        for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
                Vocab *v = vocab_new(w);
                vocab_token(v, "xx", TOKEN_NORMAL);
                vocab_token(v, "xxxx", TOKEN_NORMAL);
                vocab_token(v, "\xc4\xa0\xc4\xa0", TOKEN_NORMAL);
                vocab_token(v, "<|im_start|>", TOKEN_CONTROL);
                vocab_merge(v, "x x");
                vocab_merge(v, "xx xx");
                vocab_merge(v, "\xc4\xa0 \xc4\xa0");
                Tok k = tok_of(v);
                for (size_t u = 0; u < 2 * COUNT(unit); u++) {
                        size_t n = 0, len = strlen(unit[u / 2]);
                        for (; n < N / 4; n += len)
                                memcpy(text + n, unit[u / 2], len);
                        text[n++] = u % 2 ? 'y' : '9'; /* what a pattern may need, and what it may not */
                        there_and_back(k.t, text, n, true);
                }
                tok_free(&k);
                free(v);
        }
        memset(text, 'x', N);
        there_and_back(fables.t, text, N, true);
        free(text);
}

static void empty_and_huge(void **state)
{
        (void)state;
        int n;
        free(encode(fables.t, NULL, 0, false, true, &n));
        assert_int_equal(n, 0);
        i32 *ids = encode(fables.t, "", 0, true, true, &n);
        assert_int_equal(n, 1);
        assert_int_equal(ids[0], token_bos(fables.t));
        free(ids);
        moec_error e;
        assert_int_equal(token_encode(fables.t, "", (size_t)1 << 30, true, true, &ids, &n, &e), MOEC_USAGE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(known_texts),
                cmocka_unit_test(known_cuts),
                cmocka_unit_test(random_texts),
                cmocka_unit_test(invalid_bytes_stand_alone),
                cmocka_unit_test(merges_as_defined),
                cmocka_unit_test(whole_words),
                cmocka_unit_test(special_tokens),
                cmocka_unit_test(beginnings_and_ends),
                cmocka_unit_test(pieces),
                cmocka_unit_test(long_texts),
                cmocka_unit_test(empty_and_huge),
        };
        return cmocka_run_group_tests_name("token", tests, open_fables, close_fables);
}
