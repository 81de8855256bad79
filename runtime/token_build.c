/* A model's vocabulary to a tokenizer's blob. Everything read here comes from a file and may be hostile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/token_blob.h"
#include "runtime/utf8.h"

#define N_ALPHABET 324 /* code points that byte-level BPE writes its 256 bytes with, and below */

typedef struct Builder {
        const TokenSource *s;
        moec_error *e;
        const Pre *pre;
        u8 *type;   /* [n_token] */
        u32 *off;   /* [n_token + 1] */
        char *text; /* decoded */
        u32 *map;   /* the file's strings to ids, open addressing; NO_ID: empty */
        u32 map_bits;
        u32 *special, n_special; /* sorted */
        Merge *pairs;            /* [n_merge], in the file's order */
        Merge *merge;            /* the table */
        u32 *word;               /* likewise, NULL: none */
        u32 merge_bits, merge_seed, word_bits, word_seed;
        i16 byte_of[N_ALPHABET]; /* code point to byte, -1: none */
        TokenHead head;
} Builder;

static moec_status no_memory(Builder *b)
{
        return fail(b->e, MOEC_NO_MEMORY, "out of memory building the tokenizer");
}

/* A file's string for a message: escaped, cut short. */
static const char *quote(TokenText t, char out[64])
{
        size_t o = 0;
        for (size_t i = 0; i < t.n && o < 48; i++) {
                u8 c = (u8)t.p[i];
                if (c >= 0x20 && c < 0x7f)
                        out[o++] = (char)c;
                else
                        o += (size_t)snprintf(out + o, 64 - o, "\\x%02x", c);
        }
        out[o] = 0;
        return out;
}

/* ---- what the file says ---- */

static moec_status check_model(Builder *b)
{
        const TokenSource *s = b->s;
        char q[64], list[256];
        if (s->model.n != 4 || memcmp(s->model.p, "gpt2", 4))
                return fail(b->e, MOEC_UNSUPPORTED,
                        "tokenizer.ggml.model is \"%s\"; supported: gpt2 (byte-level BPE)",
                        quote(s->model, q));
        b->pre = pre_find(s->pre.p ? s->pre.p : "", s->pre.n);
        pre_list(list, sizeof list);
        if (!s->pre.n)
                return fail(b->e, MOEC_UNSUPPORTED,
                        "tokenizer.ggml.pre is missing, so how to split text is unknown; supported: %s",
                        list);
        if (!b->pre)
                return fail(b->e, MOEC_UNSUPPORTED, "tokenizer.ggml.pre is \"%s\"; supported: %s",
                        quote(s->pre, q), list);
        memcpy(b->head.pre, s->pre.p, s->pre.n); /* a name of the table is shorter than the field */
        return MOEC_OK;
}

static moec_status check_counts(Builder *b)
{
        const TokenSource *s = b->s;
        if (!s->n_token || s->n_token > MAX_TOKENS)
                return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.tokens has %llu entries, 1 to %u expected",
                        (unsigned long long)s->n_token, MAX_TOKENS);
        if (s->type && s->n_type != s->n_token)
                return fail(b->e, MOEC_DAMAGED,
                        "tokenizer.ggml.token_type has %llu entries, tokenizer.ggml.tokens %llu",
                        (unsigned long long)s->n_type, (unsigned long long)s->n_token);
        if (s->n_merge > MAX_TOKENS)
                return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.merges has %llu entries, at most %u expected",
                        (unsigned long long)s->n_merge, MAX_TOKENS);
        const struct {
                const char *key;
                i64 id;
        } id[] = {{"bos", s->bos}, {"eos", s->eos}, {"eot", s->eot}, {"eom", s->eom}};
        for (size_t i = 0; i < COUNT(id); i++)
                if (id[i].id < -1 || id[i].id >= (i64)s->n_token)
                        return fail(b->e, MOEC_DAMAGED,
                                "tokenizer.ggml.%s_token_id is %lld, the vocabulary has %llu tokens",
                                id[i].key, (long long)id[i].id, (unsigned long long)s->n_token);
        return MOEC_OK;
}

/* Printable Latin-1 stands for itself; the other 68 bytes, in order, are written U+0100 and up (GPT-2's
 * bytes_to_unicode). */
static void fill_alphabet(Builder *b)
{
        memset(b->byte_of, 0xff, sizeof b->byte_of);
        i16 next = 256;
        for (i16 c = 0; c < 256; c++) {
                bool itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
                b->byte_of[itself ? c : next++] = c;
        }
}

/* The bytes that a token's string stands for; a string that is not all alphabet is meant as it is written. */
static u32 decode(const Builder *b, TokenText t, char *out)
{
        u32 o = 0;
        for (size_t i = 0; i < t.n;) {
                int len = utf8_next(t.p + i, t.n - i);
                const u8 *c = (const u8 *)t.p + i;
                u32 cp = len == 1 ? *c : len == 2 ? (u32)(c[0] & 0x1f) << 6 | (c[1] & 0x3f) : N_ALPHABET;
                if (cp >= N_ALPHABET || b->byte_of[cp] < 0) {
                        memcpy(out, t.p, t.n);
                        return (u32)t.n;
                }
                out[o++] = (char)b->byte_of[cp];
                i += (size_t)len;
        }
        return o;
}

static int hex(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static moec_status decode_tokens(Builder *b)
{
        const TokenSource *s = b->s;
        char q[64];
        u64 total = 0;
        for (u64 i = 0; i < s->n_token; i++)
                if (!add_u64(total, s->token[i].n, &total) || total > UINT32_MAX)
                        return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.tokens: more than 4 GiB of text");
        b->type = malloc(s->n_token);
        b->off = malloc((s->n_token + 1) * sizeof *b->off);
        b->text = malloc(total + 1);
        if (!b->type || !b->off || !b->text)
                return no_memory(b);
        u32 at = 0;
        for (u32 i = 0; i < s->n_token; i++) {
                i32 type = s->type ? s->type[i] : TOKEN_NORMAL;
                TokenText t = s->token[i];
                if (type < 0 || type >= N_TOKEN_TYPE)
                        return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.token_type[%u] is %d", i, type);
                b->type[i] = (u8)type;
                b->off[i] = at;
                if (type == TOKEN_BYTE) {
                        if (t.n != 6 || memcmp(t.p, "<0x", 3) || hex(t.p[3]) < 0 || hex(t.p[4]) < 0 ||
                                t.p[5] != '>')
                                return fail(b->e, MOEC_DAMAGED,
                                        "tokenizer.ggml.tokens[%u] \"%s\" is no byte token <0xHH>", i,
                                        quote(t, q));
                        b->text[at++] = (char)(hex(t.p[3]) << 4 | hex(t.p[4]));
                } else if (type == TOKEN_NORMAL || type == TOKEN_UNDEFINED) {
                        at += decode(b, t, b->text + at);
                } else {
                        memcpy(b->text + at, t.p, t.n);
                        at += (u32)t.n;
                }
        }
        b->off[s->n_token] = at;
        return MOEC_OK;
}

/* ---- looking strings up while building ---- */

#define MAP_PROBES 1024 /* only strings made to collide need more */

/* The id of a string, NO_ID: none; *slot then is where it belongs, NO_ID: nowhere within MAP_PROBES. */
static u32 map_find(const Builder *b, const char *p, size_t n, u32 *slot)
{
        u32 mask = (1u << b->map_bits) - 1, k = (u32)hash_str(p, n) & mask;
        for (u32 i = 0; i < MAP_PROBES; i++, k = (k + 1) & mask) {
                u32 id = b->map[k];
                *slot = k;
                if (id == NO_ID || (b->s->token[id].n == n && !memcmp(b->s->token[id].p, p, n)))
                        return id;
        }
        *slot = NO_ID;
        return NO_ID;
}

static moec_status map_tokens(Builder *b)
{
        char q[64];
        for (b->map_bits = 4; 1ull << b->map_bits < b->s->n_token * 2; b->map_bits++)
                ;
        size_t bytes = sizeof *b->map << b->map_bits;
        b->map = malloc(bytes);
        if (!b->map)
                return no_memory(b);
        memset(b->map, 0xff, bytes);
        for (u32 i = 0, slot; i < b->s->n_token; i++) {
                TokenText t = b->s->token[i];
                if (!t.n)
                        continue;
                u32 old = map_find(b, t.p, t.n, &slot);
                if (old != NO_ID)
                        return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.tokens: %u and %u are both \"%s\"",
                                old, i, quote(t, q));
                if (slot == NO_ID)
                        return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.tokens is made to collide: refused");
                b->map[slot] = i;
        }
        return MOEC_OK;
}

static moec_status find_bytes(Builder *b)
{
        u32 *byte = b->head.byte;
        memset(byte, 0xff, sizeof b->head.byte);
        for (u32 cp = 0; cp < N_ALPHABET; cp++) {
                char c[2] = {(char)cp};
                u32 slot, id;
                if (b->byte_of[cp] < 0)
                        continue;
                if (cp >= 0x80) {
                        c[0] = (char)(0xc0 | cp >> 6);
                        c[1] = (char)(0x80 | (cp & 0x3f));
                }
                id = map_find(b, c, cp < 0x80 ? 1 : 2, &slot);
                if (id != NO_ID && b->type[id] == TOKEN_NORMAL)
                        byte[b->byte_of[cp]] = id;
        }
        for (u32 i = 0; i < b->s->n_token; i++) {
                u8 c = b->type[i] == TOKEN_BYTE ? (u8)b->text[b->off[i]] : 0;
                if (b->type[i] == TOKEN_BYTE && byte[c] == NO_ID)
                        byte[c] = i;
        }
        for (u32 c = 0; c < 256; c++)
                if (byte[c] == NO_ID && c != 0xc0 && c != 0xc1 && c < 0xf5)
                        return fail(
                                b->e, MOEC_DAMAGED, "tokenizer.ggml.tokens: none stands for byte 0x%02x", c);
        return MOEC_OK;
}

/* ---- merges ---- */

static moec_status read_merge(Builder *b, u32 i, Merge *m)
{
        TokenText t = b->s->merge[i];
        char q[64], both[512];
        const char *space = t.n ? memchr(t.p, ' ', t.n) : NULL;
        size_t left = space ? (size_t)(space - t.p) : 0, right = space ? t.n - left - 1 : 0;
        if (!left || !right || memchr(space + 1, ' ', right))
                return fail(b->e, MOEC_DAMAGED,
                        "tokenizer.ggml.merges[%u] \"%s\" is not two tokens with one space between", i,
                        quote(t, q));
        char *join = t.n <= sizeof both ? both : malloc(t.n);
        if (!join)
                return no_memory(b);
        memcpy(join, t.p, left);
        memcpy(join + left, space + 1, right);
        u32 slot;
        *m = (Merge){map_find(b, t.p, left, &slot), map_find(b, space + 1, right, &slot), i,
                map_find(b, join, left + right, &slot)};
        if (join != both)
                free(join);
        if (m->left == NO_ID || m->right == NO_ID || m->result == NO_ID)
                return fail(b->e, MOEC_DAMAGED,
                        "tokenizer.ggml.merges[%u] \"%s\": %s is not in the vocabulary", i, quote(t, q),
                        m->left == NO_ID    ? "the left part"
                        : m->right == NO_ID ? "the right part"
                                            : "the result");
        return MOEC_OK;
}

/* Tables are built for a seed that finds everything within PROBES slots. Only a file made for the purpose
 * needs many tries. */
#define TRIES 8

static bool place_merges(Builder *b, u32 seed, u32 bits)
{
        u32 mask = (1u << bits) - 1;
        memset(b->merge, 0xff, sizeof *b->merge << bits);
        for (u64 i = 0; i < b->s->n_merge; i++) {
                const Merge *m = &b->pairs[i];
                u32 s = merge_slot(m->left, m->right, seed, bits), k = 0;
                for (; k < PROBES; k++) {
                        Merge *at = &b->merge[(s + k) & mask];
                        if (at->left == NO_ID)
                                *at = *m;
                        if (at->left == m->left && at->right == m->right)
                                break; /* of a pair listed twice the first counts */
                }
                if (k == PROBES)
                        return false;
        }
        b->merge_seed = seed;
        b->merge_bits = bits;
        return true;
}

static bool place_words(Builder *b, u32 seed, u32 bits)
{
        u32 mask = (1u << bits) - 1;
        memset(b->word, 0xff, sizeof *b->word << bits);
        for (u32 i = 0; i < b->s->n_token; i++) {
                size_t n = b->off[i + 1] - b->off[i];
                if (b->type[i] != TOKEN_NORMAL || !n)
                        continue;
                u32 s = word_slot(hash_str(b->text + b->off[i], n), seed, bits), k = 0;
                while (k < PROBES && b->word[(s + k) & mask] != NO_ID)
                        k++;
                if (k == PROBES)
                        return false;
                b->word[(s + k) & mask] = i;
        }
        b->word_seed = seed;
        b->word_bits = bits;
        return true;
}

static moec_status build_table(
        Builder *b, u64 n, void **table, size_t slot, bool (*place)(Builder *, u32, u32), const char *what)
{
        u32 bits = 4;
        while (1ull << bits < n + n / 2)
                bits++;
        for (u32 try = 0; try < TRIES; try++) {
                if (try == TRIES / 2)
                        bits++;
                free(*table);
                *table = malloc(slot << bits);
                if (!*table)
                        return no_memory(b);
                if (place(b, try, bits))
                        return MOEC_OK;
        }
        return fail(b->e, MOEC_DAMAGED, "tokenizer.ggml.%s is made to collide: refused", what);
}

static moec_status build_merges(Builder *b)
{
        u64 n = b->s->n_merge;
        b->pairs = malloc((n + 1) * sizeof *b->pairs);
        if (!b->pairs)
                return no_memory(b);
        for (u32 i = 0; i < n; i++) {
                moec_status st = read_merge(b, i, &b->pairs[i]);
                if (st)
                        return st;
        }
        moec_status st = build_table(b, n, (void **)&b->merge, sizeof *b->merge, place_merges, "merges");
        if (!st && pre_words(b->pre))
                st = build_table(b, b->s->n_token, (void **)&b->word, sizeof *b->word, place_words, "tokens");
        return st;
}

/* ---- special tokens ---- */

typedef struct Special {
        TokenText text;
        u32 id;
} Special;

static int by_text(const void *a, const void *b)
{
        const Special *x = a, *y = b;
        return text_order(x->text.p, x->text.n, y->text.p, y->text.n);
}

static moec_status list_special(Builder *b)
{
        char q[64];
        Special *list = malloc((b->s->n_token + 1) * sizeof *list);
        b->special = malloc((b->s->n_token + 1) * sizeof *b->special);
        if (!list || !b->special) {
                free(list);
                return no_memory(b);
        }
        u32 n = 0;
        for (u32 i = 0; i < b->s->n_token; i++) {
                TokenText t = b->s->token[i];
                u8 type = b->type[i];
                if ((type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_USER) || !t.n)
                        continue;
                if (t.n > MAX_SPECIAL) {
                        free(list);
                        return fail(b->e, MOEC_DAMAGED,
                                "tokenizer.ggml.tokens[%u] \"%s...\": a special token of %zu bytes, at most "
                                "%d",
                                i, quote(t, q), t.n, MAX_SPECIAL);
                }
                list[n++] = (Special){t, i};
        }
        qsort(list, n, sizeof *list, by_text);
        for (u32 i = 0; i < n; i++)
                b->special[i] = list[i].id;
        b->n_special = n;
        free(list);
        return MOEC_OK;
}

/* Tokens that end a turn or a text in the models at large: files often name only one of theirs. The last is
 * DeepSeek's. */
static const char *const end_texts[] = {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>",
        "<|eom_id|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<EOT>",
        "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>"};

static u32 find_control(const Builder *b, const char *text)
{
        u32 slot, id = map_find(b, text, strlen(text), &slot);
        return id != NO_ID && (b->type[id] == TOKEN_CONTROL || b->type[id] == TOKEN_USER) ? id : NO_ID;
}

static void add_end(Builder *b, i64 id)
{
        TokenHead *h = &b->head;
        for (u32 i = 0; i < h->n_end; i++)
                if (h->end[i] == (u32)id)
                        return;
        h->end[h->n_end++] = (u32)id;
}

static moec_status find_ends(Builder *b)
{
        const TokenSource *s = b->s;
        const i64 named[] = {s->eos, s->eot, s->eom};
        for (size_t i = 0; i < COUNT(named); i++)
                if (named[i] >= 0)
                        add_end(b, named[i]);
        /* Where <|return|> and <|call|> exist (gpt-oss), <|end|> only ends one message of several. */
        bool harmony = find_control(b, "<|return|>") != NO_ID && find_control(b, "<|call|>") != NO_ID;
        for (size_t i = 0; i < COUNT(end_texts); i++) {
                u32 id = find_control(b, end_texts[i]);
                if (id != NO_ID && !(harmony && !strcmp(end_texts[i], "<|end|>")))
                        add_end(b, id);
        }
        if (s->add_bos == 1 && s->bos < 0)
                return fail(b->e, MOEC_DAMAGED,
                        "tokenizer.ggml.add_bos_token is set, but tokenizer.ggml.bos_token_id is missing");
        bool bos = s->add_bos >= 0 ? s->add_bos : pre_bos(b->pre);
        b->head.bos = bos ? (i32)s->bos : -1;
        return MOEC_OK;
}

/* ---- all of it ---- */

static moec_status write_blob(Builder *b, void **blob, size_t *size)
{
        TokenHead *h = &b->head;
        TokenView v;
        h->magic = TOKEN_MAGIC;
        h->version = TOKEN_VERSION;
        h->n_token = (u32)b->s->n_token;
        h->n_merge = (u32)b->s->n_merge;
        h->n_special = b->n_special;
        h->merge_bits = b->merge_bits;
        h->merge_seed = b->merge_seed;
        h->word_bits = b->word_bits;
        h->word_seed = b->word_seed;
        h->text_bytes = b->off[h->n_token];
        h->size = token_layout(h, NULL, &v);
        char *out = calloc(1, h->size);
        if (!out)
                return no_memory(b);
        memcpy(out, h, sizeof *h);
        token_layout(h, out, &v);
#define P(name, T, count)                                                                                    \
        if ((count) > 0)                                                                                     \
                memcpy(out + ((const char *)v.name - out), b->name, (count) * sizeof(T));
        TOKEN_PARTS(P)
#undef P
        *blob = out;
        *size = h->size;
        return MOEC_OK;
}

typedef moec_status Step(Builder *b);

moec_status token_build(const TokenSource *src, void **blob, size_t *size, moec_error *e)
{
        static Step *const step[] = {check_model, check_counts, decode_tokens, map_tokens, find_bytes,
                build_merges, list_special, find_ends};
        Builder b = {.s = src, .e = e};
        moec_status st = MOEC_OK;
        fill_alphabet(&b);
        for (size_t i = 0; i < COUNT(step) && !st; i++)
                st = step[i](&b);
        if (!st)
                st = write_blob(&b, blob, size);
        free(b.type);
        free(b.off);
        free(b.text);
        free(b.map);
        free(b.special);
        free(b.pairs);
        free(b.merge);
        free(b.word);
        return st;
}
