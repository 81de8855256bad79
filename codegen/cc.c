#include "codegen/cc.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "codegen/child.h"
#include "codegen/m4.h"
#include "runtime/isa.h"

/* Contraction is off so that templates say where a product and a sum are fused; psabi: vectors never cross a
 * call. */
#define CC_FLAGS                                                                                             \
        "-std=gnu11", "-O2", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi",                  \
                "-fno-strict-aliasing"

typedef struct Job {
        Key *const *kernel;
        u32 n;
        const CcOpt *opt;
        bool compile;
        const char *work, *march;
        const char *search[4];
        Hash tool;         /* of what, besides the source, decides an object */
        Buf *source;       /* [n] */
        moec_error *error; /* [n] */
        _Atomic u32 next, done;
        _Atomic bool stop;
} Job;

/* ---- one kernel ---- */

static moec_status write_plain(const char *path, const void *p, size_t n, moec_error *e)
{
        FILE *f = fopen(path, "we");
        bool ok = f && fwrite(p, 1, n, f) == n;
        if (!f || fclose(f) != 0 || !ok)
                return fail(e, MOEC_IO, "%s: cannot write: %s", path, strerror(errno));
        return MOEC_OK;
}

static moec_status compile(const Job *j, u32 i, moec_error *e)
{
        char c[512], o[512];
        const char *name = j->kernel[i]->name;
        snprintf(c, sizeof c, "%s.c", name);
        snprintf(o, sizeof o, "%s.o", name);
        const char *argv[] = {"cc", CC_FLAGS, j->march, "-c", c, "-o", o, NULL};
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
static void object_text(const Job *j, u32 i, Buf *text)
{
        char tool[HASH_HEX + 1];
        buf_fmt(text, "kernel: %s\nmarch: %s\ncompiler: %s\n", j->kernel[i]->text, j->opt->march,
                hash_hex(j->tool, tool));
}

static moec_status object(const Job *j, u32 i, moec_error *e)
{
        Hash key = hash_mix(j->tool, j->source[i].p, j->source[i].len);
        char path[4096];
        CacheHit hit;
        snprintf(path, sizeof path, "%s/%s.o", j->work, j->kernel[i]->name);
        if (cache_get(j->opt->cache, key, "o", &hit)) {
                moec_status st = write_plain(path, hit.data, hit.bytes, e);
                map_close(&hit.map);
                return st;
        }
        moec_status st = compile(j, i, e);
        Buf o = {0}, text = {0};
        if (st == MOEC_OK && j->opt->cache && file_read(path, &o, UINT64_MAX, NULL) == MOEC_OK) {
                object_text(j, i, &text);
                cache_put(j->opt->cache, key, "o", text.p, o.p, o.len, NULL);
        }
        buf_free(&o);
        buf_free(&text);
        return st;
}

static moec_status kernel(const Job *j, u32 i, moec_error *e)
{
        char path[4096];
        moec_status st = m4_expand(j->kernel[i], j->work, j->search, ".c.m4", &j->source[i], e);
        if (st)
                return st;
        snprintf(path, sizeof path, "%s/%s.c", j->work, j->kernel[i]->name);
        if ((st = write_plain(path, j->source[i].p, j->source[i].len, e)) != MOEC_OK || !j->compile)
                return st;
        return object(j, i, e);
}

/* ---- all of them ---- */

static void *worker(void *p)
{
        Job *j = p;
        for (u32 i; (i = atomic_fetch_add(&j->next, 1)) < j->n && !atomic_load(&j->stop);
                atomic_fetch_add(&j->done, 1))
                if (kernel(j, i, &j->error[i]) != MOEC_OK)
                        atomic_store(&j->stop, true);
        return NULL;
}

static bool all_done(const Job *j)
{
        return atomic_load(&j->done) >= j->n || atomic_load(&j->stop);
}

static moec_status run_jobs(Job *j, moec_error *e)
{
        pthread_t thread[64];
        u32 n = 0, want = MIN(MIN((u32)MAX(j->opt->threads, 1), j->n), (u32)COUNT(thread));
        while (n < want && pthread_create(&thread[n], NULL, worker, j) == 0)
                n++;
        if (n == 0)
                worker(j);
        bool interrupted = false;
        while (n && !all_done(j)) {
                struct timespec tick = {0, 5000000};
                nanosleep(&tick, NULL);
                if (j->opt->progress &&
                        !j->opt->progress(j->opt->user, "compiling", atomic_load(&j->done), j->n)) {
                        interrupted = true;
                        atomic_store(&j->stop, true);
                }
        }
        while (n)
                pthread_join(thread[--n], NULL);
        if (interrupted)
                return fail(e, MOEC_INTERRUPTED, "interrupted while compiling");
        for (u32 i = 0; i < j->n; i++)
                if (j->error[i].status) {
                        *e = j->error[i];
                        return e->status;
                }
        return MOEC_OK;
}

static moec_status link_all(Arena *a, const Job *j, Buf *so, moec_error *e)
{
        const char **argv = NEWN(a, const char *, j->n + 8);
        u32 n = 0;
        argv[n++] = "cc";
        argv[n++] = "-shared";
        argv[n++] = "-s";
        argv[n++] = "-o";
        argv[n++] = "kernels.so";
        for (u32 i = 0; i < j->n; i++)
                argv[n++] = arena_fmt(a, "%s.o", j->kernel[i]->name);
        Buf out = {0}, errors = {0};
        int code = 0;
        moec_status st = child_run(argv, j->work, NULL, 0, &out, &errors, &code, e);
        if (st == MOEC_OK && code != 0)
                st = fail(e, MOEC_TOOLCHAIN, "cc failed (status %d) to link the kernels: %.600s", code,
                        errors.p ? errors.p : "");
        if (st == MOEC_OK)
                st = file_read(arena_fmt(a, "%s/kernels.so", j->work), so, UINT64_MAX, e);
        buf_free(&out);
        buf_free(&errors);
        return st;
}

/* ---- the work folder ---- */

static void remove_tree(const char *path)
{
        DIR *d = opendir(path);
        for (struct dirent *f; d && (f = readdir(d)) != NULL;) {
                char sub[4096];
                if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, ".."))
                        continue;
                snprintf(sub, sizeof sub, "%s/%s", path, f->d_name);
                if (unlink(sub) != 0)
                        remove_tree(sub);
        }
        if (d)
                closedir(d);
        rmdir(path);
}

static moec_status tool_hash(const char *march, Hash *h, moec_error *e)
{
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
static void search_path(Job *j, const char *march)
{
        u32 n = 0;
        bool native = !strcmp(march, "native");
        if (native && (isa_feature("avxvnni") || (isa_feature("avx512vnni") && isa_feature("avx512vl"))))
                j->search[n++] = "c/avxvnni";
        if (!strcmp(march, "x86-64-v3") || (native && isa_have("x86-64-v3", NULL) == MOEC_OK))
                j->search[n++] = "c/x86-64-v3";
        j->search[n] = "c/generic";
}

static moec_status build(Arena *a, Job *j, Buf *so, moec_error *e)
{
        moec_status st = m4_lay_out(a, j->opt->templates, j->work, e);
        if (st == MOEC_OK && j->compile)
                st = tool_hash(j->opt->march, &j->tool, e);
        if (st == MOEC_OK)
                st = run_jobs(j, e);
        if (st == MOEC_OK && j->compile)
                st = link_all(a, j, so, e);
        return st;
}

static void run(Arena *a, Key *const key[], u32 n, const CcOpt *opt, Buf *so, const char **source)
{
        moec_error e = {0};
        char temp[] = "/tmp/moec.XXXXXX";
        const char *work = opt->keep;
        if (work ? mkdir(work, 0755) != 0 && errno != EEXIST : !(work = mkdtemp(temp)))
                err(MOEC_IO, "%s: cannot make a folder for generated sources: %s",
                        opt->keep ? opt->keep : temp, strerror(errno));
        Job j = {.kernel = key,
                .n = n,
                .opt = opt,
                .compile = so != NULL,
                .work = work,
                .source = NEWN(a, Buf, n),
                .error = NEWN(a, moec_error, n),
                .march = arena_fmt(a, "-march=%s", opt->march)};
        search_path(&j, opt->march);
        moec_status st = build(a, &j, so, &e);
        for (u32 i = 0; i < n; i++) {
                source[i] = arena_strn(a, j.source[i].p ? j.source[i].p : "", j.source[i].len);
                buf_free(&j.source[i]);
        }
        bool keep = opt->keep || (st == MOEC_TOOLCHAIN && so);
        if (!keep)
                remove_tree(work);
        if (st == MOEC_TOOLCHAIN && keep)
                err(st, "%.800s\nThe sources are kept in %s", e.msg, work);
        if (st)
                err_rethrow(&e);
}

void cc_build(Arena *a, Key *const key[], u32 n, const CcOpt *opt, Buf *so, const char **source)
{
        run(a, key, n, opt, so, source);
}

void cc_sources(Arena *a, Key *const key[], u32 n, const CcOpt *opt, const char **source)
{
        run(a, key, n, opt, NULL, source);
}
