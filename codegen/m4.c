#include "codegen/m4.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "codegen/child.h"
#include "frontend/embed.h"

#define PREFIX "templates/"

static bool is_template(const Embed *f)
{
        return strncmp(f->name, PREFIX, strlen(PREFIX)) == 0;
}

static bool make_folders(char *path)
{
        for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
                *p = 0;
                bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
                *p = '/';
                if (!ok)
                        return false;
        }
        return true;
}

moec_status m4_lay_out(Arena *a, const char *dir, const char *to, moec_error *e)
{
        for (const Embed *f = embed_files; f->name; f++) {
                Embed t;
                if (!is_template(f))
                        continue;
                if (!embed_text(a, dir, f->name, &t))
                        die("template %s is gone", f->name);
                char *path = arena_fmt(a, "%s/%s", to, f->name);
                if (!make_folders(path))
                        return fail(e, MOEC_IO, "%s: cannot make its folder: %s", path, strerror(errno));
                FILE *out = fopen(path, "we"); /* no file_write: a scratch copy needs no sync */
                bool ok = out && fwrite(t.text, 1, t.len, out) == t.len;
                if (!out || fclose(out) != 0 || !ok)
                        return fail(e, MOEC_IO, "%s: cannot write: %s", path, strerror(errno));
        }
        return MOEC_OK;
}

Hash m4_templates_hash(Arena *a, const char *dir)
{
        Hash h = {0, 0};
        for (const Embed *f = embed_files; f->name; f++) {
                Embed t;
                if (!is_template(f) || !embed_text(a, dir, f->name, &t))
                        continue;
                h = hash_mix(h, f->name, strlen(f->name) + 1);
                h = hash_mix(h, t.text, t.len);
        }
        return h;
}

void m4_facts(const Key *k, Buf *out)
{
        buf_fmt(out, "m4_define(«MOE_NAME», «%s»)m4_dnl\n", k->name);
        for (u32 i = 0; i < k->n; i++)
                buf_fmt(out, "m4_define(«MOE_%s», «%s»)m4_dnl\n", k->fact[i].name, k->fact[i].value);
}

/* A word that begins like the macro language's, outside of line comments: a misspelt macro or fact. */
static const char *leak(const char *s)
{
        while (*s) {
                if (s[0] == '/' && s[1] == '/') {
                        s += strcspn(s, "\n");
                } else if (isalpha((unsigned char)*s) || *s == '_') {
                        if (!strncmp(s, "m4_", 3) || !strncmp(s, "moe_", 4) || !strncmp(s, "MOE_", 4))
                                return s;
                        while (isalnum((unsigned char)*s) || *s == '_')
                                s++;
                } else {
                        s++;
                }
        }
        return NULL;
}

/* Where `at` came from, by the #line directives before it: "templates/c/generic/add.c.m4:7". */
static void place(const char *text, const char *at, const char *template, char *out, size_t n)
{
        const char *file = template;
        size_t line = 1, len = strlen(template);
        for (const char *end; (end = strchr(text, '\n')) != NULL && end < at; text = end + 1, line++) {
                size_t number;
                int name;
                if (sscanf(text, "#line %zu%n", &number, &name) != 1)
                        continue;
                line = number - 1;
                if (text[name] == ' ' && text[name + 1] == '"') {
                        file = text + name + 2;
                        len = strcspn(file, "\"\n");
                }
        }
        snprintf(out, n, "%.*s:%zu", (int)len, file, line);
}

/* The template, in the first folder of `search` that has it; relative to work. */
static bool find(
        const char *work, const char *const search[], const char *op, const char *suffix, char *out, size_t n)
{
        for (; *search; search++) {
                char path[4096];
                snprintf(out, n, PREFIX "%s/%s%s", *search, op, suffix);
                snprintf(path, sizeof path, "%s/%s", work, out);
                if (access(path, R_OK) == 0)
                        return true;
        }
        return false;
}

moec_status m4_expand(const Key *k, const char *work, const char *const search[], const char *suffix,
        Buf *out, moec_error *e)
{
        char template[512], folder[8][256];
        const char *argv[32] = {"m4", "-P", "-s"};
        u32 n = 3, n_folder = 0;
        if (!find(work, search, k->op, suffix, template, sizeof template))
                return fail(e, MOEC_TOOLCHAIN, "no template %s%s", k->op, suffix);
        for (; n_folder < COUNT(folder) && search[n_folder]; n_folder++) {
                snprintf(folder[n_folder], sizeof folder[0], PREFIX "%s", search[n_folder]);
                argv[n++] = "-I";
                argv[n++] = folder[n_folder];
        }
        argv[n++] = PREFIX "moec.m4";
        argv[n++] = "-";
        argv[n] = template;

        Buf facts = {0}, errors = {0};
        int code = 0;
        m4_facts(k, &facts);
        moec_status st = child_run(argv, work, facts.p, facts.len, out, &errors, &code, e);
        buf_free(&facts);
        if (st == MOEC_OK && (code != 0 || errors.len != 0))
                st = fail(e, MOEC_TOOLCHAIN, "m4 failed (status %d) on %s for kernel %s: %.600s", code,
                        template, k->name, errors.p ? errors.p : "");
        buf_free(&errors);
        const char *word = st == MOEC_OK && out->p ? leak(out->p) : NULL;
        if (word) {
                char where[512];
                place(out->p, word, template, where, sizeof where);
                st = fail(e, MOEC_TOOLCHAIN,
                        "%s: `%.*s` was left over in kernel %s: a misspelt macro, or a fact that it lacks",
                        where, (int)strcspn(word, " \t\n(),;"), word, k->name);
        }
        return st;
}
