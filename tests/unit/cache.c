/* The compile cache: whole entries or none, whoever writes at once and whatever happened to the disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime/cache.h"
#include <cmocka.h> /* last: its fail is a macro */

static char root[64], dir[96];

static int setup(void **state)
{
        (void)state;
        snprintf(root, sizeof root, "/tmp/moec-cache-XXXXXX");
        if (!mkdtemp(root))
                return -1;
        snprintf(dir, sizeof dir, "%s/a/b/cache", root);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        char cmd[192];
        snprintf(cmd, sizeof cmd, "chmod -R u+rwx %s; rm -rf %s", root, root);
        return system(cmd);
}

static Cache *open_cache(void)
{
        Cache *c;
        moec_error e = {0};
        if (cache_open(dir, &c, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        assert_non_null(c);
        return c;
}

static Hash key(u64 n)
{
        return (Hash){n, ~n};
}

static void put(const Cache *c, u64 k, const char *kind, const char *text, u64 bytes)
{
        u8 *data = malloc(bytes + 1);
        memset(data, (int)(k & 0xff), bytes);
        moec_error e = {0};
        if (cache_put(c, key(k), kind, text, data, bytes, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        free(data);
}

/* Whether it is there; if so it must be whole. */
static bool get(const Cache *c, u64 k, const char *kind, u64 bytes)
{
        CacheHit hit;
        if (!cache_get(c, key(k), kind, &hit))
                return false;
        assert_int_equal((uintptr_t)hit.data % 64, 0);
        assert_int_equal(hit.bytes, bytes);
        assert_ptr_equal(hit.data, hit.map.p + hit.at);
        for (u64 i = 0; i < bytes; i++)
                assert_int_equal(hit.data[i], k & 0xff);
        map_close(&hit.map);
        return true;
}

static void entry_path(u64 k, const char *kind, char path[256])
{
        char hex[HASH_HEX + 1];
        snprintf(path, 256, "%s/%s.%s", dir, hash_hex(key(k), hex), kind);
}

/* As file_write, without its wait for the disk. */
static void put_file(const char *path, const void *data, size_t n)
{
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(data, 1, n, f), n);
        assert_int_equal(fclose(f), 0);
}

static void keeps(void **state)
{
        (void)state;
        Cache *c = open_cache();
        struct stat st;
        assert_int_equal(stat(dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        assert_false(get(c, 1, "plan", 100));
        put(c, 1, "plan", "model: a\n", 100);
        put(c, 1, "obj", "", 0);
        put(c, 2, "plan", "model: b\n", 100000);
        assert_true(get(c, 1, "plan", 100));
        assert_true(get(c, 1, "obj", 0));
        assert_true(get(c, 2, "plan", 100000));
        assert_false(get(c, 2, "obj", 0));
        put(c, 1, "plan", "model: a\n", 50); /* the later one counts */
        assert_true(get(c, 1, "plan", 50));
        CacheEntry *x;
        u32 n;
        assert_int_equal(cache_list(c, &x, &n, NULL), MOEC_OK);
        assert_int_equal(n, 3);
        free(x);
        assert_int_equal(cache_put(c, key(1), "../x", "", "", 0, NULL), MOEC_USAGE);
        assert_int_equal(cache_put(c, key(1), "", "", "", 0, NULL), MOEC_USAGE);
        assert_int_equal(cache_put(c, key(1), "averyveryverylongkind", "", "", 0, NULL), MOEC_USAGE);
        CacheHit hit; /* what was found stays, whoever deletes the entry */
        assert_true(cache_get(c, key(1), "plan", &hit));
        u64 left;
        assert_int_equal(cache_prune(c, 0, &n, &left, NULL), MOEC_OK);
        assert_int_equal(n, 3);
        assert_int_equal(left, 0);
        assert_int_equal(hit.data[49], 1);
        map_close(&hit.map);
        assert_false(get(c, 2, "plan", 100000));
        cache_close(c);
}

static void none(void **state)
{
        (void)state;
        static const char *const dirs[] = {NULL, "", "off", "/proc/no/such", "/dev/null/cache"};
        for (size_t i = 0; i < COUNT(dirs); i++) {
                Cache *c = (Cache *)&c;
                assert_int_equal(cache_open(dirs[i], &c, NULL), MOEC_OK);
                assert_null(c);
        }
        CacheHit hit;
        CacheEntry *x;
        char *text;
        u32 n;
        u64 left;
        assert_false(cache_get(NULL, key(1), "plan", &hit));
        assert_int_equal(cache_put(NULL, key(1), "plan", "", "", 0, NULL), MOEC_OK);
        assert_int_equal(cache_list(NULL, &x, &n, NULL), MOEC_OK);
        assert_int_equal(n, 0);
        assert_null(x);
        assert_int_equal(cache_prune(NULL, 0, &n, &left, NULL), MOEC_OK);
        assert_int_equal(cache_text(NULL, "ab", &text, NULL), MOEC_NOT_FOUND);
        assert_null(cache_dir(NULL));
        cache_close(NULL);
}

/* Every byte changed, every length: a miss, and the entry is gone, so that the next writer heals it. */
static void heals(void **state)
{
        (void)state;
        Cache *c = open_cache();
        char path[256];
        entry_path(7, "plan", path);
        put(c, 7, "plan", "model: a\ncc: 12\n", 80);
        Buf b = {0};
        assert_int_equal(file_read(path, &b, 1 << 20, NULL), MOEC_OK);
        for (size_t i = 0; i < b.len; i++) {
                b.p[i] ^= 0x10;
                put_file(path, b.p, b.len);
                b.p[i] ^= 0x10;
                bool there = get(c, 7, "plan", 80);
                assert_int_equal(access(path, F_OK) == 0, there);
                if (there) /* zeros between text and data, which mean nothing */
                        assert_true(b.p[i] == 0 && i > 72 && i < b.len - 80);
        }
        for (size_t i = 0; i < b.len; i++) {
                put_file(path, b.p, i);
                assert_false(get(c, 7, "plan", 80));
                assert_int_not_equal(access(path, F_OK), 0);
        }
        char other[256];
        entry_path(8, "plan", other); /* under another's name */
        put_file(other, b.p, b.len);
        assert_false(get(c, 8, "plan", 80));
        put(c, 7, "plan", "model: a\n", 80);
        assert_true(get(c, 7, "plan", 80));
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/etc/passwd", path), 0);
        assert_false(get(c, 7, "plan", 80));
        unlink(path);
        buf_free(&b);
        cache_close(c);
}

static void who_may_write(void **state)
{
        (void)state;
        static const int modes[] = {0777, 0770, 0702, 0755, 0750, 0700};
        cache_close(open_cache());
        for (size_t i = 0; i < COUNT(modes); i++) {
                Cache *c;
                moec_error e = {0};
                assert_int_equal(chmod(dir, (mode_t)modes[i]), 0);
                moec_status st = cache_open(dir, &c, &e);
                assert_int_equal(st, modes[i] & 022 ? MOEC_REFUSED : MOEC_OK);
                if (st != MOEC_OK) {
                        assert_non_null(strstr(e.msg, dir));
                        assert_non_null(strstr(e.msg, "chmod 700"));
                }
                cache_close(c);
        }
        if (geteuid() != 0) {
                puts("only root can give a folder away");
                return;
        }
        Cache *c;
        moec_error e = {0};
        assert_int_equal(chown(dir, 65534, 65534), 0);
        assert_int_equal(cache_open(dir, &c, &e), MOEC_REFUSED);
        assert_non_null(strstr(e.msg, "uid 65534"));
        assert_int_equal(chown(dir, 0, 0), 0);
}

/* Runs fn in a process of its own, as nobody where this is root. */
static void in_child(int (*fn)(void), bool nobody)
{
        pid_t pid = fork();
        if (pid == 0) {
                if (nobody && geteuid() == 0 && setuid(65534) != 0)
                        _exit(99);
                _exit(fn());
        }
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFEXITED(how));
        assert_int_equal(WEXITSTATUS(how), 0);
}

static int in_full_disk(void)
{
        Cache *c;
        struct rlimit r = {5000, 5000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &r);
        static u8 data[10000];
        moec_error e = {0};
        if (cache_open(dir, &c, &e) != MOEC_OK || cache_put(c, key(20), "plan", "", data, 100, &e) != MOEC_OK)
                return 1;
        if (cache_put(c, key(21), "plan", "", data, sizeof data, &e) != MOEC_IO || !strstr(e.msg, dir))
                return 2;
        CacheEntry *x;
        u32 n;
        if (cache_list(c, &x, &n, NULL) != MOEC_OK || n != 1)
                return 3;
        free(x);
        cache_close(c);
        return 0;
}

static int in_read_only(void)
{
        Cache *c;
        moec_error e = {0};
        char new[128];
        snprintf(new, sizeof new, "%s/new", root); /* root belongs to another: nothing can be made there */
        return cache_open(new, &c, &e) == MOEC_OK && c == NULL ? 0 : 1;
}

static void full_or_read_only(void **state)
{
        (void)state;
        char cmd[256];
        cache_close(open_cache());
        in_child(in_full_disk, false);
        snprintf(cmd, sizeof cmd, "test -z \"$(ls -A %s | grep -v '^[0-9a-f]*[.]plan$')\"", dir);
        assert_int_equal(system(cmd), 0); /* nothing half-written is left */
        if (geteuid() == 0)
                in_child(in_read_only, true);
}

/* Several processes write and read the same few entries. */
enum { WRITERS = 4, KEYS = 5, ROUNDS = 25 };
static int writer(void)
{
        Cache *c;
        static u8 data[20000];
        if (cache_open(dir, &c, NULL) != MOEC_OK || !c)
                return 1;
        u32 hits = 0;
        for (u32 i = 0; i < ROUNDS; i++) {
                u64 k = (i * 7 + (u32)getpid()) % KEYS;
                memset(data, (int)k, sizeof data);
                if (cache_put(c, key(k), "obj", "text\n", data, sizeof data - k, NULL) != MOEC_OK)
                        return 2;
                for (k = 0; k < KEYS; k++) {
                        CacheHit hit;
                        if (!cache_get(c, key(k), "obj", &hit))
                                continue;
                        hits++;
                        for (u64 b = 0; b < hit.bytes; b++)
                                if (hit.data[b] != k || hit.bytes != sizeof data - k)
                                        return 3;
                        map_close(&hit.map);
                }
        }
        cache_close(c);
        return hits > ROUNDS ? 0 : 4;
}

static void concurrent(void **state)
{
        (void)state;
        cache_close(open_cache());
        pid_t pid[WRITERS];
        for (int i = 0; i < WRITERS; i++)
                if ((pid[i] = fork()) == 0)
                        _exit(writer());
        for (int i = 0; i < WRITERS; i++) {
                int how;
                assert_int_equal(waitpid(pid[i], &how, 0), pid[i]);
                assert_true(WIFEXITED(how));
                assert_int_equal(WEXITSTATUS(how), 0);
        }
        Cache *c = open_cache();
        for (u64 k = 0; k < KEYS; k++)
                assert_true(get(c, k, "obj", 20000 - k));
        cache_close(c);
}

static void used_at(u64 k, time_t when)
{
        char path[256];
        entry_path(k, "plan", path);
        const struct timespec t[2] = {{when, 0}, {when, 0}};
        assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void prunes(void **state)
{
        (void)state;
        Cache *c = open_cache();
        u32 n;
        u64 left, one = 0;
        assert_int_equal(cache_prune(c, 0, &n, &left, NULL), MOEC_OK);
        for (u64 k = 1; k <= 4; k++) {
                put(c, k, "plan", "", 1000);
                used_at(k, (time_t)(1000000 + k));
        }
        assert_true(get(c, 2, "plan", 1000)); /* used now: the last to go */
        CacheEntry *x;
        assert_int_equal(cache_list(c, &x, &n, NULL), MOEC_OK);
        assert_int_equal(n, 4);
        char path[256];
        entry_path(2, "plan", path);
        assert_string_equal(x[0].name, strrchr(path, '/') + 1);
        entry_path(4, "plan", path);
        assert_string_equal(x[1].name, strrchr(path, '/') + 1);
        assert_int_equal(x[3].used, 1000001);
        one = x[0].bytes;
        free(x);
        assert_int_equal(cache_prune(c, one * 4, &n, &left, NULL), MOEC_OK);
        assert_int_equal(n, 0);
        assert_int_equal(cache_prune(c, one * 3 - 1, &n, &left, NULL), MOEC_OK);
        assert_int_equal(n, 2);
        assert_int_equal(left, one * 2);
        assert_true(get(c, 2, "plan", 1000));
        assert_true(get(c, 4, "plan", 1000));
        assert_false(get(c, 1, "plan", 1000));
        assert_false(get(c, 3, "plan", 1000));
        /* What a crashed writer left goes when it is old; what is not ours never does. */
        static const char *const names[] = {".tmp-1-1", ".tmp-1-2", "README"};
        for (size_t i = 0; i < COUNT(names); i++) {
                snprintf(path, sizeof path, "%s/%s", dir, names[i]);
                put_file(path, "x", 1);
                const struct timespec t[2] = {{1000000, 0}, {1000000, 0}};
                if (i != 1)
                        assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
        }
        assert_int_equal(cache_prune(c, 0, &n, &left, NULL), MOEC_OK);
        assert_int_equal(n, 2);
        for (size_t i = 0; i < COUNT(names); i++) {
                snprintf(path, sizeof path, "%s/%s", dir, names[i]);
                assert_int_equal(access(path, F_OK) == 0, i > 0);
                unlink(path);
        }
        cache_close(c);
}

static void explains(void **state)
{
        (void)state;
        Cache *c = open_cache();
        put(c, 0x11, "plan", "model: a\ncc: gcc 12\nmarch: native\n", 10);
        put(c, 0x12, "plan", "model: b\ncc: gcc 12\nmarch: x86-64-v3\n", 10);
        put(c, 0x11, "obj", "something else\n", 10);
        char *text, name[CACHE_NAME], hex[HASH_HEX + 1];
        snprintf(name, sizeof name, "%s.plan", hash_hex(key(0x12), hex));
        assert_int_equal(cache_text(c, name, &text, NULL), MOEC_OK);
        assert_string_equal(text, "model: b\ncc: gcc 12\nmarch: x86-64-v3\n");
        free(text);
        name[HASH_HEX] = 0;
        assert_int_equal(cache_text(c, name, &text, NULL), MOEC_OK);
        free(text);
        assert_int_equal(cache_text(c, "", &text, NULL), MOEC_USAGE); /* several */
        assert_null(text);
        assert_int_equal(cache_text(c, "0123", &text, NULL), MOEC_NOT_FOUND);
        assert_int_equal(
                cache_compare(c, "plan", "model: a\ncc: gcc 13\nmarch: native\n", NULL, name, &text, NULL),
                MOEC_OK);
        assert_string_equal(text, "- cc: gcc 12\n+ cc: gcc 13\n");
        assert_int_equal(strncmp(name, hash_hex(key(0x11), hex), HASH_HEX), 0);
        free(text);
        char but[CACHE_NAME];
        memcpy(but, name, sizeof but);
        assert_int_equal(cache_compare(c, "plan", "model: a\n", but, name, &text, NULL), MOEC_OK);
        assert_int_equal(strncmp(name, hash_hex(key(0x12), hex), HASH_HEX), 0);
        free(text);
        assert_int_equal(cache_compare(c, "none", "x\n", NULL, name, &text, NULL), MOEC_OK);
        assert_string_equal(name, "");
        assert_string_equal(text, "+ x\n");
        free(text);
        cache_close(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(keeps, setup, teardown),
                cmocka_unit_test(none),
                cmocka_unit_test_setup_teardown(heals, setup, teardown),
                cmocka_unit_test_setup_teardown(who_may_write, setup, teardown),
                cmocka_unit_test_setup_teardown(full_or_read_only, setup, teardown),
                cmocka_unit_test_setup_teardown(concurrent, setup, teardown),
                cmocka_unit_test_setup_teardown(prunes, setup, teardown),
                cmocka_unit_test_setup_teardown(explains, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
