/* The tokenizer's blob, shared by token_build.c, token.c and token_bpe.c alone. All integers little-endian,
 * as the machine's. */
#ifndef MOEC_TOKEN_BLOB_H
#define MOEC_TOKEN_BLOB_H
#include "runtime/token.h"

#define TOKEN_MAGIC   0x4b4f544d /* "MTOK" */
#define TOKEN_VERSION 1
#define MAX_TOKENS    (1u << 24)
#define MAX_SPECIAL   512 /* bytes of a special token: bounds the search at one place in a text */
#define MAX_END       32
#define PROBES        64 /* slots that a look-up tries at most; building picks a seed that makes this do */
#define NO_ID         UINT32_MAX

typedef struct TokenHead {
        u32 magic, version;
        u64 size;
        char pre[32]; /* NUL-terminated */
        u32 n_token, n_special, n_merge;
        u32 merge_bits, word_bits; /* log2 of the tables' slots; word_bits 0: no such table */
        u32 merge_seed, word_seed;
        i32 bos; /* -1: none is added */
        u32 n_end, end[MAX_END];
        u32 byte[256]; /* the token of each byte; NO_ID only for bytes that UTF-8 never has */
        u64 text_bytes;
} TokenHead;

/* A slot of the table of merges; left NO_ID: empty. */
typedef struct Merge {
        u32 left, right, rank, result;
} Merge;

/* The parts behind the head, in this order, each aligned to 8:
 *   P(name, element type, count) */
#define TOKEN_PARTS(P)                                                                                       \
        P(off, u32, (u64)h->n_token + 1)       /* of each token's text, and the end */                       \
        P(special, u32, h->n_special)          /* control, unknown and user tokens, by their text */         \
        P(merge, Merge, 1ull << h->merge_bits) /* pair to rank and result */                                 \
        P(word, u32, h->word_bits ? 1ull << h->word_bits : 0) /* text to token; NO_ID: empty */              \
        P(type, u8, h->n_token)                                                                              \
        P(text, char, h->text_bytes) /* bytes as they are decoded */

typedef struct TokenView {
        const TokenHead *head;
#define P(name, T, count) const T *name;
        TOKEN_PARTS(P)
#undef P
} TokenView;

/* Points the parts into base; returns the size of all, 0 on overflow. The head must be filled in. */
u64 token_layout(const TokenHead *h, const void *base, TokenView *v);

static inline u32 merge_slot(u32 left, u32 right, u32 seed, u32 bits)
{
        u64 k = ((u64)left << 32 | right) ^ ((u64)seed << 21);
        k *= 0x9e3779b97f4a7c15;
        k ^= k >> 32;
        k *= 0xd6e8feb86659fd93;
        return (u32)(k >> (64 - bits));
}

static inline u32 word_slot(u64 hash, u32 seed, u32 bits)
{
        return (u32)(((hash ^ seed) * 0x9e3779b97f4a7c15) >> (64 - bits));
}

static inline const Merge *merge_find(const TokenView *v, u32 left, u32 right)
{
        u32 mask = (1u << v->head->merge_bits) - 1;
        u32 s = merge_slot(left, right, v->head->merge_seed, v->head->merge_bits);
        for (u32 i = 0; i < PROBES; i++) {
                const Merge *m = &v->merge[(s + i) & mask];
                if (m->left == left && m->right == right)
                        return m;
                if (m->left == NO_ID)
                        return NULL;
        }
        return NULL;
}

static inline size_t text_len(const TokenView *v, u32 id)
{
        return v->off[id + 1] - v->off[id];
}

static inline const char *text_of(const TokenView *v, u32 id)
{
        return v->text + v->off[id];
}

/* By bytes; where one is the other's beginning the shorter comes first. */
static inline int text_order(const char *a, size_t na, const char *b, size_t nb)
{
        size_t n = MIN(na, nb);
        int c = n ? __builtin_memcmp(a, b, n) : 0;
        return c ? c : (na > nb) - (na < nb);
}

/* ---- pre-tokenizers (token_pre.c) ---- */
typedef struct Pre Pre;     /* a row of the table */
typedef struct Split Split; /* its patterns, compiled */

const Pre *pre_find(const char *name, size_t n); /* NULL: none of that name */
void pre_list(char *out, size_t room);           /* the first name of each row */
bool pre_words(const Pre *p);                    /* a piece that is a token is that token, merges or not */
bool pre_bos(const Pre *p);                      /* adds BOS where the file does not say */

moec_status split_new(const Pre *p, Split **s, moec_error *e);
void split_free(Split *s);

/* Cuts a text of valid UTF-8 into pieces, each given to `piece` in order. Stops when that returns false, and
 * returns false. */
typedef bool PieceFn(void *user, const char *p, size_t n);
typedef struct SplitScratch SplitScratch;    /* one a thread */
SplitScratch *split_scratch(const Split *s); /* NULL: out of memory */
void split_scratch_free(SplitScratch *x);
bool split_text(const Split *s, SplitScratch *x, const char *p, size_t n, PieceFn *piece, void *user);

/* ---- merging (token_bpe.c) ---- */
typedef struct Bpe Bpe;
struct Bpe {
        const TokenView *v;
        i32 *id; /* what was encoded so far */
        size_t n, cap;
        void *scratch; /* of long pieces */
        size_t scratch_size;
};
/* Every function is false when out of memory. */
bool bpe_put(Bpe *b, u32 id);
bool bpe_byte(Bpe *b, u8 c); /* a byte that is not UTF-8 */
bool bpe_piece(Bpe *b, const char *p, size_t n);

/* The token with exactly this text, NO_ID: none. Needs the table of words. */
u32 word_find(const TokenView *v, const char *p, size_t n);

#endif
