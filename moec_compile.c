/* moec_compile: a plan, or an executable (the runtime's stub with the plan behind it), with or without the
 * weights. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "frontend/embed.h"
#include "moec_front.h"
#include "runtime/pack.h"

/* A file written piece by piece beside its final name. */
typedef struct Out {
        const char *path;
        char *temp; /* NULL: not begun */
        int fd;
        u64 at;
} Out;

static void out_error(const Out *o)
{
        err(MOEC_IO, "%s: cannot write: %s", o->path, strerror(errno));
}

static void out_open(Arena *a, Out *o, const char *path, int mode)
{
        *o = (Out){.path = path, .fd = -1};
        o->temp = arena_fmt(a, "%s.%d.tmp", path, (int)getpid());
        o->fd = open(o->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (o->fd < 0) {
                o->temp = NULL;
                out_error(o);
        }
}

static void out_put(Out *o, const void *p, u64 n)
{
        for (const u8 *b = p; n;) {
                ssize_t did = pwrite(o->fd, b, MIN(n, 1u << 30), (off_t)o->at);
                if (did < 0 && errno == EINTR)
                        continue;
                if (did <= 0)
                        out_error(o);
                b += did;
                n -= (u64)did;
                o->at += (u64)did;
        }
}

static void out_pad(Out *o, u64 align)
{
        static const u8 zero[PLAN_PAGE];
        out_put(o, zero, -o->at & (align - 1));
}

static void out_finish(Out *o)
{
        if (fsync(o->fd) != 0)
                out_error(o);
        int fd = o->fd;
        o->fd = -1;
        if (close(fd) != 0 || rename(o->temp, o->path) != 0)
                out_error(o);
        o->temp = NULL;
}

static void out_abandon(Out *o)
{
        if (o->fd >= 0)
                close(o->fd);
        if (o->temp)
                unlink(o->temp);
}

/* Of what was written from `start` on, as plan_wdata_hash has it. */
static Hash out_hash(Out *o, u64 start, Buf *room)
{
        const u64 piece = 16 << 20;
        Hash h = {0, 0};
        if (room->cap < piece) {
                room->p = xrealloc(room->p, piece);
                room->cap = piece;
        }
        for (u64 at = start; at < o->at;) {
                u64 n = MIN(piece, o->at - at), got = 0;
                while (got < n) {
                        ssize_t did = pread(o->fd, room->p + got, n - got, (off_t)(at + got));
                        if (did <= 0)
                                out_error(o);
                        got += (u64)did;
                }
                h = plan_wdata_hash(h, room->p, n);
                at += n;
        }
        return h;
}

/* ---- weights ---- */

/* One expert, or one matrix: rows that are packed together. */
static u64 pieces(const Weight *w, u64 *rows)
{
        u64 n = 1;
        *rows = w->rank > 1 ? w->dim[w->rank - 2] : 1;
        for (u32 i = 0; i + 2 < w->rank; i++)
                n *= w->dim[i];
        return n;
}

static void put_weight(Stages *s, Out *o, const EmitWeight *w, Buf *room)
{
        const Gguf *g = s->front->model.gguf;
        const u8 *src = gguf_data(g, gguf_tensor(g, w->tensor->name));
        u64 rows, n = pieces(w->weight, &rows), bytes = w->bytes / n, from = w->tensor->bytes / n;
        for (u64 i = 0; i < n; i++) {
                const u8 *p = src + i * from;
                if (w->weight->layout != LAYOUT_rows) {
                        if (room->cap < bytes) {
                                room->p = xrealloc(room->p, bytes);
                                room->cap = bytes;
                        }
                        (w->weight->layout == LAYOUT_panel ? pack_panel : pack_split)(
                                w->weight->type, p, (u8 *)room->p, rows, w->weight->dim[w->weight->rank - 1]);
                        p = (u8 *)room->p;
                }
                out_put(o, p, bytes);
        }
        out_pad(o, PLAN_ALIGN);
}

/* WDATA behind the plan, then the plan's head once more, now that the hash is known. */
static void put_weights(Stages *s, Out *o, Buf *plan, u64 plan_at, Buf *room)
{
        const EmitWeight *w;
        u32 n = emit_weights(s->emit, &w);
        out_pad(o, PLAN_PAGE);
        u64 start = o->at;
        for (u32 i = 0; i < n; i++) {
                if (s->opt->progress && !s->opt->progress(s->opt->user, "embedding", i, n))
                        err(MOEC_INTERRUPTED, "interrupted while embedding weights");
                put_weight(s, o, &w[i], room);
        }
        u64 end = o->at;
        plan_embed(plan, end - start, out_hash(o, start, room));
        o->at = plan_at;
        out_put(o, plan->p, plan->len);
        o->at = end;
}

/* ---- */

static void write_out(Stages *s, Out *o, const char *path, bool exe, Buf *plan, Buf *room)
{
        out_open(s->arena, o, path, exe ? 0755 : 0644);
        if (exe) {
                const Embed *stub = embed_find("stub");
                if (!stub)
                        die("the runtime's stub is not built in");
                out_put(o, stub->text, stub->len);
                out_pad(o, PLAN_PAGE);
        }
        ExeTrailer t = {.plan = o->at};
        memcpy(t.magic, EXE_MAGIC, sizeof t.magic);
        out_put(o, plan->p, plan->len);
        if (s->embed)
                put_weights(s, o, plan, t.plan, room);
        if (exe)
                out_put(o, &t, sizeof t);
        out_finish(o);
}

static void make(Stages *s, const Front *f, const moec_options *opt, const char *path, const char *emit,
        bool embed, Out *o, Buf *plan, Buf *room, moec_compile_report *r)
{
        double start = now_s();
        bool exe = !strcmp(emit, "exe");
        if (!exe && strcmp(emit, "plan") != 0)
                err(MOEC_USAGE, "emit %s: there are exe and plan", emit);
        if (embed && f->model.info.is_shape)
                err(MOEC_USAGE, "%s is a shape file: it has no weights to embed", f->model.path);
        stages_open(s, s->arena, f, opt, "x86-64-v3");
        s->embed = embed;
        moec_error e = {0};
        if (cache_open(front_cache_dir(s->arena, opt), &s->cache, &e) != MOEC_OK)
                err_rethrow(&e);
        stages_plan(s, plan);
        Key *const *key;
        r->n_kernels = (int)emit_keys(s->emit, &key);
        r->n_launches = (int)s->stage[0].g->n_node;
        r->code_bytes = s->code_bytes;
        r->plan_bytes = plan->len;
        write_out(s, o, path, exe, plan, room);
        r->seconds = now_s() - start;
}

moec_status moec_compile(const moec_model *m, const moec_options *opt, const char *out, const char *emit,
        bool embed, moec_compile_report *report, moec_error *e)
{
        static const moec_options defaults;
        moec_compile_report unwanted;
        if (!m->front)
                return fail(e, MOEC_USAGE, "%s is compiled already; give the GGUF", m->path);
        Arena *a = arena_new();
        Stages *s = NEW(a, Stages);
        Out *o = NEW(a, Out);
        Buf *plan = NEW(a, Buf), *room = NEW(a, Buf);
        moec_status st = MOEC_OK;
        Trap t;
        o->fd = -1;
        s->arena = a;
        if (TRAP(&t) == 0) {
                make(s, m->front, opt ? opt : &defaults, out, emit, embed, o, plan, room,
                        report ? report : &unwanted);
                trap_pop(&t);
        } else {
                st = t.error.status;
                if (e)
                        *e = t.error;
        }
        out_abandon(o);
        buf_free(plan);
        buf_free(room);
        cache_close(s->cache);
        arena_free(a);
        return st;
}
