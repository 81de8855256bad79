#include "frontend/embed.h"
#include <string.h>

#define MAX_TEXT (16u << 20)

const Embed *embed_find(const char *name)
{
        for (const Embed *e = embed_files; e->name; e++)
                if (strcmp(e->name, name) == 0)
                        return e;
        return NULL;
}

/* False: no such file. The buffer is heap memory: it is freed before anything can jump. */
static bool read_text(Arena *a, const char *path, Embed *out)
{
        Buf b = {0};
        moec_error e;
        moec_status st = file_read(path, &b, MAX_TEXT, &e);
        if (st == MOEC_OK) {
                Trap t;
                if (TRAP(&t) == 0) {
                        *out = (Embed){path, arena_strn(a, b.p, b.len), b.len};
                        trap_pop(&t);
                } else {
                        st = t.error.status;
                        e = t.error;
                }
        }
        buf_free(&b);
        if (st != MOEC_OK && st != MOEC_NOT_FOUND)
                err_rethrow(&e);
        return st == MOEC_OK;
}

bool embed_text(Arena *a, const char *dir, const char *name, Embed *out)
{
        if (dir && read_text(a, arena_fmt(a, "%s/%s", dir, name), out))
                return true;
        const Embed *e = embed_find(name);
        if (e)
                *out = *e;
        return e != NULL;
}
