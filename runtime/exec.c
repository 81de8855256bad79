#include "runtime/exec.h"
#include "runtime/isa.h"
#include "runtime/memory.h"
#include "runtime/so.h"
#include "runtime/weights.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Rt {
        const Plan *plan;
        moec_progress progress;
        void *user;
        u32 n_ctx, n_seq;
        Pool *pool;
        So *so;
        Weights weights;
        RtMemory mem;
        u8 *arena, *kv;
        CpuKernel **kernel;       /* [KERNEL] */
        void **arg;               /* [ARG], resolved */
        i32 *input[N_PLAN_INPUT]; /* [the largest phase's tokens] */
        u32 max_tok;
        RtHook *hook;
        void *hook_user;
        RtProfile profile;
        bool profiling;
};

/* ---- memory ---- */

static u64 round_up(u64 n)
{
        return (n + PLAN_ALIGN - 1) & ~(u64)(PLAN_ALIGN - 1);
}

/* Bytes of one of a state's planes; its start in rt->kv is a multiple of PLAN_ALIGN. */
static bool plane_bytes(const Rt *rt, u32 heads, u32 width, u32 type, u64 *bytes)
{
        u64 n = (u64)heads * width * dtype_info[type].bytes;
        return mul_u64(n, rt->n_ctx, &n) && mul_u64(n, rt->n_seq, &n) && align_u64(n, PLAN_ALIGN, bytes);
}

static bool kv_bytes(const Rt *rt, u64 *bytes)
{
        u64 sum = 0, k, v;
        for (u64 i = 0; i < plan_count(rt->plan, PLAN_STATE); i++) {
                const PlanState *s = &rt->plan->STATE[i];
                if (!plane_bytes(rt, s->heads, s->dk, s->ktype, &k) ||
                        !plane_bytes(rt, s->heads, s->dv, s->vtype, &v) || !add_u64(sum, k, &sum) ||
                        !add_u64(sum, v, &sum))
                        return false;
        }
        *bytes = sum;
        return true;
}

static const char *human(u64 n, char out[32])
{
        static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
        double v = (double)n;
        size_t u = 0;
        for (; v >= 1024 && u + 1 < COUNT(unit); u++)
                v /= 1024;
        snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
        return out;
}

/* Says what was to be loaded, and how long a context could be. per: bytes of one position of all sequences.
 */
static moec_status no_room(const Rt *rt, Memory m, u64 rest, u64 per, moec_error *e)
{
        char w[32], k[32], s[32], all[32], have[32], hint[96];
        u64 fits = rest < m.bytes && per ? (m.bytes - rest) / per : 0;
        if (fits)
                snprintf(hint, sizeof hint, "the longest context that fits is %llu (-c %llu)",
                        (unsigned long long)fits, (unsigned long long)fits);
        else
                snprintf(hint, sizeof hint, "no context is short enough");
        return fail(e, MOEC_NO_MEMORY,
                "does not fit memory: weights %s + KV cache %s (context %u x %u sequence%s) + scratch %s = "
                "%s, but %s allows %s; "
                "%s",
                human(rt->mem.weights, w), human(rt->mem.kv, k), rt->n_ctx, rt->n_seq,
                rt->n_seq == 1 ? "" : "s", human(rt->mem.scratch, s), human(rest + rt->mem.kv, all), m.who,
                human(m.bytes, have), hint);
}

static moec_status check_memory(Rt *rt, moec_error *e)
{
        const Plan *p = rt->plan;
        u64 sum = 0;
        if (!kv_bytes(rt, &rt->mem.kv))
                return fail(e, MOEC_NO_MEMORY,
                        "a KV cache of %u positions x %u sequences has more than 2^64 bytes", rt->n_ctx,
                        rt->n_seq);
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); i++)
                if (!add_u64(sum, p->WEIGHT[i].dst_bytes, &sum))
                        return fail(e, MOEC_NO_MEMORY, "the weights need more than 2^64 bytes");
        rt->mem.weights = sum;
        rt->mem.scratch = p->META->arena_bytes + N_PLAN_INPUT * round_up(4ull * rt->max_tok);
        Memory m = memory_available();
        u64 rest, all;
        if (!add_u64(rt->mem.weights, rt->mem.scratch, &rest) || !add_u64(rest, rt->mem.kv, &all))
                return fail(e, MOEC_NO_MEMORY, "the model needs more than 2^64 bytes");
        if (all <= m.bytes)
                return MOEC_OK;
        return no_room(rt, m, rest, rt->mem.kv / rt->n_ctx, e);
}

/* ---- loading ---- */

static moec_status load_code(Rt *rt, const moec_options *opt, moec_error *e)
{
        const Plan *p = rt->plan;
        const PlanImage *im;
        u64 n = plan_images(p, &im), i = 0;
        while (i < n && im[i].kind != PLAN_SO)
                i++;
        if (i == n)
                return fail(e, MOEC_DAMAGED,
                        "the plan is for the CPU but holds no code for it; compile it again");
        const char *dir = opt && opt->cache_dir && strcmp(opt->cache_dir, "off") != 0 ? opt->cache_dir : NULL;
        moec_status st = so_open(p->CODE + im[i].offset, im[i].bytes, dir, &rt->so, e);
        if (st != MOEC_OK)
                return st;
        u64 n_kernel = plan_count(p, PLAN_KERNEL);
        rt->kernel = calloc(n_kernel + 1, sizeof *rt->kernel);
        if (!rt->kernel)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading kernels");
        for (i = 0; i < n_kernel; i++) {
                const char *name = plan_str(p, p->KERNEL[i].name);
                void *f = so_symbol(rt->so, name);
                if (!f)
                        return fail(
                                e, MOEC_DAMAGED, "the plan's code has no kernel %s; compile it again", name);
                memcpy(&rt->kernel[i], &f, sizeof f); /* ISO C has no cast for this */
        }
        return MOEC_OK;
}

static moec_status alloc_buffers(Rt *rt, moec_error *e)
{
        rt->arena = memory_map(rt->plan->META->arena_bytes, true);
        rt->kv = memory_map(rt->mem.kv, false);
        u64 stride = round_up(4ull * rt->max_tok);
        u8 *inputs = aligned_alloc(PLAN_ALIGN, N_PLAN_INPUT * stride);
        rt->input[0] = (i32 *)(void *)inputs;
        if (!rt->arena || !rt->kv || !inputs) {
                char a[32], k[32];
                return fail(e, MOEC_NO_MEMORY,
                        "the system gave no memory for %s of KV cache and %s of scratch",
                        human(rt->mem.kv, k), human(rt->mem.scratch, a));
        }
        memset(inputs, 0, N_PLAN_INPUT * stride);
        for (u64 i = 1; i < N_PLAN_INPUT; i++)
                rt->input[i] = (i32 *)(void *)(inputs + i * stride);
        return MOEC_OK;
}

/* Where every state's planes are. */
static void find_planes(const Rt *rt, void **k, void **v)
{
        u8 *at = rt->kv;
        for (u64 i = 0; i < plan_count(rt->plan, PLAN_STATE); i++) {
                const PlanState *s = &rt->plan->STATE[i];
                u64 kb = 0, vb = 0;
                plane_bytes(rt, s->heads, s->dk, s->ktype, &kb);
                plane_bytes(rt, s->heads, s->dv, s->vtype, &vb);
                k[i] = at;
                v[i] = at + kb;
                at += kb + vb;
        }
}

static moec_status resolve_args(Rt *rt, moec_error *e)
{
        const Plan *p = rt->plan;
        u64 n = plan_count(p, PLAN_ARG), n_state = plan_count(p, PLAN_STATE);
        rt->arg = calloc(n + 1, sizeof *rt->arg);
        void **k = calloc(n_state + 1, sizeof *k), **v = calloc(n_state + 1, sizeof *v);
        if (rt->arg && k && v)
                find_planes(rt, k, v);
        for (u64 i = 0; rt->arg && k && v && i < n; i++) {
                const PlanArg *a = &p->ARG[i];
                switch ((PlanArgKind)a->kind) {
                case PLAN_BUF:
                        rt->arg[i] = rt->arena + a->value;
                        break;
                case PLAN_INPUT:
                        rt->arg[i] = rt->input[a->index];
                        break;
                case PLAN_W:
                        rt->arg[i] = (void *)(uintptr_t)rt->weights.at[a->index];
                        break;
                case PLAN_K:
                        rt->arg[i] = k[a->index];
                        break;
                case PLAN_V:
                        rt->arg[i] = v[a->index];
                        break;
                case PLAN_NULL:
                case N_PLAN_ARG:
                        break;
                }
        }
        bool ok = rt->arg && k && v;
        free(k);
        free(v);
        return ok ? MOEC_OK : fail(e, MOEC_NO_MEMORY, "out of memory loading a plan");
}

/* The grids' sizes at the context and sequences asked for; the plan's check knows only the phases'. */
static moec_status check_grids(const Rt *rt, moec_error *e)
{
        const Plan *p = rt->plan;
        for (u64 i = 0; i < plan_count(p, PLAN_PHASE); i++) {
                const PlanPhase *f = &p->PHASE[i];
                u32 size[N_PLAN_DIM] = {1, f->max_tok, f->max_out, rt->n_seq, rt->n_ctx};
                for (u64 l = f->launch; l < (u64)f->launch + f->n_launch; l++)
                        if (plan_blocks(&p->LAUNCH[l], size) == UINT64_MAX)
                                return fail(e, MOEC_REFUSED,
                                        "launch %s has too many blocks at context %u x %u sequences",
                                        plan_str(p, p->LAUNCH[l].label), rt->n_ctx, rt->n_seq);
        }
        return MOEC_OK;
}

static moec_status open_all(Rt *rt, const moec_options *opt, moec_error *e)
{
        const Plan *p = rt->plan;
        const char *target = plan_str(p, p->META->target);
        moec_status st;
        if (strcmp(target, "cpu") != 0)
                return fail(e, MOEC_NO_DEVICE, "the plan is for %s, which this program cannot run", target);
        if ((st = isa_have(plan_str(p, p->META->isa), e)) != MOEC_OK || (st = check_grids(rt, e)) != MOEC_OK)
                return st;
        if ((st = weights_open(p, opt, &rt->weights, e)) != MOEC_OK || (st = check_memory(rt, e)) != MOEC_OK)
                return st;
        if ((st = load_code(rt, opt, e)) != MOEC_OK || (st = alloc_buffers(rt, e)) != MOEC_OK)
                return st;
        if ((st = pool_new(opt && opt->threads > 0 ? (u32)opt->threads : 0, &rt->pool, e)) != MOEC_OK)
                return st;
        if ((st = weights_load(&rt->weights, rt->pool, opt, e)) != MOEC_OK)
                return st;
        return resolve_args(rt, e);
}

moec_status rt_open(const Plan *plan, const moec_options *opt, u32 n_ctx, u32 n_seq, Rt **out, moec_error *e)
{
        *out = NULL;
        if (n_ctx == 0 || n_seq == 0 || n_ctx > INT32_MAX || n_seq > INT32_MAX)
                return fail(e, MOEC_USAGE, "a context of %u positions for %u sequences", n_ctx, n_seq);
        Rt *rt = calloc(1, sizeof *rt);
        if (!rt)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading a plan");
        *rt = (Rt){.plan = plan, .n_ctx = n_ctx, .n_seq = n_seq};
        if (opt) {
                rt->progress = opt->progress;
                rt->user = opt->user;
        }
        for (u64 i = 0; i < plan_count(plan, PLAN_PHASE); i++)
                rt->max_tok = MAX(rt->max_tok, MAX(plan->PHASE[i].max_tok, plan->PHASE[i].max_out));
        moec_status st = open_all(rt, opt, e);
        if (st == MOEC_OK)
                *out = rt;
        else
                rt_close(rt);
        return st;
}

static void profile_free(RtProfile *p)
{
        free(p->calls);
        free(p->bytes);
        free(p->seconds);
        free(p->sample);
        *p = (RtProfile){0};
}

void rt_close(Rt *rt)
{
        if (!rt)
                return;
        pool_free(rt->pool);
        so_close(rt->so);
        weights_close(&rt->weights);
        memory_unmap(rt->arena, rt->plan->META->arena_bytes);
        memory_unmap(rt->kv, rt->mem.kv);
        free(rt->input[0]);
        free(rt->kernel);
        free(rt->arg);
        profile_free(&rt->profile);
        free(rt);
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

static void record(Rt *rt, u32 launch, u32 n_tok, u64 past, double start)
{
        RtProfile *p = &rt->profile;
        const PlanLaunch *l = &rt->plan->LAUNCH[launch];
        double seconds = now_s() - start;
        p->calls[launch]++;
        p->seconds[launch] += seconds;
        p->bytes[launch] += l->bytes_fixed + l->bytes_tok * n_tok + l->bytes_ctx * past;
        if (p->n_sample < RT_MAX_SAMPLES)
                p->sample[p->n_sample++] = (RtSample){launch, n_tok, start, seconds};
}

/* past: the positions that the tokens look back on, together. */
static void run_phase(Rt *rt, u32 phase, u32 n_tok, u32 n_out, u64 past)
{
        const PlanPhase *f = &rt->plan->PHASE[phase];
        const KernelDim dim = {n_tok, n_out, rt->n_seq, rt->n_ctx};
        const u32 size[N_PLAN_DIM] = {1, n_tok, n_out, rt->n_seq, rt->n_ctx};
        for (u32 i = f->launch; i < f->launch + f->n_launch; i++) {
                const PlanLaunch *l = &rt->plan->LAUNCH[i];
                Call c = {rt->kernel[l->kernel], rt->arg + l->arg, &dim};
                double start = rt->profiling ? now_s() : 0;
                pool_run(rt->pool, call_blocks, &c, (u32)plan_blocks(l, size));
                if (rt->profiling)
                        record(rt, i, n_tok, past, start);
                if (rt->hook)
                        rt->hook(rt->hook_user, phase, i);
        }
}

/* A part of a step: tokens from .. from + n - 1, and the outs among them. */
typedef struct Part {
        u32 phase, from, n, out, n_out;
} Part;

static u32 outs_in(const Batch *b, u32 out, u32 end)
{
        u32 n = 0;
        while (out + n < b->n_out && b->out[out + n] < end)
                n++;
        return n;
}

/* As much of the rest as the largest phase takes, then the first phase that is large enough for it. */
static Part next_part(const Rt *rt, const Batch *b, u32 from, u32 out)
{
        const PlanPhase *f = rt->plan->PHASE;
        u32 n_phase = (u32)plan_count(rt->plan, PLAN_PHASE), big = 0;
        for (u32 i = 1; i < n_phase; i++)
                if (f[i].max_tok > f[big].max_tok)
                        big = i;
        Part p = {big, from, MIN(b->n - from, f[big].max_tok), out, 0};
        p.n_out = outs_in(b, out, from + p.n);
        if (p.n_out > f[big].max_out) { /* up to the last row that there is room for */
                p.n_out = f[big].max_out;
                p.n = b->out[out + p.n_out - 1] + 1 - from;
        }
        for (u32 i = 0; i < n_phase; i++)
                if (p.n <= f[i].max_tok && p.n_out <= f[i].max_out) {
                        p.phase = i;
                        break;
                }
        return p;
}

moec_status rt_step(Rt *rt, const Batch *b, float *logits, moec_error *e)
{
        const u64 n_vocab = rt->plan->META->n_vocab;
        u32 out = 0;
        for (u32 from = 0; from < b->n;) {
                Part p = next_part(rt, b, from, out);
                u64 past = 0;
                memcpy(rt->input[PLAN_ids], b->id + from, 4ull * p.n);
                memcpy(rt->input[PLAN_pos], b->pos + from, 4ull * p.n);
                memcpy(rt->input[PLAN_seq], b->seq + from, 4ull * p.n);
                for (u32 i = 0; i < p.n; i++)
                        past += (u64)b->pos[from + i] + 1;
                for (u32 i = 0; i < p.n_out; i++)
                        rt->input[PLAN_out][i] = (i32)(b->out[out + i] - from);
                run_phase(rt, p.phase, p.n, p.n_out, past);
                if (p.n_out)
                        memcpy(logits + out * n_vocab, rt->arena + rt->plan->PHASE[p.phase].logits,
                                4ull * p.n_out * n_vocab);
                out += p.n_out;
                from += p.n;
                if (from < b->n && rt->progress && !rt->progress(rt->user, "running", from, b->n))
                        return fail(
                                e, MOEC_INTERRUPTED, "stopped after %u of %u tokens of a step", from, b->n);
        }
        return MOEC_OK;
}

/* ---- looking inside ---- */

Pool *rt_pool(const Rt *rt)
{
        return rt->pool;
}

RtMemory rt_memory(const Rt *rt)
{
        return rt->mem;
}

void rt_set_hook(Rt *rt, RtHook *hook, void *user)
{
        rt->hook = hook;
        rt->hook_user = user;
}

void rt_read(const Rt *rt, u64 arena_offset, void *dst, u64 bytes)
{
        memcpy(dst, rt->arena + arena_offset, bytes);
}

void rt_write(Rt *rt, u64 arena_offset, const void *src, u64 bytes)
{
        memcpy(rt->arena + arena_offset, src, bytes);
}

moec_status rt_profile_start(Rt *rt, moec_error *e)
{
        u64 n = plan_count(rt->plan, PLAN_LAUNCH) + 1;
        RtProfile *p = &rt->profile;
        profile_free(p);
        *p = (RtProfile){.calls = calloc(n, sizeof *p->calls),
                .bytes = calloc(n, sizeof *p->bytes),
                .seconds = calloc(n, sizeof *p->seconds),
                .sample = calloc(RT_MAX_SAMPLES, sizeof *p->sample)};
        rt->profiling = p->calls && p->bytes && p->seconds && p->sample;
        if (!rt->profiling)
                return fail(e, MOEC_NO_MEMORY, "out of memory starting a profile");
        return MOEC_OK;
}

const RtProfile *rt_profile_stop(Rt *rt)
{
        bool was = rt->profiling;
        rt->profiling = false;
        return was ? &rt->profile : NULL;
}
