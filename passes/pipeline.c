/* pipeline.lua as structs. */
#include "passes/passes.h"
#include "frontend/tab.h" /* plain data: what lua_config gives */
#include <string.h>

static const char *words_of(Arena *a, const Tab *list)
{
        const char *words = "";
        for (u32 i = 0; i < list->n; i++)
                words = arena_fmt(a, "%s%s%s", words, i ? ", " : "", tab_str_at(list, i));
        check_words(words);
        return words;
}

static Phase phase_of(Arena *a, const Tab *t)
{
        i64 max_tok = 0, max_out = 0, max_seq_tok = 0;
        const char *name = tab_str(t, "name");
        const Tab *list = tab_tab(t, "passes");
        tab_known(t, "name max_tok max_out max_seq_tok passes");
        tab_int(t, "max_tok", 0, INT32_MAX, &max_tok);
        tab_int(t, "max_out", 0, INT32_MAX, &max_out);
        tab_int(t, "max_seq_tok", 0, max_tok, &max_seq_tok);
        if (!name || !list)
                tab_err(t, "a phase has a name and passes");
        return (Phase){arena_str(a, name), (u32)max_tok, (u32)max_out, (u32)max_seq_tok, words_of(a, list)};
}

/* Whether b, behind a, takes steps that a does not. */
static bool rises(const Phase *a, const Phase *b)
{
        if (!a->max_tok || (b->max_tok && b->max_tok < a->max_tok))
                return false;
        return b->max_tok != a->max_tok ||
               (a->max_seq_tok && (!b->max_seq_tok || b->max_seq_tok > a->max_seq_tok));
}

Pipeline *pipeline_read(Arena *a, const Tab *t, const char *target)
{
        const Tab *list = tab_tab(t, target);
        if (!list) {
                const char *has = "";
                for (u32 i = 0; i < t->n_key; i++)
                        has = arena_fmt(a, "%s %s", has, t->key[i]);
                tab_err(t, "no target %s; there are:%s", target, has);
        }
        if (!list->n)
                tab_err(list, "a target needs a phase");
        Pipeline *p = NEW(a, Pipeline);
        Phase *phase = NEWN(a, Phase, list->n);
        for (u32 i = 0; i < list->n; i++)
                phase[i] = phase_of(a, tab_tab_at(list, i));
        for (u32 i = 0; i + 1 < list->n; i++)
                if (!rises(&phase[i], &phase[i + 1]))
                        tab_err(list, "phases go by rising max_tok and max_seq_tok, without a bound last");
        if (phase[list->n - 1].max_tok)
                tab_err(list, "the last phase takes any batch: no max_tok");
        *p = (Pipeline){arena_str(a, target), phase, list->n};
        return p;
}

const Phase *pipeline_phase(const Pipeline *p, const char *name)
{
        for (u32 i = 0; i < p->n_phase; i++)
                if (strcmp(p->phase[i].name, name) == 0)
                        return &p->phase[i];
        return NULL;
}
