#include "runtime/api.h"
#include <stdlib.h>
#include <string.h>

/* ---- profile ---- */

moec_status moec_profile_start(moec_context *c, moec_error *e)
{
        if (!c->rt)
                return fail(e, MOEC_UNSUPPORTED, "there is no profile of %s: it has no launches",
                        c->timing.target);
        return rt_profile_start(c->rt, e);
}

static int by_seconds(const void *a, const void *b)
{
        const moec_profile_row *x = a, *y = b;
        if (x->seconds != y->seconds)
                return x->seconds < y->seconds ? 1 : -1;
        return strcmp(x->kernel, y->kernel);
}

/* A row for each kernel that ran, the costliest first. */
static moec_status profile_rows(moec_context *c, const Plan *p, const RtProfile *f, int *n, moec_error *e)
{
        u64 n_kernel = plan_count(p, PLAN_KERNEL);
        free(c->rows);
        c->rows = calloc(n_kernel + 1, sizeof *c->rows);
        if (!c->rows)
                return fail(e, MOEC_NO_MEMORY, "out of memory for a profile of %llu kernels",
                        (unsigned long long)n_kernel);
        for (u64 i = 0; i < plan_count(p, PLAN_LAUNCH); i++) {
                moec_profile_row *r = &c->rows[p->LAUNCH[i].kernel];
                r->calls += f->calls[i];
                r->bytes += f->bytes[i];
                r->seconds += f->seconds[i];
        }
        *n = 0;
        for (u64 k = 0; k < n_kernel; k++) {
                if (!c->rows[k].calls)
                        continue;
                c->rows[k].kernel = plan_str(p, p->KERNEL[k].name);
                c->rows[k].what = plan_str(p, p->KERNEL[k].key);
                c->rows[(*n)++] = c->rows[k];
        }
        qsort(c->rows, (size_t)*n, sizeof *c->rows, by_seconds);
        return MOEC_OK;
}

/* The name that Chrome shows: of the one process (what: "process_name") or its one track ("thread_name"). */
static void trace_name(Buf *b, const char *what, const char *name)
{
        buf_fmt(b, "\n{\"name\":\"%s\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{\"name\":", what);
        buf_json(b, name, strlen(name));
        buf_str(b, "}}");
}

/* "blk.3.experts_up": experts_up in layer 3. */
static void trace_launch(Buf *b, const Plan *p, const RtSample *s, double start)
{
        const PlanLaunch *l = &p->LAUNCH[s->launch];
        const char *label = plan_str(p, l->label), *kernel = plan_str(p, p->KERNEL[l->kernel].name);
        const char *dot = strrchr(label, '.'), *op = dot ? dot + 1 : label;
        buf_str(b, ",\n{\"name\":");
        buf_json(b, label, strlen(label));
        buf_str(b, ",\"cat\":");
        buf_json(b, op, strlen(op));
        buf_fmt(b, ",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"kernel\":",
                (s->start - start) * 1e6, s->seconds * 1e6);
        buf_json(b, kernel, strlen(kernel));
        buf_fmt(b, ",\"n_tok\":%u,\"bytes\":%llu,\"GB/s\":%.2f}}", s->n_tok, (unsigned long long)s->bytes,
                s->seconds > 0 ? (double)s->bytes * 1e-9 / s->seconds : 0);
}

/* Chrome's trace event format: complete events, microseconds. */
static void trace_json(const Plan *p, const RtProfile *f, const char *target, Buf *b)
{
        buf_str(b, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        trace_name(b, "process_name", target);
        buf_char(b, ',');
        trace_name(b, "thread_name", "launches");
        for (u64 i = 0; i < f->n_sample; i++)
                trace_launch(b, p, &f->sample[i], f->sample[0].start);
        buf_str(b, "\n]}\n");
}

static moec_status write_trace(
        const Plan *p, const RtProfile *f, const char *target, const char *path, moec_error *e)
{
        Buf *b = calloc(1, sizeof *b); /* on the heap: a jump leaves it as it is */
        moec_status st;
        Trap t;
        if (!b)
                return fail(e, MOEC_NO_MEMORY, "out of memory writing %s", path);
        if (TRAP(&t) == 0) {
                trace_json(p, f, target, b);
                trap_pop(&t);
                st = file_write(path, b->p, b->len, 0644, e);
        } else
                st = fail(e, t.error.status, "%s", t.error.msg);
        buf_free(b);
        free(b);
        return st;
}

moec_status moec_profile_stop(
        moec_context *c, const moec_profile_row **rows, int *n, const char *trace_path, moec_error *e)
{
        *rows = NULL;
        *n = 0;
        const RtProfile *f = c->rt ? rt_profile_stop(c->rt) : NULL;
        if (!f)
                return fail(e, MOEC_USAGE, "no profile was started");
        const Plan *p = c->plan ? c->plan : c->model->plan;
        moec_status st = profile_rows(c, p, f, n, e);
        if (st == MOEC_OK && trace_path)
                st = write_trace(p, f, c->timing.target, trace_path, e);
        if (st == MOEC_OK)
                *rows = c->rows;
        else
                *n = 0;
        return st;
}

/* ---- bandwidth ---- */

moec_status moec_read_bandwidth(moec_context *c, double *bytes_per_s, moec_error *e)
{
        Pool *own = NULL;
        if (c->rt)
                return rt_bandwidth(c->rt, bytes_per_s, e);
        *bytes_per_s = 0;
        moec_status st = pool_new(0, &own, e);
        if (st == MOEC_OK)
                st = cpu_read_bandwidth(own, bytes_per_s, e);
        pool_free(own);
        return st;
}
