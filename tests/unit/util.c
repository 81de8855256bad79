/* The bottom layer: errors, arenas, strings, checked numbers, hashes, files. */
#include "ir/util.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>
#undef fail /* cmocka has a macro of this name */

/* ---- errors ---- */

static void traps_nest(void **state)
{
        (void)state;
        Trap outer, inner;
        volatile int path = 0;
        if (TRAP(&outer) == 0) {
                if (TRAP(&inner) == 0) {
                        path = 1;
                        err(MOEC_DAMAGED, "%s: field %d", "x.gguf", 7);
                } else {
                        path = path * 10 + 2;
                        assert_int_equal(inner.error.status, MOEC_DAMAGED);
                        assert_string_equal(inner.error.msg, "x.gguf: field 7");
                }
                if (TRAP(&inner) == 0) { /* set up anew after a jump */
                        path = path * 10 + 3;
                        trap_pop(&inner);
                }
                if (TRAP(&inner) == 0)
                        err(MOEC_IO, "first");
                else
                        err_rethrow(&inner.error); /* the inner one is popped: this reaches the outer */
        } else
                path = path * 10 + 4;
        assert_int_equal(path, 1234);
        assert_int_equal(outer.error.status, MOEC_IO);
        assert_string_equal(outer.error.msg, "first");
}

static void die_says_where(void **state)
{
        (void)state;
        Trap t;
        if (TRAP(&t) == 0)
                die("%s is %d", "x", 3);
        assert_int_equal(t.error.status, MOEC_ERROR);
        assert_non_null(strstr(t.error.msg, "tests/unit/util.c:"));
        assert_non_null(strstr(t.error.msg, "x is 3"));
}

static void *throws_here(void *arg)
{
        Trap t;
        if (TRAP(&t) == 0)
                err(MOEC_MISMATCH, "in the thread");
        *(moec_error *)arg = t.error;
        return NULL;
}

static void traps_are_per_thread(void **state)
{
        (void)state;
        Trap t;
        moec_error e = {0};
        pthread_t thread;
        volatile bool jumped = false;
        if (TRAP(&t) == 0) {
                assert_int_equal(pthread_create(&thread, NULL, throws_here, &e), 0);
                pthread_join(thread, NULL);
                trap_pop(&t);
        } else
                jumped = true;
        assert_false(jumped);
        assert_int_equal(e.status, MOEC_MISMATCH);
}

static void pop_out_of_order(void **state)
{
        (void)state;
        Trap a, b;
        volatile bool caught = false;
        trap_push(&a);
        if (TRAP(&b) == 0)
                trap_pop(&a); /* b is the innermost, and hears of it */
        else
                caught = true;
        assert_true(caught);
        trap_pop(&a);
}

static void long_messages_end(void **state)
{
        (void)state;
        char s[3000];
        memset(s, 'a', sizeof s);
        s[sizeof s - 1] = 0;
        moec_error e;
        Trap t;
        assert_int_equal(fail(&e, MOEC_USAGE, "%s", s), MOEC_USAGE);
        assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
        if (TRAP(&t) == 0)
                err(MOEC_USAGE, "%s", s);
        assert_int_equal(strlen(t.error.msg), sizeof e.msg - 1);
        if (TRAP(&t) == 0)
                die("%s", s);
        assert_int_equal(strlen(t.error.msg), sizeof e.msg - 1);
}

static void fail_fills(void **state)
{
        (void)state;
        moec_error e;
        assert_int_equal(fail(NULL, MOEC_IO, "nobody listens"), MOEC_IO);
        assert_int_equal(fail(&e, MOEC_NOT_FOUND, "no %s", "x"), MOEC_NOT_FOUND);
        fail(&e, MOEC_DAMAGED, "while opening: %s", e.msg); /* its own message as an argument */
        assert_int_equal(e.status, MOEC_DAMAGED);
        assert_string_equal(e.msg, "while opening: no x");
}

/* ---- memory ---- */

static void arena_is_zeroed_aligned_and_apart(void **state)
{
        (void)state;
        Arena *a = arena_new();
        u8 *p[600];
        size_t size[600], total = 0;
        for (size_t i = 0; i < COUNT(p); i++) { /* small ones, and some larger than any chunk */
                size[i] = i % 50 == 7 ? 100000 + i * 1000 : i * 7 % 501;
                total += size[i];
                p[i] = arena_alloc(a, size[i]);
                assert_int_equal((uintptr_t)p[i] % 16, 0);
                for (size_t j = 0; j < size[i]; j++)
                        assert_int_equal(p[i][j], 0);
                memset(p[i], (int)(i % 255 + 1), size[i]);
        }
        for (size_t i = 0; i < COUNT(p); i++)
                for (size_t j = 0; j < size[i]; j++)
                        assert_int_equal(p[i][j], i % 255 + 1);
        assert_in_range(arena_used(a), total, total + 16 * COUNT(p));
        arena_free(a);
        arena_free(NULL);
}

static void arena_refuses_overflow(void **state)
{
        (void)state;
        Arena *a = arena_new();
        Trap t;
        volatile int caught = 0;
        if (TRAP(&t) == 0)
                arena_array(a, SIZE_MAX / 8 + 1, 8);
        else
                caught++;
        assert_int_equal(t.error.status, MOEC_NO_MEMORY);
        if (TRAP(&t) == 0)
                arena_alloc(a, SIZE_MAX - 3);
        else
                caught++;
        assert_int_equal(t.error.status, MOEC_NO_MEMORY);
        assert_int_equal(caught, 2);
        assert_non_null(arena_array(a, 0, 8));
        arena_free(a);
}

static void arena_strings_and_growth(void **state)
{
        (void)state;
        Arena *a = arena_new();
        assert_string_equal(arena_str(a, "abc"), "abc");
        assert_string_equal(arena_strn(a, "abcdef", 4), "abcd");
        assert_string_equal(arena_strn(a, NULL, 0), "");
        assert_string_equal(arena_fmt(a, "%s.%d.%0*d", "blk", 3, 300, 5) + 300, "000005");
        u32 three[3] = {1, 2, 3};
        assert_memory_equal(arena_copy(a, three, sizeof three), three, sizeof three);

        u64 *v = NULL;
        u32 len = 0, cap = 0;
        for (u64 i = 0; i < 5000; i++) {
                GROW(a, v, len, cap);
                assert_true(len < cap);
                v[len++] = i * i;
        }
        for (u64 i = 0; i < 5000; i++)
                assert_int_equal(v[i], i * i);
        u64 *volatile old = v;
        volatile bool caught = false;
        Trap t;
        u32 full = UINT32_MAX / 2 + 1;
        if (TRAP(&t) == 0)
                arena_grow(a, old, full, &full, 1);
        else
                caught = true;
        assert_true(caught);
        arena_free(a);
}

/* ---- strings ---- */

static void buf_grows(void **state)
{
        (void)state;
        Buf b = {0};
        buf_add(&b, NULL, 0);
        assert_string_equal(b.p, "");
        for (int i = 0; i < 1000; i++) {
                buf_fmt(&b, "%d,", i % 10);
                buf_char(&b, 'x');
                assert_int_equal(b.p[b.len], 0);
        }
        buf_str(&b, "end");
        assert_int_equal(b.len, 3003);
        assert_string_equal(b.p + 2997, "9,xend");
        char *s = xmalloc(3000);
        memset(s, 'y', 2999);
        s[2999] = 0;
        buf_fmt(&b, "%s", s);
        assert_int_equal(b.len, 6002);
        assert_string_equal(b.p + 3003, s);
        buf_add(&b, "a\0b", 3);
        assert_int_equal(b.len, 6005);
        assert_memory_equal(b.p + 6002, "a\0b", 4);
        free(s);
        buf_free(&b);
        assert_null(b.p);
        assert_int_equal(b.len, 0);
}

static void json(void **state)
{
        (void)state;
#define ROW(in, out)                                                                                         \
        {                                                                                                    \
                in, sizeof in - 1, out                                                                       \
        }
        static const struct {
                const char *in;
                size_t n;
                const char *out;
        } row[] = {
                ROW("", "\"\""), ROW("plain / text", "\"plain / text\""), ROW("q\" b\\", "\"q\\\" b\\\\\""),
                ROW("\n\t\r\b\f", "\"\\n\\t\\r\\b\\f\""),
                ROW("a\0b\x01\x1f\x7f", "\"a\\u0000b\\u0001\\u001f\\u007f\""), ROW("é€😀", "\"é€😀\""),
                ROW("\xff", "\"\uFFFD\""), ROW("a\xc3", "\"a\uFFFD\""), /* cut off at the end */
                ROW("\xe2\x82z", "\"\uFFFDz\""),               /* a started character: one replacement */
                ROW("\xc0\xaf", "\"\uFFFD\uFFFD\""),           /* overlong: each byte is wrong */
                ROW("\xed\xa0\x80", "\"\uFFFD\uFFFD\uFFFD\""), /* a surrogate */
                ROW("\xf0\x9f\x98\"", "\"\uFFFD\\\"\""),       /* the quote is not swallowed */
                ROW("\xf4\x90\x80\x80", "\"\uFFFD\uFFFD\uFFFD\uFFFD\""), /* beyond U+10FFFF */
        };
        for (size_t i = 0; i < COUNT(row); i++) {
                Buf b = {0};
                char *in = xmalloc(row[i].n); /* exactly so long: reading on would show */
                memcpy(in, row[i].in, row[i].n);
                buf_json(&b, in, row[i].n);
                assert_string_equal(b.p, row[i].out);
                assert_true(utf8_valid(b.p, b.len));
                free(in);
                buf_free(&b);
        }
}

static void utf8(void **state)
{
        (void)state;
        static const char *const good[] = {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
                "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
                "aé€😀z"};
        static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2z",
                "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82", "\xe2\x82z", "\xed\xa0\x80", "\xed\xbf\xbf",
                "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98", "\xf4\x90\x80\x80",
                "\xf5\x80\x80\x80", "\xff", "ok\xfe", "\xc3\xa9\xa9"};
        for (size_t i = 0; i < COUNT(good); i++)
                assert_true(utf8_valid(good[i], strlen(good[i])));
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(utf8_valid(bad[i], strlen(bad[i])));
        assert_true(utf8_valid("a\0b", 3));
        assert_false(utf8_valid("\xe2\x82\xac", 2)); /* the third byte is there but not in the string */
}

/* Every 3-byte string against a decoder that works the other way: from code points. */
static void utf8_all_of_three(void **state)
{
        (void)state;
        u8 *valid = calloc(1 << 24, 1);
        for (u32 c = 0x800; c < 0x10000; c++)
                if (c < 0xd800 || c > 0xdfff)
                        valid[(0xe0 | c >> 12) << 16 | (0x80 | (c >> 6 & 63)) << 8 | (0x80 | (c & 63))] = 1;
        for (u32 c = 0x80; c < 0x800; c++) {
                u32 two = (0xc0 | c >> 6) << 8 | (0x80 | (c & 63));
                for (u32 a = 0; a < 0x80; a++)
                        valid[two << 8 | a] = valid[a << 16 | two] = 1;
        }
        for (u32 a = 0; a < 1 << 21; a++)
                valid[(a >> 14) << 16 | (a >> 7 & 127) << 8 | (a & 127)] = 1;
        u32 wrong = 0;
        for (u32 i = 0; i < 1 << 24; i++) {
                char c[3] = {(char)(i >> 16), (char)(i >> 8), (char)i};
                wrong += utf8_valid(c, 3) != valid[i];
        }
        assert_int_equal(wrong, 0);
        free(valid);
}

/* ---- numbers ---- */

static void checked(void **state)
{
        (void)state;
        u64 x = 5;
        assert_true(add_u64(UINT64_MAX - 1, 1, &x));
        assert_true(x == UINT64_MAX);
        x = 5;
        assert_false(add_u64(UINT64_MAX, 1, &x));
        assert_false(add_u64(1, UINT64_MAX, &x));
        assert_false(mul_u64(1ull << 32, 1ull << 32, &x));
        assert_false(mul_u64(UINT64_MAX, 2, &x));
        assert_false(align_u64(UINT64_MAX - 30, 32, &x));
        assert_int_equal(x, 5);
        assert_true(mul_u64(UINT64_MAX, 1, &x) && x == UINT64_MAX);
        assert_true(mul_u64(0, UINT64_MAX, &x) && x == 0);
        assert_true(mul_u64(UINT64_MAX, 0, &x) && x == 0);
        assert_true(mul_u64(0xffffffff, 0x100000001, &x) && x == UINT64_MAX);
        assert_true(align_u64(0, 32, &x) && x == 0);
        assert_true(align_u64(1, 32, &x) && x == 32);
        assert_true(align_u64(64, 32, &x) && x == 64);
        assert_true(align_u64(33, 1, &x) && x == 33);
        assert_true(align_u64(UINT64_MAX - 31, 32, &x) && x == UINT64_MAX - 31);
}

static void parsing(void **state)
{
        (void)state;
        u64 x = 5;
        static const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x1", "1e3", "1.0",
                "18446744073709551616", "99999999999999999999999", "a"};
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(parse_u64(bad[i], UINT64_MAX, &x));
        assert_false(parse_u64("101", 100, &x));
        assert_int_equal(x, 5);
        assert_true(parse_u64("100", 100, &x) && x == 100);
        assert_true(parse_u64("007", 100, &x) && x == 7);
        assert_true(parse_u64("18446744073709551615", UINT64_MAX, &x) && x == UINT64_MAX);
}

static void clock_runs(void **state)
{
        (void)state;
        double a = now_s();
        usleep(2000);
        assert_true(now_s() - a >= 0.002);
}

static void hashes_are_stable(void **state)
{
        (void)state;
        char hex[HASH_HEX + 1];
        /* XXH3's published values: a cache or plan from another machine must still match. */
        assert_string_equal(hash_hex(hash_bytes("", 0), hex), "99aa06d3014798d86001c324468d497f");
        assert_string_equal(hash_hex(hash_bytes("abc", 3), hex), "06b05ab6733a618578af5f94892f3950");
        assert_true(hash_str("", 0) == 0x2d06800538d394c2);
        assert_true(hash_str("abc", 3) == 0x78af5f94892f3950);

        Hash h = hash_bytes("x", 1), ab = hash_mix(hash_mix(h, "a", 1), "b", 1),
             ba = hash_mix(hash_mix(h, "b", 1), "a", 1);
        assert_false(hash_same(ab, ba));
        assert_false(hash_same(ab, hash_mix(h, "ab", 2)));
        assert_true(hash_same(ab, hash_mix(hash_mix(h, "a", 1), "b", 1)));
        assert_false(hash_same(h, (Hash){h.lo, h.hi ^ 1}));
        assert_false(hash_same(h, (Hash){h.lo ^ 1, h.hi}));
}

/* ---- files ---- */

static char dir[] = "/tmp/moec-util-XXXXXX";
static char where[8][128];

/* A path in the test's own folder; i tells apart those in use together. */
static const char *at(int i, const char *name)
{
        snprintf(where[i], sizeof where[i], "%s/%s", dir, name);
        return where[i];
}

static int dir_count(void)
{
        int n = 0;
        DIR *d = opendir(dir);
        while (readdir(d))
                n++;
        closedir(d);
        return n - 2;
}

static int make_dir(void **state)
{
        (void)state;
        strcpy(dir + sizeof dir - 7, "XXXXXX");
        return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
        (void)state;
        struct dirent *f;
        DIR *d = opendir(dir);
        while ((f = readdir(d)))
                unlinkat(dirfd(d), f->d_name, strcmp(f->d_name, "sub") == 0 ? AT_REMOVEDIR : 0);
        closedir(d);
        return rmdir(dir);
}

static void assert_holds(const char *path, const void *p, size_t n)
{
        Buf b = {0};
        assert_int_equal(file_read(path, &b, UINT64_MAX, NULL), MOEC_OK);
        assert_int_equal(b.len, n);
        assert_memory_equal(b.p, p, n);
        buf_free(&b);
}

static void write_and_read(void **state)
{
        (void)state;
        moec_error e;
        struct stat st;
        char big[100000];
        for (size_t i = 0; i < sizeof big; i++)
                big[i] = (char)(i * 31 >> 3);
        mode_t old = umask(022);
        assert_int_equal(file_write(at(0, "a"), big, sizeof big, 0644, &e), MOEC_OK);
        assert_holds(at(0, "a"), big, sizeof big);
        assert_int_equal(stat(at(0, "a"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0644);
        assert_int_equal(file_write(at(0, "a"), "new", 3, 0755, &e), MOEC_OK);
        assert_holds(at(0, "a"), "new", 3);
        assert_int_equal(stat(at(0, "a"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0755);
        assert_int_equal(file_write(at(1, "empty"), NULL, 0, 0644, &e), MOEC_OK);
        assert_int_equal(symlink("a", at(2, "link")), 0);
        assert_int_equal(file_write(at(2, "link"), "through", 7, 0644, &e), MOEC_OK);
        assert_holds(at(0, "a"), "through", 7);
        assert_int_equal(lstat(at(2, "link"), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        assert_int_equal(dir_count(), 3);
        umask(old);

        Buf b = {0};
        buf_str(&b, "before ");
        assert_int_equal(file_read(at(0, "a"), &b, 7, &e), MOEC_OK);
        assert_string_equal(b.p, "before through");
        assert_int_equal(file_read(at(0, "a"), &b, 6, &e), MOEC_REFUSED);
        assert_string_equal(b.p, "before through"); /* as it was */
        assert_int_equal(file_read(at(1, "empty"), &b, 0, &e), MOEC_OK);
        assert_int_equal(file_read(at(3, "none"), &b, 9, &e), MOEC_NOT_FOUND);
        assert_non_null(strstr(e.msg, at(3, "none")));
        assert_int_equal(file_read(dir, &b, 9, &e), MOEC_IO);
        assert_int_equal(b.len, 14);
        buf_free(&b);
}

/* A limit on the size of files stands in for a full disk: the write fails half way. */
static void full_disk(void **state)
{
        (void)state;
        moec_error e;
        char big[40000];
        memset(big, 'x', sizeof big);
        assert_int_equal(file_write(at(0, "old"), "kept", 4, 0644, &e), MOEC_OK);
        struct rlimit was, small;
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
        small = was;
        small.rlim_cur = 10000;
        void (*sig)(int) = signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        moec_status a = file_write(at(0, "old"), big, sizeof big, 0644, &e);
        moec_status b = file_write(at(1, "new"), big, sizeof big, 0644, NULL);
        setrlimit(RLIMIT_FSIZE, &was);
        signal(SIGXFSZ, sig);
        assert_int_equal(a, MOEC_IO);
        assert_int_equal(b, MOEC_IO);
        assert_non_null(strstr(e.msg, at(0, "old")));
        assert_non_null(strstr(e.msg, strerror(EFBIG)));
        assert_holds(at(0, "old"), "kept", 4);
        assert_int_equal(dir_count(), 1);
}

static void write_refused(void **state)
{
        (void)state;
        moec_error e;
        struct stat st;
        assert_int_equal(mkdir(at(0, "sub"), 0700), 0);
        assert_int_equal(mkfifo(at(1, "fifo"), 0600), 0);
        assert_int_equal(file_write(at(0, "sub"), "x", 1, 0644, &e), MOEC_REFUSED);
        assert_int_equal(file_write(at(1, "fifo"), "x", 1, 0644, &e), MOEC_REFUSED);
        assert_int_equal(stat(at(1, "fifo"), &st), 0);
        assert_true(S_ISFIFO(st.st_mode));
        assert_int_equal(file_write(at(2, "no/such"), "x", 1, 0644, &e), MOEC_NOT_FOUND);
        assert_non_null(strstr(e.msg, "no/such"));
        assert_int_equal(dir_count(), 2);
}

static void map_files(void **state)
{
        (void)state;
        moec_error e;
        Map m;
        assert_int_equal(file_write(at(0, "a"), "mapped", 6, 0644, &e), MOEC_OK);
        assert_int_equal(map_open(at(0, "a"), &m, &e), MOEC_OK);
        assert_int_equal(m.size, 6);
        assert_memory_equal(m.p, "mapped", 6);
        assert_true(fcntl(m.fd, F_GETFD) & FD_CLOEXEC);
        int fd = m.fd;
        map_close(&m);
        assert_null(m.p);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        map_close(&m); /* twice is harmless */

        assert_int_equal(file_write(at(1, "empty"), NULL, 0, 0644, &e), MOEC_OK);
        assert_int_equal(map_open(at(1, "empty"), &m, &e), MOEC_OK);
        assert_null(m.p);
        assert_int_equal(m.size, 0);
        map_close(&m);

        assert_int_equal(mkfifo(at(2, "fifo"), 0600), 0);
        const char *bad[] = {at(3, "none"), dir, at(2, "fifo"), "/dev/zero"};
        moec_status want[] = {MOEC_NOT_FOUND, MOEC_USAGE, MOEC_USAGE, MOEC_USAGE};
        int next = open("/dev/null", O_RDONLY);
        for (size_t i = 0; i < COUNT(bad); i++) {
                assert_int_equal(map_open(bad[i], &m, &e), want[i]);
                assert_int_equal(e.status, want[i]);
                assert_non_null(strstr(e.msg, bad[i]));
                assert_null(m.p);
                map_close(&m);
        }
        int again = open("/dev/null", O_RDONLY);
        assert_int_equal(again, next + 1); /* nothing was left open */
        close(next);
        close(again);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(traps_nest),
                cmocka_unit_test(die_says_where),
                cmocka_unit_test(traps_are_per_thread),
                cmocka_unit_test(pop_out_of_order),
                cmocka_unit_test(long_messages_end),
                cmocka_unit_test(fail_fills),
                cmocka_unit_test(arena_is_zeroed_aligned_and_apart),
                cmocka_unit_test(arena_refuses_overflow),
                cmocka_unit_test(arena_strings_and_growth),
                cmocka_unit_test(buf_grows),
                cmocka_unit_test(json),
                cmocka_unit_test(utf8),
                cmocka_unit_test(utf8_all_of_three),
                cmocka_unit_test(checked),
                cmocka_unit_test(parsing),
                cmocka_unit_test(clock_runs),
                cmocka_unit_test(hashes_are_stable),
                cmocka_unit_test_setup_teardown(write_and_read, make_dir, remove_dir),
                cmocka_unit_test_setup_teardown(full_disk, make_dir, remove_dir),
                cmocka_unit_test_setup_teardown(write_refused, make_dir, remove_dir),
                cmocka_unit_test_setup_teardown(map_files, make_dir, remove_dir),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
