#include "runtime/token.h"
#include <stdlib.h>
#include <string.h>
#include "runtime/token_blob.h"
#include "runtime/utf8.h"

enum { STARTS_ANY = 1, STARTS_USER = 2 }; /* what a byte can begin */

struct Token {
        TokenView v;
        Split *split;
        u8 starts[256];
        u32 first[257]; /* the special tokens that begin with a byte: special[first[b] .. first[b + 1]) */
};

u64 token_layout(const TokenHead *h, const void *base, TokenView *v)
{
        u64 at = sizeof *h, bytes;
        v->head = base;
#define P(name, T, count)                                                                                    \
        if (!mul_u64((count), sizeof(T), &bytes) || !align_u64(at, 8, &at))                                  \
                return 0;                                                                                    \
        v->name = base ? (const T *)((const char *)base + at) : NULL;                                        \
        if (!add_u64(at, bytes, &at))                                                                        \
                return 0;
        TOKEN_PARTS(P)
#undef P
        return at;
}

/* ---- opening: believe nothing ---- */

static bool is_special(u8 type)
{
        return type == TOKEN_UNKNOWN || type == TOKEN_CONTROL || type == TOKEN_USER;
}

/* NULL, or what is wrong with the head. */
static const char *check_head(const TokenHead *h, size_t size)
{
        if (h->magic != TOKEN_MAGIC)
                return "magic number";
        if (h->version != TOKEN_VERSION)
                return "version";
        if (h->size != size)
                return "size";
        if (!memchr(h->pre, 0, sizeof h->pre))
                return "pre-tokenizer's name";
        if (!h->n_token || h->n_token > MAX_TOKENS || h->n_special > h->n_token || h->text_bytes > UINT32_MAX)
                return "count of tokens";
        if (h->merge_bits < 1 || h->merge_bits > 28 || h->word_bits > 28)
                return "size of a table";
        if (h->bos < -1 || (h->bos >= 0 && (u32)h->bos >= h->n_token))
                return "BOS";
        if (h->n_end > MAX_END)
                return "count of end tokens";
        for (u32 i = 0; i < h->n_end; i++)
                if (h->end[i] >= h->n_token)
                        return "end token";
        for (u32 i = 0; i < 256; i++) {
                bool never = i == 0xc0 || i == 0xc1 || i >= 0xf5;
                if (h->byte[i] >= h->n_token && !(never && h->byte[i] == NO_ID))
                        return "byte token";
        }
        return NULL;
}

static const char *check_parts(const TokenView *v)
{
        const TokenHead *h = v->head;
        for (u32 i = 0; i < h->n_token; i++)
                if (v->off[i] > v->off[i + 1])
                        return "token's offset";
        if (v->off[0] != 0 || v->off[h->n_token] != h->text_bytes)
                return "token's offset";
        for (u32 i = 0; i < h->n_token; i++)
                if (v->type[i] >= N_TOKEN_TYPE)
                        return "token's type";
        for (u32 i = 0; i < h->n_special; i++) {
                u32 id = v->special[i], last = i ? v->special[i - 1] : 0;
                if (id >= h->n_token || !is_special(v->type[id]) || !text_len(v, id) ||
                        text_len(v, id) > MAX_SPECIAL)
                        return "special token";
                if (i &&
                        text_order(text_of(v, last), text_len(v, last), text_of(v, id), text_len(v, id)) >= 0)
                        return "order of special tokens";
        }
        for (u64 i = 0; i < 1ull << h->merge_bits; i++) {
                const Merge *m = &v->merge[i];
                if (m->left != NO_ID && (m->left >= h->n_token || m->right >= h->n_token ||
                                                m->result >= h->n_token || m->rank >= h->n_merge))
                        return "merge";
        }
        for (u64 i = 0; h->word_bits && i < 1ull << h->word_bits; i++)
                if (v->word[i] != NO_ID && v->word[i] >= h->n_token)
                        return "table of words";
        return NULL;
}

static void index_special(Token *t)
{
        const TokenView *v = &t->v;
        u32 k = 0;
        for (u32 b = 0; b < 256; b++) {
                t->first[b] = k;
                for (; k < v->head->n_special && (u8)*text_of(v, v->special[k]) == b; k++)
                        t->starts[b] |=
                                v->type[v->special[k]] == TOKEN_USER ? STARTS_ANY | STARTS_USER : STARTS_ANY;
        }
        t->first[256] = k;
}

moec_status token_open(const void *blob, size_t size, Token **tok, moec_error *e)
{
        if (!blob || (uintptr_t)blob % 8)
                return fail(e, MOEC_USAGE, "a tokenizer's bytes must be aligned to 8");
        if (size < sizeof(TokenHead))
                return fail(e, MOEC_DAMAGED, "the tokenizer is cut off: %zu bytes, at least %zu needed", size,
                        sizeof(TokenHead));
        const TokenHead *h = blob;
        TokenView v;
        const char *bad = check_head(h, size);
        if (!bad && token_layout(h, blob, &v) != size)
                bad = "size of the parts";
        if (!bad)
                bad = check_parts(&v);
        if (bad)
                return fail(e, MOEC_DAMAGED, "the tokenizer is damaged: bad %s", bad);
        const Pre *pre = pre_find(h->pre, strlen(h->pre));
        if (!pre)
                return fail(e, MOEC_UNSUPPORTED,
                        "the tokenizer's pre-tokenizer \"%.31s\" is unknown to this version", h->pre);
        Token *t = calloc(1, sizeof *t);
        if (!t)
                return fail(e, MOEC_NO_MEMORY, "out of memory opening the tokenizer");
        t->v = v;
        index_special(t);
        moec_status st = split_new(pre, &t->split, e);
        if (st) {
                free(t);
                return st;
        }
        *tok = t;
        return MOEC_OK;
}

void token_close(Token *t)
{
        if (!t)
                return;
        split_free(t->split);
        free(t);
}

/* ---- encoding ---- */

/* The longest special token that p[0 .. n) begins with, NO_ID: none. All of special[lo .. hi) share the first
 * `depth` bytes; each step takes one more byte of the text and narrows that range. */
static u32 special_at(const Token *t, const char *p, size_t n, bool control)
{
        const TokenView *v = &t->v;
        u32 lo = t->first[(u8)p[0]], hi = t->first[(u8)p[0] + 1], best = NO_ID;
        for (size_t depth = 1; lo < hi; depth++) {
                u32 id = v->special[lo];
                if (text_len(v, id) == depth) {
                        if (control || v->type[id] == TOKEN_USER)
                                best = id;
                        lo++;
                }
                if (depth == n)
                        break;
                u8 c = (u8)p[depth];
                u32 a = lo, b = hi;
                while (a < b) {
                        u32 mid = a + (b - a) / 2;
                        if ((u8)text_of(v, v->special[mid])[depth] < c)
                                a = mid + 1;
                        else
                                b = mid;
                }
                lo = a;
                for (b = hi; a < b;) {
                        u32 mid = a + (b - a) / 2;
                        if ((u8)text_of(v, v->special[mid])[depth] <= c)
                                a = mid + 1;
                        else
                                b = mid;
                }
                hi = a;
        }
        return best;
}

#define MAX_TEXT (1u << 29) /* a byte gives three tokens at most, and their number is an int */

typedef struct Encoder {
        const Token *t;
        Bpe bpe;
        SplitScratch *scratch;
} Encoder;

static bool put_piece(void *user, const char *p, size_t n)
{
        return bpe_piece(user, p, n);
}

/* Text without special tokens; bytes that are not UTF-8 stand alone. False when out of memory. */
static bool encode_plain(Encoder *x, const char *p, size_t n)
{
        while (n) {
                size_t run = utf8_run(p, n);
                if (run && !split_text(x->t->split, x->scratch, p, run, put_piece, &x->bpe))
                        return false;
                if (run < n && !bpe_byte(&x->bpe, (u8)p[run++]))
                        return false;
                p += run;
                n -= run;
        }
        return true;
}

static bool encode_all(Encoder *x, const char *p, size_t n, bool bos, bool special)
{
        const Token *t = x->t;
        u8 starts = special ? STARTS_ANY : STARTS_USER;
        if (bos && t->v.head->bos >= 0 && !bpe_put(&x->bpe, (u32)t->v.head->bos))
                return false;
        size_t from = 0, i = 0;
        while (i < n) {
                u32 id = (t->starts[(u8)p[i]] & starts) ? special_at(t, p + i, n - i, special) : NO_ID;
                if (id == NO_ID) {
                        i++;
                        continue;
                }
                if (!encode_plain(x, p + from, i - from) || !bpe_put(&x->bpe, id))
                        return false;
                from = i += text_len(&t->v, id);
        }
        return encode_plain(x, p + from, n - from);
}

moec_status token_encode(const Token *t, const char *text, size_t len, bool bos, bool special, i32 **ids,
        int *n, moec_error *e)
{
        if (len > MAX_TEXT)
                return fail(e, MOEC_USAGE,
                        "a text of %zu bytes is too long to tokenize at once: at most 512 MiB", len);
        Encoder x = {.t = t, .bpe = {.v = &t->v}, .scratch = split_scratch(t->split)};
        x.bpe.cap = len / 3 + 16;
        x.bpe.id = malloc(x.bpe.cap * sizeof *x.bpe.id);
        bool ok = x.scratch && x.bpe.id && encode_all(&x, text, len, bos, special);
        split_scratch_free(x.scratch);
        free(x.bpe.scratch);
        if (!ok) {
                free(x.bpe.id);
                return fail(e, MOEC_NO_MEMORY, "out of memory tokenizing %zu bytes", len);
        }
        *ids = x.bpe.id;
        *n = (int)x.bpe.n;
        return MOEC_OK;
}

/* ---- decoding, facts ---- */

moec_status token_piece(const Token *t, i32 id, bool special, const char **piece, size_t *len, moec_error *e)
{
        const TokenView *v = &t->v;
        if (id < 0 || (u32)id >= v->head->n_token)
                return fail(
                        e, MOEC_USAGE, "no token %d: the vocabulary has 0 to %u", id, v->head->n_token - 1);
        u8 type = v->type[id];
        bool silent = type == TOKEN_UNKNOWN || type == TOKEN_CONTROL || type == TOKEN_UNUSED;
        *piece = text_of(v, (u32)id);
        *len = silent && !special ? 0 : text_len(v, (u32)id);
        return MOEC_OK;
}

u32 token_count(const Token *t)
{
        return t->v.head->n_token;
}

i32 token_bos(const Token *t)
{
        return t->v.head->bos;
}

bool token_is_end(const Token *t, i32 id)
{
        const TokenHead *h = t->v.head;
        for (u32 i = 0; i < h->n_end; i++)
                if (id >= 0 && h->end[i] == (u32)id)
                        return true;
        return false;
}

const u32 *token_ends(const Token *t, u32 *n)
{
        *n = t->v.head->n_end;
        return t->v.head->end;
}
