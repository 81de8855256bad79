/* Runs plans on the CPU. */
#include "runtime/exec_part.h"
#include "runtime/isa.h"
#include "runtime/so.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct CpuRt {
        Rt rt;
        So *so;
        u8 *arena, *kv;
        CpuKernel **kernel;       /* [KERNEL] */
        void **arg;               /* [ARG], resolved */
        i32 *input[N_PLAN_INPUT]; /* [the largest phase's tokens] */
} CpuRt;

/* ---- loading ---- */

static moec_status load_code(CpuRt *c, const moec_options *opt, moec_error *e)
{
        const Plan *p = c->rt.plan;
        const PlanImage *im;
        u64 n = plan_images(p, &im), i = 0;
        while (i < n && im[i].kind != PLAN_SO)
                i++;
        if (i == n)
                return fail(e, MOEC_DAMAGED,
                        "the plan is for the CPU but holds no code for it; compile it again");
        const char *dir = opt && opt->cache_dir && strcmp(opt->cache_dir, "off") != 0 ? opt->cache_dir : NULL;
        moec_status st = so_open(p->CODE + im[i].offset, im[i].bytes, dir, &c->so, e);
        if (st != MOEC_OK)
                return st;
        u64 n_kernel = plan_count(p, PLAN_KERNEL);
        c->kernel = calloc(n_kernel + 1, sizeof *c->kernel);
        if (!c->kernel)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading kernels");
        for (i = 0; i < n_kernel; i++) {
                const char *name = plan_str(p, p->KERNEL[i].name);
                void *f = so_symbol(c->so, name);
                if (!f)
                        return fail(
                                e, MOEC_DAMAGED, "the plan's code has no kernel %s; compile it again", name);
                memcpy(&c->kernel[i], &f, sizeof f); /* ISO C has no cast for this */
        }
        return MOEC_OK;
}

static moec_status alloc_buffers(CpuRt *c, moec_error *e)
{
        const Rt *rt = &c->rt;
        c->arena = memory_map(rt->plan->META->arena_bytes, true);
        c->kv = memory_map(rt->mem.kv, false);
        u64 stride = rt_round(4ull * rt->max_tok);
        u8 *inputs = aligned_alloc(PLAN_ALIGN, N_PLAN_INPUT * stride);
        c->input[0] = (i32 *)(void *)inputs;
        if (!c->arena || !c->kv || !inputs) {
                char a[32], k[32];
                return fail(e, MOEC_NO_MEMORY,
                        "the system gave no memory for %s of KV cache and %s of scratch",
                        rt_human(rt->mem.kv, k), rt_human(rt->mem.scratch, a));
        }
        memset(inputs, 0, N_PLAN_INPUT * stride);
        for (u64 i = 1; i < N_PLAN_INPUT; i++)
                c->input[i] = (i32 *)(void *)(inputs + i * stride);
        return MOEC_OK;
}

static moec_status resolve_args(CpuRt *c, moec_error *e)
{
        u64 n = plan_count(c->rt.plan, PLAN_ARG), n_weight = plan_count(c->rt.plan, PLAN_WEIGHT);
        u64 *at = calloc(n + 1, sizeof *at), *weight = calloc(n_weight + 1, sizeof *weight);
        RtPlaces places = {.arena = (uintptr_t)c->arena, .kv = (uintptr_t)c->kv, .weight = weight};
        moec_status st;
        for (u32 i = 0; i < N_PLAN_INPUT; i++)
                places.input[i] = (uintptr_t)c->input[i];
        c->arg = calloc(n + 1, sizeof *c->arg);
        if (at && weight && c->arg) {
                for (u64 i = 0; i < n_weight; i++)
                        weight[i] = (uintptr_t)c->rt.weights.at[i];
                st = rt_resolve(&c->rt, &places, at, e);
                for (u64 i = 0; i < n; i++)
                        c->arg[i] = (void *)(uintptr_t)at[i];
        } else
                st = fail(e, MOEC_NO_MEMORY, "out of memory loading a plan");
        free(at);
        free(weight);
        return st;
}

static moec_status cpu_open(Rt *rt, const moec_options *opt, moec_error *e)
{
        CpuRt *c = (CpuRt *)(void *)rt;
        moec_status st;
        if ((st = isa_have(plan_str(rt->plan, rt->plan->META->isa), e)) != MOEC_OK ||
                (st = rt_check_memory(rt, memory_available(), 0, 0, e)) != MOEC_OK)
                return st;
        if ((st = load_code(c, opt, e)) != MOEC_OK || (st = alloc_buffers(c, e)) != MOEC_OK)
                return st;
        if ((st = weights_load(&rt->weights, rt->pool, opt, e)) != MOEC_OK)
                return st;
        return resolve_args(c, e);
}

static void cpu_close(Rt *rt)
{
        CpuRt *c = (CpuRt *)(void *)rt;
        so_close(c->so);
        memory_unmap(c->arena, rt->plan->META->arena_bytes);
        memory_unmap(c->kv, rt->mem.kv);
        free(c->input[0]);
        free(c->kernel);
        free(c->arg);
}

/* ---- running ---- */

typedef struct Call {
        CpuKernel *kernel;
        void *const *arg;
        const KernelDim *dim;
} Call;

static void call_blocks(void *user, u32 first, u32 last)
{
        const Call *c = user;
        c->kernel(c->arg, c->dim, first, last);
}

static moec_status cpu_run(Rt *rt, const Batch *b, const Part *p, float *logits, moec_error *e)
{
        CpuRt *c = (CpuRt *)(void *)rt;
        const PlanPhase *f = &rt->plan->PHASE[p->phase];
        const KernelDim dim = {p->n, p->n_out, rt->n_seq, rt->n_ctx};
        const u32 size[N_PLAN_DIM] = {1, p->n, p->n_out, rt->n_seq, rt->n_ctx};
        (void)e;
        rt_fill_inputs(b, p, c->input);
        for (u32 i = f->launch; i < f->launch + f->n_launch; i++) {
                const PlanLaunch *l = &rt->plan->LAUNCH[i];
                Call call = {c->kernel[l->kernel], c->arg + l->arg, &dim};
                double start = rt->profiling ? now_s() : 0;
                pool_run(rt->pool, call_blocks, &call, (u32)plan_blocks(l, size));
                if (rt->profiling)
                        rt_record(rt, i, p, start, now_s() - start);
                if (rt->hook)
                        rt->hook(rt->hook_user, p->phase, i);
        }
        if (p->n_out && logits)
                memcpy(logits, c->arena + f->logits, 4ull * p->n_out * rt->plan->META->n_vocab);
        return MOEC_OK;
}

static void cpu_read(Rt *rt, u64 at, void *dst, u64 bytes)
{
        memcpy(dst, ((CpuRt *)(void *)rt)->arena + at, bytes);
}

static void cpu_write(Rt *rt, u64 at, const void *src, u64 bytes)
{
        memcpy(((CpuRt *)(void *)rt)->arena + at, src, bytes);
}

static void cpu_describe(const Rt *rt, char out[64])
{
        const char *isa = plan_str(rt->plan, rt->plan->META->isa);
        u32 threads = pool_threads(rt->pool);
        snprintf(out, 64, "cpu %.*s, %u thread%s", (int)MIN(strcspn(isa, ":"), 24), isa, threads,
                threads == 1 ? "" : "s");
}

/* ---- bandwidth ---- */

#define PROBE_BYTES (512ull << 20)
#define PROBE_LEAST (16ull << 20)
#define PROBE_ITEM  (64u << 10)
#define PROBE_TIMES 5

typedef u64 Wide __attribute__((vector_size(64)));

typedef struct Probe {
        Wide *p;
        u64 sink[1024]; /* so that the reads are not for nothing */
} Probe;

static void probe_fill(void *user, u32 first, u32 last)
{
        const Probe *b = user;
        memset((u8 *)b->p + (u64)first * PROBE_ITEM, 1, (u64)(last - first) * PROBE_ITEM);
}

static void probe_read(void *user, u32 first, u32 last)
{
        Probe *b = user;
        const Wide *p = b->p + (u64)first * (PROBE_ITEM / sizeof(Wide));
        Wide a = {0}, d = {0};
        for (u64 n = (u64)(last - first) * (PROBE_ITEM / sizeof(Wide)), i = 0; i < n; i += 2) {
                a ^= p[i];
                d ^= p[i + 1];
        }
        a ^= d;
        u64 x = 0;
        for (int i = 0; i < 8; i++)
                x ^= a[i];
        __atomic_store_n(&b->sink[first % COUNT(b->sink)], x, __ATOMIC_RELAXED);
}

moec_status cpu_read_bandwidth(Pool *pool, double *bytes_per_s, moec_error *e)
{
        u64 bytes = MIN(PROBE_BYTES, memory_available().bytes / 4) / PROBE_ITEM * PROBE_ITEM;
        *bytes_per_s = 0;
        Probe *b = calloc(1, sizeof *b);
        moec_status st = MOEC_OK;
        if (b && bytes >= PROBE_LEAST && (b->p = memory_map(bytes, true))) {
                u32 n = (u32)(bytes / PROBE_ITEM);
                pool_run(pool, probe_fill, b, n);
                for (int i = 0; i < PROBE_TIMES; i++) {
                        double start = now_s();
                        pool_run(pool, probe_read, b, n);
                        double rate = (double)bytes / (now_s() - start);
                        *bytes_per_s = MAX(*bytes_per_s, rate);
                }
                memory_unmap(b->p, bytes);
        } else
                st = fail(e, MOEC_NO_MEMORY, "no memory for a buffer to read");
        free(b);
        return st;
}

static moec_status cpu_bandwidth(Rt *rt, double *bytes_per_s, moec_error *e)
{
        return cpu_read_bandwidth(rt->pool, bytes_per_s, e);
}

const RtTarget rt_cpu = {"cpu", sizeof(CpuRt), cpu_open, cpu_close, cpu_run, cpu_read, cpu_write,
        cpu_bandwidth, cpu_describe, NULL, NULL};
