#include "frontend/arch.h"
#include "frontend/lua.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES 256
#define MAX_NAME  64

typedef struct Names {
        u32 n;
        bool too_many;
        char name[MAX_FILES][MAX_NAME];
} Names;

static int by_name(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* Owns nothing but the open folder, so nothing here may err. */
static void list_folder(const char *path, Names *out)
{
        DIR *d = opendir(path);
        if (!d)
                return;
        for (struct dirent *e; (e = readdir(d)) != NULL;) {
                size_t n = strlen(e->d_name);
                if (n < 5 || n >= MAX_NAME || strcmp(e->d_name + n - 4, ".lua") != 0 || e->d_name[0] == '.')
                        continue;
                if (out->n == MAX_FILES) {
                        out->too_many = true;
                        break;
                }
                memcpy(out->name[out->n++], e->d_name, n + 1);
        }
        closedir(d);
        qsort(out->name, out->n, MAX_NAME, by_name);
}

static const Arch *load(Arena *a, const Embed *file)
{
        Arch *x = NEW(a, Arch);
        x->file = *file;
        x->tab = lua_arch(a, file->name, file->text, file->len);
        tab_known(x->tab, "name about roles ignore");
        x->about = tab_str(x->tab, "about");
        if (!x->about)
                tab_err(x->tab, "about is missing: one line that says what it is");
        if (!tab_has(x->tab, "name"))
                tab_err(x->tab, "name is missing: the general.architecture of its models");
        const Tab *roles = tab_tab(x->tab, "roles"), *ignore = tab_tab(x->tab, "ignore");
        for (u32 i = 0; roles && i < roles->n; i++) {
                const Tab *row = tab_tab_at(roles, i);
                if (row->n != 2)
                        tab_err(row, "a role is {pattern, role}");
                tab_str_at(row, 0);
                tab_str_at(row, 1);
        }
        for (u32 i = 0; ignore && i < ignore->n; i++)
                tab_str_at(ignore, i);
        return x;
}

/* The name, or the names. */
static bool is_list(const Tab *t)
{
        for (u32 i = 0; i < t->n_key; i++)
                if (strcmp(t->key[i], "name") == 0)
                        return t->val[i].kind == TAB_tab;
        return false;
}

static u32 n_names(const Arch *x)
{
        return is_list(x->tab) ? tab_tab(x->tab, "name")->n : 1;
}

static const char *name_at(const Arch *x, u32 i)
{
        return is_list(x->tab) ? tab_str_at(tab_tab(x->tab, "name"), i) : tab_str(x->tab, "name");
}

/* All of them, the user's first. */
static const Arch **load_all(Arena *a, const char *dir, u32 *n)
{
        const Arch **all = NULL;
        u32 cap = 0;
        *n = 0;
        if (dir) {
                Names *names = NEW(a, Names);
                list_folder(arena_fmt(a, "%s/arch", dir), names);
                if (names->too_many)
                        err(MOEC_ERROR, "%s/arch: more than %d files", dir, MAX_FILES);
                for (u32 i = 0; i < names->n; i++) {
                        Embed file;
                        GROW(a, all, *n, cap);
                        if (embed_text(a, dir, arena_fmt(a, "arch/%s", names->name[i]), &file))
                                all[(*n)++] = load(a, &file);
                }
        }
        for (const Embed *e = embed_files; e->name; e++)
                if (strncmp(e->name, "arch/", 5) == 0) {
                        GROW(a, all, *n, cap);
                        all[(*n)++] = load(a, e);
                }
        return all;
}

const Arch *arch_find(Arena *a, const char *dir, const char *name)
{
        u32 n;
        const Arch **all = load_all(a, dir, &n);
        for (u32 i = 0; i < n; i++)
                for (u32 k = 0; k < n_names(all[i]); k++)
                        if (strcmp(name_at(all[i], k), name) == 0)
                                return all[i];
        return NULL;
}

const char *arch_list(Arena *a, const char *dir)
{
        u32 n;
        const Arch **all = load_all(a, dir, &n);
        const char *list = "";
        for (u32 i = 0; i < n; i++)
                for (u32 k = 0; k < n_names(all[i]); k++) {
                        const char *name = name_at(all[i], k);
                        bool again = false; /* a user's file in place of a built-in one */
                        for (u32 j = 0; j < i; j++)
                                for (u32 l = 0; l < n_names(all[j]); l++)
                                        again |= strcmp(name_at(all[j], l), name) == 0;
                        if (!again)
                                list = arena_fmt(a, "%s%s%s", list, *list ? ", " : "", name);
                }
        return list;
}
