#include "codegen/jobs.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "codegen/m4.h"

moec_status jobs_write(const char *path, const void *p, size_t n, moec_error *e)
{
        FILE *f = fopen(path, "we");
        bool ok = f && fwrite(p, 1, n, f) == n;
        if (!f || fclose(f) != 0 || !ok)
                return fail(e, MOEC_IO, "%s: cannot write: %s", path, strerror(errno));
        return MOEC_OK;
}

static moec_status expand(Jobs *j, u32 i, moec_error *e)
{
        char path[4096];
        Unit *u = &j->unit[i];
        moec_status st = m4_expand(u->key, j->work, u->search, j->suffix, &u->source, e);
        snprintf(path, sizeof path, "%s/%s", j->work, u->file);
        return st == MOEC_OK ? jobs_write(path, u->source.p, u->source.len, e) : st;
}

static void *worker(void *p)
{
        Jobs *j = p;
        for (u32 k; (k = atomic_fetch_add(&j->next, 1)) < j->n && !atomic_load(&j->stop);
                atomic_fetch_add(&j->done, 1)) {
                u32 i = j->order[k];
                if (j->step(j, i, &j->unit[i].error) != MOEC_OK)
                        atomic_store(&j->stop, true);
        }
        return NULL;
}

static bool all_done(const Jobs *j)
{
        return atomic_load(&j->done) >= j->n || atomic_load(&j->stop);
}

/* The step for every unit. */
static moec_status on_threads(
        Jobs *j, const char *doing, moec_status (*step)(Jobs *, u32, moec_error *), moec_error *e)
{
        pthread_t thread[64];
        j->step = step;
        atomic_store(&j->next, 0);
        atomic_store(&j->done, 0);
        u32 n = 0, want = MIN(MIN((u32)MAX(j->opt->threads, 1), j->n), (u32)COUNT(thread));
        while (n < want && pthread_create(&thread[n], NULL, worker, j) == 0)
                n++;
        if (n == 0)
                worker(j);
        bool interrupted = false;
        while (n && !all_done(j)) {
                struct timespec tick = {0, 5000000};
                nanosleep(&tick, NULL);
                if (j->opt->progress && !j->opt->progress(j->opt->user, doing, atomic_load(&j->done), j->n)) {
                        interrupted = true;
                        atomic_store(&j->stop, true);
                }
        }
        while (n)
                pthread_join(thread[--n], NULL);
        if (interrupted)
                return fail(e, MOEC_INTERRUPTED, "interrupted while compiling");
        for (u32 i = 0; i < j->n; i++)
                if (j->unit[i].error.status) {
                        *e = j->unit[i].error;
                        return e->status;
                }
        return MOEC_OK;
}

/* The longest source first: what takes longest is not to begin last. */
static void longest_first(Jobs *j)
{
        for (u32 i = 1; i < j->n; i++) {
                u32 unit = j->order[i], k = i;
                for (; k > 0 && j->unit[j->order[k - 1]].source.len < j->unit[unit].source.len; k--)
                        j->order[k] = j->order[k - 1];
                j->order[k] = unit;
        }
}

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

void jobs_run(Arena *a, Jobs *j, const char **source)
{
        moec_error e = {0};
        char temp[] = "/tmp/moec.XXXXXX";
        const char *keep = j->opt->keep;
        j->work = keep;
        if (keep ? mkdir(keep, 0755) != 0 && errno != EEXIST : !(j->work = mkdtemp(temp)))
                err(MOEC_IO, "%s: cannot make a folder for generated sources: %s", keep ? keep : temp,
                        strerror(errno));
        moec_status st = m4_lay_out(a, j->opt->templates, j->work, &e);
        if (st == MOEC_OK && j->begin)
                st = j->begin(j, &e);
        j->order = NEWN(a, u32, j->n);
        for (u32 i = 0; i < j->n; i++)
                j->order[i] = i;
        if (st == MOEC_OK)
                st = on_threads(j, "expanding", expand, &e);
        longest_first(j);
        if (st == MOEC_OK && j->build)
                st = on_threads(j, "compiling", j->build, &e);
        if (st == MOEC_OK && j->finish)
                st = j->finish(j, &e);
        for (u32 i = 0; i < j->n; i++) {
                Buf *b = &j->unit[i].source;
                source[i] = arena_strn(a, b->p ? b->p : "", b->len);
                buf_free(b);
        }
        bool kept = keep || (st == MOEC_TOOLCHAIN && j->build);
        if (!kept)
                remove_tree(j->work);
        if (st == MOEC_TOOLCHAIN && kept)
                err(st, "%.800s\nThe sources are kept in %s", e.msg, j->work);
        if (st)
                err_rethrow(&e);
}
