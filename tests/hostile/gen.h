/* Builds GGUF files byte by byte, right or wrong, in memory; and reads them back the way every test and
 * fuzzer here does. All inline: a test includes what it needs. Positions for messages are b->len before a
 * field is written. */
#ifndef MOEC_TEST_GEN_H
#define MOEC_TEST_GEN_H
#include "frontend/gguf.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void g_u8(Buf *b, u8 v)
{
        buf_add(b, &v, sizeof v);
}

static inline void g_u32(Buf *b, u32 v)
{
        buf_add(b, &v, sizeof v);
}

static inline void g_u64(Buf *b, u64 v)
{
        buf_add(b, &v, sizeof v);
}

static inline void g_f32(Buf *b, float v)
{
        buf_add(b, &v, sizeof v);
}

static inline void g_strn(Buf *b, const char *s, size_t n)
{
        g_u64(b, n);
        buf_add(b, s, n);
}

static inline void g_str(Buf *b, const char *s)
{
        g_strn(b, s, strlen(s));
}

static inline void g_head(Buf *b, u64 n_tensor, u64 n_key)
{
        buf_str(b, "GGUF");
        g_u32(b, 3);
        g_u64(b, n_tensor);
        g_u64(b, n_key);
}

/* A key up to its value, whose position is then b->len. */
static inline void g_key(Buf *b, const char *name, u32 type)
{
        g_str(b, name);
        g_u32(b, type);
}

static inline void g_key_u32(Buf *b, const char *name, u32 v)
{
        g_key(b, name, GGUF_u32);
        g_u32(b, v);
}

static inline void g_key_str(Buf *b, const char *name, const char *s)
{
        g_key(b, name, GGUF_string);
        g_str(b, s);
}

static inline void g_key_arr(Buf *b, const char *name, u32 elem, u64 n)
{
        g_key(b, name, GGUF_array);
        g_u32(b, elem);
        g_u64(b, n);
}

/* ne0 is the contiguous dimension, as in the file; ne1 0: one dimension only. */
static inline void g_tensor(Buf *b, const char *name, u64 ne0, u64 ne1, u32 type, u64 offset)
{
        g_str(b, name);
        g_u32(b, ne1 ? 2 : 1);
        g_u64(b, ne0);
        if (ne1)
                g_u64(b, ne1);
        g_u32(b, type);
        g_u64(b, offset);
}

static inline void g_fill(Buf *b, size_t n)
{
        for (size_t i = 0; i < n; i++)
                g_u8(b, (u8)(i * 37 + 11));
}

static inline void g_pad(Buf *b, size_t align)
{
        while (b->len % align)
                g_u8(b, 0);
}

/* A small, right file that has a bit of everything; returns where its tensor data starts. */
static inline size_t g_valid(Buf *b)
{
        g_head(b, 4, 18);
        g_key_str(b, "general.architecture", "qwen3moe");
        g_key_u32(b, "general.alignment", 64);
        g_key_u32(b, "qwen3moe.block_count", 2);
        g_key(b, "t.u8", GGUF_u8), g_u8(b, 200);
        g_key(b, "t.i8", GGUF_i8), g_u8(b, 0x80);
        g_key(b, "t.u16", GGUF_u16), buf_add(b, "\x34\x12", 2);
        g_key(b, "t.i16", GGUF_i16), buf_add(b, "\xff\xff", 2);
        g_key(b, "t.i32", GGUF_i32), g_u32(b, 77);
        g_key(b, "t.f32", GGUF_f32), g_f32(b, 1.5f);
        g_key(b, "t.bool", GGUF_bool), g_u8(b, 1);
        g_key(b, "t.u64", GGUF_u64), g_u64(b, UINT64_MAX);
        g_key(b, "t.i64", GGUF_i64), g_u64(b, (u64)-5);
        g_key(b, "t.f64", GGUF_f64), buf_add(b, &(double){-0.25}, 8);
        g_key_arr(b, "tokenizer.ggml.tokens", GGUF_string, 3);
        g_str(b, "a"), g_str(b, ""), g_str(b, "\xc4\xa0the");
        g_key_arr(b, "tokenizer.ggml.scores", GGUF_f32, 3);
        g_f32(b, -1), g_f32(b, -2), g_f32(b, -3);
        g_key_arr(b, "tokenizer.ggml.token_type", GGUF_i32, 3);
        g_u32(b, 1), g_u32(b, 3), g_u32(b, (u32)-6);
        g_key_arr(b, "t.bools", GGUF_bool, 2), g_u8(b, 0), g_u8(b, 1);
        g_key_arr(b, "t.empty", GGUF_string, 0);
        g_tensor(b, "token_embd.weight", 32, 3, 0, 0);
        g_tensor(b, "blk.0.attn_q.weight", 256, 2, 12, 384);
        g_tensor(b, "blk.0.ffn_up_exps.weight", 64, 4, 8, 704);
        g_tensor(b, "blk.0.old.weight", 256, 0, 16, 1024);
        g_pad(b, 64);
        size_t data = b->len;
        g_fill(b, 1024 + 66);
        return data;
}

/* A file as it is read in these tests: an exact copy on the heap, so that a sanitizer sees one byte too many.
 */
typedef struct Opened {
        Arena *a;
        Gguf *g;
        u8 *copy[2];
        moec_error error; /* status 0: it was read */
} Opened;

/* Part 2 may be NULL: a file of one part. */
static inline void g_open(Opened *o, const Buf *b, const Buf *b2)
{
        *o = (Opened){.a = arena_new()};
        Trap t;
        const Buf *part[2] = {b, b2};
        for (int i = 0; i < 2 && part[i]; i++) {
                o->copy[i] = malloc(part[i]->len ? part[i]->len : 1);
                if (part[i]->len)
                        memcpy(o->copy[i], part[i]->p, part[i]->len);
        }
        if (TRAP(&t) == 0) {
                o->g = gguf_new(o->a);
                gguf_add(o->g, "a.gguf", (Map){o->copy[0], b->len, -1});
                if (b2)
                        gguf_add(o->g, "b.gguf", (Map){o->copy[1], b2->len, -1});
                gguf_finish(o->g);
                trap_pop(&t);
        } else {
                o->error = t.error;
        }
}

static inline void g_shut(Opened *o)
{
        arena_free(o->a); /* not gguf_close: nothing is mapped */
        free(o->copy[0]);
        free(o->copy[1]);
}

/* Of this thread: other work on the machine does not count. */
static inline double g_cpu_s(void)
{
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
