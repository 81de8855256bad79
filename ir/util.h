/* What every layer shares: numbers, errors, arenas, growing buffers, checked arithmetic, hashing, files.
 * Knows of no other part. */
#ifndef MOEC_UTIL_H
#define MOEC_UTIL_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include "moec.h" /* moec_status, moec_error */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

#define COUNT(a)     (sizeof(a) / sizeof *(a))
#define PRINTF(m, n) __attribute__((format(printf, m, n)))
#define MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MAX(a, b)    ((a) > (b) ? (a) : (b))

/* ---- errors ----
 * Compiler: err() is the user's fault, die() is ours; both record a message and jump to the innermost Trap,
 * which the public API sets up. Nothing between may own what an arena does not free.
 *
 *         Trap t;
 *         if (TRAP(&t) == 0) { work; trap_pop(&t); } else { t.error tells; already popped }
 *
 * Runtime: functions return a status and fill a moec_error through fail(). */
typedef struct Trap Trap;
struct Trap {
        jmp_buf jump;
        Trap *outer;
        moec_error error;
};
void trap_push(Trap *t);
void trap_pop(Trap *t);
#define TRAP(t) (trap_push(t), setjmp((t)->jump))

noreturn void err(moec_status st, const char *fmt, ...) PRINTF(2, 3);
noreturn void err_rethrow(const moec_error *e);
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__) /* an invariant of ours is broken */
noreturn void die_at(const char *file, int line, const char *fmt, ...) PRINTF(3, 4);
moec_status fail(moec_error *e, moec_status st, const char *fmt, ...)
        PRINTF(3, 4); /* e may be NULL; returns st */

/* ---- memory ----
 * An arena holds everything of one lifetime and is freed at once. Its memory is zeroed and aligned to 16. */
typedef struct Arena Arena;
Arena *arena_new(void);
void arena_free(Arena *a); /* NULL is fine */
void *arena_alloc(Arena *a, size_t size);
void *arena_array(Arena *a, size_t n, size_t size); /* n * size checked */
void *arena_copy(Arena *a, const void *p, size_t size);
char *arena_str(Arena *a, const char *s);
char *arena_strn(Arena *a, const char *s, size_t n);
char *arena_fmt(Arena *a, const char *fmt, ...) PRINTF(2, 3);
size_t arena_used(const Arena *a);
#define NEW(a, T)     ((T *)arena_alloc((a), sizeof(T)))
#define NEWN(a, T, n) ((T *)arena_array((a), (n), sizeof(T)))

void *xmalloc(size_t n); /* die when out of memory */
void *xrealloc(void *p, size_t n);

/* A growing array in an arena: GROW(arena, ptr, len, cap) makes room for one more at ptr[len]. Old copies
 * stay in the arena. */
#define GROW(a, p, len, cap)                                                                                 \
        ((len) < (cap) ? (void)0 : (void)((p) = arena_grow((a), (p), (len), &(cap), sizeof *(p))))
void *arena_grow(Arena *a, const void *p, u32 len, u32 *cap, size_t size);

/* A growing byte string on the heap; always NUL-terminated behind len once anything was added. */
typedef struct Buf {
        char *p;
        size_t len, cap;
} Buf;
void buf_add(Buf *b, const void *p, size_t n);
void buf_str(Buf *b, const char *s);
void buf_char(Buf *b, char c);
void buf_fmt(Buf *b, const char *fmt, ...) PRINTF(2, 3);
void buf_vfmt(Buf *b, const char *fmt, va_list ap);
void buf_json(Buf *b, const char *s, size_t n); /* quoted and escaped; invalid UTF-8 becomes U+FFFD */
void buf_free(Buf *b);

/* ---- checked arithmetic: false on overflow, *out then untouched ---- */
bool add_u64(u64 a, u64 b, u64 *out);
bool mul_u64(u64 a, u64 b, u64 *out);
bool align_u64(u64 a, u64 align, u64 *out); /* align: a power of two */

/* ---- hashing: XXH3, 128 bits ---- */
typedef struct Hash {
        u64 lo, hi;
} Hash;
Hash hash_bytes(const void *p, size_t n);
Hash hash_mix(Hash h, const void *p, size_t n); /* order matters */
bool hash_same(Hash a, Hash b);
#define HASH_HEX 32
char *hash_hex(Hash h, char out[HASH_HEX + 1]);
u64 hash_str(const char *s, size_t n); /* 64 bits, for tables */

/* ---- files ---- */
typedef struct Map {
        const u8 *p; /* read-only, shared; NULL for an empty file */
        u64 size;
        int fd;
} Map;
moec_status map_open(const char *path, Map *m, moec_error *e); /* regular files only */
void map_close(Map *m);
moec_status file_read(const char *path, Buf *out, u64 max, moec_error *e);
/* Written beside path, synced, renamed: never a partial file. mode: 0644 or 0755. */
moec_status file_write(const char *path, const void *p, size_t n, int mode, moec_error *e);

/* ---- numbers ---- */
float f16_to_f32(u16 h);
u16 f32_to_f16(float f); /* round to nearest even */
float bf16_to_f32(u16 h);
double now_s(void); /* monotonic */
bool parse_u64(const char *s, u64 max, u64 *out);
bool utf8_valid(const char *s, size_t n);

#endif
