#include "runtime/pool.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_THREADS 1024u
#define CHUNKS      4      /* a thread and launch: enough to even out, few enough to claim cheaply */
#define LINE        128    /* two cache lines: processors fetch them in pairs */
#define SPIN_S      20e-6  /* then let other threads run between looks */
#define SLEEP_S     200e-6 /* then sleep */

/* A job's chunks are claimed by counting `left` down and answered for in `done`. The caller returns when done
 * == chunks, so a claim of left > 0 proves that the job's fields are still this job's, however late the
 * worker is. */
struct Pool {
        PoolFn *fn;
        void *user;
        u32 n, chunks;
        u32 n_thread;
        pthread_t *thread; /* [n_thread - 1] */
        alignas(LINE) atomic_uint left;
        alignas(LINE) atomic_uint done;
        alignas(LINE) atomic_uint epoch; /* counts jobs; what sleepers wait on */
        atomic_uint sleepers;
        atomic_bool stop;
};

static void relax(void)
{
#if defined __x86_64__
        __builtin_ia32_pause();
#endif
}

/* ---- processors ---- */

/* Processors of a cgroup's quota, rounded up; 0: none. */
static u32 quota_processors(const char *path, const char *path_period)
{
        char a[32] = "", b[32] = "";
        FILE *f = fopen(path, "re");
        if (!f)
                return 0;
        int n = fscanf(f, "%31s %31s", a, b);
        fclose(f);
        if (path_period && n == 1 && (f = fopen(path_period, "re"))) { /* version 1: two files */
                n = fscanf(f, "%31s", b) == 1 ? 2 : 0;
                fclose(f);
        }
        u64 quota, period;
        if (n != 2 || !parse_u64(a, UINT32_MAX, &quota) || !parse_u64(b, UINT32_MAX, &period) || quota == 0 ||
                period == 0)
                return 0; /* "max", "-1" */
        return (u32)MIN((quota + period - 1) / period, MAX_THREADS);
}

u32 pool_processors(void)
{
        u32 n = 0;
        size_t max = 8192, size = CPU_ALLOC_SIZE(max);
        cpu_set_t *set = CPU_ALLOC(max);
        if (set && sched_getaffinity(0, size, set) == 0)
                n = (u32)CPU_COUNT_S(size, set);
        if (set)
                CPU_FREE(set);
        if (n == 0) {
                long online = sysconf(_SC_NPROCESSORS_ONLN);
                n = online > 0 ? (u32)online : 1;
        }
        u32 v2 = quota_processors("/sys/fs/cgroup/cpu.max", NULL);
        u32 v1 = quota_processors(
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
        if (v2)
                n = MIN(n, v2);
        if (v1)
                n = MIN(n, v1);
        return MIN(n, MAX_THREADS);
}

/* ---- work ---- */

static bool claim(Pool *p, u32 *left)
{
        u32 v = atomic_load_explicit(&p->left, memory_order_relaxed);
        while (v)
                if (atomic_compare_exchange_weak_explicit(
                            &p->left, &v, v - 1, memory_order_acquire, memory_order_relaxed)) {
                        *left = v;
                        return true;
                }
        return false;
}

static void work(Pool *p)
{
        u32 left;
        while (claim(p, &left)) {
                u64 n = p->n, chunk = p->chunks - left;
                p->fn(p->user, (u32)(chunk * n / p->chunks), (u32)((chunk + 1) * n / p->chunks));
                atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        }
}

static void *worker(void *arg)
{
        Pool *p = arg;
        for (;;) {
                u32 epoch = atomic_load_explicit(&p->epoch, memory_order_acquire);
                if (atomic_load_explicit(&p->stop, memory_order_relaxed))
                        return NULL;
                work(p);
                double start = now_s(), waited = 0;
                for (u32 i = 1; waited < SLEEP_S; i++) {
                        if (atomic_load_explicit(&p->epoch, memory_order_relaxed) != epoch)
                                break;
                        relax();
                        if (waited > SPIN_S)
                                sched_yield();
                        if (i % 32 == 0 || waited > SPIN_S)
                                waited = now_s() - start;
                }
                if (waited >= SLEEP_S) {
                        /* The caller counts up epoch, then looks for sleepers; here the order is the other
                         * way round. */
                        atomic_fetch_add(&p->sleepers, 1);
                        syscall(SYS_futex, &p->epoch, FUTEX_WAIT_PRIVATE, epoch, NULL, NULL, 0);
                        atomic_fetch_sub(&p->sleepers, 1);
                }
        }
}

static void wake(Pool *p)
{
        atomic_fetch_add(&p->epoch, 1);
        if (atomic_load(&p->sleepers))
                syscall(SYS_futex, &p->epoch, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pool_run(Pool *p, PoolFn *fn, void *user, u32 n)
{
        if (n <= 1 || p->n_thread == 1) {
                if (n)
                        fn(user, 0, n);
                return;
        }
        p->fn = fn;
        p->user = user;
        p->n = n;
        p->chunks = MIN(n, p->n_thread * CHUNKS);
        atomic_store_explicit(&p->done, 0, memory_order_relaxed);
        atomic_store_explicit(&p->left, p->chunks, memory_order_release);
        wake(p);
        work(p);
        for (u32 i = 1; atomic_load_explicit(&p->done, memory_order_acquire) != p->chunks; i++) {
                relax();
                if (i > 1000) /* whoever has the last chunk may need this processor */
                        sched_yield();
        }
}

/* ---- life ---- */

static void start_workers(Pool *p, u32 threads)
{
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
        while (p->n_thread < threads && pthread_create(&p->thread[p->n_thread - 1], NULL, worker, p) == 0)
                p->n_thread++;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
}

moec_status pool_new(u32 threads, Pool **out, moec_error *e)
{
        *out = NULL;
        if (threads == 0)
                threads = pool_processors();
        threads = MIN(threads, MAX_THREADS);
        Pool *p = aligned_alloc(LINE, sizeof *p);
        pthread_t *thread = calloc(threads, sizeof *thread);
        if (!p || !thread) {
                free(p);
                free(thread);
                return fail(e, MOEC_NO_MEMORY, "out of memory starting %u threads", threads);
        }
        memset(p, 0, sizeof *p);
        p->thread = thread;
        p->n_thread = 1;
        start_workers(p, threads);
        *out = p;
        return MOEC_OK;
}

void pool_free(Pool *p)
{
        if (!p)
                return;
        atomic_store(&p->stop, true);
        wake(p);
        for (u32 i = 0; i + 1 < p->n_thread; i++)
                pthread_join(p->thread[i], NULL);
        free(p->thread);
        free(p);
}

u32 pool_threads(const Pool *p)
{
        return p->n_thread;
}
