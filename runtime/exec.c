#include "runtime/exec_part.h"
#include <math.h>
#include "runtime/sample.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

u64 rt_round(u64 n)
{
        return (n + PLAN_ALIGN - 1) & ~(u64)(PLAN_ALIGN - 1);
}

/* Bytes of one of a state's planes; its start in the cache is a multiple of PLAN_ALIGN. */
static bool plane_bytes(const Rt *rt, u32 n_ctx, u32 heads, u32 width, u32 type, u64 *bytes)
{
        u64 n = heads * kv_row_bytes((Dtype)type, width);
        return mul_u64(n, n_ctx, &n) && mul_u64(n, rt->n_seq, &n) && align_u64(n, PLAN_ALIGN, bytes);
}

static bool kv_bytes(const Rt *rt, u32 n_ctx, u64 *bytes)
{
        u64 sum = 0, k, v;
        for (u64 i = 0; i < plan_count(rt->plan, PLAN_STATE); i++) {
                const PlanState *s = &rt->plan->STATE[i];
                if (!plane_bytes(rt, n_ctx, s->heads, s->dk, s->ktype, &k) ||
                        !plane_bytes(rt, n_ctx, s->heads, s->dv, s->vtype, &v) || !add_u64(sum, k, &sum) ||
                        !add_u64(sum, v, &sum))
                        return false;
        }
        *bytes = sum;
        return true;
}

const char *rt_human(u64 n, char out[32])
{
        static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
        double v = (double)n;
        size_t u = 0;
        for (; v >= 1024 && u + 1 < COUNT(unit); u++)
                v /= 1024;
        snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
        return out;
}

/* The longest context whose KV cache, with `each` bytes a position, is no larger; that asked for is larger.
 */
static u32 longest(const Rt *rt, u64 bytes, u64 each)
{
        u32 fits = 0, over = rt->n_ctx;
        while (over - fits > 1) {
                u32 mid = fits + (over - fits) / 2;
                u64 kv;
                if (kv_bytes(rt, mid, &kv) && add_u64(kv, each * mid, &kv) && kv <= bytes)
                        fits = mid;
                else
                        over = mid;
        }
        return fits;
}

/* Says what was to be loaded, and how long a context could be. rest: bytes beside the KV cache, `each` of
 * them a position. */
static moec_status no_room(const Rt *rt, Memory m, u64 rest, u64 each, moec_error *e)
{
        u64 fixed = rest - each * rt->n_ctx;
        char w[32], k[32], s[32], o[32], all[32], have[32], other[64] = "", hint[96] = "";
        u32 fits = fixed < m.bytes ? longest(rt, m.bytes - fixed, each) : 0;
        if (rt->mem.other)
                snprintf(other, sizeof other, " + other buffers %s", rt_human(rt->mem.other, o));
        if (fits)
                snprintf(hint, sizeof hint, "the longest context that fits is %u (-c %u)", fits, fits);
        return fail(e, MOEC_NO_MEMORY,
                "does not fit memory: weights %s + KV cache %s (context %u x %u sequence%s) + scratch %s%s = "
                "%s, but %s allows %s; %s",
                rt_human(rt->mem.weights, w), rt_human(rt->mem.kv, k), rt->n_ctx, rt->n_seq,
                rt->n_seq == 1 ? "" : "s", rt_human(rt->mem.scratch, s), other,
                rt_human(rest + rt->mem.kv, all), m.who, rt_human(m.bytes, have),
                fits ? hint : "no context is short enough");
}

moec_status rt_check_memory(Rt *rt, Memory m, u64 other, u64 each, moec_error *e)
{
        const Plan *p = rt->plan;
        u64 sum = 0;
        if (!kv_bytes(rt, rt->n_ctx, &rt->mem.kv))
                return fail(e, MOEC_NO_MEMORY,
                        "a KV cache of %u positions x %u sequences has more than 2^64 bytes", rt->n_ctx,
                        rt->n_seq);
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); i++)
                if (!add_u64(sum, p->WEIGHT[i].dst_bytes, &sum))
                        return fail(e, MOEC_NO_MEMORY, "the weights need more than 2^64 bytes");
        rt->mem.weights = sum;
        rt->mem.scratch = p->META->arena_bytes + N_PLAN_INPUT * rt_round(4ull * rt->max_tok);
        rt->mem.other = other += each * rt->n_ctx;
        u64 rest, all;
        if (!add_u64(rt->mem.weights, rt->mem.scratch, &rest) || !add_u64(rest, other, &rest) ||
                !add_u64(rest, rt->mem.kv, &all))
                return fail(e, MOEC_NO_MEMORY, "the model needs more than 2^64 bytes");
        if (all <= m.bytes)
                return MOEC_OK;
        return no_room(rt, m, rest, each, e);
}

/* ---- loading ---- */

/* Where every state's planes are. */
static void find_planes(const Rt *rt, u64 at, u64 *k, u64 *v)
{
        for (u64 i = 0; i < plan_count(rt->plan, PLAN_STATE); i++) {
                const PlanState *s = &rt->plan->STATE[i];
                u64 kb = 0, vb = 0;
                plane_bytes(rt, rt->n_ctx, s->heads, s->dk, s->ktype, &kb);
                plane_bytes(rt, rt->n_ctx, s->heads, s->dv, s->vtype, &vb);
                k[i] = at;
                v[i] = at + kb;
                at += kb + vb;
        }
}

moec_status rt_resolve(const Rt *rt, const RtPlaces *places, u64 *at, moec_error *e)
{
        const Plan *p = rt->plan;
        u64 n_state = plan_count(p, PLAN_STATE);
        u64 *k = calloc(n_state + 1, sizeof *k), *v = calloc(n_state + 1, sizeof *v);
        bool ok = k && v;
        if (ok)
                find_planes(rt, places->kv, k, v);
        for (u64 i = 0; ok && i < plan_count(p, PLAN_ARG); i++) {
                const PlanArg *a = &p->ARG[i];
                switch ((PlanArgKind)a->kind) {
                case PLAN_BUF:
                        at[i] = places->arena + a->value;
                        break;
                case PLAN_INPUT:
                        at[i] = places->input[a->index];
                        break;
                case PLAN_W:
                        at[i] = places->weight[a->index];
                        break;
                case PLAN_K:
                        at[i] = k[a->index];
                        break;
                case PLAN_V:
                        at[i] = v[a->index];
                        break;
                case PLAN_NULL:
                case N_PLAN_ARG:
                        at[i] = 0;
                        break;
                }
        }
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
        moec_status st;
        if ((st = check_grids(rt, e)) != MOEC_OK ||
                (st = weights_open(rt->plan, opt, &rt->weights, e)) != MOEC_OK ||
                (st = pool_new(opt && opt->threads > 0 ? (u32)opt->threads : 0, &rt->pool, e)) != MOEC_OK)
                return st;
        return rt->target->open(rt, opt, e);
}

static const RtTarget *find_target(const char *name)
{
        static const RtTarget *const all[] = {&rt_cpu, &rt_cuda};
        for (size_t i = 0; i < COUNT(all); i++)
                if (strcmp(all[i]->name, name) == 0)
                        return all[i];
        return NULL;
}

moec_status rt_open(const Plan *plan, const moec_options *opt, u32 n_ctx, u32 n_seq, Rt **out, moec_error *e)
{
        const char *name = plan_str(plan, plan->META->target);
        const RtTarget *target = find_target(name);
        *out = NULL;
        if (n_ctx == 0 || n_seq == 0 || n_ctx > INT32_MAX || n_seq > INT32_MAX)
                return fail(e, MOEC_USAGE, "a context of %u positions for %u sequences", n_ctx, n_seq);
        if (!target)
                return fail(e, MOEC_NO_DEVICE, "the plan is for %s, which this program cannot run", name);
        Rt *rt = calloc(1, target->bytes);
        if (!rt)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading a plan");
        *rt = (Rt){.target = target, .plan = plan, .n_ctx = n_ctx, .n_seq = n_seq};
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
        rt->target->close(rt);
        pool_free(rt->pool);
        weights_close(&rt->weights);
        profile_free(&rt->profile);
        free(rt);
}

/* ---- running ---- */

static u32 outs_in(const Batch *b, u32 out, u32 end)
{
        u32 n = 0;
        while (out + n < b->n_out && b->out[out + n] < end)
                n++;
        return n;
}

/* Whether each sequence's tokens of the part are within `span` of each other. */
static bool near(const Batch *b, const Part *p, u32 span)
{
        const i32 *seq = b->seq + p->from;
        for (u32 i = span; i < p->n; i++)
                for (u32 j = 0; j + span <= i; j++)
                        if (seq[j] == seq[i])
                                return false;
        return true;
}

static bool fits(const PlanPhase *f, const Batch *b, const Part *p)
{
        return p->n <= f->max_tok && p->n_out <= f->max_out && near(b, p, f->max_seq_tok);
}

/* As much of the rest as the largest phase takes, then the first phase that is large enough for it. */
static Part next_part(const Rt *rt, const Batch *b, u32 from, u32 out)
{
        const PlanPhase *f = rt->plan->PHASE;
        u32 n_phase = (u32)plan_count(rt->plan, PLAN_PHASE), big = 0;
        for (u32 i = 1; i < n_phase; i++)
                if (f[i].max_tok > f[big].max_tok)
                        big = i;
        Part p = {big, from, MIN(b->n - from, f[big].max_tok), out, 0, 0};
        p.n_out = outs_in(b, out, from + p.n);
        if (p.n_out > f[big].max_out) { /* up to the last row that there is room for */
                p.n_out = f[big].max_out;
                p.n = b->out[out + p.n_out - 1] + 1 - from;
        }
        for (u32 i = 0; i < n_phase; i++)
                if (fits(&f[i], b, &p)) {
                        p.phase = i;
                        break;
                }
        for (u32 i = 0; i < p.n; i++)
                p.past += (u64)b->pos[from + i] + 1;
        return p;
}

void rt_fill_inputs(const Batch *b, const Part *p, i32 *const input[N_PLAN_INPUT])
{
        memcpy(input[PLAN_ids], b->id + p->from, 4ull * p->n);
        memcpy(input[PLAN_pos], b->pos + p->from, 4ull * p->n);
        memcpy(input[PLAN_seq], b->seq + p->from, 4ull * p->n);
        for (u32 i = 0; i < p->n_out; i++)
                input[PLAN_out][i] = (i32)(b->out[p->out + i] - p->from);
}

moec_status rt_step(Rt *rt, const Batch *b, float *logits, moec_error *e)
{
        const u64 n_vocab = rt->plan->META->n_vocab;
        u32 out = 0;
        for (u32 from = 0; from < b->n;) {
                Part p = next_part(rt, b, from, out);
                moec_status st = rt->target->run(rt, b, &p, logits ? logits + out * n_vocab : NULL, e);
                if (st != MOEC_OK)
                        return st;
                rt->kept_phase = p.phase;
                rt->kept_rows = p.n_out;
                out += p.n_out;
                from += p.n;
                if (from < b->n && rt->progress && !rt->progress(rt->user, "running", from, b->n))
                        return fail(
                                e, MOEC_INTERRUPTED, "stopped after %u of %u tokens of a step", from, b->n);
        }
        return MOEC_OK;
}

bool rt_keeps(const Rt *rt, const Batch *b)
{
        Part p = next_part(rt, b, 0, 0);
        for (u32 from = p.n; p.n_out == 0 && from < b->n; from += p.n)
                p = next_part(rt, b, from, 0);
        return rt->target->logits && p.n_out == b->n_out && p.from + p.n == b->n;
}

moec_status rt_logits(Rt *rt, float *logits, moec_error *e)
{
        return rt->target->logits(rt, rt->kept_phase, rt->kept_rows, logits, e);
}

bool rt_draws(const Rt *rt)
{
        return rt->target->draw && plan_util(rt->plan, PLAN_draw) != UINT32_MAX &&
               rt->plan->META->n_vocab <= SAMPLE_MAX_VOCAB && !rt->hook && !rt->profiling;
}

moec_status rt_draw(Rt *rt, const Draw *d, i32 *id, u32 *n, moec_error *e)
{
        Draw some = *d;
        some.n = MIN(d->n, PLAN_DRAWS);
        *n = 0;
        moec_status st = rt->target->draw(rt, &some, id, n, e);
        rt->kept_phase = 0;
        rt->kept_rows = *n != 0;
        return st;
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

void rt_describe(const Rt *rt, char out[64])
{
        rt->target->describe(rt, out);
}

void rt_set_hook(Rt *rt, RtHook *hook, void *user)
{
        rt->hook = hook;
        rt->hook_user = user;
}

void rt_read(Rt *rt, u64 arena_offset, void *dst, u64 bytes)
{
        rt->target->read(rt, arena_offset, dst, bytes);
}

void rt_write(Rt *rt, u64 arena_offset, const void *src, u64 bytes)
{
        rt->target->write(rt, arena_offset, src, bytes);
}

moec_status rt_bandwidth(Rt *rt, double *bytes_per_s, moec_error *e)
{
        return rt->target->bandwidth(rt, bytes_per_s, e);
}

/* ---- times ---- */

/* How many experts n tokens choose, if each chooses at random. */
static double touched(const PlanLaunch *l, u32 n)
{
        return l->n_expert ? l->n_expert * (1 - pow(1 - (double)l->n_used / l->n_expert, n)) : 0;
}

void rt_record(Rt *rt, u32 launch, const Part *part, double start, double seconds)
{
        RtProfile *p = &rt->profile;
        const PlanLaunch *l = &rt->plan->LAUNCH[launch];
        u64 bytes = l->bytes_fixed + l->bytes_tok * part->n + l->bytes_ctx * part->past +
                    l->bytes_out * part->n_out + (u64)llround((double)l->bytes_expert * touched(l, part->n));
        p->calls[launch]++;
        p->seconds[launch] += seconds;
        p->bytes[launch] += bytes;
        if (p->n_sample < RT_MAX_SAMPLES)
                p->sample[p->n_sample++] = (RtSample){launch, part->n, bytes, start, seconds};
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
