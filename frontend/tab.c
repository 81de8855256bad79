#include "frontend/tab.h"
#include <stdio.h>
#include <string.h>

static const char *const kind_name[] = {
        "nothing", "a boolean", "an integer", "a number", "a string", "a table"};

noreturn void tab_err(const Tab *t, const char *fmt, ...)
{
        char msg[512];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof msg, fmt, ap);
        va_end(ap);
        err(MOEC_ERROR, "%s: %s", t->path, msg);
}

static const TabVal *find(const Tab *t, const char *key)
{
        for (u32 lo = 0, hi = t->n_key; lo < hi;) {
                u32 mid = lo + (hi - lo) / 2;
                int c = strcmp(key, t->key[mid]);
                if (c == 0)
                        return &t->val[mid];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

/* `where` is a key or "[i]". */
static void expect(const Tab *t, const char *where, const TabVal *v, TabKind kind)
{
        if (v->kind != kind)
                tab_err(t, "%s is %s; it must be %s", where, kind_name[v->kind], kind_name[kind]);
}

static i64 int_of(const Tab *t, const char *where, const TabVal *v, i64 min, i64 max)
{
        expect(t, where, v, TAB_int);
        if (v->i < min || v->i > max)
                tab_err(t, "%s is %lld; it must be %lld to %lld", where, (long long)v->i, (long long)min,
                        (long long)max);
        return v->i;
}

static double flt_of(const Tab *t, const char *where, const TabVal *v, double min, double max)
{
        if (v->kind != TAB_int)
                expect(t, where, v, TAB_flt);
        double f = v->kind == TAB_int ? (double)v->i : v->f;
        if (!(f >= min && f <= max))
                tab_err(t, "%s is %g; it must be %g to %g", where, f, min, max);
        return f;
}

bool tab_has(const Tab *t, const char *key)
{
        return find(t, key) != NULL;
}

bool tab_int(const Tab *t, const char *key, i64 min, i64 max, i64 *out)
{
        const TabVal *v = find(t, key);
        if (v)
                *out = int_of(t, key, v, min, max);
        return v != NULL;
}

bool tab_flt(const Tab *t, const char *key, double min, double max, double *out)
{
        const TabVal *v = find(t, key);
        if (v)
                *out = flt_of(t, key, v, min, max);
        return v != NULL;
}

bool tab_bool(const Tab *t, const char *key, bool *out)
{
        const TabVal *v = find(t, key);
        if (!v)
                return false;
        expect(t, key, v, TAB_bool);
        *out = v->b;
        return true;
}

const char *tab_str(const Tab *t, const char *key)
{
        const TabVal *v = find(t, key);
        if (!v)
                return NULL;
        expect(t, key, v, TAB_str);
        return v->s;
}

const Tab *tab_tab(const Tab *t, const char *key)
{
        const TabVal *v = find(t, key);
        if (!v)
                return NULL;
        expect(t, key, v, TAB_tab);
        return v->t;
}

#define WHERE 16
static const TabVal *item(const Tab *t, u32 i, char where[WHERE])
{
        if (i >= t->n)
                die("%s has no item %u", t->path, i);
        snprintf(where, WHERE, "[%u]", i + 1);
        return &t->item[i];
}

i64 tab_int_at(const Tab *t, u32 i, i64 min, i64 max)
{
        char where[WHERE];
        const TabVal *v = item(t, i, where);
        return int_of(t, where, v, min, max);
}

double tab_flt_at(const Tab *t, u32 i, double min, double max)
{
        char where[WHERE];
        const TabVal *v = item(t, i, where);
        return flt_of(t, where, v, min, max);
}

const char *tab_str_at(const Tab *t, u32 i)
{
        char where[WHERE];
        const TabVal *v = item(t, i, where);
        expect(t, where, v, TAB_str);
        return v->s;
}

const Tab *tab_tab_at(const Tab *t, u32 i)
{
        char where[WHERE];
        const TabVal *v = item(t, i, where);
        expect(t, where, v, TAB_tab);
        return v->t;
}

void tab_known(const Tab *t, const char *words)
{
        for (u32 i = 0; i < t->n_key; i++) {
                size_t n = strlen(t->key[i]);
                const char *w = words;
                for (; (w = strstr(w, t->key[i])) != NULL; w += n)
                        if ((w == words || w[-1] == ' ') && (w[n] == ' ' || !w[n]))
                                break;
                if (!w)
                        tab_err(t, "%s is not known here; these are: %s", t->key[i], words);
        }
}
