/* Runs passes by name. */
#include "passes/passes.h"
#include <string.h>

typedef void PassFn(Graph *g, const PassOpt *opt);
static const struct {
        const char *name;
        PassFn *run;
} pass_info[] = {
#define P(name) {#name, name},
        PASSES(P)
#undef P
};

enum { N_PASS = COUNT(pass_info) };

static const struct {
        const char *name, *pass;
        size_t at; /* in PassOpt */
        u32 most;
} opt_info[] = {
#define O(name, most, pass) {#name, #pass, offsetof(PassOpt, name), most},
        PASS_OPTS(O)
#undef O
};

typedef struct Word {
        const char *p;
        size_t len;
} Word;

static bool is(Word w, const char *s)
{
        return strlen(s) == w.len && memcmp(w.p, s, w.len) == 0;
}

static bool next_word(const char **s, Word *w)
{
        *s += strspn(*s, ", \t\n");
        *w = (Word){*s, strcspn(*s, ", \t\n")};
        *s += w->len;
        return w->len;
}

static u32 pass_of(Word w)
{
        u32 i = 0;
        while (i < N_PASS && !is(w, pass_info[i].name))
                i++;
        return i;
}

static bool value_of(const char *name, Word v, u32 most, u32 *out)
{
        char digits[24];
        u64 n;
        for (const char *const *w = strcmp(name, "act") == 0 ? attr_info[A_act].word : NULL; w && *w; w++)
                if (is(v, *w)) {
                        *out = (u32)(w - attr_info[A_act].word);
                        return true;
                }
        if (v.len >= sizeof digits)
                return false;
        memcpy(digits, v.p, v.len);
        digits[v.len] = 0;
        if (!parse_u64(digits, most, &n))
                return false;
        *out = (u32)n;
        return true;
}

static void set_opt(const char *pass, Word w, PassOpt *opt)
{
        const char *eq = memchr(w.p, '=', w.len);
        Word name = {w.p, eq ? (size_t)(eq - w.p) : w.len},
             value = eq ? (Word){eq + 1, w.len - name.len - 1} : (Word){"1", 1};
        for (u32 i = 0; i < COUNT(opt_info); i++) {
                if (!is(name, opt_info[i].name) || strcmp(pass, opt_info[i].pass) != 0)
                        continue;
                if (!value_of(
                            opt_info[i].name, value, opt_info[i].most, (u32 *)((char *)opt + opt_info[i].at)))
                        err(MOEC_USAGE, "pass %s: option %.*s cannot be %.*s", pass, (int)name.len, name.p,
                                (int)value.len, value.p);
                return;
        }
        err(MOEC_USAGE, "pass %s has no option %.*s, and no pass is called so", pass, (int)name.len, name.p);
}

/* The next pass of the list, N_PASS after the last, and its own options on top of *own. */
static u32 next_pass(const char **words, PassOpt *own)
{
        Word w;
        if (!next_word(words, &w))
                return N_PASS;
        u32 pass = pass_of(w);
        if (pass == N_PASS)
                err(MOEC_USAGE, "there is no pass %.*s", (int)w.len, w.p);
        for (const char *rest = *words; next_word(&rest, &w) && pass_of(w) == N_PASS; *words = rest)
                set_opt(pass_info[pass].name, w, own);
        return pass;
}

void check_words(const char *words)
{
        PassOpt own = {0};
        while (next_pass(&words, &own) != N_PASS)
                ;
}

void run_passes(Graph *g, const char *words, const PassOpt *opt, AfterPass *after, void *user)
{
        u32 pass;
        for (PassOpt own = *opt; (pass = next_pass(&words, &own)) != N_PASS; own = *opt) {
                pass_info[pass].run(g, &own);
                graph_compact(g);
                check(g);
                if (after && !after(user, pass_info[pass].name, g))
                        return;
        }
}
