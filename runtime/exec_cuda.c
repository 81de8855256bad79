/* Runs plans on a CUDA device. Memory and code are loaded by cuda.c; here are steps. */
#include "runtime/cuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- launches ---- */

static const u32 *grid_size(const CudaRt *c, u32 phase, u32 size[N_PLAN_DIM])
{
        const PlanPhase *f = &c->rt.plan->PHASE[phase];
        const u32 bound[N_PLAN_DIM] = {1, f->max_tok, f->max_out, c->rt.n_seq, c->rt.n_ctx};
        memcpy(size, bound, sizeof bound);
        return size;
}

int cuda_launch(const CudaRt *c, u32 phase, u32 i, bool early)
{
        const PlanLaunch *l = &c->rt.plan->LAUNCH[i];
        const PlanKernel *k = &c->rt.plan->KERNEL[l->kernel];
        CuAttribute attribute = {.id = CU_LAUNCH_PROGRAMMATIC, .value = {1}};
        CuLaunch how = {.block = {k->threads, 1, 1},
                .smem = c->shared[l->kernel],
                .stream = c->stream,
                .attribute = &attribute,
                .n_attribute = early};
        u32 size[N_PLAN_DIM];
        u64 args[CUDA_MAX_ARG + 1];
        void *param = args;
        grid_size(c, phase, size);
        for (u32 axis = 0; axis < 3; axis++)
                how.grid[axis] =
                        (u32)(((u64)l->mul[axis] * size[l->dim[axis]] + l->div[axis] - 1) / l->div[axis]);
        memcpy(args, c->arg + l->arg, l->n_arg * sizeof *args);
        args[l->n_arg] = c->dim;
        return c->d->cuLaunchKernelEx(&how, c->kernel[l->kernel], &param, NULL);
}

moec_status cuda_bad_launch(const CudaRt *c, int rc, u32 i, moec_error *e)
{
        const PlanLaunch *l = &c->rt.plan->LAUNCH[i];
        char what[256];
        snprintf(what, sizeof what, "launch %.60s (kernel %.60s)", plan_str(c->rt.plan, l->label),
                plan_str(c->rt.plan, c->rt.plan->KERNEL[l->kernel].name));
        return driver_check(c->d, rc, what, e);
}

/* ---- a phase as a graph ---- */

moec_status cuda_capture(CudaRt *c, u32 phase, bool draw, u32 n, CuGraphExec **x, moec_error *e)
{
        const Driver *d = c->d;
        const PlanPhase *f = &c->rt.plan->PHASE[phase];
        CuGraph *graph = NULL;
        moec_status st = driver_check(
                d, d->cuStreamBeginCapture(c->stream, CU_CAPTURE_RELAXED), "beginning a graph", e);
        if (st != MOEC_OK)
                return st;
        if (draw)
                st = cuda_draw_launch(c, e);
        for (u32 i = f->launch; st == MOEC_OK && i < f->launch + n; i++)
                st = cuda_bad_launch(
                        c, cuda_launch(c, phase, i, c->device.major >= 9 && (draw || i > f->launch)), i, e);
        int rc = d->cuStreamEndCapture(c->stream, &graph);
        if (st == MOEC_OK)
                st = driver_check(d, rc, "ending a graph", e);
        if (st == MOEC_OK)
                st = driver_check(d, d->cuGraphInstantiate(x, graph, 0), "making a graph", e);
        if (graph)
                d->cuGraphDestroy(graph);
        return st;
}

moec_status cuda_run_graph(CudaRt *c, u32 phase, moec_error *e)
{
        moec_status st = MOEC_OK;
        if (!c->graph[phase])
                st = cuda_capture(c, phase, false, c->rt.plan->PHASE[phase].n_launch, &c->graph[phase], e);
        if (st == MOEC_OK)
                st = driver_check(
                        c->d, c->d->cuGraphLaunch(c->graph[phase], c->stream), "launching a graph", e);
        return st;
}

/* ---- steps ---- */

/* What read and write could not say. */
static moec_status late_error(CudaRt *c, moec_error *e)
{
        moec_status st = c->late.status;
        if (st != MOEC_OK && e)
                *e = c->late;
        return st;
}

moec_status cuda_ready(CudaRt *c, moec_error *e)
{
        moec_status st = late_error(c, e);
        return st == MOEC_OK ? driver_check(c->d, c->d->cuCtxSetCurrent(c->context), "using the device", e)
                             : st;
}

static int fetch_logits(const CudaRt *c, u32 phase, u64 bytes)
{
        CuPtr at = c->arena + c->rt.plan->PHASE[phase].logits;
        return bytes ? c->d->cuMemcpyDtoHAsync(c->host_logits, at, bytes, c->stream) : CU_OK;
}

static moec_status cuda_logits(Rt *rt, u32 phase, u32 n, float *logits, moec_error *e)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        u64 bytes = 4ull * n * rt->plan->META->n_vocab;
        moec_status st = cuda_ready(c, e);
        if (st == MOEC_OK)
                st = driver_check(c->d, fetch_logits(c, phase, bytes), "fetching logits", e);
        if (st == MOEC_OK)
                st = driver_check(c->d, c->d->cuStreamSynchronize(c->stream), "fetching logits", e);
        if (st == MOEC_OK)
                memcpy(logits, c->host_logits, bytes);
        return st;
}

static moec_status cuda_run(Rt *rt, const Batch *b, const Part *p, float *logits, moec_error *e)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        const Driver *d = c->d;
        u64 bytes = logits ? 4ull * p->n_out * rt->plan->META->n_vocab : 0;
        moec_status st = cuda_ready(c, e);
        if (st != MOEC_OK)
                return st;
        *c->host_dim = (KernelDim){p->n, p->n_out, rt->n_seq, rt->n_ctx};
        rt_fill_inputs(b, p, c->host_input);
        st = driver_check(d, d->cuMemcpyHtoDAsync(c->dim, c->host_dim, c->input_bytes, c->stream),
                "sending a step's tokens", e);
        if (st == MOEC_OK)
                st = rt->hook || rt->profiling ? cuda_look(c, p, e) : cuda_run_graph(c, p->phase, e);
        if (st == MOEC_OK)
                st = driver_check(d, fetch_logits(c, p->phase, bytes), "fetching logits", e);
        if (st == MOEC_OK)
                st = driver_check(d, d->cuStreamSynchronize(c->stream), "running a step", e);
        if (st == MOEC_OK && bytes)
                memcpy(logits, c->host_logits, bytes);
        if (st == MOEC_OK)
                st = late_error(c, e);
        return st;
}

/* ---- looking inside ---- */

static void cuda_read(Rt *rt, u64 at, void *dst, u64 bytes)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        const Driver *d = c->d;
        int rc = d->cuCtxSetCurrent(c->context);
        if (rc == CU_OK)
                rc = d->cuMemcpyDtoHAsync(dst, c->arena + at, bytes, c->stream);
        if (rc == CU_OK)
                rc = d->cuStreamSynchronize(c->stream);
        if (rc != CU_OK)
                memset(dst, 0, bytes);
        if (c->late.status == MOEC_OK)
                driver_check(d, rc, "reading a value", &c->late);
}

static void cuda_write(Rt *rt, u64 at, const void *src, u64 bytes)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        const Driver *d = c->d;
        int rc = d->cuCtxSetCurrent(c->context);
        if (rc == CU_OK)
                rc = d->cuMemcpyHtoDAsync(c->arena + at, src, bytes, c->stream);
        if (rc == CU_OK)
                rc = d->cuStreamSynchronize(c->stream);
        if (c->late.status == MOEC_OK)
                driver_check(d, rc, "changing a value", &c->late);
}

static void cuda_describe(const Rt *rt, char out[64])
{
        const CudaRt *c = (const CudaRt *)(const void *)rt;
        snprintf(out, 64, "cuda sm_%u%u, %.40s", c->device.major, c->device.minor, c->device.name);
}

const RtTarget rt_cuda = {"cuda", sizeof(CudaRt), cuda_open, cuda_close, cuda_run, cuda_read, cuda_write,
        cuda_bandwidth, cuda_describe, cuda_logits, cuda_draw};
