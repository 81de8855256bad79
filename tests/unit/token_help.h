/* Small vocabularies, and a generator of random texts. */
#ifndef MOEC_TOKEN_HELP_H
#define MOEC_TOKEN_HELP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/token_blob.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { VOCAB_ROOM = 4096 };

/* Starts as the 256 bytes, in the order of their values, with nothing to merge. */
typedef struct Vocab {
        TokenSource s;
        TokenText token[VOCAB_ROOM], merge[VOCAB_ROOM];
        i32 type[VOCAB_ROOM];
        char text[VOCAB_ROOM * 64];
        size_t used;
} Vocab;

static inline TokenText vocab_text(Vocab *v, const char *s, size_t n)
{
        assert_true(v->used + n <= sizeof v->text);
        char *p = memcpy(v->text + v->used, s, n);
        v->used += n;
        return (TokenText){p, n};
}

static inline u32 vocab_token_n(Vocab *v, const char *s, size_t n, TokenType type)
{
        assert_true(v->s.n_token < VOCAB_ROOM);
        v->type[v->s.n_token] = type;
        v->token[v->s.n_token] = vocab_text(v, s, n);
        v->s.n_type++;
        return (u32)v->s.n_token++;
}

static inline u32 vocab_token(Vocab *v, const char *s, TokenType type)
{
        return vocab_token_n(v, s, strlen(s), type);
}

static inline void vocab_merge(Vocab *v, const char *s)
{
        assert_true(v->s.n_merge < VOCAB_ROOM);
        v->merge[v->s.n_merge++] = vocab_text(v, s, strlen(s));
}

/* As GPT-2 writes the byte c. */
static inline size_t vocab_byte(u32 c, char out[2])
{
        u32 cp = c;
        if (c <= 32)
                cp = 256 + c;
        else if (c >= 127 && c <= 160)
                cp = 256 + 33 + (c - 127);
        else if (c == 173)
                cp = 256 + 67;
        if (cp < 0x80) {
                out[0] = (char)cp;
                return 1;
        }
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
}

static inline Vocab *vocab_new(const char *pre)
{
        Vocab *v = calloc(1, sizeof *v);
        assert_non_null(v);
        v->s = (TokenSource){.model = {"gpt2", 4},
                .token = v->token,
                .type = v->type,
                .merge = v->merge,
                .bos = -1,
                .eos = -1,
                .eot = -1,
                .eom = -1,
                .add_bos = -1};
        v->s.pre = vocab_text(v, pre, strlen(pre));
        for (u32 c = 0; c < 256; c++) {
                char b[2];
                size_t n = vocab_byte(c, b);
                vocab_token_n(v, b, n, TOKEN_NORMAL);
        }
        return v;
}

/* A tokenizer and what it lies in. */
typedef struct Tok {
        void *blob;
        size_t size;
        Token *t;
} Tok;

static inline Tok tok_of(const Vocab *v)
{
        Tok k = {0};
        moec_error e;
        if (token_build(&v->s, &k.blob, &k.size, &e) || token_open(k.blob, k.size, &k.t, &e))
                fail_msg("%s", e.msg);
        return k;
}

static inline void tok_free(Tok *k)
{
        token_close(k->t);
        free(k->blob);
}

static inline i32 *encode(const Token *t, const char *p, size_t len, bool bos, bool special, int *n)
{
        i32 *ids = NULL;
        moec_error e;
        if (token_encode(t, p, len, bos, special, &ids, n, &e))
                fail_msg("%s", e.msg);
        assert_non_null(ids);
        return ids;
}

static inline bool decodes_to(const Token *t, const i32 *ids, int n, const char *p, size_t len)
{
        size_t at = 0;
        for (int i = 0; i < n; i++) {
                const char *s;
                size_t k;
                assert_int_equal(token_piece(t, ids[i], true, &s, &k, NULL), MOEC_OK);
                if (k > len - at || (k && memcmp(s, p + at, k) != 0))
                        return false;
                at += k;
        }
        return at == len;
}

/* Encoding and decoding gives the text back. */
static inline void there_and_back(const Token *t, const char *p, size_t len, bool special)
{
        int n;
        i32 *ids = encode(t, p, len, false, special, &n);
        assert_true(decodes_to(t, ids, n, p, len));
        free(ids);
}

static u64 rng_state = 1;

static inline u32 rng(void)
{
        rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
        return (u32)(rng_state >> 33);
}

static inline size_t put_utf8(char *out, u32 cp)
{
        if (cp < 0x80)
                return out[0] = (char)cp, 1;
        if (cp < 0x800)
                return out[0] = (char)(0xc0 | cp >> 6), out[1] = (char)(0x80 | (cp & 0x3f)), 2;
        if (cp < 0x10000)
                return out[0] = (char)(0xe0 | cp >> 12), out[1] = (char)(0x80 | (cp >> 6 & 0x3f)),
                       out[2] = (char)(0x80 | (cp & 0x3f)), 3;
        return out[0] = (char)(0xf0 | cp >> 18), out[1] = (char)(0x80 | (cp >> 12 & 0x3f)),
               out[2] = (char)(0x80 | (cp >> 6 & 0x3f)), out[3] = (char)(0x80 | (cp & 0x3f)), 4;
}

/* About len bytes of every script, in runs; returns how many. Room: len + 4. */
static inline size_t random_unicode(char *out, size_t len)
{
        static const struct {
                u32 first, n;
        } range[] = {{'a', 26}, {'A', 26}, {'0', 10}, {' ', 1}, {'\n', 1}, {'!', 15}, {0, 128}, {0xc0, 0x180},
                {0x370, 0x3c0}, {0x900, 0x80}, {0x2000, 0x70}, {0x3000, 0x100}, {0x4e00, 0x5200},
                {0xac00, 0x2ba4}, {0xff00, 0x60}, {0x1f300, 0x400}, {0x10000, 0x800}, {0xe000, 0x1fff},
                {0x100000, 0xffff}};
        size_t n = 0;
        while (n < len) {
                u32 r = rng() % COUNT(range), run = 1 + rng() % (1 << rng() % 5);
                for (u32 i = 0; i < run && n < len; i++)
                        n += put_utf8(out + n, range[r].first + rng() % range[r].n);
        }
        return n;
}

#endif
