/* Plain data that a Lua file returned (lua_config): tables of strings, numbers, booleans and tables, in an
 * arena. A getter that finds something else than it was asked for ends in err(MOEC_ERROR, ...) with the file
 * and the place in the table. */
#ifndef MOEC_TAB_H
#define MOEC_TAB_H
#include "ir/util.h"

typedef enum TabKind { TAB_none, TAB_bool, TAB_int, TAB_flt, TAB_str, TAB_tab } TabKind;

typedef struct Tab Tab;
typedef struct TabVal {
        TabKind kind;
        union {
                bool b;
                i64 i;
                double f;
                const char *s; /* without NUL bytes */
                const Tab *t;
        };
} TabVal;

struct Tab {
        const char *path;   /* "codegen/tune.lua: cpu.matmul" */
        u32 n;              /* items [1] .. [n] of the Lua table */
        const TabVal *item; /* [n] */
        u32 n_key;
        const char **key; /* [n_key], sorted */
        const TabVal *val;
};

/* By key: false or NULL, with *out untouched, where there is none. Bounds are inclusive. Numbers with an
 * integer value count as integers; integers count as floats. */
bool tab_has(const Tab *t, const char *key);
bool tab_int(const Tab *t, const char *key, i64 min, i64 max, i64 *out);
bool tab_flt(const Tab *t, const char *key, double min, double max, double *out);
bool tab_bool(const Tab *t, const char *key, bool *out);
const char *tab_str(const Tab *t, const char *key);
const Tab *tab_tab(const Tab *t, const char *key);

/* Items, i < t->n. */
i64 tab_int_at(const Tab *t, u32 i, i64 min, i64 max);
double tab_flt_at(const Tab *t, u32 i, double min, double max);
const char *tab_str_at(const Tab *t, u32 i);
const Tab *tab_tab_at(const Tab *t, u32 i);

/* err(MOEC_ERROR) naming the first key that is not one of `words`, which spaces separate: a misspelt key. */
void tab_known(const Tab *t, const char *words);
/* err(MOEC_ERROR, "path: ..."): for what only the caller can check. */
noreturn void tab_err(const Tab *t, const char *fmt, ...) PRINTF(2, 3);

#endif
