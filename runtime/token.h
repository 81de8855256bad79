/* Byte-level BPE: text to token ids and back.
 *
 * A tokenizer is a blob: one block of bytes that token_build makes from a model's vocabulary, that a plan
 * stores, and that token_open uses in place. Opening validates every number in it, in one pass, and builds
 * nothing: a damaged blob is refused.
 *
 * Encoding: the text is cut at special tokens (leftmost, then longest), what is between them at bytes that
 * are not UTF-8 (each is its byte's token), then by the pre-tokenizer's patterns into pieces. A piece is
 * merged pair by pair, lowest rank first, leftmost first. Where a pattern hits PCRE2's limits, what is left
 * of its stretch is one piece. So every text has exactly one encoding, no text is refused, and decoding gives
 * the text's bytes back.
 *
 * The file keys are tokenizer.ggml.*; their meaning, the names of the pre-tokenizers and which tokens end a
 * text follow llama.cpp (src/llama-vocab.cpp), the patterns the tokenizer.json of the models that those names
 * stand for. */
#ifndef MOEC_TOKEN_H
#define MOEC_TOKEN_H
#include "ir/util.h"

typedef struct TokenText {
        const char *p;
        size_t n;
} TokenText;

/* Token types, as in GGUF. */
typedef enum TokenType {
        TOKEN_UNDEFINED,
        TOKEN_NORMAL,
        TOKEN_UNKNOWN,
        TOKEN_CONTROL,
        TOKEN_USER,   /* added by the model's maker: recognised in every text */
        TOKEN_UNUSED, /* fills the vocabulary up */
        TOKEN_BYTE,   /* <0xHH> */
        N_TOKEN_TYPE
} TokenType;

/* A vocabulary as a file has it. Strings are hostile bytes, not NUL-terminated. */
typedef struct TokenSource {
        TokenText model, pre;   /* tokenizer.ggml.model, .pre; n 0: the file has none */
        const TokenText *token; /* [n_token] */
        u64 n_token;
        const i32 *type; /* [n_type], TokenType; NULL: all normal */
        u64 n_type;
        const TokenText *merge; /* [n_merge] "left right" */
        u64 n_merge;
        i64 bos, eos, eot, eom; /* ids; -1: the file has none */
        int add_bos;            /* 0, 1; -1: the file does not say, the pre-tokenizer decides */
} TokenSource;

/* *blob is malloc'ed, the caller frees it. MOEC_UNSUPPORTED: another kind of tokenizer; MOEC_DAMAGED: a
 * vocabulary that contradicts itself. */
moec_status token_build(const TokenSource *src, void **blob, size_t *size, moec_error *e);

/* Immutable once open: threads may share it. */
typedef struct Token Token;

/* The blob stays the caller's, aligned to 8, and must outlive the tokenizer. */
moec_status token_open(const void *blob, size_t size, Token **tok, moec_error *e);
void token_close(Token *t); /* NULL is fine */

/* bos: begin with BOS where the model wants one. special: control tokens written out in the text are
 * recognised; user-defined ones always are. *ids is malloc'ed, the caller frees it; never NULL on success.
 * Texts up to 512 MiB. */
moec_status token_encode(const Token *t, const char *text, size_t len, bool bos, bool special, i32 **ids,
        int *n, moec_error *e);

/* The bytes of one token, owned by the blob. Unknown, control and unused tokens give nothing unless special.
 */
moec_status token_piece(const Token *t, i32 id, bool special, const char **piece, size_t *len, moec_error *e);

u32 token_count(const Token *t);
i32 token_bos(const Token *t); /* the id that encoding begins with; -1: none */
bool token_is_end(const Token *t, i32 id);
const u32 *token_ends(const Token *t, u32 *n); /* all that token_is_end says yes to */

#endif
