#include "frontend/lua.h"
#include "frontend/lua_host.h"
#include <lua5.4/lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOOK_STEPS 1000
#define MAX_REP    (1u << 20) /* bytes that string.rep may give */
#define MAX_DEPTH  16         /* of tables in tables */
#define MAX_PLACES 4          /* callers that a message names */

Host *lua_host(lua_State *L)
{
        Host *h;
        memcpy(&h, lua_getextraspace(L), sizeof h);
        return h;
}

/* ---- limits ---- */

static void *host_alloc(void *ud, void *p, size_t old, size_t new)
{
        Host *h = ud;
        if (!p)
                old = 0; /* Lua passes a kind of object there */
        if (!new) {
                free(p);
                h->bytes -= old;
                return NULL;
        }
        if (new > old &&new - old > LUA_MAX_BYTES - h->bytes) {
                h->full = true;
                return NULL;
        }
        void *q = realloc(p, new);
        if (q)
                h->bytes = h->bytes - old + new;
        return q;
}

static void on_count(lua_State *L, lua_Debug *ar)
{
        Host *h = lua_host(L);
        h->steps += HOOK_STEPS;
        bool late = now_s() > h->deadline;
        if (h->steps <= LUA_MAX_STEPS && !late)
                return;
        lua_getinfo(L, "Sl", ar);
        luaL_error(L, "%s:%d: more than %d %s: does it end?", ar->short_src, ar->currentline,
                late ? LUA_MAX_S : (int)LUA_MAX_STEPS, late ? "seconds" : "instructions");
}

/* Lua's own would loop n times over an empty string. */
static int bounded_rep(lua_State *L)
{
        size_t n, nsep = 0;
        luaL_checklstring(L, 1, &n);
        lua_Integer times = luaL_checkinteger(L, 2);
        luaL_optlstring(L, 3, "", &nsep);
        if (n > MAX_REP || nsep > MAX_REP || (times > 0 && (u64)times > MAX_REP / (n + nsep + 1)))
                return luaL_error(L, "string.rep: more than %d bytes", (int)MAX_REP);
        luaL_Buffer out;
        luaL_buffinit(L, &out);
        for (lua_Integer i = 0; i < times; i++) {
                lua_pushvalue(L, 1);
                luaL_addvalue(&out);
                if (nsep && i + 1 < times) {
                        lua_pushvalue(L, 3);
                        luaL_addvalue(&out);
                }
        }
        luaL_pushresult(&out);
        return 1;
}

/* What a file can use. Left out: whatever reaches the machine or other code; metatables, coroutines and
 * protected calls, which escape the bounds; patterns and table.move, whose time the count of instructions
 * does not see; pairs and next, whose order differs from run to run, while the same file must give the same
 * graph. */
static const struct {
        lua_CFunction open;
        const char *name, *words;
} library[] = {
        {luaopen_base, NULL, "assert error ipairs select tonumber tostring type"},
        {luaopen_math, "math",
                "abs ceil cos exp floor fmod huge log max maxinteger min mininteger modf pi sin sqrt tan "
                "tointeger "
                "type ult"},
        {luaopen_string, "string", "byte char format len lower reverse sub upper"},
        {luaopen_table, "table", "concat insert pack remove sort unpack"},
};

/* Copies the words of the table on the top of the stack to the table below it. */
static void copy_words(lua_State *L, const char *words)
{
        while (*words) {
                size_t n = strcspn(words, " ");
                lua_pushlstring(L, words, n);
                lua_pushvalue(L, -1);
                lua_rawget(L, -3);
                lua_rawset(L, -4);
                words += n + strspn(words + n, " ");
        }
        lua_pop(L, 1);
}

static void sandbox(lua_State *L)
{
        lua_newtable(L);
        for (size_t i = 0; i < COUNT(library); i++) {
                if (library[i].name)
                        lua_newtable(L);
                lua_pushcfunction(L, library[i].open);
                lua_call(L, 0, 1);
                copy_words(L, library[i].words);
                if (library[i].name)
                        lua_setfield(L, -2, library[i].name);
        }
        lua_getfield(L, -1, "string");
        lua_pushcfunction(L, bounded_rep);
        lua_setfield(L, -2, "rep");
        lua_pushliteral(L, "");
        lua_getmetatable(L, -1);
        lua_pushvalue(L, -3);
        lua_setfield(L, -2, "__index"); /* ("x"):rep() is this table's too */
        lua_pop(L, 3);
        lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

/* ---- running a file ---- */

void lua_guard(lua_State *L, void (*work)(void *), void *arg)
{
        Host *h = lua_host(L);
        Trap t;
        if (TRAP(&t) == 0) {
                work(arg);
                trap_pop(&t);
                return;
        }
        h->error = t.error;
        h->caught = true;
        lua_pushstring(L, h->error.msg);
        lua_error(L);
}

/* Notes the lines of the Lua functions that are running; leaves the message, as a string. */
static int on_error(lua_State *L)
{
        Host *h = lua_host(L);
        lua_Debug ar;
        int n = 0, places = 0;
        for (int level = 1; places < MAX_PLACES && lua_getstack(L, level, &ar); level++) {
                if (!lua_getinfo(L, "Sl", &ar) || ar.currentline <= 0)
                        continue;
                if (places++ == 0 && h->caught)
                        n = snprintf(h->where, sizeof h->where, "at %s:%d", ar.short_src, ar.currentline);
                else if (places > 1)
                        n += snprintf(h->where + n, sizeof h->where - (size_t)n, "%scalled from line %d",
                                n ? ", " : "", ar.currentline);
        }
        luaL_tolstring(L, 1, NULL);
        return 1;
}

static int run(lua_State *L)
{
        Host *h = lua_host(L);
        sandbox(L);
        lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_STEPS);
        if (luaL_loadbufferx(L, h->text, h->len, lua_pushfstring(L, "@%s", h->name), "t") != LUA_OK)
                return lua_error(L);
        lua_call(L, 0, 1);
        if (!lua_istable(L, -1))
                return luaL_error(L, "%s: the file must end with `return {...}`; it returned %s", h->name,
                        luaL_typename(L, -1));
        h->job(L);
        return 0;
}

/* A message may quote the model's file: no controls, C1 ones too. */
static void tame(char *s)
{
        for (u8 *p = (u8 *)s; *p; p++)
                if (*p < 0x20 || *p == 0x7f)
                        *p = '?';
                else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
                        p[0] = p[1] = '?';
}

static void take_error(lua_State *L, int status, moec_error *e)
{
        const Host *h = lua_host(L);
        const char *msg = lua_tostring(L, -1);
        if (h->caught)
                fail(e, h->error.status, "%s%s%s%s", h->error.msg, *h->where ? " (" : "", h->where,
                        *h->where ? ")" : "");
        else if (status == LUA_ERRMEM && h->full)
                fail(e, MOEC_ERROR, "%s: holds more than %u MiB of memory", h->name, LUA_MAX_BYTES >> 20);
        else if (status == LUA_ERRMEM)
                fail(e, MOEC_NO_MEMORY, "%s: out of memory", h->name);
        else
                fail(e, MOEC_ERROR, "%s%s%s%s", msg ? msg : "error without a message", *h->where ? " (" : "",
                        h->where, *h->where ? ")" : "");
        tame(e->msg);
}

void lua_run(Host *h)
{
        if (h->len > LUA_MAX_TEXT)
                err(MOEC_ERROR, "%s: %zu bytes; a Lua file may have %u", h->name, h->len, LUA_MAX_TEXT);
        h->deadline = now_s() + LUA_MAX_S;
        lua_State *L = lua_newstate(host_alloc, h);
        if (!L)
                err(MOEC_NO_MEMORY, "%s: no memory for Lua", h->name);
        memcpy(lua_getextraspace(L), &h, sizeof h);
        lua_pushcfunction(L, on_error);
        lua_pushcfunction(L, run);
        moec_error e;
        int status = lua_pcall(L, 0, 0, 1);
        if (status != LUA_OK)
                take_error(L, status, &e);
        lua_close(L);
        if (status != LUA_OK)
                err_rethrow(&e);
}

/* ---- plain data ---- */

typedef struct Pair {
        const char *key;
        TabVal val;
} Pair;

static int by_key(const void *a, const void *b)
{
        return strcmp(((const Pair *)a)->key, ((const Pair *)b)->key);
}

static const Tab *read_tab(lua_State *L, const char *path, int depth);

static TabVal read_val(lua_State *L, const char *path, int depth)
{
        Host *h = lua_host(L);
        size_t n;
        const char *s;
        switch (lua_type(L, -1)) {
        case LUA_TBOOLEAN:
                return (TabVal){TAB_bool, {.b = lua_toboolean(L, -1)}};
        case LUA_TNUMBER:
                if (lua_isinteger(L, -1))
                        return (TabVal){TAB_int, {.i = lua_tointeger(L, -1)}};
                return (TabVal){TAB_flt, {.f = lua_tonumber(L, -1)}};
        case LUA_TSTRING:
                s = lua_tolstring(L, -1, &n);
                if (memchr(s, 0, n))
                        err(MOEC_ERROR, "%s: a string with a NUL byte", path);
                return (TabVal){TAB_str, {.s = arena_strn(h->arena, s, n)}};
        case LUA_TTABLE:
                return (TabVal){TAB_tab, {.t = read_tab(L, path, depth + 1)}};
        default:
                err(MOEC_ERROR, "%s: a %s; only strings, numbers, booleans and tables are data", path,
                        luaL_typename(L, -1));
        }
}

static const char *place(Host *h, const char *path, const char *key)
{
        return arena_fmt(h->arena, "%s%s%s", path, path == h->name ? ": " : ".", key);
}

static u32 read_pairs(lua_State *L, const char *path, int depth, Pair **pairs)
{
        Host *h = lua_host(L);
        u32 n = 0, cap = 0;
        *pairs = NULL;
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
                if (lua_type(L, -2) != LUA_TSTRING) {
                        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 ||
                                lua_tointeger(L, -2) > (lua_Integer)lua_rawlen(L, -3))
                                err(MOEC_ERROR, "%s: a key that is neither a string nor 1, 2, 3 and so on",
                                        path);
                        continue;
                }
                size_t len;
                const char *s = lua_tolstring(L, -2, &len);
                if (memchr(s, 0, len))
                        err(MOEC_ERROR, "%s: a key with a NUL byte", path);
                if (depth == 1 && h->with_build && strcmp(s, "build") == 0)
                        continue;
                const char *key = arena_strn(h->arena, s, len);
                GROW(h->arena, *pairs, n, cap);
                TabVal v = read_val(L, place(h, path, key), depth);
                (*pairs)[n++] = (Pair){key, v};
        }
        if (n)
                qsort(*pairs, n, sizeof **pairs, by_key);
        return n;
}

/* Of the table on the top of the stack. */
static const Tab *read_tab(lua_State *L, const char *path, int depth)
{
        Host *h = lua_host(L);
        if (depth > MAX_DEPTH || !lua_checkstack(L, 8))
                err(MOEC_ERROR, "%s: tables nested more than %d deep", path, MAX_DEPTH);
        Tab *t = NEW(h->arena, Tab);
        t->path = path;
        t->n = (u32)lua_rawlen(L, -1);
        TabVal *item = NEWN(h->arena, TabVal, t->n);
        for (u32 i = 0; i < t->n; i++) {
                lua_rawgeti(L, -1, (lua_Integer)i + 1);
                item[i] = read_val(L, arena_fmt(h->arena, "%s[%u]", path, i + 1), depth);
                lua_pop(L, 1);
        }
        Pair *pairs;
        t->n_key = read_pairs(L, path, depth, &pairs);
        t->item = item;
        t->key = NEWN(h->arena, const char *, t->n_key);
        TabVal *val = NEWN(h->arena, TabVal, t->n_key);
        for (u32 i = 0; i < t->n_key; i++) {
                t->key[i] = pairs[i].key;
                val[i] = pairs[i].val;
        }
        t->val = val;
        return t;
}

static void read_result(void *state)
{
        lua_State *L = state;
        Host *h = lua_host(L);
        h->tab = read_tab(L, h->name, 1);
}

static void job_config(lua_State *L)
{
        lua_guard(L, read_result, L);
}

const Tab *lua_config(Arena *a, const char *name, const char *text, size_t len)
{
        Host h = {.name = name, .text = text, .len = len, .job = job_config, .arena = a};
        lua_run(&h);
        return h.tab;
}

static void job_arch(lua_State *L)
{
        if (lua_getfield(L, -1, "build") != LUA_TFUNCTION)
                luaL_error(L, "%s: no function `build`", lua_host(L)->name);
        lua_pop(L, 1);
        lua_guard(L, read_result, L);
}

const Tab *lua_arch(Arena *a, const char *name, const char *text, size_t len)
{
        Host h = {.name = name, .text = text, .len = len, .job = job_arch, .arena = a, .with_build = true};
        lua_run(&h);
        return h.tab;
}
