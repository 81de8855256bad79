/* Loads a plan onto a CUDA device: context, code, memory, weights. */
#include "runtime/cuda.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/isa.h"

/* ---- device ---- */

static moec_status take_device(CudaRt *c, moec_error *e)
{
        moec_status st = driver_open(NULL, &c->d, e);
        if (st == MOEC_OK)
                st = driver_device(c->d, 0, &c->device, e);
        if (st != MOEC_OK)
                return st;
        const Driver *d = c->d;
        int rc = d->cuDevicePrimaryCtxRetain(&c->context, c->device.id);
        if (rc == CU_OK)
                rc = d->cuCtxSetCurrent(c->context);
        if (rc == CU_OK)
                rc = d->cuStreamCreate(&c->stream, CU_STREAM_OF_ITS_OWN);
        for (size_t i = 0; rc == CU_OK && i < COUNT(c->event); i++)
                rc = d->cuEventCreate(&c->event[i], 0);
        return driver_check(d, rc, "opening the device", e);
}

/* ---- code ---- */

/* Whether the image named arch runs on the device, and how well: 0 not at all. "sm_90a" runs on 9.0 alone,
 * "sm_89" on 8.9 and later of 8, "compute_80" (translated when loaded) on 8.0 and later; "compute_90a" on 9.0
 * alone. */
static u32 suits(const char *arch, const Device *d)
{
        bool ptx = strncmp(arch, "compute_", 8) == 0;
        if (!ptx && strncmp(arch, "sm_", 3) != 0)
                return 0;
        char *end;
        unsigned long v = strtoul(arch + (ptx ? 8 : 3), &end, 10);
        u32 major = (u32)v / 10, minor = (u32)v % 10;
        if (*end)
                return major == d->major && minor == d->minor ? (ptx ? 2000 : 4000) + (u32)v : 0;
        if (ptx)
                return v <= d->major * 10 + d->minor ? 1000 + (u32)v : 0;
        return major == d->major && minor <= d->minor ? 3000 + (u32)v : 0;
}

static moec_status no_code(const CudaRt *c, moec_error *e)
{
        const Plan *p = c->rt.plan;
        if (c->device.major < CUDA_NEEDS)
                return fail(e, MOEC_NO_DEVICE,
                        "the plan is for %s, but the device, %s, is sm_%u%u, and older than all that it can "
                        "be "
                        "compiled for; compile it for the processor: --target cpu",
                        plan_str(p, p->META->isa), c->device.name, c->device.major, c->device.minor);
        return fail(e, MOEC_NO_DEVICE,
                "the plan is for %s, but the device, %s, is sm_%u%u; compile it for that: --target "
                "cuda:sm_%u%u%s",
                plan_str(p, p->META->isa), c->device.name, c->device.major, c->device.minor, c->device.major,
                c->device.minor, c->device.major >= 9 ? "a" : "");
}

/* Which of a kernel's images, which lie at its PlanKernel.image and behind, as many as META.isa names. */
static bool find_image(const CudaRt *c, u32 *which)
{
        const Plan *p = c->rt.plan;
        const char *isa = plan_str(p, p->META->isa);
        u32 best = 0;
        for (u32 i = 0; *isa; i++) {
                char arch[32];
                size_t len = strcspn(isa, ",");
                snprintf(arch, sizeof arch, "%.*s", (int)MIN(len, sizeof arch - 1), isa);
                u32 s = suits(arch, &c->device);
                if (s > best) {
                        best = s;
                        *which = i;
                }
                isa += len + (isa[len] == ',');
        }
        return best != 0;
}

/* PTX is a string, and needs its end; a CUBIN is aligned in the plan. */
static int load_image(const CudaRt *c, const PlanImage *im, CuModule **m)
{
        const u8 *p = c->rt.plan->CODE + im->offset;
        if (im->kind != PLAN_PTX)
                return c->d->cuModuleLoadData(m, p);
        char *text = malloc(im->bytes + 1);
        if (!text)
                return CU_NO_MEMORY;
        memcpy(text, p, im->bytes);
        text[im->bytes] = 0;
        int rc = c->d->cuModuleLoadData(m, text);
        free(text);
        return rc;
}

/* What the kernel wants of dynamic shared memory: its image says so in a symbol, where it wants any. */
static int find_shared(const CudaRt *c, u64 i, const char *name, u32 *bytes)
{
        const Driver *d = c->d;
        char symbol[160];
        CuPtr at;
        size_t size;
        snprintf(symbol, sizeof symbol, "%.128s_shared", name);
        /* A processor empties before it changes what it splits off its L1, and launches are to overlap. */
        int rc = d->cuFuncSetAttribute(c->kernel[i], CU_FUNC_CARVEOUT, 100);
        if (rc == CU_OK)
                rc = d->cuModuleGetGlobal(&at, &size, c->module[i], symbol);
        if (rc == CU_NOT_FOUND)
                return CU_OK;
        if (rc == CU_OK && size == sizeof *bytes)
                rc = d->cuMemcpyDtoHAsync(bytes, at, size, c->stream);
        if (rc == CU_OK)
                rc = d->cuStreamSynchronize(c->stream);
        if (rc == CU_OK)
                rc = d->cuFuncSetAttribute(c->kernel[i], CU_FUNC_SHARED, (int)*bytes);
        return rc;
}

static moec_status load_code(CudaRt *c, moec_error *e)
{
        const Plan *p = c->rt.plan;
        const PlanImage *im;
        u64 n = plan_count(p, PLAN_KERNEL), n_image = plan_images(p, &im);
        u32 which;
        if (!find_image(c, &which))
                return no_code(c, e);
        c->module = calloc(n + 1, sizeof *c->module);
        c->kernel = calloc(n + 1, sizeof *c->kernel);
        c->graph = calloc(plan_count(p, PLAN_PHASE), sizeof *c->graph);
        c->shared = calloc(n + 1, sizeof *c->shared);
        if (!c->module || !c->kernel || !c->graph || !c->shared)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading kernels");
        for (u64 i = 0; i < n; i++) {
                const PlanKernel *k = &p->KERNEL[i];
                const char *name = plan_str(p, k->name);
                char what[128];
                snprintf(what, sizeof what, "loading kernel %.80s", name);
                if ((u64)k->image + which >= n_image || im[k->image + which].kind == PLAN_SO)
                        return fail(e, MOEC_DAMAGED,
                                "the plan has no code of kernel %s for CUDA; compile it again", name);
                int rc = load_image(c, &im[k->image + which], &c->module[i]);
                if (rc == CU_OK)
                        rc = c->d->cuModuleGetFunction(&c->kernel[i], c->module[i], name);
                if (rc == CU_OK)
                        rc = find_shared(c, i, name, &c->shared[i]);
                if (rc == CU_INVALID_IMAGE || rc == CU_NO_BINARY || rc == CU_PTX_TOO_NEW)
                        return fail(e, MOEC_NO_DEVICE,
                                "the driver does not take the code of kernel %s: it is older than the plan's "
                                "compiler; "
                                "install a newer driver, or compile the model on this machine",
                                name);
                if (rc != CU_OK)
                        return driver_check(c->d, rc, what, e);
        }
        return MOEC_OK;
}

int cuda_util(const CudaRt *c, PlanRole role, CuStream *stream, u64 threads, const u64 *arg, u32 n_arg)
{
        u32 k = plan_util(c->rt.plan, role), each = c->rt.plan->KERNEL[k].threads;
        u64 args[CUDA_MAX_ARG + 1];
        void *param = args;
        CuLaunch how = {.grid = {(u32)((threads + each - 1) / each), 1, 1},
                .block = {each, 1, 1},
                .smem = c->shared[k],
                .stream = stream};
        memcpy(args, arg, n_arg * sizeof *arg);
        args[n_arg] = c->dim;
        return c->d->cuLaunchKernelEx(&how, c->kernel[k], &param, NULL);
}

/* ---- memory ---- */

/* Grids; arguments and threads are as plan_open lets them be. */
static moec_status check_launches(const CudaRt *c, moec_error *e)
{
        const Plan *p = c->rt.plan;
        for (u64 i = 0; i < plan_count(p, PLAN_PHASE); i++) {
                const PlanPhase *f = &p->PHASE[i];
                const u32 size[N_PLAN_DIM] = {1, f->max_tok, f->max_out, c->rt.n_seq, c->rt.n_ctx};
                for (u32 j = f->launch; j < f->launch + f->n_launch; j++) {
                        const PlanLaunch *l = &p->LAUNCH[j];
                        for (u32 axis = 0; axis < 3; axis++)
                                if (((u64)l->mul[axis] * size[l->dim[axis]] + l->div[axis] - 1) /
                                                l->div[axis] >
                                        (axis ? 65535 : INT32_MAX))
                                        return fail(e, MOEC_REFUSED,
                                                "launch %s has too many blocks for CUDA; use a smaller batch",
                                                plan_str(p, l->label));
                }
        }
        return MOEC_OK;
}

#define SMALLEST 256          /* bytes of an allocation */
#define ROUNDED  (2ull << 20) /* to what the device may round one up */
#define N_ALLOC  10 /* with those that weights are loaded through; one is for the gaps between weights */

static u64 weights_room(const Plan *p)
{
        u64 n = 0;
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); i++)
                n += cuda_weight_room(&p->WEIGHT[i]);
        return n;
}

static moec_status check_memory(CudaRt *c, moec_error *e)
{
        size_t free_bytes = 0, total = 0;
        char who[160];
        moec_status st =
                driver_check(c->d, c->d->cuMemGetInfo(&free_bytes, &total), "asking for its memory", e);
        snprintf(who, sizeof who, "the device (%.100s)", c->device.name);
        return st == MOEC_OK ? rt_check_memory(&c->rt, (Memory){free_bytes, who},
                                       cuda_load_room() + cuda_draw_room(0) + N_ALLOC * ROUNDED,
                                       cuda_draw_room(1) - cuda_draw_room(0), e)
                             : st;
}

static moec_status allocate(CudaRt *c, CuPtr *p, u64 bytes, bool clear, const char *what, moec_error *e)
{
        int rc = c->d->cuMemAlloc(p, MAX(bytes, SMALLEST));
        if (rc == CU_OK && clear && bytes)
                rc = c->d->cuMemsetD8Async(*p, 0, bytes, c->stream);
        return driver_check(c->d, rc, what, e);
}

static moec_status alloc_memory(CudaRt *c, moec_error *e)
{
        const Plan *p = c->rt.plan;
        u64 rows = 0, stride = rt_round(4ull * c->rt.max_tok);
        moec_status st;
        for (u64 i = 0; i < plan_count(p, PLAN_PHASE); i++)
                rows = MAX(rows, p->PHASE[i].max_out);
        c->input_bytes = PLAN_ALIGN + N_PLAN_INPUT * stride;
        if ((st = allocate(c, &c->weights, weights_room(p), false, "weights", e)) != MOEC_OK ||
                (st = allocate(c, &c->kv, c->rt.mem.kv, true, "the KV cache", e)) != MOEC_OK ||
                (st = allocate(c, &c->arena, p->META->arena_bytes, true, "scratch", e)) != MOEC_OK ||
                (st = allocate(c, &c->dim, c->input_bytes, true, "inputs", e)) != MOEC_OK)
                return st;
        void *host = NULL, *logits = NULL;
        int rc = c->d->cuMemHostAlloc(&host, c->input_bytes, 0);
        if (rc == CU_OK)
                rc = c->d->cuMemHostAlloc(&logits, 4 * rows * p->META->n_vocab, 0);
        c->host_dim = host;
        c->host_logits = logits;
        if (rc != CU_OK)
                return driver_check(c->d, rc, "pinned memory for a step", e);
        memset(host, 0, c->input_bytes);
        for (u64 i = 0; i < N_PLAN_INPUT; i++)
                c->host_input[i] = (i32 *)(void *)((u8 *)host + PLAN_ALIGN + i * stride);
        return MOEC_OK;
}

void cuda_inputs(const CudaRt *c, u64 at[N_PLAN_INPUT])
{
        for (u64 i = 0; i < N_PLAN_INPUT; i++)
                at[i] = c->dim + PLAN_ALIGN + i * rt_round(4ull * c->rt.max_tok);
}

static moec_status resolve_args(CudaRt *c, moec_error *e)
{
        const Plan *p = c->rt.plan;
        u64 n_weight = plan_count(p, PLAN_WEIGHT), at = c->weights;
        u64 *weight = calloc(n_weight + 1, sizeof *weight);
        c->arg = calloc(plan_count(p, PLAN_ARG) + 1, sizeof *c->arg);
        if (!weight || !c->arg) {
                free(weight);
                return fail(e, MOEC_NO_MEMORY, "out of memory loading a plan");
        }
        RtPlaces places = {.arena = c->arena, .kv = c->kv, .weight = weight};
        cuda_inputs(c, places.input);
        for (u64 i = 0; i < n_weight; at += cuda_weight_room(&p->WEIGHT[i++]))
                weight[i] = at;
        moec_status st = rt_resolve(&c->rt, &places, c->arg, e);
        free(weight);
        return st;
}

/* ---- */

moec_status cuda_open(Rt *rt, const moec_options *opt, moec_error *e)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        moec_status st;
        (void)opt;
        if ((st = check_launches(c, e)) != MOEC_OK || (st = take_device(c, e)) != MOEC_OK)
                return st;
        if ((st = load_code(c, e)) != MOEC_OK || (st = check_memory(c, e)) != MOEC_OK ||
                (st = alloc_memory(c, e)) != MOEC_OK || (st = cuda_draw_open(c, e)) != MOEC_OK)
                return st;
        if ((st = cuda_load_weights(c, e)) != MOEC_OK)
                return st;
        return resolve_args(c, e);
}

static void free_device(CudaRt *c)
{
        const Driver *d = c->d;
        const CuPtr memory[] = {c->weights, c->kv, c->arena, c->dim, c->draw};
        void *const pinned[] = {c->host_dim, c->host_logits, c->host_draw};
        d->cuCtxSetCurrent(c->context);
        if (c->stream)
                d->cuStreamSynchronize(c->stream);
        for (u64 i = 0; c->graph && i < plan_count(c->rt.plan, PLAN_PHASE); i++)
                if (c->graph[i])
                        d->cuGraphExecDestroy(c->graph[i]);
        if (c->draw_graph)
                d->cuGraphExecDestroy(c->draw_graph);
        for (u64 i = 0; c->module && i < plan_count(c->rt.plan, PLAN_KERNEL); i++)
                if (c->module[i])
                        d->cuModuleUnload(c->module[i]);
        for (size_t i = 0; i < COUNT(memory); i++)
                if (memory[i])
                        d->cuMemFree(memory[i]);
        for (size_t i = 0; i < COUNT(pinned); i++)
                if (pinned[i])
                        d->cuMemFreeHost(pinned[i]);
        for (size_t i = 0; i < COUNT(c->event); i++)
                if (c->event[i])
                        d->cuEventDestroy(c->event[i]);
        if (c->stream)
                d->cuStreamDestroy(c->stream);
        d->cuDevicePrimaryCtxRelease(c->device.id);
}

void cuda_close(Rt *rt)
{
        CudaRt *c = (CudaRt *)(void *)rt;
        if (c->context)
                free_device(c);
        driver_close(c->d);
        free(c->module);
        free(c->kernel);
        free(c->shared);
        free(c->graph);
        free(c->arg);
        free(c->span);
        free(c->timed);
}
