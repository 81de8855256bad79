#include "runtime/weights.h"
#include "runtime/memory.h"
#include "runtime/pack.h"
#include "runtime/piece.h"
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
                random_blocks((Wtype)j->w->type, j->seed, first * j->row_bytes, temp,
                        rows * j->cols / wtype_info[j->w->type].per);
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
                .seed = random_seed(plan_str(w->plan, pw->name))};
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

bool weights_random(const Weights *w, u64 i)
{
        return w->random && w->plan->WEIGHT[i].embedded == UINT64_MAX;
}

typedef struct Copy {
        const u8 *src;
        u8 *dst;
        u64 n;
} Copy;

#define COPY_EACH (256u << 10) /* bytes of one item of work */

static void copy_items(void *user, u32 first, u32 last)
{
        const Copy *c = user;
        u64 at = (u64)first * COPY_EACH, end = MIN((u64)last * COPY_EACH, c->n);
        memcpy(c->dst + at, c->src + at, end - at);
}

void weights_read(const Weights *w, u64 i, u64 at, u64 n, u8 *dst, Pool *pool)
{
        const PlanWeight *pw = &w->plan->WEIGHT[i];
        bool embedded = pw->embedded != UINT64_MAX;
        const u8 *src = embedded ? w->plan->WDATA + pw->embedded : w->part[pw->part].p + pw->src;
        Copy c = {src + at, dst, n};
        pool_run(pool, copy_items, &c, (u32)((n + COPY_EACH - 1) / COPY_EACH));
}

void weights_forget(const Weights *w, u64 i)
{
        const PlanWeight *pw = &w->plan->WEIGHT[i];
        if (pw->embedded == UINT64_MAX && !w->random)
                forget(w->part[pw->part].p + pw->src, pw->src_bytes);
}
