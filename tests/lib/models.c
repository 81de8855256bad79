#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/models.h"

/* name: the file's, without folder and .gguf. */
static void add(TestModel *m, const char *path, const char *name, const char *folder)
{
        snprintf(m->name, sizeof m->name, "%s", name);
        snprintf(m->path, sizeof m->path, "%s", path);
        snprintf(m->golden, sizeof m->golden, "%s/golden/%s", folder, name);
}

static u32 add_folder(TestModel *m, u32 n, const char *folder)
{
        char pattern[400];
        glob_t found;
        snprintf(pattern, sizeof pattern, "%s/*.gguf", folder);
        if (glob(pattern, 0, NULL, &found))
                return n;
        for (size_t i = 0; i < found.gl_pathc && n < MAX_MODELS; i++) {
                char name[128];
                const char *file = strrchr(found.gl_pathv[i], '/') + 1;
                snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - strlen(".gguf")), file);
                add(&m[n], found.gl_pathv[i], name, folder);
                void *has = test_golden(&m[n], "prompt0.f32", 1);
                n += has != NULL;
                free(has);
        }
        globfree(&found);
        return n;
}

u32 test_models(TestModel m[MAX_MODELS])
{
        const char *more = getenv("MODELS");
        u32 n = 0;
        add(&m[n++], "examples/fables.gguf", "fables-Q4_K_M", "tests/models");
        n = add_folder(m, n, "tests/models");
        return more && *more ? add_folder(m, n, more) : n;
}

u32 test_prompt(u32 prompt, i32 ids[MAX_PROMPT])
{
        static char line[1 << 14];
        FILE *f = fopen("tests/models/prompts.txt", "r");
        u32 n = 0;
        while (f && fgets(line, sizeof line, f)) {
                if (strncmp(line, "ids ", 4) || prompt--)
                        continue;
                for (char *p = line + 4; *p && *p != '\n' && n < MAX_PROMPT; p += *p == ' ')
                        ids[n++] = (i32)strtol(p, &p, 10);
                break;
        }
        if (f)
                fclose(f);
        return n;
}

void *test_golden(const TestModel *m, const char *suffix, u64 n)
{
        char path[700];
        snprintf(path, sizeof path, "%s.%s", m->golden, suffix);
        FILE *f = fopen(path, "rb");
        if (!f)
                return NULL;
        void *p = xmalloc(n * 4);
        if (fread(p, 4, n, f) != n)
                free(p), p = NULL;
        fclose(f);
        return p;
}

double test_distance(const float *a, const float *b, u64 n)
{
        double d = 0, r = 0;
        for (u64 i = 0; i < n; i++) {
                d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
                r += (double)b[i] * (double)b[i];
        }
        return sqrt(d / r);
}
