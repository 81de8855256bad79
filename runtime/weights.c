#include "runtime/weights.h"
#include "runtime/memory.h"
#include "runtime/pack.h"
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- files ---- */

/* Where part i is. The further parts of an override are named after the first, as GGUF splits are. */
static moec_status part_path(const Plan *p, const char *first, u64 i, char out[PATH_MAX], moec_error *e)
{
        u64 n = plan_count(p, PLAN_PART);
        const char *path = first && *first ? first : NULL;
        if (!path) {
                snprintf(out, PATH_MAX, "%s", plan_str(p, p->PART[i].path));
                return MOEC_OK;
        }
        if (n == 1) {
                snprintf(out, PATH_MAX, "%s", path);
                return MOEC_OK;
        }
        char end[64];
        size_t len = strlen(path);
        size_t end_len = (size_t)snprintf(end, sizeof end, "-%05d-of-%05llu.gguf", 1, (unsigned long long)n);
        if (len < end_len || strcmp(path + len - end_len, end) != 0)
                return fail(e, MOEC_USAGE,
                        "%s: the weights are in %llu files; give the first, whose name ends in %s", path,
                        (unsigned long long)n, end);
        snprintf(out, PATH_MAX, "%.*s-%05llu-of-%05llu.gguf", (int)(len - end_len), path,
                (unsigned long long)i + 1, (unsigned long long)n);
        return MOEC_OK;
}

static moec_status part_check(const Plan *p, u64 i, const char *path, const Map *m, moec_error *e)
{
        const PlanPart *part = &p->PART[i];
        const char *was = plan_str(p, part->path);
        if (m->size < part->header_bytes || !hash_same(hash_bytes(m->p, part->header_bytes), part->hash)) {
                if (strcmp(path, was) == 0)
                        return fail(e, MOEC_MISMATCH,
                                "%s is no longer the file that the plan was compiled from: its header "
                                "differs; compile it again",
                                path);
                return fail(e, MOEC_MISMATCH,
                        "%s is not the model that the plan was compiled from, which was %s: their headers "
                        "differ; give that "
                        "file, or compile this one",
                        path, was);
        }
        if (m->size >= part->bytes)
                return MOEC_OK;
        if (m->size - part->header_bytes < 65536 && m->size < part->bytes / 2)
                return fail(e, MOEC_USAGE,
                        "%s holds no weights: it is a shape file; give the whole model's file, or ask for "
                        "random weights",
                        path);
        return fail(e, MOEC_DAMAGED, "%s was cut off: it has %llu bytes of %llu; copy it again", path,
                (unsigned long long)m->size, (unsigned long long)part->bytes);
}

static moec_status part_open(Weights *w, const char *first, u64 i, moec_error *e)
{
        char path[PATH_MAX];
        moec_error why;
        moec_status st = part_path(w->plan, first, i, path, e);
        if (st != MOEC_OK)
                return st;
        st = map_open(path, &w->part[i], &why);
        if (st == MOEC_OK)
                return part_check(w->plan, i, path, &w->part[i], e);
        if (st == MOEC_NOT_FOUND)
                return fail(e, st, "%.900s; the plan's weights are in it: say where it is now", why.msg);
        return fail(e, st, "%s", why.msg);
}

moec_status weights_open(const Plan *plan, const moec_options *opt, Weights *w, moec_error *e)
{
        u64 n = plan_count(plan, PLAN_WEIGHT), n_part = plan_count(plan, PLAN_PART);
        moec_status st = MOEC_OK;
        *w = (Weights){.plan = plan, .n_part = n_part, .random = opt && opt->random_weights};
        w->at = calloc(n + 1, sizeof *w->at);
        w->part = calloc(n_part + 1, sizeof *w->part);
        if (!w->at || !w->part)
                st = fail(e, MOEC_NO_MEMORY, "out of memory for a table of %llu weights",
                        (unsigned long long)n);
        for (u64 i = 0; w->part && i < n_part; i++)
                w->part[i].fd = -1;
        for (u64 i = 0; st == MOEC_OK && !w->random && i < n; i++) {
                const PlanWeight *pw = &plan->WEIGHT[i];
                if (pw->embedded == UINT64_MAX && !w->part[pw->part].p)
                        st = part_open(w, opt ? opt->weights : NULL, pw->part, e);
        }
        for (u64 i = 0; st == MOEC_OK && i < n; i++) {
                const PlanWeight *pw = &plan->WEIGHT[i];
                if (pw->embedded != UINT64_MAX)
                        w->at[i] = plan->WDATA + pw->embedded;
                else if (!w->random && pw->layout == PLAN_rows &&
                         (uintptr_t)(w->part[pw->part].p + pw->src) % WEIGHT_ALIGN == 0)
                        w->at[i] = w->part[pw->part].p + pw->src;
                else if (!align_u64(w->own_bytes, PLAN_ALIGN, &w->own_bytes) ||
                         !add_u64(w->own_bytes, pw->dst_bytes, &w->own_bytes))
                        st = fail(e, MOEC_NO_MEMORY, "the weights need more than 2^64 bytes");
        }
        if (st != MOEC_OK)
                weights_close(w);
        return st;
}

void weights_close(Weights *w)
{
        for (u64 i = 0; w->part && i < w->n_part; i++)
                map_close(&w->part[i]);
        memory_unmap(w->own, w->own_bytes);
        free(w->part);
        free(w->at);
        *w = (Weights){0};
}

/* ---- random weights ---- */

static u64 next_random(u64 *s)
{
        u64 z = *s += 0x9e3779b97f4a7c15u; /* SplitMix64: Steele, Lea, Flood 2014 */
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
}

/* Blocks whose values are finite and small. Two-byte fields of a quantised block are its half-precision
 * scales (in one format other bits, which may be anything); a lone byte is an exponent with a bias of 127;
 * the rest are codes. */
static void random_blocks(Wtype type, u8 *p, u64 blocks, u64 seed)
{
        const WtypeInfo *t = &wtype_info[type];
        for (u64 b = 0; b < blocks; b++)
                for (const Field *f = t->field; f < t->field + MAX_FIELD && f->bytes; p += f->bytes, f++) {
                        u64 r = next_random(&seed);
                        float v = (float)((i64)(r >> 40) - (1 << 23)) * 0x1p-27f; /* within 1/16 */
                        u32 bits;
                        memcpy(&bits, &v, sizeof bits);
                        u16 half = type == W_BF16 ? (u16)(bits >> 16) : f32_to_f16(t->quant ? v * 0.125f : v);
                        if (type == W_F32)
                                memcpy(p, &v, sizeof v);
                        else if (f->bytes == 2)
                                memcpy(p, &half, sizeof half);
                        else if (f->bytes == 1)
                                *p = (u8)(118 + (r & 3));
                        else
                                for (u32 i = 0; i < f->bytes; i++)
                                        p[i] = (u8)(next_random(&seed) >> 56);
                }
}

/* ---- loading ---- */

/* One weight on its way from src (NULL: random) to dst, by groups of PANEL_ROWS rows of one matrix. */
typedef struct Job {
        const PlanWeight *w;
        const u8 *src;
        u8 *dst;
        u64 rows, cols, groups; /* of one matrix */
        u64 row_bytes, panel_bytes;
        u64 seed;
        atomic_bool failed;
} Job;

static void load_group(Job *j, u64 g, u8 *temp)
{
        u64 matrix = g / j->groups, row = g % j->groups * PANEL_ROWS, rows = MIN(PANEL_ROWS, j->rows - row);
        u64 first = matrix * j->rows + row;
        const u8 *src = temp;
        if (j->src)
                src = j->src + first * j->row_bytes;
        else
                random_blocks((Wtype)j->w->type, temp, rows * j->cols / wtype_info[j->w->type].per,
                        j->seed + first * 1000003);
        if (j->w->layout == PLAN_panel)
                pack_panel((Wtype)j->w->type, src, j->dst + g * j->panel_bytes, rows, j->cols);
        else
                memcpy(j->dst + first * j->row_bytes, src, rows * j->row_bytes);
}

static void load_groups(void *user, u32 first, u32 last)
{
        Job *j = user;
        u8 *temp = j->src ? NULL : malloc(PANEL_ROWS * j->row_bytes);
        if (!j->src && !temp) {
                atomic_store(&j->failed, true);
                return;
        }
        for (u64 g = first; g < last; g++)
                load_group(j, g, temp);
        free(temp);
}

/* Whole pages of a mapping that were read once: they stay in the system's cache, but not in this process. */
static void forget(const u8 *p, u64 n)
{
        u64 page = (u64)sysconf(_SC_PAGESIZE), skip = -(u64)(uintptr_t)p & (page - 1);
        if (n > skip + page)
                madvise((void *)(uintptr_t)(p + skip), (n - skip) & ~(page - 1), MADV_DONTNEED);
}

static moec_status load_one(Weights *w, u64 i, u8 *dst, Pool *pool, moec_error *e)
{
        const PlanWeight *pw = &w->plan->WEIGHT[i];
        const WtypeInfo *t = &wtype_info[pw->type];
        Job j = {.w = pw,
                .dst = dst,
                .src = w->random ? NULL : w->part[pw->part].p + pw->src,
                .seed = i * 0x10001};
        j.rows = pw->rank > 1 ? pw->dim[pw->rank - 2] : 1;
        j.cols = pw->dim[pw->rank - 1];
        j.groups = (j.rows + PANEL_ROWS - 1) / PANEL_ROWS;
        j.row_bytes = j.cols / t->per * t->bytes;
        j.panel_bytes = pack_panel_bytes((Wtype)pw->type, PANEL_ROWS, j.cols);
        u64 n = j.groups;
        for (u32 d = 0; d + 2 < pw->rank; d++)
                n *= pw->dim[d];
        if (n > UINT32_MAX)
                return fail(e, MOEC_UNSUPPORTED, "weight %s has too many rows", plan_str(w->plan, pw->name));
        pool_run(pool, load_groups, &j, (u32)n);
        if (j.src)
                forget(j.src, pw->src_bytes);
        return atomic_load(&j.failed) ? fail(e, MOEC_NO_MEMORY, "out of memory loading weights") : MOEC_OK;
}

moec_status weights_load(Weights *w, Pool *pool, const moec_options *opt, moec_error *e)
{
        u64 n = plan_count(w->plan, PLAN_WEIGHT), at = 0, told = 0;
        for (u64 i = 0; i < w->n_part; i++)
                if (w->part[i].p)
                        madvise((void *)(uintptr_t)w->part[i].p, w->part[i].size, MADV_WILLNEED);
        w->own = memory_map(w->own_bytes, true);
        if (!w->own)
                return fail(e, MOEC_NO_MEMORY, "the system gave no %llu bytes for weights",
                        (unsigned long long)w->own_bytes);
        for (u64 i = 0; i < n; i++) {
                if (w->at[i])
                        continue;
                align_u64(at, PLAN_ALIGN, &at);
                moec_status st = load_one(w, i, w->own + at, pool, e);
                if (st != MOEC_OK)
                        return st;
                w->at[i] = w->own + at;
                at += w->plan->WEIGHT[i].dst_bytes;
                if (opt && opt->progress && (at - told > 64u << 20 || at == w->own_bytes)) {
                        told = at;
                        if (!opt->progress(opt->user, "loading", at, w->own_bytes))
                                return fail(e, MOEC_INTERRUPTED, "stopped while loading weights");
                }
        }
        return MOEC_OK;
}

/* ---- for a device ---- */

u64 weights_n_rows(const PlanWeight *pw)
{
        u64 n = 1;
        for (u32 d = 0; d + 1 < pw->rank; d++)
                n *= pw->dim[d];
        return n;
}

typedef struct RowsJob {
        const PlanWeight *w;
        const u8 *src; /* of row first; NULL: random */
        u8 *dst;
        u64 first, n, cols, row_bytes, dst_bytes;
        u64 seed;
        bool split; /* to be repacked */
        atomic_bool failed;
} RowsJob;

#define ROWS_EACH 8 /* rows of one seed, and of one item of work */

static void rows_group(const RowsJob *j, u64 g, u8 *temp)
{
        u64 at = g * ROWS_EACH, n = MIN(ROWS_EACH, j->n - at);
        const u8 *src = j->src ? j->src + at * j->row_bytes : temp;
        u8 *dst = j->dst + at * j->dst_bytes;
        if (!j->src)
                random_blocks((Wtype)j->w->type, temp, n * j->cols / wtype_info[j->w->type].per,
                        j->seed + (j->first + at) * 1000003);
        if (j->split)
                pack_split((Wtype)j->w->type, src, dst, n, j->cols);
        else
                memcpy(dst, src, n * j->dst_bytes);
}

static void rows_groups(void *user, u32 first, u32 last)
{
        RowsJob *j = user;
        u8 *temp = j->src ? NULL : malloc(ROWS_EACH * j->row_bytes);
        if (!j->src && !temp) {
                atomic_store(&j->failed, true);
                return;
        }
        for (u64 g = first; g < last; g++)
                rows_group(j, g, temp);
        free(temp);
}

moec_status weights_rows(const Weights *w, u64 i, u64 first, u64 n, u8 *dst, Pool *pool, moec_error *e)
{
        const PlanWeight *pw = &w->plan->WEIGHT[i];
        const WtypeInfo *t = &wtype_info[pw->type];
        RowsJob j = {.w = pw, .dst = dst, .first = first, .n = n, .seed = i * 0x10001};
        j.cols = pw->dim[pw->rank - 1];
        j.row_bytes = j.cols / t->per * t->bytes;
        j.dst_bytes = pw->dst_bytes / weights_n_rows(pw);
        if (pw->embedded != UINT64_MAX) { /* laid out already */
                j.src = w->plan->WDATA + pw->embedded + first * j.dst_bytes;
                j.row_bytes = j.dst_bytes;
        } else {
                j.split = pw->layout == PLAN_split;
                j.src = w->random ? NULL : w->part[pw->part].p + pw->src + first * j.row_bytes;
        }
        pool_run(pool, rows_groups, &j, (u32)((n + ROWS_EACH - 1) / ROWS_EACH));
        return atomic_load(&j.failed) ? fail(e, MOEC_NO_MEMORY, "out of memory loading weights") : MOEC_OK;
}

void weights_forget(const Weights *w, u64 i)
{
        const PlanWeight *pw = &w->plan->WEIGHT[i];
        if (pw->embedded == UINT64_MAX && !w->random)
                forget(w->part[pw->part].p + pw->src, pw->src_bytes);
}
