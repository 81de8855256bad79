/* A Key names one kernel: an operation and every constant its template is expanded with. Equal Keys are
 * compiled once. */
#ifndef MOEC_KEY_H
#define MOEC_KEY_H
#include "ir/util.h"

/* Names are ours; values are numbers we formatted or words of our tables, never text from a file. */
typedef struct Fact {
        const char *name, *value;
} Fact;

typedef struct Key {
        Arena *arena;
        const char *op; /* its template: OP.c.m4 */
        Fact *fact;
        u32 n, cap;
        const char *name; /* the kernel's symbol: k_OP_ and 12 hex digits of the hash; set by key_done */
        const char *text; /* "matmul K=2048 NT=4 ...", the Key printed; set by key_done */
} Key;

Key *key_new(Arena *a, const char *op);
void key_int(Key *k, const char *name, i64 v);
void key_flt(Key *k, const char *name, double v); /* written as %a */
void key_word(Key *k, const char *name, const char *word);
void key_fmt(Key *k, const char *value, const char *name, ...) PRINTF(3, 4); /* a numbered fact */
void key_done(Key *k);

#endif
