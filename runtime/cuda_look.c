/* Looks at a CUDA device at work: launch by launch for hooks, times for profiles, the memory's speed. */
#include "runtime/cuda.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the kernel `read` ---- */

#define SINK_BYTES (1u << 20) /* room for what its warps leave */

static moec_status read_memory(const CudaRt *c, CuPtr p, u64 bytes, CuPtr sink, moec_error *e)
{
        u32 kernel = plan_util(c->rt.plan, PLAN_read), blocks = 2 * c->device.processors;
        const u64 arg[] = {p, bytes / 16, sink, blocks};
        if (kernel == UINT32_MAX)
                return fail(e, MOEC_DAMAGED, "the plan has no kernel that reads memory; compile it again");
        u64 threads = (u64)blocks * c->rt.plan->KERNEL[kernel].threads;
        return driver_check(
                c->d, cuda_util(c, PLAN_read, c->stream, threads, arg, COUNT(arg)), "reading memory", e);
}

/* ---- times ---- */

/* What came onto the stream since event 0, once it is done. */
static int since_event(const CudaRt *c, double *seconds)
{
        const Driver *d = c->d;
        float ms = 0;
        int rc = d->cuEventRecord(c->event[1], c->stream);
        if (rc == CU_OK)
                rc = d->cuStreamSynchronize(c->stream);
        if (rc == CU_OK)
                rc = d->cuEventElapsedTime(&ms, c->event[0], c->event[1]);
        *seconds = (double)ms * 1e-3;
        return rc;
}

static moec_status time_graph(const CudaRt *c, CuGraphExec *x, double *seconds, moec_error *e)
{
        int rc = c->d->cuEventRecord(c->event[0], c->stream);
        if (rc == CU_OK)
                rc = c->d->cuGraphLaunch(x, c->stream);
        if (rc == CU_OK)
                rc = since_event(c, seconds);
        return driver_check(c->d, rc, "timing a graph", e);
}

/* ---- one launch after the other ---- */

static moec_status run_one(CudaRt *c, u32 i, const Part *p, moec_error *e)
{
        double start = now_s(), seconds = 0;
        int rc = c->d->cuEventRecord(c->event[0], c->stream);
        if (rc == CU_OK)
                rc = cuda_launch(c, p->phase, i, false);
        if (rc == CU_OK)
                rc = since_event(c, &seconds);
        if (rc != CU_OK)
                return cuda_bad_launch(c, rc, i, e);
        if (c->rt.profiling)
                rt_record(&c->rt, i, p, start, seconds);
        if (c->rt.hook)
                c->rt.hook(c->rt.hook_user, p->phase, i);
        return MOEC_OK;
}

static moec_status run_each(CudaRt *c, const Part *p, moec_error *e)
{
        const PlanPhase *f = &c->rt.plan->PHASE[p->phase];
        moec_status st = MOEC_OK;
        for (u32 i = f->launch; st == MOEC_OK && i < f->launch + f->n_launch; i++)
                st = run_one(c, i, p, e);
        return st;
}

/* ---- launches within their step ----
 * In a step launches overlap, and none waits for the host. So a launch's time is that of the graph that ends
 * with it less that of the graph that ends with the one in front: such times add up to the step's. The caches
 * are before each graph as the step before leaves them: they hold the weights that it read last. Where that
 * would take too long, launches are so long that each can be timed by itself. */

#define PATIENCE 3.0            /* seconds for all of a phase's graphs */
#define MOST     9              /* times a graph is run; the fastest counts */
#define CACHE    (128ull << 20) /* bytes that no cache holds */

enum { TIMED_NOT, TIMED_EACH, TIMED_SPANS };

static moec_status time_first(CudaRt *c, u32 phase, u32 n, u32 times, CuPtr sink, double *best, moec_error *e)
{
        u64 all = c->rt.mem.weights & ~15ull, tail = MIN(all, CACHE);
        CuGraphExec *x = NULL;
        moec_status st = cuda_capture(c, phase, false, n, &x, e);
        *best = INFINITY;
        for (u32 i = 0; st == MOEC_OK && i < times; i++) {
                double s = 0;
                st = read_memory(c, c->weights + all - tail, tail, sink, e);
                if (st == MOEC_OK)
                        st = time_graph(c, x, &s, e);
                *best = MIN(*best, s);
        }
        if (x)
                c->d->cuGraphExecDestroy(x);
        return st;
}

static moec_status measure_spans(CudaRt *c, u32 phase, u32 times, moec_error *e)
{
        const PlanPhase *f = &c->rt.plan->PHASE[phase];
        CuPtr sink = 0;
        double before = 0, s;
        moec_status st = driver_check(c->d, c->d->cuMemAlloc(&sink, SINK_BYTES), "memory to measure with", e);
        for (u32 n = 1; st == MOEC_OK && n <= f->n_launch; n++) {
                st = time_first(c, phase, n, times, sink, &s, e);
                c->span[f->launch + n - 1] = MAX(s - before, 0);
                before = MAX(before, s);
        }
        if (sink)
                c->d->cuMemFree(sink);
        return st;
}

/* Decides how the phase is timed, by the time of its step, which has been run once. */
static moec_status prepare(CudaRt *c, const Part *p, moec_error *e)
{
        const PlanPhase *f = &c->rt.plan->PHASE[p->phase];
        double s = 0;
        moec_status st = cuda_run_graph(c, p->phase, e);
        if (st == MOEC_OK)
                st = time_graph(c, c->graph[p->phase], &s, e);
        u32 times = (u32)MIN(PATIENCE / (s * f->n_launch / 2 + 1e-9), MOST);
        if (st == MOEC_OK && times > 1)
                st = measure_spans(c, p->phase, times, e);
        if (st == MOEC_OK)
                c->timed[p->phase] = times > 1 ? TIMED_SPANS : TIMED_EACH;
        return st;
}

static moec_status run_spans(CudaRt *c, const Part *p, moec_error *e)
{
        const PlanPhase *f = &c->rt.plan->PHASE[p->phase];
        double start = now_s(), s = 0, sum = 0;
        moec_status st = time_graph(c, c->graph[p->phase], &s, e);
        for (u32 i = f->launch; i < f->launch + f->n_launch; i++)
                sum += c->span[i];
        for (u32 i = f->launch; st == MOEC_OK && i < f->launch + f->n_launch; i++) {
                double span = sum > 0 ? c->span[i] * s / sum : 0;
                rt_record(&c->rt, i, p, start, span);
                start += span;
        }
        return st;
}

static moec_status run_profile(CudaRt *c, const Part *p, moec_error *e)
{
        u64 n_phase = plan_count(c->rt.plan, PLAN_PHASE);
        if (!c->span) {
                c->span = calloc(plan_count(c->rt.plan, PLAN_LAUNCH) + 1, sizeof *c->span);
                c->timed = calloc(n_phase, sizeof *c->timed);
        }
        if (!c->span || !c->timed)
                return fail(e, MOEC_NO_MEMORY, "out of memory for a profile");
        if (!c->rt.profile.n_sample)
                memset(c->timed, TIMED_NOT, n_phase);
        moec_status st = c->timed[p->phase] == TIMED_NOT ? prepare(c, p, e) : MOEC_OK;
        if (st != MOEC_OK)
                return st;
        return c->timed[p->phase] == TIMED_SPANS ? run_spans(c, p, e) : run_each(c, p, e);
}

moec_status cuda_look(CudaRt *c, const Part *p, moec_error *e)
{
        return c->rt.hook ? run_each(c, p, e) : run_profile(c, p, e);
}

/* ---- bandwidth ---- */

#define PROBE_BYTES (2ull << 30)
#define PROBE_LEAST (64ull << 20)
#define PROBE_TIMES 6 /* the first is a warm-up */

static moec_status read_rate(const CudaRt *c, CuPtr p, u64 bytes, CuPtr sink, double *rate, moec_error *e)
{
        moec_status st = MOEC_OK;
        for (int i = 0; st == MOEC_OK && i < PROBE_TIMES; i++) {
                double s = 0;
                st = driver_check(
                        c->d, c->d->cuEventRecord(c->event[0], c->stream), "measuring bandwidth", e);
                if (st == MOEC_OK)
                        st = read_memory(c, p, bytes, sink, e);
                if (st == MOEC_OK)
                        st = driver_check(c->d, since_event(c, &s), "measuring bandwidth", e);
                if (i)
                        *rate = MAX(*rate, (double)bytes / s);
        }
        return st;
}

moec_status cuda_bandwidth(Rt *rt, double *bytes_per_s, moec_error *e)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        const Driver *d = c->d;
        CuPtr p = 0, sink = 0;
        u64 bytes = PROBE_BYTES;
        *bytes_per_s = 0;
        int rc = d->cuCtxSetCurrent(c->context);
        if (rc == CU_OK)
                rc = d->cuMemAlloc(&sink, SINK_BYTES);
        if (rc == CU_OK)
                while ((rc = d->cuMemAlloc(&p, bytes)) == CU_NO_MEMORY && bytes > PROBE_LEAST)
                        bytes /= 2;
        if (rc == CU_OK)
                rc = d->cuMemsetD8Async(p, 0x5a, bytes, c->stream);
        moec_status st = driver_check(d, rc, "a buffer to measure bandwidth with", e);
        if (st == MOEC_OK)
                st = read_rate(c, p, bytes, sink, bytes_per_s, e);
        if (p)
                d->cuMemFree(p);
        if (sink)
                d->cuMemFree(sink);
        return st;
}
