/* Uses all there is of an opened GGUF, so that a sanitizer sees whatever the reader let through. */
#ifndef MOEC_TEST_WALK_H
#define MOEC_TEST_WALK_H
#include "frontend/gguf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static u64 walk_sink; /* keeps the reads */

static inline void walk_bytes(const void *p, u64 n)
{
        for (u64 i = 0; i < n; i++)
                walk_sink += ((const u8 *)p)[i];
}

/* A getter that refuses is fine, for a reason that is the file's. */
#define WALK_TRY(...)                                                                                        \
        do {                                                                                                 \
                Trap t_;                                                                                     \
                if (TRAP(&t_) == 0) {                                                                        \
                        __VA_ARGS__;                                                                         \
                        trap_pop(&t_);                                                                       \
                } else if (t_.error.status != MOEC_DAMAGED && t_.error.status != MOEC_UNSUPPORTED) {         \
                        fprintf(stderr, "status %d: %s\n", t_.error.status, t_.error.msg);                   \
                        abort();                                                                             \
                }                                                                                            \
        } while (0)

static inline void walk_ints(const Gguf *g, const char *name)
{
        const GgufKey *k = gguf_arr(g, name, GGUF_INTS, 0, UINT64_MAX);
        for (u64 i = 0; i < k->n; i++)
                walk_sink += gguf_elem_u64(g, k, i, 0, UINT64_MAX);
}

static inline void walk_floats(const Gguf *g, const char *name)
{
        const GgufKey *k = gguf_arr(g, name, GGUF_FLOATS, 0, UINT64_MAX);
        for (u64 i = 0; i < k->n; i++)
                walk_sink += gguf_elem_f32(g, k, i, -1e30, 1e30) > 0;
}

static inline void walk_bools(const Gguf *g, const char *name)
{
        const GgufKey *k = gguf_arr(g, name, GGUF_BOOLS, 0, UINT64_MAX);
        for (u64 i = 0; i < k->n; i++)
                walk_sink += gguf_elem_bool(k, i);
}

static inline void walk_strings(const Gguf *g, const char *name)
{
        const GgufKey *k = gguf_arr(g, name, GGUF_STRINGS, 0, UINT64_MAX);
        for (u64 i = 0; i < k->n; i++) {
                GgufStr s = gguf_elem_str(k, i);
                walk_bytes(s.p, s.n);
        }
}

static inline void walk_key(const Gguf *g, const GgufKey *k)
{
        if (gguf_key(g, k->name) != k)
                abort();
        u64 u;
        float f;
        bool b;
        GgufStr s;
        WALK_TRY(walk_sink += gguf_u64(g, k->name, 0, UINT64_MAX, &u));
        WALK_TRY(walk_sink += gguf_f32(g, k->name, -1e30, 1e30, &f));
        WALK_TRY(walk_sink += gguf_bool(g, k->name, &b));
        WALK_TRY(if (gguf_str(g, k->name, &s)) walk_bytes(s.p, s.n));
        WALK_TRY(walk_ints(g, k->name));
        WALK_TRY(walk_floats(g, k->name));
        WALK_TRY(walk_bools(g, k->name));
        WALK_TRY(walk_strings(g, k->name));
        walk_bytes(gguf_type_name(k->type), 2);
}

static inline void walk_tensor(const Gguf *g, const GgufTensor *t)
{
        if (gguf_tensor(g, t->name) != t || t->n_dim < 1 || t->n_dim > GGUF_MAX_DIM)
                abort();
        u64 n = 1;
        for (u32 i = 0; i < t->n_dim; i++)
                n *= t->dim[i];
        if (n != t->n)
                abort();
        const u8 *volatile p = NULL;
        WALK_TRY(p = gguf_data(g, t));
        if (p)
                walk_bytes(p, t->bytes);
        walk_bytes(gguf_tensor_type(t->id), 2);
}

static inline void walk(const Gguf *g)
{
        walk_sink += gguf_hash(g).lo + gguf_is_shape(g) + strlen(gguf_path(g));
        for (u32 i = 0; i < gguf_n_keys(g); i++)
                walk_key(g, gguf_key_at(g, i));
        for (u32 i = 0; i < gguf_n_tensors(g); i++)
                walk_tensor(g, gguf_tensor_at(g, i));
        if (gguf_key(g, "no.such.key") || gguf_tensor(g, "no such tensor"))
                abort();
}

#endif
