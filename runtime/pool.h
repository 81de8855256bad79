/* A pool of threads that run the blocks of one launch after another. The caller is one of them. Workers spin
 * for a while after a launch, so that the next one starts in about a microsecond, then sleep until there is
 * one. */
#ifndef MOEC_POOL_H
#define MOEC_POOL_H
#include "ir/util.h"

typedef struct Pool Pool;

u32 pool_processors(void); /* that this process may use: affinity and cgroup quota; at least 1 */

/* threads: the caller included; 0: pool_processors. Where the system gives fewer threads, the pool has fewer.
 */
moec_status pool_new(u32 threads, Pool **out, moec_error *e);
void pool_free(Pool *p); /* NULL is fine */
u32 pool_threads(const Pool *p);

/* Items first .. last - 1 of a job. Who gets which is a matter of luck. */
typedef void PoolFn(void *user, u32 first, u32 last);
/* Returns when items 0 .. n - 1 are done; what they wrote is then visible. From one thread at a time, not
 * from within fn. */
void pool_run(Pool *p, PoolFn *fn, void *user, u32 n);

#endif
