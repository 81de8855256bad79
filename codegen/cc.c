#include "codegen/cc.h"
#include <stdio.h>
#include <string.h>
#include "codegen/child.h"
#include "runtime/isa.h"
#include "runtime/plan.h"

/* Contraction is off so that templates say where a product and a sum are fused; psabi: vectors never cross a
 * call. */
#define CC_FLAGS                                                                                             \
        "-std=gnu11", "-O2", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi",                  \
                "-fno-strict-aliasing"

typedef struct Cc {
        Arena *arena;
        const char *march, *flag;
        const char *search[4];
        Hash tool; /* of what, besides the source, decides an object */
        Buf so;
} Cc;

/* ---- one kernel ---- */

static moec_status compile(const Jobs *j, u32 i, moec_error *e)
{
        char o[512];
        const Cc *cc = j->self;
        const char *name = j->unit[i].key->name;
        snprintf(o, sizeof o, "%s.o", name);
        const char *argv[] = {"cc", CC_FLAGS, cc->flag, "-c", j->unit[i].file, "-o", o, NULL};
        Buf out = {0}, errors = {0};
        int code = 0;
        moec_status st = child_run(argv, j->work, NULL, 0, &out, &errors, &code, e);
        if (st == MOEC_OK && code != 0)
                st = fail(e, MOEC_TOOLCHAIN, "cc failed (status %d) on kernel %s: %.600s", code, name,
                        errors.p ? errors.p : "");
        buf_free(&out);
        buf_free(&errors);
        return st;
}

/* What made an object, for `moec cache explain`. */
static void object_text(const Cc *cc, const Key *k, Buf *text)
{
        char tool[HASH_HEX + 1];
        buf_fmt(text, "kernel: %s\nmarch: %s\ncompiler: %s\n", k->text, cc->march, hash_hex(cc->tool, tool));
}

static moec_status object(Jobs *j, u32 i, moec_error *e)
{
        const Cc *cc = j->self;
        const Unit *u = &j->unit[i];
        Hash key = hash_mix(cc->tool, u->source.p, u->source.len);
        char path[4096];
        CacheHit hit;
        snprintf(path, sizeof path, "%s/%s.o", j->work, u->key->name);
        if (cache_get(j->opt->cache, key, "o", &hit)) {
                moec_status st = jobs_write(path, hit.data, hit.bytes, e);
                map_close(&hit.map);
                return st;
        }
        moec_status st = compile(j, i, e);
        Buf o = {0}, text = {0};
        if (st == MOEC_OK && j->opt->cache && file_read(path, &o, UINT64_MAX, NULL) == MOEC_OK) {
                object_text(cc, u->key, &text);
                cache_put(j->opt->cache, key, "o", text.p, o.p, o.len, NULL);
        }
        buf_free(&o);
        buf_free(&text);
        return st;
}

/* ---- all of them ---- */

static moec_status link_all(Jobs *j, moec_error *e)
{
        Cc *cc = j->self;
        Arena *a = cc->arena;
        const char **argv = NEWN(a, const char *, j->n + 8);
        u32 n = 0;
        argv[n++] = "cc";
        argv[n++] = "-shared";
        argv[n++] = "-s";
        argv[n++] = "-o";
        argv[n++] = "kernels.so";
        for (u32 i = 0; i < j->n; i++)
                argv[n++] = arena_fmt(a, "%s.o", j->unit[i].key->name);
        Buf out = {0}, errors = {0};
        int code = 0;
        moec_status st = child_run(argv, j->work, NULL, 0, &out, &errors, &code, e);
        if (st == MOEC_OK && code != 0)
                st = fail(e, MOEC_TOOLCHAIN, "cc failed (status %d) to link the kernels: %.600s", code,
                        errors.p ? errors.p : "");
        if (st == MOEC_OK)
                st = file_read(arena_fmt(a, "%s/kernels.so", j->work), &cc->so, UINT64_MAX, e);
        buf_free(&out);
        buf_free(&errors);
        return st;
}

static moec_status tool_hash(Jobs *j, moec_error *e)
{
        Cc *cc = j->self;
        Hash *h = &cc->tool;
        const char *march = cc->march;
        static const char *const flags[] = {CC_FLAGS};
        const char *argv[] = {"cc", "--version", NULL};
        Buf out = {0}, errors = {0};
        char native[ISA_MAX] = "";
        int code = 0;
        moec_status st = child_run(argv, NULL, NULL, 0, &out, &errors, &code, e);
        if (st == MOEC_OK && code != 0)
                st = fail(e, MOEC_TOOLCHAIN, "cc --version failed (status %d): %.300s", code,
                        errors.p ? errors.p : "");
        if (!strcmp(march, "native"))
                isa_native(native);
        *h = hash_bytes(out.p, out.len);
        for (u32 i = 0; i < COUNT(flags); i++)
                *h = hash_mix(*h, flags[i], strlen(flags[i]));
        *h = hash_mix(*h, march, strlen(march) + 1);
        *h = hash_mix(*h, native, strlen(native));
        buf_free(&out);
        buf_free(&errors);
        return st;
}

/* Folders of templates, the most special first. */
static void search_path(Cc *cc)
{
        u32 n = 0;
        bool native = !strcmp(cc->march, "native");
        if (native && (isa_feature("avxvnni") || (isa_feature("avx512vnni") && isa_feature("avx512vl"))))
                cc->search[n++] = "c/avxvnni";
        if (!strcmp(cc->march, "x86-64-v3") || (native && isa_have("x86-64-v3", NULL) == MOEC_OK))
                cc->search[n++] = "c/x86-64-v3";
        cc->search[n] = "c/generic";
}

static void run(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, Image *so, const char **source)
{
        const char *march = opt->march;
        Cc cc = {.arena = a, .march = march, .flag = arena_fmt(a, "-march=%s", march)};
        Jobs j = {.opt = opt, .suffix = ".c.m4", .unit = NEWN(a, Unit, n), .n = n, .self = &cc};
        if (so) {
                j.begin = tool_hash;
                j.build = object;
                j.finish = link_all;
        }
        search_path(&cc);
        for (u32 i = 0; i < n; i++)
                j.unit[i] = (Unit){
                        .key = key[i], .search = cc.search, .file = arena_fmt(a, "%s.c", key[i]->name)};
        jobs_run(a, &j, source);
        if (so)
                *so = (Image){"so", PLAN_SO, arena_copy(a, cc.so.p, cc.so.len), cc.so.len};
        buf_free(&cc.so);
}

void cc_build(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, Image *so, const char **source)
{
        run(a, key, n, opt, so, source);
}

void cc_sources(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, const char **source)
{
        run(a, key, n, opt, NULL, source);
}
