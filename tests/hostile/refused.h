/* Assertions for files that must be refused. */
#ifndef MOEC_TEST_REFUSED_H
#define MOEC_TEST_REFUSED_H
#include "tests/hostile/gen.h"
#include "tests/hostile/walk.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static inline void check_error(const moec_error *e, moec_status st, u64 at, const char *what)
{
        char byte[40];
        snprintf(byte, sizeof byte, "byte %" PRIu64 ":", at);
        if (e->status != st || !strstr(e->msg, byte) || !strstr(e->msg, what))
                fail_msg("expected status %d, \"%s\" and \"%s\"; got %d: %s", st, byte, what, e->status,
                        e->msg);
        for (const char *p = e->msg; *p; p++)
                assert_true(*p >= ' ' && *p <= '~'); /* nothing that a terminal obeys */
}

/* The file is refused, whatever its counts claim, within memory that its real size accounts for. Frees b. */
static inline void refused_as(Buf *b, moec_status st, u64 at, const char *what)
{
        Opened o;
        g_open(&o, b, NULL);
        check_error(&o.error, st, at, what);
        assert_true(arena_used(o.a) <= 2048 + 16 * b->len);
        g_shut(&o);
        buf_free(b);
}

static inline void refused(Buf *b, u64 at, const char *what)
{
        refused_as(b, MOEC_DAMAGED, at, what);
}

static inline void accepted(Buf *b)
{
        Opened o;
        g_open(&o, b, NULL);
        if (o.error.status)
                fail_msg("refused: %s", o.error.msg);
        walk(o.g);
        g_shut(&o);
        buf_free(b);
}

/* One getter's refusal, on a file that is right. */
#define GETTER_REFUSED(b, at, what, ...)                                                                     \
        do {                                                                                                 \
                Opened o;                                                                                    \
                g_open(&o, &(b), NULL);                                                                      \
                assert_int_equal(o.error.status, 0);                                                         \
                const Gguf *g = o.g;                                                                         \
                Trap t;                                                                                      \
                if (TRAP(&t) == 0) {                                                                         \
                        __VA_ARGS__;                                                                         \
                        trap_pop(&t);                                                                        \
                        fail_msg("%s was accepted", #__VA_ARGS__);                                           \
                }                                                                                            \
                check_error(&t.error, MOEC_DAMAGED, at, what);                                               \
                g_shut(&o);                                                                                  \
        } while (0)

/* A file with one tensor of these claims and `data` bytes behind it, and its record's byte in *at. */
static inline Buf one_tensor(u64 ne0, u64 ne1, u32 type, u64 offset, size_t data, u64 *at)
{
        Buf b = {0};
        g_head(&b, 1, 0);
        *at = b.len;
        g_tensor(&b, "t", ne0, ne1, type, offset);
        g_pad(&b, 32);
        g_fill(&b, data);
        return b;
}
/* Where the fields of that record are. */
enum {
        DIMS = 8 + 1,
        NE0 = DIMS + 4,
        NE1 = NE0 + 8,
        TYPE2 = NE1 + 8,
        OFFSET2 = TYPE2 + 4,
        TYPE1 = NE1,
        OFFSET1 = TYPE1 + 4
};

#define AT(name) gguf_key(all.g, name)->at

#endif
