/* Threads: every block once, with however many there are. */
#include "runtime/pool.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct Marks {
        u8 seen[5000];
} Marks;

static void mark(void *user, u32 first, u32 last)
{
        Marks *m = user;
        assert_true(first < last);
        for (u32 i = first; i < last; i++)
                m->seen[i]++;
}

static void every_block_once(void **state)
{
        (void)state;
        static Marks m;
        for (u32 threads = 1; threads <= 6; threads++) {
                Pool *pool;
                assert_int_equal(pool_new(threads, &pool, NULL), MOEC_OK);
                for (u32 round = 0; round < 3000; round++) {
                        u32 n = round % 7 ? round % 61 : round;
                        memset(&m, 0, sizeof m);
                        pool_run(pool, mark, &m, n);
                        for (u32 i = 0; i < n; i++)
                                assert_int_equal(m.seen[i], 1);
                        assert_int_equal(m.seen[n], 0);
                        if (round % 500 == 0)
                                usleep(2000); /* until the workers sleep */
                }
                pool_free(pool);
        }
}

/* Where no thread can be had, the caller does it all. */
static void no_threads(void **state)
{
        (void)state;
        pid_t pid = fork();
        if (pid == 0) {
                struct rlimit r = {0, 0};
                setrlimit(RLIMIT_NPROC, &r);
                if (setuid(65534) != 0) /* root has no such limit */
                        _exit(0);
                Pool *pool;
                static Marks m;
                if (pool_new(4, &pool, NULL) != MOEC_OK || pool_threads(pool) != 1)
                        _exit(1);
                pool_run(pool, mark, &m, 100);
                for (u32 i = 0; i < 100; i++)
                        if (m.seen[i] != 1)
                                _exit(2);
                pool_free(pool);
                _exit(0);
        }
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFEXITED(how));
        assert_int_equal(WEXITSTATUS(how), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(every_block_once), cmocka_unit_test(no_threads)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
