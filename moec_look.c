/* moec.h's ways to look: inspect, dump, opt, cache. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "codegen/child.h"
#include "codegen/m4.h"
#include "frontend/inspect.h"
#include "ir/dot.h"
#include "moec_front.h"

/* Runs f(ctx, out) inside a Trap; *text gets what it wrote. */
typedef void Writer(void *ctx, Arena *a, Buf *out);
static moec_status write_text(Writer *f, void *ctx, char **text, moec_error *e)
{
        Arena *a = arena_new();
        Buf *b = NEW(a, Buf);
        moec_status st = MOEC_OK;
        Trap t;
        *text = NULL;
        if (TRAP(&t) == 0) {
                f(ctx, a, b);
                buf_add(b, "", 0);
                trap_pop(&t);
                *text = b->p;
        } else {
                buf_free(b);
                st = t.error.status;
                if (e)
                        *e = t.error;
        }
        arena_free(a);
        return st;
}

static bool is_json(const char *format)
{
        if (format && strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
                err(MOEC_USAGE, "format %s: there are text and json", format);
        return format && !strcmp(format, "json");
}

/* ---- inspect ---- */

typedef struct Inspect {
        const moec_model *m;
        const char *format;
        int n_ctx;
} Inspect;

static void inspect_plan(const Plan *p, bool json, Buf *out)
{
        const PlanMeta *m = p->META;
        const struct {
                const char *name, *value;
        } word[] = {{"architecture", plan_str(p, m->arch)}, {"name", plan_str(p, m->name)},
                {"target", plan_str(p, m->target)}, {"needs", plan_str(p, m->isa)},
                {"compiled_by", plan_str(p, m->compiler)},
                {"weights", plan_count(p, PLAN_WDATA) ? "embedded" : plan_str(p, p->PART[0].path)}};
        const struct {
                const char *name;
                u64 value;
        } number[] = {{"vocabulary", m->n_vocab}, {"layers", m->n_layer}, {"width", m->n_embd},
                {"experts", m->n_expert}, {"experts_used", m->n_expert_used}, {"kernels", m->n_kernel},
                {"decode_launches", m->n_launch_decode}, {"code_bytes", plan_count(p, PLAN_CODE)},
                {"plan_bytes", p->head->bytes}, {"scratch_bytes", m->arena_bytes}};
        buf_str(out, json ? "{\"plan\": true" : "plan\n");
        for (u32 i = 0; i < COUNT(word); i++) {
                buf_fmt(out, json ? ", \"%s\": " : "  %-16s ", word[i].name);
                buf_json(out, word[i].value, strlen(word[i].value));
                buf_str(out, json ? "" : "\n");
        }
        for (u32 i = 0; i < COUNT(number); i++)
                buf_fmt(out, json ? ", \"%s\": %llu" : "  %-16s %llu\n", number[i].name,
                        (unsigned long long)number[i].value);
        buf_str(out, json ? "}\n" : "");
}

static void write_inspect(void *ctx, Arena *a, Buf *out)
{
        Inspect *i = ctx;
        (void)a;
        if (i->m->plan)
                inspect_plan(i->m->plan, is_json(i->format), out);
        else
                inspect(&((Front *)i->m->front)->model, is_json(i->format), i->n_ctx, out);
}

moec_status moec_inspect(const moec_model *m, const char *format, int n_ctx, char **out, moec_error *e)
{
        Inspect i = {m, format, n_ctx};
        return write_text(write_inspect, &i, out, e);
}

/* ---- dump ---- */

typedef struct Dump {
        const moec_model *m;
        const moec_options *opt;
        const char *phase, *after, *format;
        int layer;
} Dump;

typedef struct StopAfter {
        const char *pass;
        bool met;
} StopAfter;

static bool stop_after(void *user, const char *pass, Graph *g)
{
        StopAfter *s = user;
        (void)g;
        s->met = s->met || (s->pass && !strcmp(s->pass, pass));
        return !s->met;
}

static void dump_graph(const Dump *d, const Graph *g, Buf *out)
{
        Buf text = {0}, errors = {0};
        int code = 0;
        moec_error e = {0};
        if (!strcmp(d->format, "ir")) {
                if (d->layer < 0)
                        print(g, out);
                for (u32 i = 0; d->layer >= 0 && i < g->n_node; i++)
                        if (attr_i(&g->node[i], A_layer) == d->layer) {
                                print_node(g, i, out);
                                buf_char(out, '\n');
                        }
                return;
        }
        dot(g, d->layer, !strcmp(d->format, "dot") ? out : &text);
        if (!strcmp(d->format, "dot"))
                return;
        const char *argv[] = {"dot", "-Tsvg", NULL};
        moec_status st = child_run(argv, NULL, text.p, text.len, out, &errors, &code, &e);
        if (st == MOEC_OK && code != 0)
                st = fail(
                        &e, MOEC_TOOLCHAIN, "dot failed (status %d): %.300s", code, errors.p ? errors.p : "");
        else if (st != MOEC_OK)
                st = fail(&e, MOEC_TOOLCHAIN, "cannot run dot: install graphviz, or take -o dot");
        buf_free(&text);
        buf_free(&errors);
        if (st)
                err_rethrow(&e);
}

static bool key_shown(const Stages *s, u32 phase, const Key *k, int layer, u32 *uses)
{
        const Graph *g = s->stage[phase].g;
        *uses = 0;
        for (u32 i = 0; i < g->n_node; i++) {
                const Sel *sel = emit_sel(s->emit, phase, i);
                if (sel && !strcmp(sel->key->text, k->text) &&
                        (layer < 0 || attr_i(&g->node[i], A_layer) == layer))
                        ++*uses;
        }
        return *uses != 0;
}

static void dump_kernels(const Dump *d, Stages *s, u32 phase, Buf *out)
{
        Key *const *key;
        bool sources = !strcmp(d->format, "kernels");
        stages_select(s);
        u32 n = emit_keys(s->emit, &key), uses;
        const char **source = NEWN(s->arena, const char *, n);
        if (sources)
                stages_sources(s, key, n, source);
        for (u32 i = 0; i < n; i++) {
                if (!key_shown(s, phase, key[i], d->layer, &uses))
                        continue;
                buf_fmt(out, "%s%s  x%u  %s\n", sources ? "// " : "", key[i]->name, uses, key[i]->text);
                if (sources) {
                        Buf facts = {0};
                        m4_facts(key[i], &facts);
                        for (char *l = strtok(facts.p, "\n"); l; l = strtok(NULL, "\n"))
                                buf_fmt(out, "//   %s\n", l);
                        buf_free(&facts);
                        buf_fmt(out, "%s\n", source[i]);
                }
        }
}

static u32 phase_find(const Stages *s, const char *name)
{
        for (u32 i = 0; i < s->n; i++)
                if (!strcmp(s->stage[i].phase->name, name))
                        return i;
        char known[MAX_PHASE * 32] = "";
        for (u32 i = 0; i < s->n; i++)
                snprintf(known + strlen(known), sizeof known - strlen(known), "%s%.24s", i ? ", " : "",
                        s->stage[i].phase->name);
        err(MOEC_USAGE, "phase %s: this target has %s", name, known);
}

static void write_dump(void *ctx, Arena *a, Buf *out)
{
        static const char *const known[] = {"ir", "dot", "svg", "keys", "kernels"};
        Dump *d = ctx;
        u32 f = 0;
        while (f < COUNT(known) && strcmp(known[f], d->format) != 0)
                f++;
        if (f == COUNT(known))
                err(MOEC_USAGE, "format %s: there are ir, dot, svg, keys and kernels", d->format);
        Stages *s = NEW(a, Stages);
        stages_open(s, a, d->m->front, d->opt, "native");
        u32 phase = phase_find(s, d->phase);
        if (f >= 3) {
                if (d->after)
                        err(MOEC_USAGE, "kernels and Keys come after all passes: leave --after out");
                dump_kernels(d, s, phase, out);
                return;
        }
        StopAfter stop = {d->after, false};
        stage_run(s, &s->stage[phase], stop_after, &stop);
        if (d->after && !stop.met)
                err(MOEC_USAGE, "pass %s is not in the pipeline of %s: %s", d->after, d->phase,
                        s->stage[phase].phase->passes);
        dump_graph(d, s->stage[phase].g, out);
}

moec_status moec_dump(const moec_model *m, const moec_options *opt, const char *phase, const char *after,
        int layer, const char *format, char **out, moec_error *e)
{
        static const moec_options defaults;
        Dump d = {m, opt ? opt : &defaults, phase ? phase : "decode", after, format ? format : "ir", layer};
        if (!m->front)
                return fail(e, MOEC_USAGE, "%s is a plan: its graph is gone; give the GGUF", m->path);
        return write_text(write_dump, &d, out, e);
}

/* ---- opt ---- */

typedef struct Opt {
        const char *text, *path, *passes;
} Opt;

static void write_opt(void *ctx, Arena *a, Buf *out)
{
        Opt *o = ctx;
        PassOpt po = {.act = ACT_q8};
        Graph *g = parse(a, o->text, strlen(o->text), o->path);
        run_passes(g, o->passes, &po, NULL, NULL);
        print(g, out);
}

moec_status moec_opt(const char *text, const char *path, const char *passes, char **out, moec_error *e)
{
        Opt o = {text, path, passes};
        return write_text(write_opt, &o, out, e);
}

/* ---- cache ---- */

typedef struct CacheCall {
        const moec_options *opt;
        const char *verb, *arg, *format;
        Cache *cache;
} CacheCall;

static void throw_if(moec_status st, const moec_error *e)
{
        if (st)
                err_rethrow(e);
}

static void cache_print(const CacheCall *c, Buf *out)
{
        CacheEntry *entry;
        u32 n;
        u64 bytes = 0;
        moec_error e = {0};
        bool json = is_json(c->format);
        throw_if(cache_list(c->cache, &entry, &n, &e), &e);
        buf_str(out, json ? "[" : "");
        for (u32 i = 0; i < n; i++) {
                bytes += entry[i].bytes;
                buf_fmt(out,
                        json ? "%s{\"name\": \"%s\", \"bytes\": %llu, \"used\": %lld}"
                             : "%s%-40s %10llu bytes  used %lld\n",
                        json && i ? ", " : "", entry[i].name, (unsigned long long)entry[i].bytes,
                        (long long)entry[i].used);
        }
        if (json)
                buf_str(out, "]\n");
        else
                buf_fmt(out, "%u entries, %llu bytes in %s\n", n, (unsigned long long)bytes,
                        cache_dir(c->cache));
        free(entry);
}

static void cache_explain(const CacheCall *c, Buf *out)
{
        char *text = NULL, *diff = NULL, name[CACHE_NAME];
        moec_error e = {0};
        if (!c->arg)
                err(MOEC_USAGE, "cache explain: which entry? `moec cache list` names them; the beginning of "
                                "a name will do");
        throw_if(cache_text(c->cache, c->arg, &text, &e), &e);
        buf_str(out, text);
        const char *kind = strstr(text, "kernel: ") == text ? "o" : "plan";
        moec_status st = cache_compare(c->cache, kind, text, c->arg, name, &diff, &e);
        if (st == MOEC_OK && *name)
                buf_fmt(out, "\nthe most similar other entry is %s; it differs in\n%s", name, diff);
        free(text);
        free(diff);
        throw_if(st, &e);
}

/* "512M": a size with an optional K, M or G. */
static u64 size_of(const char *s)
{
        static const char unit[] = "KMG";
        size_t n = s ? strlen(s) : 0;
        char digits[24];
        u64 v, mul = 1;
        const char *u = n ? strchr(unit, s[n - 1]) : NULL;
        if (u) {
                mul = 1024ull << (10 * (u - unit));
                n--;
        }
        if (n == 0 || n >= sizeof digits)
                err(MOEC_USAGE, "cache prune: give the size to keep, such as 500M or 1G");
        memcpy(digits, s, n);
        digits[n] = 0;
        if (!parse_u64(digits, UINT64_MAX / mul, &v))
                err(MOEC_USAGE, "cache prune: %s is no size such as 500M or 1G", s);
        return v * mul;
}

static void write_cache(void *ctx, Arena *a, Buf *out)
{
        CacheCall *c = ctx;
        moec_error e = {0};
        const char *dir = front_cache_dir(a, c->opt);
        u32 removed = 0;
        u64 left = 0;
        throw_if(cache_open(dir, &c->cache, &e), &e);
        if (!c->cache)
                err(MOEC_IO, "there is no cache: %s cannot be opened", dir);
        if (!strcmp(c->verb, "list")) {
                cache_print(c, out);
        } else if (!strcmp(c->verb, "explain")) {
                cache_explain(c, out);
        } else if (!strcmp(c->verb, "prune") || !strcmp(c->verb, "clear")) {
                u64 keep = *c->verb == 'p' ? size_of(c->arg) : 0;
                throw_if(cache_prune(c->cache, keep, &removed, &left, &e), &e);
                buf_fmt(out,
                        is_json(c->format) ? "{\"removed\": %u, \"bytes\": %llu}\n"
                                           : "%u entries removed, %llu bytes left\n",
                        removed, (unsigned long long)left);
        } else {
                err(MOEC_USAGE, "cache %s: there are list, explain, prune and clear", c->verb);
        }
}

moec_status moec_cache(const moec_options *opt, const char *verb, const char *arg, const char *format,
        char **out, moec_error *e)
{
        static const moec_options defaults;
        CacheCall c = {opt ? opt : &defaults, verb, arg, format, NULL};
        moec_status st = write_text(write_cache, &c, out, e);
        cache_close(c.cache);
        return st;
}
