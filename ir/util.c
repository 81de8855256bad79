#include "ir/util.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- errors ---- */

static _Thread_local Trap *innermost;

void trap_push(Trap *t)
{
        t->outer = innermost;
        innermost = t;
}

void trap_pop(Trap *t)
{
        if (innermost != t)
                die("traps popped out of order");
        innermost = t->outer;
}

noreturn void err_rethrow(const moec_error *e)
{
        Trap *t = innermost;
        if (!t) { /* nobody to tell: only a program that skips the public API comes here */
                fprintf(stderr, "%s\n", e->msg);
                abort();
        }
        innermost = t->outer;
        t->error = *e;
        longjmp(t->jump, 1);
}

noreturn void err(moec_status st, const char *fmt, ...)
{
        moec_error e = {.status = st};
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e.msg, sizeof e.msg, fmt, ap);
        va_end(ap);
        err_rethrow(&e);
}

noreturn void die_at(const char *file, int line, const char *fmt, ...)
{
        moec_error e = {.status = MOEC_ERROR};
        int n = snprintf(e.msg, sizeof e.msg, "internal error at %s:%d: ", file, line);
        va_list ap;
        va_start(ap, fmt);
        if (n >= 0 && (size_t)n < sizeof e.msg)
                vsnprintf(e.msg + n, sizeof e.msg - (size_t)n, fmt, ap);
        va_end(ap);
        err_rethrow(&e);
}

moec_status fail(moec_error *e, moec_status st, const char *fmt, ...)
{
        if (!e)
                return st;
        moec_error new = {.status = st}; /* not in place: the arguments may hold e->msg */
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(new.msg, sizeof new.msg, fmt, ap);
        va_end(ap);
        *e = new;
        return st;
}

/* ---- memory ---- */

#define ARENA_ALIGN 16
#define CHUNK_MIN   (64u << 10)

typedef struct Chunk Chunk;
struct Chunk {
        Chunk *next;
        size_t used, cap;
        alignas(ARENA_ALIGN) u8 data[];
};
struct Arena {
        Chunk *head; /* the one with room */
        size_t used;
};

static noreturn void no_memory(size_t n)
{
        err(MOEC_NO_MEMORY, "out of memory: could not get %zu more bytes", n);
}

Arena *arena_new(void)
{
        Arena *a = calloc(1, sizeof *a);
        if (!a)
                no_memory(sizeof *a);
        return a;
}

void arena_free(Arena *a)
{
        if (!a)
                return;
        for (Chunk *c = a->head, *next; c; c = next) {
                next = c->next;
                free(c);
        }
        free(a);
}

static Chunk *chunk_new(size_t cap)
{
        Chunk *c = cap <= SIZE_MAX - sizeof *c ? calloc(1, sizeof *c + cap) : NULL;
        if (!c)
                no_memory(cap);
        c->cap = cap;
        return c;
}

void *arena_alloc(Arena *a, size_t size)
{
        if (size > SIZE_MAX / 2)
                no_memory(size);
        size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
        Chunk *c = a->head;
        if (!c || c->cap - c->used < size) {
                Chunk *new = chunk_new(MAX(size, CHUNK_MIN));
                if (c && size > CHUNK_MIN / 4) { /* big: on its own, behind the chunk that still has room */
                        new->next = c->next;
                        c->next = new;
                } else {
                        new->next = c;
                        a->head = new;
                }
                c = new;
        }
        void *p = c->data + c->used;
        c->used += size;
        a->used += size;
        return p;
}

void *arena_array(Arena *a, size_t n, size_t size)
{
        if (size && n > SIZE_MAX / size)
                no_memory(SIZE_MAX);
        return arena_alloc(a, n * size);
}

void *arena_copy(Arena *a, const void *p, size_t size)
{
        void *q = arena_alloc(a, size);
        if (size)
                memcpy(q, p, size);
        return q;
}

char *arena_strn(Arena *a, const char *s, size_t n)
{
        char *q = arena_alloc(a, n + 1);
        if (n)
                memcpy(q, s, n);
        return q;
}

char *arena_str(Arena *a, const char *s)
{
        return arena_strn(a, s, strlen(s));
}

char *arena_fmt(Arena *a, const char *fmt, ...)
{
        va_list ap, ap2;
        va_start(ap, fmt);
        va_copy(ap2, ap);
        int n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n < 0)
                die("bad format %s", fmt);
        char *s = arena_alloc(a, (size_t)n + 1);
        vsnprintf(s, (size_t)n + 1, fmt, ap2);
        va_end(ap2);
        return s;
}

size_t arena_used(const Arena *a)
{
        return a->used;
}

void *xmalloc(size_t n)
{
        return xrealloc(NULL, n);
}

void *xrealloc(void *p, size_t n)
{
        void *q = realloc(p, n ? n : 1);
        if (!q)
                no_memory(n);
        return q;
}

void *arena_grow(Arena *a, const void *p, u32 len, u32 *cap, size_t size)
{
        if (*cap > UINT32_MAX / 2)
                no_memory(SIZE_MAX);
        u32 new = *cap ? *cap * 2 : 8;
        void *q = arena_array(a, new, size);
        if (len)
                memcpy(q, p, len * size);
        *cap = new;
        return q;
}

/* ---- byte strings ---- */

static char *buf_room(Buf *b, size_t n)
{
        if (n > SIZE_MAX / 2 - b->len - 1)
                no_memory(n);
        size_t need = b->len + n + 1;
        if (need > b->cap) {
                size_t cap = MAX(need, MAX(b->cap * 2, 64));
                b->p = xrealloc(b->p, cap);
                b->cap = cap;
        }
        return b->p + b->len;
}

void buf_add(Buf *b, const void *p, size_t n)
{
        char *to = buf_room(b, n);
        if (n)
                memcpy(to, p, n);
        to[n] = 0;
        b->len += n;
}

void buf_str(Buf *b, const char *s)
{
        buf_add(b, s, strlen(s));
}
void buf_char(Buf *b, char c)
{
        buf_add(b, &c, 1);
}

void buf_vfmt(Buf *b, const char *fmt, va_list ap)
{
        va_list ap2;
        va_copy(ap2, ap);
        int n = vsnprintf(NULL, 0, fmt, ap2);
        va_end(ap2);
        if (n < 0)
                die("bad format %s", fmt);
        char *to = buf_room(b, (size_t)n);
        vsnprintf(to, (size_t)n + 1, fmt, ap);
        b->len += (size_t)n;
}

void buf_fmt(Buf *b, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        buf_vfmt(b, fmt, ap);
        va_end(ap);
}

void buf_free(Buf *b)
{
        free(b->p);
        *b = (Buf){0};
}

/* Length of the well-formed character at s, n > 0; if there is none, *bad is set and the length is that of
 * the longest start of one (at least 1), which is what one U+FFFD replaces. Unicode 15, table 3-7. */
static size_t utf8_step(const u8 *s, size_t n, bool *bad)
{
        u8 c = s[0], lo = 0x80, hi = 0xbf;
        size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
        if (c == 0xe0)
                lo = 0xa0;
        if (c == 0xed)
                hi = 0x9f;
        if (c == 0xf0)
                lo = 0x90;
        if (c == 0xf4)
                hi = 0x8f;
        *bad = len == 0;
        for (size_t i = 1; i < len; i++, lo = 0x80, hi = 0xbf)
                if (i >= n || s[i] < lo || s[i] > hi) {
                        *bad = true;
                        return i;
                }
        return MAX(len, 1);
}

bool utf8_valid(const char *s, size_t n)
{
        bool bad = false;
        for (size_t i = 0; i < n && !bad;)
                i += utf8_step((const u8 *)s + i, n - i, &bad);
        return !bad;
}

void buf_json(Buf *b, const char *s, size_t n)
{
        static const char *const named[32] = {
                ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
        buf_char(b, '"');
        for (size_t i = 0, len; i < n; i += len) {
                bool bad;
                u8 c = (u8)s[i];
                len = utf8_step((const u8 *)s + i, n - i, &bad);
                if (bad)
                        buf_str(b, "\xef\xbf\xbd");
                else if (c < 0x20 && named[c])
                        buf_str(b, named[c]);
                else if (c < 0x20 || c == 0x7f)
                        buf_fmt(b, "\\u%04x", c);
                else if (c == '"' || c == '\\')
                        buf_fmt(b, "\\%c", c);
                else
                        buf_add(b, s + i, len);
        }
        buf_char(b, '"');
}

/* ---- checked arithmetic ---- */

bool add_u64(u64 a, u64 b, u64 *out)
{
        if (a > UINT64_MAX - b)
                return false;
        *out = a + b;
        return true;
}

bool mul_u64(u64 a, u64 b, u64 *out)
{
        if (b && a > UINT64_MAX / b)
                return false;
        *out = a * b;
        return true;
}

bool align_u64(u64 a, u64 align, u64 *out)
{
        u64 sum;
        if (!add_u64(a, align - 1, &sum))
                return false;
        *out = sum & ~(align - 1);
        return true;
}

/* ---- hashing ---- */

Hash hash_bytes(const void *p, size_t n)
{
        XXH128_hash_t h = XXH3_128bits(p, n);
        return (Hash){h.low64, h.high64};
}

Hash hash_mix(Hash h, const void *p, size_t n)
{
        Hash pair[2] = {h, hash_bytes(p, n)};
        return hash_bytes(pair, sizeof pair);
}

bool hash_same(Hash a, Hash b)
{
        return a.lo == b.lo && a.hi == b.hi;
}

char *hash_hex(Hash h, char out[HASH_HEX + 1])
{
        snprintf(out, HASH_HEX + 1, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
        return out;
}

u64 hash_str(const char *s, size_t n)
{
        return XXH3_64bits(s, n);
}

/* ---- files ---- */

/* e may hold nothing yet; errno says why `doing` path failed. */
static moec_status fail_file(moec_error *e, const char *doing, const char *path)
{
        int why = errno;
        if (why == ENOENT || why == ENOTDIR)
                return fail(e, MOEC_NOT_FOUND, "cannot %s %s: %s", doing, path, strerror(why));
        return fail(e, MOEC_IO, "cannot %s %s: %s", doing, path, strerror(why));
}

moec_status map_open(const char *path, Map *m, moec_error *e)
{
        *m = (Map){.fd = -1};
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
        if (fd < 0)
                return fail_file(e, "open", path);
        struct stat st;
        moec_status status = MOEC_OK;
        void *p = NULL;
        if (fstat(fd, &st) != 0)
                status = fail_file(e, "open", path);
        else if (!S_ISREG(st.st_mode))
                status = fail(e, MOEC_USAGE, "%s is %s; give a regular file", path,
                        S_ISDIR(st.st_mode) ? "a directory" : "not a file");
        else if (st.st_size > 0) {
                p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
                if (p == MAP_FAILED)
                        status = fail_file(e, "map", path);
        }
        if (status != MOEC_OK) {
                close(fd);
                return status;
        }
        *m = (Map){.p = p, .size = (u64)st.st_size, .fd = fd};
        return MOEC_OK;
}

void map_close(Map *m)
{
        if (m->p)
                munmap((void *)(uintptr_t)m->p, (size_t)m->size);
        if (m->fd >= 0)
                close(m->fd);
        *m = (Map){.fd = -1};
}

moec_status file_read(const char *path, Buf *out, u64 max, moec_error *e)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return fail_file(e, "open", path);
        size_t start = out->len;
        moec_status status = MOEC_OK;
        for (;;) {
                char part[16384];
                ssize_t n = read(fd, part, sizeof part);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        status = fail_file(e, "read", path);
                else if ((u64)n > max - (out->len - start))
                        status = fail(e, MOEC_REFUSED, "%s is larger than the %llu bytes it may have", path,
                                (unsigned long long)max);
                if (n <= 0 || status != MOEC_OK)
                        break;
                buf_add(out, part, (size_t)n);
        }
        close(fd);
        if (status != MOEC_OK)
                out->len = start;
        buf_add(out, NULL, 0);
        return status;
}

static bool write_all(int fd, const u8 *p, size_t n)
{
        while (n) {
                ssize_t did = write(fd, p, MIN(n, (size_t)1 << 30));
                if (did < 0 && errno == EINTR)
                        continue;
                if (did < 0)
                        return false;
                p += did;
                n -= (size_t)did;
        }
        return true;
}

/* A new file beside path, its name in temp. The mode is subject to the umask, as the final file's should be.
 */
static int open_beside(const char *path, char *temp, size_t size, int mode)
{
        static atomic_uint counter;
        int fd;
        do {
                unsigned c = atomic_fetch_add(&counter, 1);
                if (snprintf(temp, size, "%s.%ld.%u.tmp", path, (long)getpid(), c) >= (int)size) {
                        errno = ENAMETOOLONG;
                        return -1;
                }
                fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        } while (fd < 0 && errno == EEXIST);
        return fd;
}

moec_status file_write(const char *path, const void *p, size_t n, int mode, moec_error *e)
{
        char real[PATH_MAX], temp[PATH_MAX + 64];
        struct stat st;
        const char *to = path;
        if (stat(path, &st) == 0) {
                if (!S_ISREG(st.st_mode)) /* renaming over /dev/null would destroy it */
                        return fail(e, MOEC_REFUSED, "%s exists and is not a regular file; not overwritten",
                                path);
                if (realpath(path, real)) /* a link stays a link */
                        to = real;
        }
        int fd = open_beside(to, temp, sizeof temp, mode);
        if (fd < 0)
                return fail_file(e, "write", path);
        bool ok = write_all(fd, p, n) && fsync(fd) == 0;
        int why = errno;
        if (close(fd) != 0 && ok) {
                ok = false;
                why = errno;
        }
        if (ok && rename(temp, to) != 0) {
                ok = false;
                why = errno;
        }
        if (ok)
                return MOEC_OK;
        unlink(temp);
        return fail(e, MOEC_IO, "cannot write %s: %s; nothing was left behind", path, strerror(why));
}

/* ---- numbers ---- */

static float from_bits(u32 b)
{
        float f;
        memcpy(&f, &b, sizeof f);
        return f;
}

static u32 to_bits(float f)
{
        u32 b;
        memcpy(&b, &f, sizeof b);
        return b;
}

float f16_to_f32(u16 h)
{
        u32 sign = (u32)(h & 0x8000) << 16, mag = h & 0x7fff;
        if (mag >= 0x7c00) /* infinity, NaN */
                return from_bits(sign | 0x7f800000 | (mag & 0x3ff) << 13);
        if (mag >= 0x0400)
                return from_bits(sign | ((mag << 13) + (112u << 23)));
        return from_bits(sign | to_bits((float)mag * 0x1p-24f));
}

u16 f32_to_f16(float f)
{
        u32 b = to_bits(f), mag = b & 0x7fffffff;
        u16 sign = (u16)(b >> 16 & 0x8000);
        if (mag > 0x7f800000)
                return (u16)(sign | 0x7e00 | (mag >> 13 & 0x3ff)); /* made quiet, as the hardware does */
        if (mag >= 0x477ff000)                                     /* 65520: half way past the largest half */
                return sign | 0x7c00;
        if (mag >= 0x38800000) /* 2^-14 */
                return (u16)(sign | (mag + 0xfff + (mag >> 13 & 1) - (112u << 23)) >> 13);
        /* Between 0.5 and 1 a float's last bit is 2^-24, a subnormal half's: the addition rounds. */
        return (u16)(sign | (to_bits(from_bits(mag) + 0.5f) - to_bits(0.5f)));
}

float bf16_to_f32(u16 h)
{
        return from_bits((u32)h << 16);
}

double now_s(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

bool parse_u64(const char *s, u64 max, u64 *out)
{
        u64 v = 0;
        if (!*s)
                return false;
        for (; *s; s++)
                if (*s < '0' || *s > '9' || !mul_u64(v, 10, &v) || !add_u64(v, (u64)(*s - '0'), &v))
                        return false;
        if (v > max)
                return false;
        *out = v;
        return true;
}
